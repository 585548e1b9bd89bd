// What is between a forwarded request and the connection that carries it, whatever its protocol.
import type { Socket } from "node:net";
import { GatewayError } from "../lib/errors.ts";
import type { DialError } from "./dial.ts";

/** A request as it goes to a target. Header lists are flat: name, value, name, value. */
export type HttpRequest = {
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** End-to-end headers, among them Host, and Content-Length when `body` is "length". */
  readonly headers: readonly string[];
  readonly body: "none" | "length" | "chunked";
  /** Whether trailers may come with the response. */
  readonly takesTrailers: boolean;
  /** Value of the Upgrade header, or null. */
  readonly upgrade: string | null;
};

/** The way to steer a request under way. It must not be used any more after `onEnd`, `onUpgrade` or `onError`. */
export interface HttpCall {
  /** Sends a piece of the body; false asks to wait for `onDrain`. The bytes must not change afterwards. */
  write(chunk: Buffer): boolean;
  /** Ends the request, with trailers when the body is chunked. */
  end(trailers: readonly string[]): void;
  /** Bytes of the request that the target has not taken yet. */
  readonly unsentBytes: number;
  pause(): void;
  resume(): void;
  /** Gives the request up. The handler hears nothing more. */
  abort(): void;
}

/** What becomes of a request. Exactly one of `onEnd`, `onUpgrade` and `onError` comes last, unless the call was aborted. */
export interface HttpCallHandler {
  /** The request head is on its way. Nothing was sent before. */
  onSending(call: HttpCall): void;
  /** 100, 102, 103 and other interim responses, not 101. */
  onInformation(status: number, headers: string[]): void;
  /** `headers` are end-to-end and belong to the handler; `contentLength` is -1 when it is not known. */
  onHead(status: number, reason: string, headers: string[], contentLength: number): void;
  /** No more of the response is at hand now: what was given should go on its way. */
  onFlush(): void;
  /** The bytes are valid during the call only. `last` means that `onEnd` follows at once, without trailers. */
  onData(chunk: Buffer, last: boolean): void;
  onEnd(trailers: string[]): void;
  onDrain(): void;
  /** The target switched protocols; `headers` are those of its answer, Upgrade and Connection not among them. */
  onUpgrade(headers: string[], protocol: string, socket: Socket, head: Buffer): void;
  onError(error: HttpCallError): void;
}

/** How much a target saw of a failed request: `nothing`; `maybe`: the kept-alive connection had just been closed; or it was at work on it. */
export type Progress = "nothing" | "maybe" | "begun";

export type HttpCallErrorCode = "ERR_UPSTREAM_CONNECT" | "ERR_UPSTREAM_TIMEOUT" | "ERR_UPSTREAM_CLOSED" | "ERR_UPSTREAM_PROTOCOL" | "ERR_UPSTREAM_STOPPED";

/** Why a request to a target failed. `message` is a reason without a sentence around it ("connection refused at 127.0.0.1:1"). */
export class HttpCallError extends GatewayError {
  readonly progress: Progress;
  override readonly code: HttpCallErrorCode;

  constructor(code: HttpCallErrorCode, message: string, progress: Progress, cause?: unknown) {
    super(code, message, { cause });
    this.code = code;
    this.progress = progress;
  }
}

/** A connection that could not be made, as the request that waited for it hears of it. */
export function dialFailure(error: DialError): HttpCallError {
  return new HttpCallError(error.reason.startsWith("timed out") ? "ERR_UPSTREAM_TIMEOUT" : "ERR_UPSTREAM_CONNECT", error.reason, "nothing", error);
}
