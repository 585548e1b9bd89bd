import assert from "node:assert/strict";
import { test } from "node:test";
import { interpolate } from "./interpolate.ts";

const ENV = { A: "1", EMPTY: "", URL: "http://x:${A}", NESTED: "{a: ${A}" };

function text(source: string): string {
  const result = interpolate(source, ENV);
  assert.ok(result.ok, result.ok ? "" : result.reason);
  return result.text;
}

function reason(source: string): string {
  const result = interpolate(source, ENV);
  assert.ok(!result.ok, "it was accepted");
  return result.reason;
}

test("variables are replaced as compose does", () => {
  assert.equal(text("a${A}b${A}"), "a1b1");
  assert.equal(text("${EMPTY}"), "");
  assert.equal(text("${NONE:-x}${EMPTY:-y}${A:-z}"), "xy1");
  assert.equal(text("${NONE:-}"), "");
  assert.equal(text("${A:?must be there}"), "1");
  assert.equal(text("${NONE:-${ALSO_NONE:-${A}}}!"), "1!");
  assert.equal(text("${NONE:-a:b}"), "a:b");
});

test("values are not interpolated again", () => {
  assert.equal(text("${URL}"), "http://x:${A}");
  assert.equal(text("${NESTED}"), "{a: ${A}");
});

test("a literal ${ and other dollars stay", () => {
  assert.equal(text("$${A}"), "${A}");
  assert.equal(text("$${A} ${A} $${"), "${A} 1 ${");
  assert.equal(text("costs $5 or $A $"), "costs $5 or $A $");
  assert.equal(text("${A}$${A}"), "1${A}");
});

test("what is missing or malformed says so without values", () => {
  assert.match(reason("${NONE}"), /^Environment variable 'NONE' is not set; set it/);
  assert.equal(reason("${NONE:?the port}"), "Environment variable 'NONE' is not set: the port");
  assert.equal(reason("${EMPTY:?the port}"), "Environment variable 'EMPTY' is empty: the port");
  assert.match(reason("${NONE:-${ALSO_NONE}}"), /'ALSO_NONE' is not set/);
  assert.match(reason("${A"), /no closing/);
  for (const source of ["${}", "${1}", "${A-b}", "${A:b}", "${A B}", "${A:+b}"]) assert.match(reason(source), /^Only \$\{VAR\}/, source);
});

test("defaults within defaults have an end", () => {
  const nested = (depth: number): string => `${"${NONE:-".repeat(depth)}x${"}".repeat(depth)}`;
  assert.equal(text(nested(10)), "x");
  assert.match(reason(nested(50_000)), /^More than 10 defaults/);
});
