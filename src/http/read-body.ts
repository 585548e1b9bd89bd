// Takes the whole body of a request, for what is not carried on as it comes.
import { startTicking, stopTicking } from "../lib/ticker.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";

/**
 * Resolves with the bytes; with null when the client went away meanwhile, which ends the exchange by itself.
 * @throws {RequestError} 413 when there are more than `maxBytes`, 408 when none comes for the listener's `timeouts.read`
 */
export function readBody(x: Exchange, maxBytes: number): Promise<Buffer | null> {
  if (x.body === "none") return Promise.resolve(Buffer.alloc(0));
  const { promise, resolve, reject } = Promise.withResolvers<Buffer | null>();
  const { req } = x;
  const chunks: Buffer[] = [];
  let movedAt = performance.now();
  const limitMs = x.state.plan.timeouts.readMs;
  const ticking = {
    tickIndex: -1,
    tick(now: number): void {
      if (limitMs > 0 && now - movedAt >= limitMs) fail(new RequestError(408, "ERR_CLIENT_READ_TIMEOUT", "The request body took too long to come"));
    },
  };
  const leave = (): void => {
    stopTicking(ticking);
    req.off("data", onData);
    req.off("end", onEnd);
    x.onClose = null;
  };
  const fail = (error: RequestError): void => {
    leave();
    req.pause();
    x.lastOnConnection = true;
    reject(error);
  };
  const onData = (chunk: Buffer): void => {
    movedAt = performance.now();
    x.bytesIn += chunk.length;
    if (x.bytesIn > maxBytes) return fail(new RequestError(413, "ERR_BODY_TOO_LARGE", "The request body is too large"));
    chunks.push(chunk);
  };
  const onEnd = (): void => {
    leave();
    resolve(Buffer.concat(chunks));
  };
  x.onClose = {
    clientGone(): void {
      leave();
      resolve(null);
    },
  };
  startTicking(ticking);
  if (x.expectsContinue) x.res.writeContinue();
  req.on("data", onData);
  req.on("end", onEnd);
  return promise;
}
