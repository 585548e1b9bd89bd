// The first bytes of a fresh connection: read to see what they are, and given back before anybody else reads.
import type { Socket } from "node:net";
import { timerMs } from "../lib/duration.ts";

// For the client to read the last words; closing at once, while bytes of it are unread, would make the system throw them away.
const LINGER_MS = 1_000;

/** Why nothing came of a connection before its first bytes were there. */
export type FirstBytesFailure = "timeout" | "aborted";

/**
 * Waits for the first bytes of a socket that nobody reads yet. `onBytes` is called once with the bytes, which are then in front of what
 * the socket reads next, and the socket is paused; or `onFailed` once, and the socket is destroyed.
 * @param args.isEnough is asked after each piece with all that came so far; it must say yes at some length.
 * @param args.timeoutMs until then `isEnough` must have said yes; 0 = no limit
 */
export function peekFirstBytes(
  socket: Socket,
  args: {
    timeoutMs: number;
    isEnough: (bytes: Buffer) => boolean;
    onBytes: (bytes: Buffer) => void;
    onFailed: (reason: FirstBytesFailure) => void;
  },
): void {
  let bytes: Buffer | null = null;
  const timer = args.timeoutMs === 0 ? null : setTimeout(() => fail("timeout"), timerMs(args.timeoutMs));
  const stop = (): void => {
    if (timer !== null) clearTimeout(timer);
    socket.off("data", onData).off("end", onAbort).off("close", onAbort).off("error", onAbort);
  };
  const fail = (reason: FirstBytesFailure): void => {
    stop();
    // Its error, should one still come, is of no interest any more.
    socket.on("error", ignore);
    socket.destroy();
    args.onFailed(reason);
  };
  const onAbort = (): void => fail("aborted");
  const onData = (chunk: Buffer): void => {
    bytes = bytes === null ? chunk : Buffer.concat([bytes, chunk]);
    if (!args.isEnough(bytes)) return;
    stop();
    socket.pause();
    socket.unshift(bytes);
    args.onBytes(bytes);
  };
  socket.on("data", onData).on("end", onAbort).on("close", onAbort).on("error", onAbort);
}

/** Says the last words to a client whose first bytes were peeked at, and closes the connection. */
export function sayGoodbye(socket: Socket, words: Buffer | string): void {
  const timer = setTimeout(() => socket.destroy(), LINGER_MS);
  socket.once("close", () => clearTimeout(timer));
  socket.on("error", ignore);
  socket.on("end", () => socket.destroySoon());
  socket.resume();
  socket.end(words);
}

function ignore(): void {}
