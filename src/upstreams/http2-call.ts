// Requests to a target over HTTP/2 without TLS (h2c by prior knowledge), many on one connection.
import { connect, constants, type ClientHttp2Session, type ClientHttp2Stream } from "node:http2";
import { formatAddress } from "../lib/address.ts";
import { HEADER, headerName } from "../lib/header-name.ts";
import { dial, DialError } from "./dial.ts";
import { dialFailure, HttpCallError, type HttpCall, type HttpCallHandler, type HttpRequest, type Progress } from "./http-call.ts";
import { isTrailer } from "./http1-head.ts";
import type { Target, Upstream } from "./upstream.ts";

const KEEP_ALIVE_PROBES_MS = 30_000;
const NOTHING: readonly string[] = [];
// Two User-Agent pass over HTTP/1.1; here too it is not for us to judge them, and Node.js would throw at them.
const SESSION_OPTIONS = { settings: { enablePush: false }, strictSingleValueFields: false };

type Waiting = { readonly request: HttpRequest; readonly handler: HttpCallHandler };

/** The HTTP/2 connection to one target; a new one is made when the target says GOAWAY or the old one breaks. */
export class Http2Sessions {
  readonly #upstream: Upstream;
  readonly #target: Target;
  readonly #where: string;
  readonly #all = new Set<ClientHttp2Session>();
  #session: ClientHttp2Session | null = null;
  #cancelDial: (() => void) | null = null;
  #waiting: Waiting[] = [];
  #destroyed = false;

  constructor(upstream: Upstream, target: Target) {
    this.#upstream = upstream;
    this.#target = target;
    this.#where = formatAddress(target.plan.address);
  }

