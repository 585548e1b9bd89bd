import assert from "node:assert/strict";
import { test } from "node:test";
import { printable } from "./printable.ts";

test("foreign text comes out on one line, harmless, short and fit for a sentence", () => {
  assert.equal(printable(" Some\r\nnames \u001b[31mare\u202e forbidden.\u0000 "), "Some names [31mare forbidden");
  assert.equal(printable("and so on..."), "and so on...");
  assert.equal(printable("x".repeat(600)), `${"x".repeat(500)}...`);
  assert.equal(printable("abcdef", 3), "abc...");
  assert.equal(printable("\u200b\n"), "");
});
