// Every point of the checklist for MCP and OAuth has a test that names its number.
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { test } from "node:test";

const ROOT = new URL("..", import.meta.url).pathname;
// 43 and 54 to 56 belong to policy and heartbeats.
const ELSEWHERE = new Set([43, 54, 55, 56]);
const LAST = 56;

test("each point of the checklist is the name of a test", () => {
  const named = new Set<number>();
  for (const file of globSync("{src,test}/**/*.test.ts", { cwd: ROOT })) {
    const text = readFileSync(`${ROOT}/${file}`, "utf8");
    // A title is what begins the line that a test begins with.
    for (const [, title = ""] of text.matchAll(/\btest\(\s*["`](.*)/g)) for (const [, number] of title.matchAll(/#(\d+)\b/g)) named.add(Number(number));
  }
  const missing = Array.from({ length: LAST }, (_one, i) => i + 1).filter((number) => !named.has(number) && !ELSEWHERE.has(number));
  assert.deepEqual(missing, []);
});
