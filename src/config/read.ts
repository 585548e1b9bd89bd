// Reads the text of files that the configuration is made of; whatever goes wrong is a phrase for a sentence.
import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { isUtf8 } from "node:buffer";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { isAtRest, stampOfStats } from "./stamp.ts";

export const MAX_FILE_BYTES = 1024 * 1024;

/** `stamp`: while the file has it, the text is the same; null when that cannot be told, because the file has just been written. */
export type FileText =
  { readonly ok: true; readonly text: string; readonly stamp: string | null } | { readonly ok: false; readonly reason: string; readonly isMissing?: boolean };

/**
 * The text of a file of at most 1 MiB in UTF-8, without a byte order mark.
 * `reason` finishes the sentence "Cannot read 'x': ...".
 */
export async function readText(path: string): Promise<FileText> {
  const nowMs = Date.now();
  try {
    // Opening a pipe would otherwise wait for its writer, for ever.
    await using file = await open(path, constants.O_RDONLY | constants.O_NONBLOCK);
    const stat = await file.stat({ bigint: true });
    if (stat.isDirectory()) return { ok: false, reason: "it is a directory" };
    // Devices and pipes have no size and may never end.
    if (!stat.isFile()) return { ok: false, reason: "it is not a regular file" };
    if (stat.size > MAX_FILE_BYTES) return { ok: false, reason: "it is larger than 1 MiB" };
    const bytes = await file.readFile();
    if (bytes.length > MAX_FILE_BYTES) return { ok: false, reason: "it is larger than 1 MiB" };
    if (!isUtf8(bytes)) return { ok: false, reason: "it is not UTF-8 text" };
    const stamp = isAtRest(stat, nowMs) ? stampOfStats(stat) : null;
    return { ok: true, text: bytes.toString("utf8").replace(/^\uFEFF/, ""), stamp };
  } catch (error) {
    const code = systemErrorCode(error);
    const uid = process.geteuid?.();
    const who = code === "EACCES" && uid !== undefined ? ` (it is read as uid ${uid})` : "";
    return { ok: false, reason: `${describeSystemError(error)}${who}`, isMissing: code === "ENOENT" };
  }
}
