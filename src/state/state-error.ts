// Why the state cannot be used, in words for people.
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";

export class StateError extends GatewayError {
  constructor(message: string, cause?: unknown) {
    super("ERR_STATE", message, cause === undefined ? {} : { cause });
  }
}

/** What moving the file away means, for the end of a sentence. */
export const BEGIN_ANEW = "without it the gateway begins anew: clients register and everybody logs in again";

// Primary result codes (sqlite.org/rescode.html).
const BUSY = 5;
const LOCKED = 6;
const READONLY = 8;
const IOERR = 10;
const CORRUPT = 11;
const FULL = 13;
const CANTOPEN = 14;
const NOTADB = 26;

/** The primary result code of an error of SQLite; null for another error. */
function sqliteCode(error: unknown): number | null {
  return error instanceof Error && "errcode" in error && typeof error.errcode === "number" ? error.errcode & 0xff : null;
}

/** Whether somebody else has the file for a moment. */
export function isBusy(error: unknown): boolean {
  const code = sqliteCode(error);
  return code === BUSY || code === LOCKED;
}

/** An error of SQLite or of the file system as a StateError that names the file and says what to do; a StateError as it is. */
export function toStateError(file: string, error: unknown): StateError {
  if (error instanceof StateError) return error;
  const code = sqliteCode(error);
  const system = systemErrorCode(error);
  if (code === CORRUPT || code === NOTADB) return damaged(file, error);
  if (code === FULL || system === "ENOSPC" || system === "EDQUOT")
    return new StateError(`Cannot write the state file '${file}': the disk is full; make room there`, error);
  if (code === BUSY || code === LOCKED)
    return new StateError(`Cannot use the state file '${file}': another process keeps it locked; is a backup or another program at work on it?`, error);
  const isForbidden = code === READONLY || code === CANTOPEN || (code === null && system !== undefined);
  const reason = code === READONLY || code === CANTOPEN ? "it, or its directory, cannot be written" : describeSystemError(error);
  const advice = isForbidden
    ? "; the gateway's user must be able to read and write there, or 'state.dir' name another directory"
    : code === IOERR
      ? "; look after the disk"
      : "";
  return new StateError(`Cannot use the state file '${file}': ${reason}${advice}`, error);
}

/** Of a file that is a database no longer, or not in all its parts. */
export function damaged(file: string, cause?: unknown): StateError {
  return new StateError(
    `The state file '${file}' is damaged; bring it back from a backup, or move it away together with '${file}-wal' and '${file}-shm': ${BEGIN_ANEW}`,
    cause,
  );
}
