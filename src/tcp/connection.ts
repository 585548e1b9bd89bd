// One client connection of a TCP listener from its admission to its line in the access log.
import type { Socket } from "node:net";
import { clientCertificateOf } from "../identity/client-certificate.ts";
import type { Identity } from "../identity/identity.ts";
import { tailnetIdentity } from "../identity/tailnet.ts";
import { systemErrorCode } from "../lib/errors.ts";
import { peerOf, type TailnetPeer } from "../lib/tailnet-peer.ts";
import type { TcpListenerPlan } from "../plan/model.ts";
import type { AccessLogWriter } from "../telemetry/access-log.ts";
import type { Log } from "../telemetry/log.ts";
import type { TcpListenerStats } from "../telemetry/metrics.ts";
import type { Target, Upstream } from "../upstreams/upstream.ts";
import { ConnectionRate } from "./connection-rate.ts";

/** The live side of a listener, made once and handed from plan to plan: a reload forgets no connection and no limit. */
export type TcpLive = {
  /** Admitted connections, to be shown, drained, or cut when a new plan denies their client. */
  readonly connections: Set<TcpConnection>;
  /** Admitted connections by client address. */
  readonly perClient: Map<string, number>;
  readonly rate: ConnectionRate;
};

export function createTcpLive(): TcpLive {
  return { connections: new Set(), perClient: new Map(), rate: new ConnectionRate() };
}

/** What the connections of a listener need: one immutable object for each plan. A connection keeps the one that it began with. */
export type TcpState = {
  readonly plan: TcpListenerPlan;
  readonly upstream: Upstream;
  readonly live: TcpLive;
  readonly stats: TcpListenerStats;
  /** Null: no access log. */
  readonly accessLog: AccessLogWriter | null;
  readonly log: Log;
};

/**
 * Why a connection ended: client_closed, upstream_closed, client_reset, upstream_reset, client_timed_out, upstream_timed_out (no answer to keepalive probes),
 * idle_timeout, drained, or one of the refusals: denied, not_on_tailnet, rate_limited, too_many_connections, too_many_connections_of_client,
 * unexpected_protocol, expect_timeout, connect_failed. Words may follow a colon.
 */
export type EndReason = string;

// How long a client gets to see the end of a connection that it was not served on.
const LINGER_MS = 1_000;

export class TcpConnection {
  readonly state: TcpState;
  readonly socket: Socket;
  /** Plain address of the client, that of its node on the tailnet; empty on a unix socket. */
  readonly client: string;
  readonly clientPort: number;
  /** Of the client's certificate, otherwise of its node in the tailnet; null without either. */
  readonly identity: Identity | null;
  /** Whose it was in the tailnet when it came. */
  readonly #peer: TailnetPeer | null;
  /** Milliseconds since the epoch. */
  readonly startedAt = Date.now();
  /** Bytes of the client for the upstream, and back. */
  bytesIn = 0;
  bytesOut = 0;
  /** Grows as slow readers take what waits for them. */
  progress = 0;
  /** Client id of an Interactive Brokers session, once it is known. */
  ibClientId: number | null = null;
  /** Stops what is under way before the relay: waiting for first bytes, dialing. */
  abandon: (() => void) | null = null;
  readonly #started = performance.now();
  #upstream: Socket | null = null;
  #target: Target | null = null;
  #reason: EndReason | null = null;
  #admitted = false;
  #ended = false;

