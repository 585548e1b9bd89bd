import assert from "node:assert/strict";
import { test } from "node:test";
import { parseRetryAfter } from "./retry-after.ts";

const NOW = Date.parse("2026-11-21T12:00:00Z");

test("Retry-After is read as seconds or a date, and never more than a week", () => {
  assert.equal(parseRetryAfter("120", NOW), 120_000);
  assert.equal(parseRetryAfter("Sat, 21 Nov 2026 12:00:30 GMT", NOW), 30_000);
  for (const value of [null, "", "0", "-5", "soon", "Sat, 21 Nov 2026 11:00:00 GMT"]) assert.equal(parseRetryAfter(value, NOW), null);
  assert.equal(parseRetryAfter("99999999999", NOW), 7 * 24 * 3_600_000);
});
