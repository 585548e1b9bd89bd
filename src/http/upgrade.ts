// Relays an upgraded connection (WebSocket and any other protocol) byte by byte, both ways, with backpressure and half-close.
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { listMembers } from "../lib/header-name.ts";
import { startTicking, stopTicking, type Ticking } from "../lib/ticker.ts";
import type { Target } from "../upstreams/upstream.ts";
import type { Exchange, OnClose } from "./exchange.ts";
import { finish } from "./finish.ts";
import { unwatchLive, watchLive, type Lasting, type LiveEnd } from "./live-check.ts";
import { rewriteResponse } from "./rewrite-response.ts";
import type { ForwardedRoute } from "./state.ts";
import { closeFrame, FrameTracker } from "./websocket-frames.ts";

// A client that is told to go has this long for its farewell.
const FAREWELL_MS = 900;
// RFC 6455, 7.4.2: from 4000 on they are for us to give a meaning. These are the HTTP codes of the same.
const CREDENTIAL_ENDED = 4401;
const NOT_ADMITTED = 4403;

/**
 * Whether the request is one for `handleUpgrade`. HTTP/2 over an upgrade (RFC 9113, 3.1: obsolete) and TLS (RFC 2817) are declined
 * by answering as if they had not been asked for (RFC 9110, 7.8), as is any upgrade of a request with a body.
 */
export function wantsUpgrade(req: IncomingMessage): boolean {
  const { upgrade } = req.headers;
  if (upgrade === undefined || req.method !== "GET" || req.headers["transfer-encoding"] !== undefined || Number(req.headers["content-length"] ?? 0) > 0)
    return false;
  return !listMembers(upgrade).some((protocol) => protocol === "h2c" || protocol.startsWith("tls/"));
}

export type Upgraded = { readonly headers: string[]; readonly protocol: string; readonly socket: Socket; readonly head: Buffer; readonly target: Target };

/** Sends the 101 and lets the two sockets talk until both have ended. */
export function relayUpgrade(x: Exchange, route: ForwardedRoute, upgraded: Upgraded): void {
  const client = x.upgradeSocket;
  if (client === null || client.destroyed) {
    upgraded.socket.destroy();
    upgraded.target.active -= 1;
    finish(x, false);
    return;
  }
  x.res.detachSocket(client);
  x.status = 101;
  let head = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${upgraded.protocol}\r\n`;
  const headers = rewriteResponse(x, route, upgraded.headers);
  for (let i = 0; i + 1 < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`;
  client.write(`${head}\r\n`, "latin1");
  new Relay(x, client, upgraded, { idleMs: route.upstream.upstream.plan.timeouts.idleMs, isGuarded: route.auth !== null }).start();
}

class Relay implements Ticking, OnClose, Lasting {
  tickIndex = -1;
  readonly x: Exchange;
  readonly #client: Socket;
  readonly #upstream: Socket;
  readonly #upgraded: Upgraded;
  readonly #idleMs: number;
  readonly #isGuarded: boolean;
  /** Of what goes to the client; null when it is no WebSocket, or nobody could want to end it. */
  readonly #frames: FrameTracker | null;
  /** The last frame, for the next boundary; null while nothing was said. */
  #farewell: Buffer | null = null;
  #farewellSaid = false;
  #stopAtMs = Number.POSITIVE_INFINITY;
  #moved = true;
  #movedAt = 0;
  #done = false;

  constructor(x: Exchange, client: Socket, upgraded: Upgraded, { idleMs, isGuarded }: { readonly idleMs: number; readonly isGuarded: boolean }) {
    this.x = x;
    this.#client = client;
    this.#upstream = upgraded.socket;
    this.#upgraded = upgraded;
    this.#idleMs = idleMs;
    this.#isGuarded = isGuarded;
    this.#frames = isGuarded && upgraded.protocol.toLowerCase() === "websocket" ? new FrameTracker() : null;
    x.onClose = this;
  }

