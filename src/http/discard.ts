// Reads away the rest of a request that was answered early, so that its client sees the answer and not a reset connection.
import { startTicking, stopTicking } from "../lib/ticker.ts";
import type { Exchange } from "./exchange.ts";

const MAX_BYTES = 1_048_576;
const MAX_MS = 5_000;

/** Within limits: beyond them the connection is cut (RFC 9112, 9.6 asks for such a lingering close). */
export function discardRequest(x: Exchange): void {
  const { req, stream } = x;
  if (req.complete || req.destroyed) return;
  let left = MAX_BYTES;
  const until = performance.now() + MAX_MS;
  const ticking = {
    tickIndex: -1,
    tick(now: number): void {
      if (now > until) stop();
    },
  };
  const leave = (): void => {
    stopTicking(ticking);
    if (stream === null) x.connection.discarding = false;
  };
  const stop = (): void => {
    stopTicking(ticking);
    if (req.complete || req.destroyed) return;
    if (stream !== null) stream.close(0);
    else req.socket.destroy();
  };
  startTicking(ticking);
  if (stream === null) x.connection.discarding = true;
  req.removeAllListeners("data");
  req.on("data", (chunk: Buffer) => {
    left -= chunk.length;
    if (left < 0) stop();
  });
  req.once("end", leave);
  req.once("close", () => stopTicking(ticking));
  req.resume();
}