  constructor(state: TcpState, socket: Socket, client: string) {
    this.state = state;
    this.socket = socket;
    this.client = client;
    this.clientPort = socket.remotePort ?? 0;
    this.#peer = peerOf(socket);
    this.identity = clientCertificateOf(socket)?.identity ?? (this.#peer === null ? null : tailnetIdentity(this.#peer));
    socket.on("error", (error) => this.#fail("client", error));
    socket.on("close", () => {
      this.#stop();
      if (this.#upstream?.writableEnded === false) this.#upstream.destroy();
      this.#endWhenClosed();
    });
  }

  /** URL of the target that the connection goes to; null before there is one. */
  get upstream(): string | null {
    return this.#target?.plan.url ?? null;
  }

  /** Milliseconds since the start, of a clock that never goes back. */
  get ageMs(): number {
    return performance.now() - this.#started;
  }

  /** Counts the connection among those of its listener and its client. */
  admit(): void {
    const { live, stats } = this.state;
    this.#admitted = true;
    live.connections.add(this);
    live.perClient.set(this.client, (live.perClient.get(this.client) ?? 0) + 1);
    stats.active += 1;
  }

  /** From here on the end of one socket is the end of the other. */
  connected(upstream: Socket, target: Target): void {
    this.#upstream = upstream;
    this.#target = target;
    target.active += 1;
    upstream.on("error", (error) => this.#fail("upstream", error));
    upstream.on("close", () => {
      if (!this.socket.writableEnded) this.socket.destroy();
      this.#endWhenClosed();
    });
  }

  /** Notes the reason, if it is the first one. */
  because(reason: EndReason): void {
    this.#reason ??= reason;
  }

  /** Refuses a client that nothing was relayed for. `gently`: it sees an end, not a reset, although its bytes are not taken. */
  refuse(reason: EndReason, gently = false): void {
    this.because(reason);
    this.state.stats.refused(withoutWords(reason));
    this.#stop();
    const client = this.socket;
    if (!gently || client.destroyed) {
      client.destroy();
      return;
    }
    // Closing a socket with unread bytes sends a reset (RFC 1122 4.2.2.13): so read on until the client closes too.
    client.end();
    client.resume();
    setTimeout(() => client.destroy(), LINGER_MS).unref();
  }

  /** Ends the connection at once, both sides. */
  close(reason: EndReason): void {
    this.because(reason);
    this.#stop();
    this.socket.destroy();
    this.#upstream?.destroy();
  }

  #stop(): void {
    this.abandon?.();
    this.abandon = null;
  }

  /** A reset of one side is passed on as a reset: the other must not take it for a complete stream. */
  #fail(side: "client" | "upstream", error: Error): void {
    const first = this.#reason === null;
    this.because(`${side}_${failureWord(error)}`);
    this.#stop();
    const other = side === "client" ? this.#upstream : this.socket;
    if (other === null || other.destroyed) return;
    if (first) reset(other);
    else other.destroy();
  }

  #endWhenClosed(): void {
    if (this.#ended || !this.socket.closed || (this.#upstream !== null && !this.#upstream.closed)) return;
    this.#ended = true;
    this.#stop();
    const { live, stats } = this.state;
    const durationMs = this.ageMs;
    if (this.#admitted) {
      live.connections.delete(this);
      const left = (live.perClient.get(this.client) ?? 1) - 1;
      if (left === 0) live.perClient.delete(this.client);
      else live.perClient.set(this.client, left);
      stats.active -= 1;
    }
    if (this.#target !== null) {
      this.#target.active -= 1;
      stats.observe(durationMs, this.bytesIn, this.bytesOut);
    }
    this.state.accessLog?.write(this.#line(durationMs));
  }

  #line(durationMs: number): string {
    return JSON.stringify({
      time: new Date(this.startedAt + durationMs).toISOString(),
      listener: this.state.plan.name,
      client: this.client,
      client_port: this.clientPort,
      identity: this.identity === null ? null : `${this.identity.source}:${this.identity.name}`,
      ...(this.#peer === null ? {} : { node: this.#peer.shortName }),
      client_id: this.ibClientId,
      start: new Date(this.startedAt).toISOString(),
      duration_ms: Math.round(durationMs),
      bytes_in: this.bytesIn,
      bytes_out: this.bytesOut,
      upstream: this.upstream,
      reason: this.#reason ?? "client_closed",
    });
  }
}

function withoutWords(reason: EndReason): string {
  const colon = reason.indexOf(":");
  return colon === -1 ? reason : reason.slice(0, colon);
}

function failureWord(error: Error): string {
  const code = systemErrorCode(error);
  if (code === "ECONNRESET" || code === "EPIPE") return "reset";
  return code === "ETIMEDOUT" ? "timed_out" : `error: ${code ?? error.message}`;
}

/** Only a plain TCP socket can send a reset. */
function reset(socket: Socket): void {
  if (socket.remoteFamily === undefined || "encrypted" in socket) socket.destroy();
  else socket.resetAndDestroy();
}