  start(): void {
    const { upgradeHead } = this.x;
    this.#join(this.#client, this.#upstream, (bytes) => (this.x.bytesIn += bytes));
    this.#join(this.#upstream, this.#client, (bytes) => (this.x.bytesOut += bytes));
    if (upgradeHead !== null && upgradeHead.length > 0) this.#client.emit("data", upgradeHead);
    if (this.#upgraded.head.length > 0) this.#upstream.emit("data", this.#upgraded.head);
    // Both were paused when they were handed over; after the first bytes, which may have asked to wait.
    if (!this.#upstream.writableNeedDrain) this.#client.resume();
    if (!this.#client.writableNeedDrain) this.#upstream.resume();
    if (this.#idleMs > 0 || this.x.credentialExpiresAtMs !== null) startTicking(this);
    if (this.#isGuarded) watchLive(this);
  }

  #join(from: Socket, to: Socket, count: (bytes: number) => void): void {
    from.on("data", (chunk: Buffer) => {
      this.#moved = true;
      count(chunk.length);
      // After the farewell nothing goes on, whichever way.
      const bytes = this.#farewellSaid ? chunk.subarray(0, 0) : to === this.#client ? this.#towardsClient(chunk) : chunk;
      if (bytes.length > 0 && !to.write(bytes)) from.pause();
      if (to === this.#client) this.#sayFarewell();
    });
    to.on("drain", () => from.resume());
    from.on("end", () => this.#isLeft(from) || to.end());
    from.on("error", () => this.#isLeft(from) || this.#stop(false));
    from.on("close", () => {
      if (this.#isLeft(from)) return;
      // Over TLS a client that ends is gone for both ways. What it said before may still be on its way.
      if (from.readableEnded && to.writableEnded && !to.writableFinished && !to.destroyed) to.once("finish", () => this.#stop(to.readableEnded));
      else this.#stop(this.#client.readableEnded && this.#upstream.readableEnded);
    });
  }

  /** The upstream has been left, while the client still has its farewell before it. */
  #isLeft(side: Socket): boolean {
    return this.#farewellSaid && side === this.#upstream;
  }

  /** What of it still goes on: when the farewell is due, only the rest of a frame. */
  #towardsClient(chunk: Buffer): Buffer {
    if (this.#frames === null) return chunk;
    if (this.#farewell === null) {
      this.#frames.advanceAll(chunk);
      return chunk;
    }
    return chunk.subarray(0, this.#frames.advance(chunk));
  }

  #sayFarewell(): void {
    if (this.#farewell === null || this.#farewellSaid || this.#frames?.isAtBoundary !== true) return;
    this.#farewellSaid = true;
    this.#client.write(this.#farewell);
    // The client's own farewell may come; the upstream hears nothing more of it.
    this.#upstream.end();
  }

  /** The caller would not be let in any more. */
  end(why: LiveEnd): void {
    if (this.#farewell !== null) return;
    this.x.cause = `${why.code}: ${why.message}`;
    if (this.#frames === null) return this.#stop(false);
    this.#farewell = closeFrame(why.isKnown ? NOT_ADMITTED : CREDENTIAL_ENDED, why.message);
    this.#stopAtMs = performance.now() + FAREWELL_MS;
    startTicking(this);
    this.#sayFarewell();
  }

  tick(now: number): void {
    const { credentialExpiresAtMs } = this.x;
    if (now >= this.#stopAtMs) return this.#stop(false);
    if (credentialExpiresAtMs !== null && Date.now() >= credentialExpiresAtMs)
      this.end({ code: "ERR_CREDENTIAL_ENDED", message: "The credential has expired", isKnown: false });
    if (this.#idleMs === 0) return;
    if (this.#moved) {
      this.#moved = false;
      this.#movedAt = now;
    } else if (now - this.#movedAt >= this.#idleMs) {
      this.x.cause = "ERR_IDLE: The upgraded connection was silent";
      this.#stop(false);
    }
  }

  clientGone(): void {
    this.#stop(false);
  }

  #stop(complete: boolean): void {
    if (this.#done) return;
    this.#done = true;
    stopTicking(this);
    unwatchLive(this);
    this.#upgraded.target.active -= 1;
    this.#client.destroy();
    this.#upstream.destroy();
    finish(this.x, complete);
  }
}
