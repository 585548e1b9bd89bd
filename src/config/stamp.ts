// What tells that a file was written, replaced, deleted or restored without that it is read.
import { type BigIntStats, stat } from "node:fs";
import { systemErrorCode } from "../lib/errors.ts";

// Others wait for the same four threads of libuv: name lookups, for one.
const AT_ONCE = 16;
// Longer than the steps of any file system's clock (FAT: 2 s): what was written in the same step may look the same.
const REST_MS = 2_500;

/** Of a file as it is at the end of its links. Equal stamps mean the same content once it `isAtRest`. */
export function stampOfStats({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${dev}:${ino}:${size}:${mtimeNs}:${ctimeNs}`;
}

/** Whether the last change is so long ago that a further one gets another time. A time in the future says nothing. */
export function isAtRest({ mtimeMs, ctimeMs }: BigIntStats, nowMs: number): boolean {
  return Number(mtimeMs) < nowMs - REST_MS && Number(ctimeMs) < nowMs - REST_MS;
}

/** The stamp, or the code of the error when there is none. Links are followed. */
export function stampOf(path: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  // With a callback: half the processor time of node:fs/promises.
  stat(path, { bigint: true }, (error, stats) => resolve(error === null ? stampOfStats(stats) : (systemErrorCode(error) ?? "unknown")));
  return promise;
}

/** Runs it for each item, few at once: thousands of files need neither as many descriptors nor the whole event loop. */
export async function forEachFile<T>(items: Iterable<T>, run: (item: T) => Promise<void>): Promise<void> {
  const rest = Iterator.from(items);
  const runRest = async (): Promise<void> => {
    for (const item of rest) await run(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, runRest));
}
