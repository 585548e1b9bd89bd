import assert from "node:assert/strict";
import { test } from "node:test";
import { ConnectionRate } from "./connection-rate.ts";

const RATE = { connections: 3, perMs: 1_000 };

test("a client may use up its tokens at once, and gets one back after its part of the time", () => {
  const rate = new ConnectionRate();
  const take = (now: number): boolean => rate.take("10.0.0.1", RATE, now);
  assert.deepEqual([take(0), take(0), take(0), take(0), take(333)], [true, true, true, false, false]);
  assert.deepEqual([take(334), take(334)], [true, false]);
  assert.deepEqual([take(5_000), take(5_000), take(5_000), take(5_000)], [true, true, true, false]);
});

test("clients do not share tokens, and one that is refused loses none", () => {
  const rate = new ConnectionRate();
  for (let i = 0; i < 100; i += 1) rate.take("10.0.0.1", RATE, 0);
  assert.equal(rate.take("10.0.0.2", RATE, 0), true);
  assert.equal(rate.take("10.0.0.1", RATE, 400), true);
});

test("a rate that divides unevenly admits exactly its number", () => {
  for (const connections of [7, 9, 11, 13]) {
    const rate = new ConnectionRate();
    let admitted = 0;
    for (let i = 0; i < 20; i += 1) if (rate.take("a", { connections, perMs: 1_000 }, 1e9)) admitted += 1;
    assert.equal(admitted, connections);
  }
});

test("memory is bounded however many addresses come, and full buckets are forgotten first", () => {
  const rate = new ConnectionRate();
  for (let i = 0; i < 9_999; i += 1) rate.take(`old ${i}`, RATE, 0);
  for (let i = 0; i < 3; i += 1) rate.take("now", RATE, 10_000);
  rate.take("one more", RATE, 10_000);
  assert.equal(rate.size, 2);
  assert.equal(rate.take("now", RATE, 10_000), false);
  for (let i = 0; i < 50_000; i += 1) rate.take(`flood ${i}`, RATE, 10_000);
  assert.equal(rate.size, 10_000);
});
