import assert from "node:assert/strict";
import { test } from "node:test";
import { closeFrame, FrameTracker } from "./websocket-frames.ts";

function frame(length: number, mask = false): Buffer {
  const extended = length > 65_535 ? 8 : length > 125 ? 2 : 0;
  const head = Buffer.alloc(2 + extended + (mask ? 4 : 0));
  head[0] = 0x82;
  head[1] = (mask ? 0x80 : 0) | (extended === 8 ? 127 : extended === 2 ? 126 : length);
  if (extended === 2) head.writeUInt16BE(length, 2);
  if (extended === 8) head.writeBigUInt64BE(BigInt(length), 2);
  return Buffer.concat([head, Buffer.alloc(length, 0x88)]);
}

test("boundaries of frames are found, whatever the pieces", () => {
  const frames = [0, 1, 125, 126, 65_535, 65_536].flatMap((length) => [frame(length), frame(length, true)]);
  const bytes = Buffer.concat(frames);
  for (const size of [1, 3, 1000, bytes.length]) {
    const tracker = new FrameTracker();
    const ends: number[] = [];
    let total = 0;
    for (let i = 0; i < bytes.length; i += size) {
      const chunk = bytes.subarray(i, i + size);
      for (let at = 0; at < chunk.length;) {
        const taken = tracker.advance(chunk, at);
        at += taken;
        total += taken;
        if (tracker.isAtBoundary) ends.push(total);
      }
    }
    let sum = 0;
    assert.deepEqual(
      ends,
      frames.map(({ length }) => (sum += length)),
    );
  }
});

test("a close frame has its code and its words", () => {
  assert.deepEqual([...closeFrame(4401, "no")], [0x88, 4, 0x11, 0x31, 0x6e, 0x6f]);
});
