// One HTTP/1.1 connection to a target: writes one request at a time and reads its response.
import type { Socket } from "node:net";
import { HttpCallError, type HttpCall, type HttpCallErrorCode, type HttpCallHandler, type HttpRequest } from "./http-call.ts";
import { ChunkedReader } from "./http1-body.ts";
import { parseResponseHead, type ResponseHead } from "./http1-head.ts";
import { describeTlsError } from "./tls.ts";

const MAX_HEAD_BYTES = 65_536;
const HEAD_END = Buffer.from("\r\n\r\n");
const NOTHING: readonly string[] = [];

/** The pool that a connection belongs to. */
export type ConnectionOwner = {
  /** The connection can take the next request. `hintMs` is what the target said it keeps it open, or null. */
  onIdle(connection: Http1Connection, hintMs: number | null): void;
  onGone(connection: Http1Connection): void;
};

type State = "idle" | "head" | "length" | "chunked" | "until-close" | "upgraded" | "gone";

export class Http1Connection implements HttpCall {
  /** performance.now() after which it may not be used any more; set by the pool. */
  idleUntil = 0;
  readonly #socket: Socket;
  readonly #owner: ConnectionOwner;
  readonly #where: string;
  #state: State = "idle";
  #handler: HttpCallHandler | null = null;
  #request: HttpRequest | null = null;
  #requestEnded = true;
  #responses = 0;
  #informed = false;
  /** Beginning of a head that came in pieces. */
  #partial: Buffer | null = null;
  #head: ResponseHead | null = null;
  #left = 0;
  #chunks: ChunkedReader | null = null;

  readonly #onEnded = (): void => this.#ended();
  readonly #onError = (error: Error): void => this.#fail("ERR_UPSTREAM_CLOSED", `connection broke (${describeTlsError(error)}) at ${this.#where}`, error);
  readonly #onDrain = (): void => this.#handler?.onDrain();

