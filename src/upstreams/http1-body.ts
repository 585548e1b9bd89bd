// Takes a chunked body apart (RFC 9112, 7.1), whatever the pieces it comes in.
import { parseTrailers } from "./http1-head.ts";

const MAX_LINE_BYTES = 1_024;
const MAX_TRAILER_BYTES = 16_384;
// The extension is bounded and not looked at; white space before it is the "bad" kind that many send.
const SIZE_LINE = /^([0-9a-fA-F]{1,13})(?:[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?)$/;
const CR = 13;
const LF = 10;

type State = "size" | "data" | "data-end" | "trailers" | "done";

export class ChunkedReader {
  /** Set when the body has ended. */
  trailers: string[] | null = null;
  #state: State = "size";
  #left = 0;
  #line = "";

  /**
   * Gives each piece of data to `onData`. Returns the offset behind the last byte of the body, -1 when more is to come,
   * or in words what is wrong.
   */
  read(bytes: Buffer, offset: number, end: number, onData: (from: number, to: number) => void): number | string {
    let at = offset;
    while (at < end) {
      switch (this.#state) {
        case "data": {
          const to = Math.min(end, at + this.#left);
          this.#left -= to - at;
          if (this.#left === 0) this.#state = "data-end";
          onData(at, to);
          at = to;
          break;
        }
        case "data-end": {
          const byte = bytes[at];
          if (byte !== (this.#line === "" ? CR : LF)) return "chunk is longer than its size";
          this.#line = this.#line === "" ? "\r" : "";
          if (this.#line === "") this.#state = "size";
          at += 1;
          break;
        }
        case "size": {
          at = this.#readLine(bytes, at, end);
          if (at === -1) return "chunk size line is too long";
          if (!this.#line.endsWith("\n")) return -1;
          const digits = SIZE_LINE.exec(this.#line.slice(0, -2))?.[1];
          if (digits === undefined || !this.#line.endsWith("\r\n")) return "bad chunk size";
          this.#left = Number.parseInt(digits, 16);
          this.#line = "";
          this.#state = this.#left === 0 ? "trailers" : "data";
          break;
        }
        case "trailers": {
          at = this.#readLine(bytes, at, end, MAX_TRAILER_BYTES);
          if (at === -1) return "trailers are too long";
          if (this.#line !== "\r\n" && !this.#line.endsWith("\r\n\r\n")) break;
          this.trailers = parseTrailers(this.#line === "\r\n" ? "" : this.#line.slice(0, -4));
          if (this.trailers === null) return "bad trailers";
          this.#state = "done";
          return at;
        }
        case "done":
          return "body has ended";
      }
    }
    return -1;
  }

  /** Adds bytes up to a line feed to the line; -1 when it gets too long. */
  #readLine(bytes: Buffer, at: number, end: number, maxBytes = MAX_LINE_BYTES): number {
    const feed = bytes.indexOf(LF, at);
    const to = feed === -1 || feed >= end ? end : feed + 1;
    if (this.#line.length + to - at > maxBytes) return -1;
    this.#line += bytes.toString("latin1", at, to);
    return to;
  }
}
