import assert from "node:assert/strict";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { createInternalSource } from "./internal.ts";
import { openInternalCa, type InternalCa } from "./internal-ca.ts";

const DAY = 86_400_000;

async function openCa(t: TestContext): Promise<InternalCa> {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-internal-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return openInternalCa(dir);
}

test("a certificate that nobody asks for is never listed as expired", async (t) => {
  let now = Date.now();
  const source = createInternalSource(
    await openCa(t),
    ["a.example"],
    "127.0.0.1",
    () => [],
    () => now,
  );
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

test("the certificate of the machine is one of the node in the tailnet, too, and a new one when its names change", async (t) => {
  const ca = await openCa(t);
  let node: readonly string[] = [];
  let now = Date.now();
  const source = createInternalSource(
    ca,
    ["app.example", "ib4.tail.test"],
    "127.0.0.1",
    () => node,
    () => now,
  );
  const fits = (name: string): boolean => {
    const certificate = new X509Certificate((/:|^[\d.]+$/.test(name) ? source.fallback() : source.get(name))?.cert ?? assert.fail(name));
    return (/:|^[\d.]+$/.test(name) ? certificate.checkIP(name) : certificate.checkHost(name)) === name;
  };
  const alone = source.fallback();
  assert.equal(source.get("ib4"), null);

  // Fresh objects: it goes by what they say.
  node = ["ib4.tail.test", "ib4", "100.64.0.7", "fd7a:115c:a1e0::7"];
  const both = source.fallback();
  node = [...node];
  assert.notEqual(both, alone);
  for (let i = 0; i < 3; i += 1) assert.equal(source.fallback(), both);
  for (const name of ["ib4", "ib4.tail.test", "localhost"]) assert.equal(source.get(name), both, name);
  for (const name of ["localhost", "127.0.0.1", ...node]) assert.ok(fits(name), name);
  assert.equal(source.get("other.tail.test"), null);
  assert.deepEqual(
    source.list().map(({ names }) => names),
    [both?.info.names],
  );

  now += 61 * DAY;
  const renewed = source.fallback();
  assert.notEqual(renewed, both);
  assert.deepEqual(renewed?.info.names, both?.info.names);

  // The name before is let go of.
  node = ["ib4-1.tail.test", "ib4-1", "100.64.0.7"];
  assert.ok(fits("ib4-1.tail.test") && fits("100.64.0.7") && fits("localhost"));
  assert.equal(source.get("ib4"), null);
  assert.deepEqual(source.get("ib4.tail.test")?.info.names, ["ib4.tail.test"]);
  assert.ok(!source.list().some(({ names }) => names.includes("ib4")));
  assert.equal(source.list().length, 2);
});