  dispatch(request: HttpRequest, handler: HttpCallHandler): void {
    if (this.#destroyed) return handler.onError(new HttpCallError("ERR_UPSTREAM_STOPPED", "the upstream was removed", "nothing"));
    // RFC 9113, 8.6: HTTP/2 has no Upgrade, and extended CONNECT is a matter between ends that both know it.
    if (request.upgrade !== null) return handler.onError(new HttpCallError("ERR_UPSTREAM_PROTOCOL", "an h2c upstream takes no upgrades", "begun"));
    if (this.#session !== null && !this.#session.closed && !this.#session.destroyed) return this.#send(this.#session, { request, handler });
    this.#waiting.push({ request, handler });
    if (this.#cancelDial === null) this.#dial();
  }

  cancel(handler: HttpCallHandler): void {
    this.#waiting = this.#waiting.filter((waiting) => waiting.handler !== handler);
  }

  destroy(): void {
    this.#destroyed = true;
    this.#cancelDial?.();
    for (const session of this.#all) session.destroy();
    for (const { handler } of this.#waiting.splice(0)) handler.onError(new HttpCallError("ERR_UPSTREAM_STOPPED", "the upstream was removed", "nothing"));
  }

  #dial(): void {
    const { address } = this.#target.plan;
    this.#cancelDial = dial(address, { timeoutMs: this.#upstream.plan.timeouts.connectMs, keepAliveMs: KEEP_ALIVE_PROBES_MS }, (result) => {
      this.#cancelDial = null;
      const waiting = this.#waiting.splice(0);
      if (result instanceof DialError) {
        this.#upstream.failed(this.#target, result.reason);
        for (const { handler } of waiting) handler.onError(dialFailure(result));
        return;
      }
      this.#upstream.connected(this.#target);
      const session = connect("http://upstream", { createConnection: () => result, ...SESSION_OPTIONS });
      this.#session = session;
      this.#all.add(session);
      // Errors reach each stream too, which reports them.
      session.on("error", () => {});
      session.on("goaway", () => this.#leave(session));
      session.on("close", () => {
        this.#leave(session);
        this.#all.delete(session);
      });
      session.setTimeout(this.#upstream.plan.timeouts.keepAliveMs, () => {
        if (this.#target.active === 0) session.close();
      });
      for (const request of waiting) this.#send(session, request);
    });
  }

  /** What Node.js cannot put into HTTP/2 ends its request, not the process. */
  #send(session: ClientHttp2Session, { request, handler }: Waiting): void {
    let stream: ClientHttp2Stream;
    try {
      const hasBody = request.body !== "none";
      stream = session.request(pseudoHeaders(request), { endStream: !hasBody, waitForTrailers: hasBody });
    } catch (error) {
      const words = error instanceof Error ? error.message : String(error);
      return handler.onError(new HttpCallError("ERR_UPSTREAM_PROTOCOL", `request cannot be sent (${words}) at ${this.#where}`, "begun", error));
    }
    handler.onSending(new Http2Call(stream, request, handler, this.#where));
  }

  #leave(session: ClientHttp2Session): void {
    if (this.#session === session) this.#session = null;
  }
}

class Http2Call implements HttpCall {
  readonly #stream: ClientHttp2Stream;
  readonly #where: string;
  #handler: HttpCallHandler | null;
  #requestEnded: boolean;
  #headed = false;
  #trailers: string[] = [];
  #requestTrailers: readonly string[] = NOTHING;

  constructor(stream: ClientHttp2Stream, request: HttpRequest, handler: HttpCallHandler, where: string) {
    this.#handler = handler;
    this.#where = where;
    this.#requestEnded = request.body === "none";
    this.#stream = stream;
    stream.on("headers", (headers, _flags, raw: string[]) => this.#handler?.onInformation(Number(headers[":status"]), endToEnd(raw)));
    stream.on("response", (headers, _flags, raw: string[]) => this.#begin(Number(headers[":status"]), raw));
    stream.on("data", (chunk: Buffer) => this.#handler?.onData(chunk, false));
    stream.on("trailers", (_headers, _flags, raw: string[]) => (this.#trailers = trailersOf(raw)));
    stream.on("end", () => this.#finish());
    stream.on("drain", () => this.#handler?.onDrain());
    stream.on("wantTrailers", () => this.#sendTrailers());
    stream.on("error", (error) => this.#fail(error));
    stream.on("close", () => this.#fail(null));
  }

  get unsentBytes(): number {
    return this.#stream.writableLength;
  }

  write(chunk: Buffer): boolean {
    return this.#requestEnded || this.#stream.write(chunk);
  }

  end(trailers: readonly string[] = NOTHING): void {
    if (this.#requestEnded) return;
    this.#requestEnded = true;
    this.#requestTrailers = trailers;
    this.#stream.end();
  }

  #sendTrailers(): void {
    try {
      this.#stream.sendTrailers(pairs(this.#requestTrailers));
    } catch (error) {
      this.#fail(error instanceof Error ? error : null);
    }
  }

  pause(): void {
    this.#stream.pause();
  }

  resume(): void {
    this.#stream.resume();
  }

  abort(): void {
    this.#handler = null;
    this.#stream.close(constants.NGHTTP2_CANCEL);
  }

  #begin(status: number, raw: string[]): void {
    this.#headed = true;
    let contentLength = -1;
    const headers = endToEnd(raw);
    for (let i = 0; i < headers.length; i += 2) if (headers[i] === "content-length") contentLength = Number(headers[i + 1]);
    this.#handler?.onHead(status, "", headers, contentLength);
    this.#handler?.onFlush();
  }

  #finish(): void {
    const handler = this.#handler;
    // The end of a stream that was reset is no end of its body.
    if (!this.#headed || (this.#stream.rstCode !== undefined && this.#stream.rstCode !== constants.NGHTTP2_NO_ERROR)) return this.#fail(null);
    this.#handler = null;
    handler?.onEnd(this.#trailers);
    // The response may come before the request's end; the rest of it is of no use then (RFC 9113, 8.1).
    if (!this.#requestEnded) this.#stream.close(constants.NGHTTP2_NO_ERROR);
  }

  #fail(error: Error | null): void {
    const handler = this.#handler;
    this.#handler = null;
    if (handler === null) return;
    const code = this.#stream.rstCode;
    // RFC 9113, 8.7: a refused stream was not processed.
    const progress: Progress = code === constants.NGHTTP2_REFUSED_STREAM ? "nothing" : this.#headed ? "begun" : "maybe";
    const words = error?.message ?? (code === undefined ? "connection closed" : `stream reset with code ${code}`);
    this.#stream.destroy();
    handler.onError(new HttpCallError("ERR_UPSTREAM_CLOSED", `stream broke (${words}) at ${this.#where}`, progress, error ?? undefined));
  }
}

function pseudoHeaders(request: HttpRequest): string[] {
  const headers = [":method", request.method, ":scheme", "http", ":authority", "", ":path", request.path];
  for (let i = 0; i < request.headers.length; i += 2) {
    const name = (request.headers[i] ?? "").toLowerCase();
    if (name === "host") headers[5] = request.headers[i + 1] ?? "";
    else headers.push(name, request.headers[i + 1] ?? "");
  }
  if (request.takesTrailers) headers.push("te", "trailers");
  return headers;
}

function endToEnd(raw: string[]): string[] {
  const headers: string[] = [];
  for (let i = 0; i < raw.length; i += 2) {
    const name = raw[i] ?? "";
    if (!name.startsWith(":") && name !== "trailer") headers.push(name, raw[i + 1] ?? "");
  }
  return headers;
}

function trailersOf(raw: string[]): string[] {
  return endToEnd(raw).filter((_text, index, all) => isTrailer(headerName(all[index - (index % 2)] ?? "")?.kind ?? HEADER.connection));
}

function pairs(flat: readonly string[]): Record<string, string[]> {
  // Without a prototype, so that a trailer named "constructor" is a trailer.
  const headers: Record<string, string[]> = Object.create(null) as Record<string, string[]>;
  for (let i = 0; i < flat.length; i += 2) (headers[(flat[i] ?? "").toLowerCase()] ??= []).push(flat[i + 1] ?? "");
  return headers;
}
