import assert from "node:assert/strict";
import { test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { waitFor } from "../../test/components/wait.ts";
import { createBusReader } from "./local-api-bus.ts";
import type { BusMessage } from "./local-api-types.ts";

function read(chunks: readonly Buffer[], maxLineBytes?: number): BusMessage[] {
  const messages: BusMessage[] = [];
  const reader = createBusReader((message) => messages.push(message), maxLineBytes);
  for (const chunk of chunks) reader(chunk);
  return messages;
}

const LINES = Buffer.from(`{"SessionID":"a1","State":2,"Prefs":{}}\n{"ErrMessage":"schlüssel ☂"}\n\n{"Engine":{}}\r\n{"State":6}\n{"State":4}`);
const TOLD = ["a1 NeedsLogin ", "  schlüssel ☂", " Running "];

function tell({ sessionId, state, error }: BusMessage): string {
  return `${sessionId ?? ""} ${state ?? ""} ${error ?? ""}`;
}

test("lines are read whatever pieces they come in", () => {
  assert.deepEqual(read([LINES]).map(tell), TOLD);
  for (let size = 1; size < 12; size += 1) {
    const pieces = Array.from({ length: Math.ceil(LINES.length / size) }, (_, index) => LINES.subarray(index * size, (index + 1) * size));
    assert.deepEqual(read(pieces).map(tell), TOLD, `pieces of ${size} bytes`);
  }
});

test("a line that is too long is not read, says that anything may have changed, and hides nothing that follows", () => {
  const chunks = [`{"NetMap":"`, "x".repeat(40), "x".repeat(40), `"}\n{"State":6}\n`].map((text) => Buffer.from(text));
  const [first, second, ...more] = read(chunks, 50);
  assert.deepEqual(first, { prefsChanged: true, netMapChanged: true, loginFinished: false, healthChanged: true });
  assert.equal(second?.state, "Running");
  assert.deepEqual(more, []);
});

test("of a line that is too long nothing is kept", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  const reader = createBusReader(() => {}, 50);
  const kept: WeakRef<ArrayBufferLike>[] = [];
  const send = (size: number): void => {
    const chunk = Buffer.alloc(size, "x");
    kept.push(new WeakRef(chunk.buffer));
    reader(chunk);
  };
  for (const size of [30, 10_000, 30]) send(size);
  await waitFor(
    () => {
      collect();
      return kept.every((chunk) => chunk.deref() === undefined);
    },
    { timeoutMs: 60_000, what: () => "the chunks to be let go" },
  );
  reader(Buffer.from("\n"));
});
