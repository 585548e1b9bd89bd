// Durations and sizes of a checked configuration as numbers.
import { parseDurationMs, parseSizeBytes } from "../lib/duration.ts";

/** @throws {RangeError} when the text is no duration, which the schema's formats rule out. */
export function durationMs(text: string): number {
  const ms = parseDurationMs(text);
  if (ms === null) throw new RangeError("Not a duration");
  return ms;
}

/** @throws {RangeError} when the text is no size, which the schema's formats rule out. */
export function sizeBytes(text: string): number {
  const bytes = parseSizeBytes(text);
  if (bytes === null) throw new RangeError("Not a size");
  return bytes;
}
