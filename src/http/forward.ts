// Carries a permitted request to a target and its response back, without holding back a byte more than backpressure asks.
import type { Socket } from "node:net";
import type { Permit } from "../identity/authorize.ts";
import { formatDuration } from "../lib/duration.ts";
import { startTicking, stopTicking, type Ticking } from "../lib/ticker.ts";
import { HttpCallError, type HttpCall, type HttpCallHandler, type HttpRequest } from "../upstreams/http-call.ts";
import type { HttpUpstream } from "../upstreams/http-pool.ts";
import type { Target } from "../upstreams/upstream.ts";
import type { EndpointWatch } from "../mcp/endpoint-event.ts";
import { discardRequest } from "./discard.ts";
import type { Exchange, OnClose } from "./exchange.ts";
import { unwatchLive, watchLive, type Lasting, type LiveEnd } from "./live-check.ts";
import { watchEndpoint } from "./mcp-endpoint.ts";
import { noteSession } from "./mcp-guard.ts";
import { rescue } from "./rescue.ts";
import { RequestError } from "./request-error.ts";
import { rewriteRequest } from "./rewrite-request.ts";
import { dropOwnCookies, isEventStream, rewriteResponse } from "./rewrite-response.ts";
import { asRecord, passableTrailers, sendHead } from "./send-head.ts";
import type { ForwardedRoute } from "./state.ts";
import { watchTail } from "./tail.ts";
import { relayUpgrade } from "./upgrade.ts";

// A stale connection is met at most once for each that was kept; after some the upstream has another trouble.
const MAX_STALE_RETRIES = 3;
// A body that comes whole with its head goes out with it in one write; above this size copying costs more than a second write.
const MAX_JOINED_BYTES = 16_384;
// They pass without backpressure, and no timeout counts them as a response.
const MAX_INTERIM_RESPONSES = 64;

/** Sends the request on. Whatever happens, the exchange gets a response or its end. */
export function forward(x: Exchange, route: ForwardedRoute, permit: Permit): void {
  new Forwarding(x, route, rewriteRequest(x, route, permit)).start();
}

class Forwarding implements HttpCallHandler, Ticking, OnClose, Lasting {
  tickIndex = -1;
  readonly x: Exchange;
  readonly #route: ForwardedRoute;
  readonly #upstream: HttpUpstream;
  readonly #request: HttpRequest;
  #target: Target | null = null;
  #tried: Set<Target> | null = null;
  #staleRetries = 0;
  #call: HttpCall | null = null;
  #done = false;
  #reading = false;
  #requestEnded: boolean;
  #headed = false;
  /** Not null while the endpoint event of the older transport may come. */
  #endpoint: EndpointWatch | null = null;
  #interimResponses = 0;
  /** The head was given to Node.js, which holds it until the first byte of the body. */
  #headHeld = false;
  #upstreamStalls = false;
  #clientStalls = false;
  #listensForDrain = false;
  // For the clock: when something last moved, looked at on each tick, because reading the time for each chunk would cost more.
  #moved = true;
  #movedAt = 0;
  #unsent = 0;

  constructor(x: Exchange, route: ForwardedRoute, request: HttpRequest) {
    this.x = x;
    this.#route = route;
    this.#upstream = route.upstream;
    this.#request = request;
    this.#requestEnded = request.body === "none";
    x.onClose = this;
  }

  start(): void {
    startTicking(this);
    this.#attempt();
  }

