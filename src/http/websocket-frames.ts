// Where the frames of a WebSocket begin and end (RFC 6455, 5.2), without looking into them; and the frame that closes one.

/** Follows one direction. */
export class FrameTracker {
  /** Bytes of the payload that are still to come. */
  #left = 0;
  /** The header under way. */
  #header: number[] = [];

  /** Between two frames. */
  get isAtBoundary(): boolean {
    return this.#left === 0 && this.#header.length === 0;
  }

  /** Follows the bytes up to the next end of a frame, at most to their end. @returns how many they are */
  advance(chunk: Uint8Array, from = 0): number {
    let at = from;
    while (at < chunk.length) {
      if (this.#left > 0) {
        const taken = Math.min(this.#left, chunk.length - at);
        this.#left -= taken;
        at += taken;
        if (this.#left === 0) return at - from;
        continue;
      }
      this.#header.push(chunk[at] ?? 0);
      at += 1;
      const payload = payloadLength(this.#header);
      if (payload === null) continue;
      this.#header = [];
      this.#left = payload;
      if (payload === 0) return at - from;
    }
    return at - from;
  }

  /** Follows all the bytes. */
  advanceAll(chunk: Uint8Array): void {
    for (let at = 0; at < chunk.length;) at += this.advance(chunk, at);
  }
}

/** Bytes after the header; null while the header is not whole. */
function payloadLength(header: readonly number[]): number | null {
  const [, second] = header;
  if (second === undefined) return null;
  const short = second & 0x7f;
  const extended = short === 127 ? 8 : short === 126 ? 2 : 0;
  if (header.length < 2 + extended + ((second & 0x80) === 0 ? 0 : 4)) return null;
  return extended === 0 ? short : header.slice(2, 2 + extended).reduce((length, byte) => length * 256 + byte, 0);
}

/** An unmasked close frame, as a server sends it. @param reason at most 123 bytes */
export function closeFrame(code: number, reason: string): Buffer {
  const text = Buffer.from(reason);
  const frame = Buffer.alloc(4 + text.length);
  frame[0] = 0x88;
  frame[1] = 2 + text.length;
  frame.writeUInt16BE(code, 2);
  text.copy(frame, 4);
  return frame;
}
