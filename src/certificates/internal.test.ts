import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createInternalSource } from "./internal.ts";
import { openInternalCa } from "./internal-ca.ts";

const DAY = 86_400_000;

test("a certificate that nobody asks for is never listed as expired", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-internal-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  let now = Date.now();
  const source = createInternalSource(await openInternalCa(dir), ["a.example"], "127.0.0.1", () => now);
  source.get("a.example");
  const ends = (): number[] => source.list().map(({ notAfter }) => notAfter?.getTime() ?? 0);
  const first = ends();
  assert.equal(first.length, 2);
  now += 59 * DAY;
  assert.deepEqual(ends(), first);
  now += 200 * DAY;
  assert.ok(ends().every((endMs) => endMs > now + 60 * DAY));
  assert.equal(ends().length, 2);
});
