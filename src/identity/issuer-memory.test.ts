import assert from "node:assert/strict";
import { test } from "node:test";
import { AnswerMemory } from "./issuer-memory.ts";

test("what has ended is forgotten when something new comes, and a full memory loses what came first", (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_000_000 });
  const memory = new AnswerMemory<string>(3);
  for (const hash of ["a", "b", "c", "d"]) memory.put(hash, hash, Date.now() + 10_000);
  assert.deepEqual([memory.get("a"), memory.get("b"), memory.get("d"), memory.size], [null, "b", "d", 3]);
  t.mock.timers.tick(10_000);
  memory.put("e", "e", Date.now() + 10_000);
  assert.deepEqual([memory.get("d"), memory.get("e"), memory.size], [null, "e", 1]);
  memory.put("e", "late", Date.now());
  assert.equal(memory.get("e"), "e");
});