  #attempt(): void {
    const target = this.#upstream.upstream.pick(this.#tried ?? undefined);
    if (target === null) return this.#fail(new HttpCallError("ERR_UPSTREAM_CONNECT", "no target is left", "nothing"));
    this.#dispatch(target);
  }

  #dispatch(target: Target): void {
    this.#target = target;
    this.x.targetUrl = target.plan.url;
    target.active += 1;
    this.#moved = true;
    this.#upstream.dispatch(target, this.#request, this);
  }

  onSending(call: HttpCall): void {
    this.#call = call;
    this.#moved = true;
    const { wholeBody } = this.x;
    if (wholeBody !== null) return this.#sendWhole(call, wholeBody);
    if (this.#requestEnded || this.#reading) return;
    this.#reading = true;
    const { req, res } = this.x;
    // Asked for only now: the client is admitted and the upstream is there.
    if (this.x.expectsContinue) res.writeContinue();
    req.on("data", (chunk: Buffer) => this.#onRequestData(chunk));
    req.on("end", () => this.#onRequestEnd());
  }

  /** A body that was read before. Another target can be given it again. */
  #sendWhole(call: HttpCall, body: Buffer): void {
    this.#requestEnded = true;
    this.#upstreamStalls = body.length > 0 && !call.write(body);
    call.end(passableTrailers(this.x.req.rawTrailers));
  }

  #onRequestData(chunk: Buffer): void {
    const call = this.#call;
    if (call === null) return;
    this.#moved = true;
    this.x.bytesIn += chunk.length;
    if (call.write(chunk)) return;
    this.#upstreamStalls = true;
    this.x.req.pause();
  }

  #onRequestEnd(): void {
    if (this.#requestEnded) return;
    this.#requestEnded = true;
    this.#moved = true;
    this.#call?.end(passableTrailers(this.x.req.rawTrailers));
  }

  onDrain(): void {
    if (!this.#upstreamStalls) return;
    this.#upstreamStalls = false;
    this.#moved = true;
    this.x.req.resume();
  }

  onInformation(status: number, headers: string[]): void {
    // 100 is answered by ourselves; RFC 9110, 15.2: the others pass, but not to HTTP/1.0.
    const { req, res } = this.x;
    this.#interimResponses += 1;
    if (this.#interimResponses > MAX_INTERIM_RESPONSES) return this.#giveUp(this.#protocolError("too many interim responses"));
    if (status === 100 || (this.x.stream === null && req.httpVersionMinor === 0)) return;
    dropOwnCookies(headers);
    this.#guard(() => res.writeInformation(status, asRecord(headers)));
  }

  onHead(status: number, reason: string, headers: string[]): void {
    this.#headed = true;
    this.#moved = true;
    const x = this.x;
    noteSession(x, status, headers);
    this.#endpoint = watchEndpoint(x, this.#route, this.#request, status, this.#target?.plan.url ?? "", headers);
    if (isEventStream(headers) && this.#route.auth !== null) watchLive(this);
    const rewritten = rewriteResponse(x, this.#route, headers);
    this.#headHeld = true;
    this.#guard(() => sendHead(x, status, reason, rewritten));
  }

  /** Node.js may refuse a head that is well-formed for us: that ends the request, not the process. */
  #guard(write: () => void): void {
    try {
      write();
    } catch (error) {
      this.#giveUp(this.#protocolError(error instanceof Error ? error.message : "unknown", error));
    }
  }

  #protocolError(words: string, cause?: unknown): HttpCallError {
    return new HttpCallError("ERR_UPSTREAM_PROTOCOL", `bad response (${words}) at ${this.#target?.plan.url ?? ""}`, "begun", cause);
  }

  onFlush(): void {
    if (!this.#headHeld) return;
    this.#headHeld = false;
    this.x.res.flushHeaders();
  }

  onData(chunk: Buffer, last: boolean): void {
    const x = this.x;
    if (this.#done) return;
    this.#moved = true;
    if (this.#endpoint !== null) return this.#onWatchedData(x, this.#endpoint.push(chunk));
    x.bytesOut += chunk.length;
    if (x.method === "HEAD") return;
    if (last && this.#headHeld && chunk.length <= MAX_JOINED_BYTES && x.stream === null) {
      this.#headHeld = false;
      x.ended = true;
      // As a string the body joins the head in one write. latin1 maps every byte to one character and back.
      x.res.end(chunk.toString("latin1"), "latin1");
      return;
    }
    // The bytes are in a buffer that the next read overwrites.
    this.#give(x, Buffer.from(chunk));
  }

  /** Of a stream whose endpoint event is waited for: some bytes may be held back, until its end at the latest. */
  #onWatchedData(x: Exchange, chunk: Buffer): void {
    if (chunk.length === 0) return;
    x.bytesOut += chunk.length;
    this.#give(x, Buffer.from(chunk));
  }

  #give(x: Exchange, chunk: Buffer): void {
    this.#headHeld = false;
    if (x.res.write(chunk)) return;
    this.#clientStalls = true;
    this.#unsent = x.res.writableLength;
    this.#call?.pause();
    if (this.#listensForDrain) return;
    this.#listensForDrain = true;
    x.res.on("drain", () => this.#onClientDrain());
  }

  #onClientDrain(): void {
    if (!this.#clientStalls) return;
    this.#clientStalls = false;
    this.#moved = true;
    this.#call?.resume();
  }

  onEnd(trailers: string[]): void {
    this.#leave();
    const x = this.x;
    if (this.#endpoint !== null && !x.ended) this.#onWatchedData(x, this.#endpoint.end());
    if (!x.ended) {
      x.ended = true;
      if (trailers.length > 0 && (x.stream !== null || x.res.chunkedEncoding)) this.#guard(() => x.res.addTrailers(asRecord(trailers)));
      x.res.end();
    }
    watchTail(x);
    if (!this.#requestEnded) discardRequest(x);
  }

  onUpgrade(headers: string[], protocol: string, socket: Socket, head: Buffer): void {
    const target = this.#target;
    // The target counts as busy until the relay ends.
    this.#target = null;
    this.#leave();
    if (target !== null) relayUpgrade(this.x, this.#route, { headers, protocol, socket, head, target });
  }

  onError(error: HttpCallError): void {
    if (this.#done) return;
    const target = this.#target;
    this.#release();
    if (this.#mayRetry(error) && target !== null) {
      if (error.progress === "nothing") {
        (this.#tried ??= new Set()).add(target);
        const next = this.#upstream.upstream.pick(this.#tried);
        if (next !== null) return this.#dispatch(next);
      } else {
        this.#staleRetries += 1;
        return this.#dispatch(target);
      }
    }
    this.#fail(error);
  }

  #mayRetry(error: HttpCallError): boolean {
    if (this.#headed || error.code === "ERR_UPSTREAM_STOPPED") return false;
    if (error.progress === "nothing") return !this.#reading;
    // RFC 9112, 9.3.1: on a connection that was found closed, requests without side effects may be sent again.
    const { method, body, upgrade } = this.#request;
    return (
      error.progress === "maybe" &&
      this.#staleRetries < MAX_STALE_RETRIES &&
      body === "none" &&
      upgrade === null &&
      (method === "GET" || method === "HEAD" || method === "OPTIONS")
    );
  }

  #fail(error: unknown): void {
    this.#leave();
    if (this.x.ended) return;
    rescue(this.x, error);
  }

  /** The client went away, or the response was cut: nobody wants the rest. */
  clientGone(): void {
    if (this.#done) return;
    if (this.#call === null && this.#target !== null) this.#upstream.cancel(this.#target, this);
    this.#call?.abort();
    this.#leave();
  }

  #release(): void {
    this.#call = null;
    if (this.#target === null) return;
    this.#target.active -= 1;
    this.#target = null;
  }

  #leave(): void {
    if (this.#done) return;
    this.#done = true;
    this.#release();
    stopTicking(this);
    unwatchLive(this);
  }

  /** The caller would not be let in any more. */
  end(why: LiveEnd): void {
    this.#giveUp(new RequestError(why.isKnown ? 403 : 401, why.code, why.message));
  }

  tick(now: number): void {
    if (this.#moved) {
      this.#moved = false;
      this.#movedAt = now;
      return;
    }
    const quietMs = now - this.#movedAt;
    const upstream = this.#upstream.upstream.plan.timeouts;
    const client = this.x.state.plan.timeouts;
    if (this.#clientStalls) {
      const { writableLength } = this.x.res;
      if (writableLength !== this.#unsent) {
        this.#unsent = writableLength;
        this.#moved = true;
      } else if (passed(quietMs, client.writeMs)) {
        this.#giveUp(new RequestError(408, "ERR_CLIENT_WRITE_TIMEOUT", `The client took no byte for ${formatDuration(client.writeMs)}`));
      }
    } else if (this.#call === null) {
      // The dial has its own limit; this one is for the wait for a free connection.
      const limitMs = upstream.connectMs;
      if (passed(quietMs, limitMs + 250)) this.#giveUp(this.#timeout(`no free connection within ${formatDuration(limitMs)}`, "nothing"));
    } else if (!this.#requestEnded && !this.#upstreamStalls && !this.#headed) {
      if (passed(quietMs, client.readMs)) this.#giveUp(new RequestError(408, "ERR_CLIENT_READ_TIMEOUT", "The request body took too long to come"));
    } else if (this.#upstreamStalls && passed(quietMs, upstream.writeMs)) {
      this.#giveUp(this.#timeout(`took no byte of the request for ${formatDuration(upstream.writeMs)}`, "begun"));
    } else if (!this.#headed) {
      if (passed(quietMs, upstream.responseHeadersMs)) this.#giveUp(this.#timeout(`no response within ${formatDuration(upstream.responseHeadersMs)}`, "begun"));
    } else if (passed(quietMs, upstream.readMs)) {
      this.#giveUp(this.#timeout(`no piece of the response for ${formatDuration(upstream.readMs)}`, "begun"));
    }
  }

  #timeout(words: string, progress: "nothing" | "begun"): HttpCallError {
    return new HttpCallError("ERR_UPSTREAM_TIMEOUT", `${words} at ${this.#target?.plan.url ?? ""}`, progress);
  }

  #giveUp(error: Error): void {
    if (this.#call === null && this.#target !== null) this.#upstream.cancel(this.#target, this);
    this.#call?.abort();
    if (!this.#requestEnded) this.x.lastOnConnection = true;
    this.#fail(error);
  }
}

function passed(quietMs: number, limitMs: number): boolean {
  return limitMs > 0 && quietMs >= limitMs;
}