  /** @param where the target's address, for error texts */
  constructor(socket: Socket, owner: ConnectionOwner, where: string) {
    this.#socket = socket;
    this.#owner = owner;
    this.#where = where;
    socket.on("end", this.#onEnded);
    socket.on("error", this.#onError);
    socket.on("close", this.#onEnded);
    socket.on("drain", this.#onDrain);
  }

  get usable(): boolean {
    return this.#state === "idle" && !this.#socket.destroyed;
  }

  get unsentBytes(): number {
    return this.#socket.writableLength;
  }

  /** Sends a request; the connection is usable. */
  send(request: HttpRequest, handler: HttpCallHandler): void {
    this.#state = "head";
    this.#informed = false;
    this.#handler = handler;
    this.#request = request;
    this.#requestEnded = request.body === "none";
    const { headers } = request;
    let head = `${request.method} ${request.path} HTTP/1.1\r\n`;
    for (let i = 0; i < headers.length; i += 2) head += `${headers[i]}: ${headers[i + 1]}\r\n`;
    if (request.body === "chunked") head += "Transfer-Encoding: chunked\r\n";
    // RFC 9110, 10.1.4: TE is of one connection, so Connection names it.
    if (request.takesTrailers && request.upgrade === null) head += "TE: trailers\r\nConnection: TE\r\n";
    if (request.upgrade !== null) head += `Connection: Upgrade\r\nUpgrade: ${request.upgrade}\r\n`;
    this.#socket.write(`${head}\r\n`, "latin1");
    handler.onSending(this);
  }

  write(chunk: Buffer): boolean {
    if (this.#requestEnded || chunk.length === 0) return true;
    if (this.#request?.body !== "chunked") return this.#socket.write(chunk);
    this.#socket.cork();
    this.#socket.write(`${chunk.length.toString(16)}\r\n`, "latin1");
    this.#socket.write(chunk);
    const more = this.#socket.write("\r\n", "latin1");
    this.#socket.uncork();
    return more;
  }

  end(trailers: readonly string[] = NOTHING): void {
    if (this.#requestEnded) return;
    this.#requestEnded = true;
    if (this.#request?.body !== "chunked") return;
    let last = "0\r\n";
    for (let i = 0; i < trailers.length; i += 2) last += `${trailers[i]}: ${trailers[i + 1]}\r\n`;
    this.#socket.write(`${last}\r\n`, "latin1");
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  abort(): void {
    this.#handler = null;
    this.destroy();
  }

  destroy(): void {
    if (this.#state !== "gone") {
      this.#state = "gone";
      this.#owner.onGone(this);
    }
    this.#socket.destroy();
  }

  /** Takes `end` bytes that came. They are not kept beyond the call. */
  read(bytes: Buffer, end: number): void {
    if (this.#state === "head") return this.#readHead(bytes, end);
    // Bytes that nobody asked for would be taken for the next response.
    if (this.#state === "idle") return this.destroy();
    // A socket that reads into a shared buffer emits no 'data' by itself.
    if (this.#state === "upgraded") this.#socket.emit("data", Buffer.from(bytes.subarray(0, end)));
    else if (this.#state !== "gone") this.#readBody(bytes, 0, end);
  }

  #readHead(bytes: Buffer, end: number): void {
    let from = 0;
    let buffer = bytes;
    let to = end;
    if (this.#partial !== null) {
      buffer = Buffer.concat([this.#partial, bytes.subarray(0, end)]);
      to = buffer.length;
      this.#partial = null;
    }
    for (;;) {
      const headEnd = buffer.indexOf(HEAD_END, from);
      if (headEnd === -1 || headEnd + 4 > to) {
        if (to - from > MAX_HEAD_BYTES) return this.#broken("its head is too long");
        if (to > from) this.#partial = Buffer.from(buffer.subarray(from, to));
        return;
      }
      const head = parseResponseHead(buffer.toString("latin1", from, headEnd));
      from = headEnd + 4;
      if (typeof head === "string") return this.#broken(head);
      if (head.status === 101) return this.#upgraded(head, buffer.subarray(from, to));
      if (head.status >= 200) return this.#begin(head, buffer, from, to);
      this.#informed = true;
      this.#handler?.onInformation(head.status, head.headers);
      if (this.#state !== "head" || from === to) return;
    }
  }

  #begin(head: ResponseHead, bytes: Buffer, from: number, to: number): void {
    this.#head = head;
    const { status } = head;
    const bodyless = this.#request?.method === "HEAD" || status === 204 || status === 304;
    if (status === 204 && (head.chunked || head.contentLength > 0)) return this.#broken("204 with a body");
    if (bodyless || head.contentLength === 0) {
      this.#state = "length";
      this.#left = 0;
      this.#handler?.onHead(status, head.reason, head.headers, head.contentLength);
      return this.#finish(from === to, []);
    }
    this.#left = head.contentLength;
    this.#state = head.chunked ? "chunked" : head.contentLength === -1 ? "until-close" : "length";
    this.#handler?.onHead(status, head.reason, head.headers, head.contentLength);
    if (from < to) this.#readBody(bytes, from, to);
    this.#handler?.onFlush();
  }

  #readBody(bytes: Buffer, from: number, to: number): void {
    const handler = this.#handler;
    if (handler === null) return;
    if (this.#state === "length") {
      const take = Math.min(this.#left, to - from);
      this.#left -= take;
      handler.onData(bytes.subarray(from, from + take), this.#left === 0);
      if (this.#left === 0) this.#finish(from + take === to, []);
    } else if (this.#state === "until-close") {
      handler.onData(bytes.subarray(from, to), false);
    } else if (this.#state === "chunked") {
      this.#chunks ??= new ChunkedReader();
      const chunks = this.#chunks;
      const end = chunks.read(bytes, from, to, (start, stop) => this.#handler?.onData(bytes.subarray(start, stop), false));
      if (typeof end === "string") this.#broken(end);
      else if (end !== -1) this.#finish(end === to, chunks.trailers ?? []);
    }
  }

  /** The response is complete. `clean`: no bytes were left over behind it. */
  #finish(clean: boolean, trailers: string[]): void {
    const handler = this.#handler;
    const head = this.#head;
    this.#handler = null;
    this.#head = null;
    this.#chunks = null;
    this.#responses += 1;
    // A request that is not sent to its end leaves a connection that nothing can follow on (RFC 9112, 9.3).
    const reusable = clean && this.#requestEnded && head?.persistent === true && this.#socket.writable && this.#state !== "gone";
    if (reusable) {
      this.#request = null;
      this.#state = "idle";
      if (this.#socket.isPaused()) this.#socket.resume();
    }
    handler?.onEnd(trailers);
    if (!reusable) return this.destroy();
    this.#owner.onIdle(this, head.keepAliveSeconds === null ? null : head.keepAliveSeconds * 1_000);
  }

  #upgraded(head: ResponseHead, rest: Buffer): void {
    const handler = this.#handler;
    if (this.#request?.upgrade === null || head.upgrade === null || handler === null) return this.#broken("101 without a request for it");
    this.#handler = null;
    this.#state = "upgraded";
    const socket = this.#socket;
    socket.pause();
    socket.removeAllListeners("data");
    socket.off("end", this.#onEnded);
    socket.off("error", this.#onError);
    socket.off("close", this.#onEnded);
    socket.off("drain", this.#onDrain);
    socket.once("close", () => this.destroy());
    handler.onUpgrade(head.headers, head.upgrade, socket, Buffer.from(rest));
  }

  #ended(): void {
    // The end of the connection is the end of a body without a length (RFC 9112, 6.3), when the target closed in order.
    if (this.#state === "until-close" && this.#socket.readableEnded) this.#finish(false, []);
    else if (this.#state === "head" && this.#partial === null) this.#fail("ERR_UPSTREAM_CLOSED", `connection was closed without a response at ${this.#where}`);
    else this.#fail("ERR_UPSTREAM_CLOSED", `connection was closed in the middle of a response at ${this.#where}`);
  }

  #broken(what: string): void {
    this.#fail("ERR_UPSTREAM_PROTOCOL", `bad response (${what}) at ${this.#where}`);
  }

  #fail(code: HttpCallErrorCode, message: string, cause?: unknown): void {
    const handler = this.#handler;
    const untouched = this.#state === "head" && this.#partial === null;
    this.#handler = null;
    this.destroy();
    handler?.onError(new HttpCallError(code, message, untouched && this.#responses > 0 && !this.#informed ? "maybe" : "begun", cause));
  }
}
