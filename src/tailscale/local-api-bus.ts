// The bus of tailscaled: a stream of JSON lines, of which none is kept longer than it takes to read it.
import { parseBusMessage } from "./local-api-parse.ts";
import type { BusMessage } from "./local-api-types.ts";

// NotifyInitialState, NotifyInitialPrefs, NotifyNoPrivateKeys, NotifyRateLimit (ipn/backend.go). Not the network map, which is megabytes in a large tailnet.
// Versions before 1.98 send it with each change all the same: for them the limit of one in three seconds, and that of a line's length.
export const BUS_MASK = 2 | 4 | 16 | 256;

const MAX_LINE_BYTES = 1024 * 1024;
/** What a line of unknown content may have told. */
const ANYTHING: BusMessage = { prefsChanged: true, netMapChanged: true, loginFinished: false, healthChanged: true };
const NEWLINE = 0x0a;

/**
 * Takes the stream as it comes and hands on what its lines tell. A line that is too long is not read and hands on that anything may have changed.
 * @throws {FieldError} when a line cannot be understood
 */
export function createBusReader(onMessage: (message: BusMessage) => void, maxLineBytes: number = MAX_LINE_BYTES): (chunk: Buffer) => void {
  let parts: Buffer[] = [];
  let bytes = 0;
  const take = (part: Buffer): void => {
    bytes += part.length;
    if (bytes <= maxLineBytes) parts.push(part);
    else parts = [];
  };
  return (chunk) => {
    let from = 0;
    for (let at = chunk.indexOf(NEWLINE); at !== -1; at = chunk.indexOf(NEWLINE, from)) {
      take(chunk.subarray(from, at));
      from = at + 1;
      const line = Buffer.concat(parts).toString("utf8").trim();
      const isTooLong = bytes > maxLineBytes;
      parts = [];
      bytes = 0;
      const message = isTooLong ? ANYTHING : line === "" ? null : parseBusMessage(line);
      if (message !== null) onMessage(message);
    }
    take(chunk.subarray(from));
  };
}
