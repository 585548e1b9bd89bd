// Where lines go: what a LineBuffer needs of a file, and standard output.
import { write } from "node:fs";

/** Calls never overlap: the buffer waits for one before the next. */
export type LineSink = {
  /** Writes at least one byte and gives how many; a rest is passed again. */
  write(bytes: Buffer): Promise<number>;
  /** Lets go of what is open; a later `write` opens it again. */
  close(): Promise<void>;
};

const STDOUT_FD = 1;

export const STDOUT_SINK: LineSink = {
  write: (bytes) =>
    new Promise((resolve, reject) => {
      write(STDOUT_FD, bytes, 0, bytes.length, null, (error, written) => (error === null ? resolve(written) : reject(error)));
    }),
  close: () => Promise.resolve(),
};
