import assert from "node:assert/strict";
import test from "node:test";
import { createNewest } from "./newest.ts";

test("one address pushes out what is its own alone, the oldest first", () => {
  const newest = createNewest(2, 100);
  assert.deepEqual(newest.keep("other", "203.0.113.8"), []);
  assert.deepEqual(newest.keep("a", "203.0.113.7"), []);
  assert.deepEqual(newest.keep("b", "203.0.113.7"), []);
  assert.deepEqual(newest.keep("c", "203.0.113.7"), ["a"]);
  assert.deepEqual(newest.keep("d", "203.0.113.7"), ["b"]);
});

test("all addresses of an IPv6 network of 64 bits are one", () => {
  const newest = createNewest(1, 100);
  assert.deepEqual(newest.keep("a", "2001:db8::1"), []);
  assert.deepEqual(newest.keep("b", "2001:db8::2"), ["a"]);
  assert.deepEqual(newest.keep("c", "2001:db8:0:1::2"), []);
});

test("of many addresses the oldest of all goes", () => {
  const newest = createNewest(10, 3);
  const gone = ["a", "b", "c", "d", "e"].flatMap((id, i) => newest.keep(id, `203.0.113.${i}`));
  assert.deepEqual(gone, ["a", "b"]);
});
