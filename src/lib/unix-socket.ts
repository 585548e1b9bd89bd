// Files of unix sockets that were left behind by a process that ended without removing them.
import { lstatSync, unlinkSync } from "node:fs";
import { connect } from "node:net";
import { systemErrorCode } from "./errors.ts";

/** How long the owner of an existing socket gets to answer before it counts as alive but slow. */
const ANSWER_TIMEOUT_MS = 500;

/**
 * Removes the file when it is a socket on which nobody listens any more; whether it did. A file that is no socket is never touched,
 * although connecting to it is refused, too.
 */
export async function removeStaleSocket(path: string): Promise<boolean> {
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found?.isSocket() !== true || (await isAnswered(path))) return false;
  unlinkSync(path);
  return true;
}

function isAnswered(path: string): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(path);
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => resolve(true));
  socket.once("connect", () => resolve(true));
  socket.once("error", (error) => resolve(systemErrorCode(error) !== "ECONNREFUSED"));
  return promise.finally(() => socket.destroy());
}
