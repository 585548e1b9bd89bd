// TXT records as Pebble's DNS server shows them: set by way of Cloudflare's API and by a program.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setDnsRecord } from "../../src/certificates/dns-01.ts";
import type { DnsPlan } from "../../src/plan/model.ts";
import { startCloudflare } from "../components/cloudflare.ts";
import { missingPebble, startPebble } from "../components/pebble.ts";
import { skipWithout } from "../components/require.ts";

const NAME = "_acme-challenge.a.b.example.com";
const never = new AbortController().signal;

test("Cloudflare's records for a wildcard and its base name show side by side, and go one by one", async (t) => {
  if (skipWithout(t, missingPebble())) return;
  await using pebble = await startPebble();
  await using cloudflare = await startCloudflare({ dns: pebble });
  const plan: DnsPlan = {
    provider: "cloudflare",
    apiToken: "test-token",
    apiUrl: cloudflare.url,
    resolvers: [`127.0.0.1:${pebble.dnsPort}`],
    propagationTimeoutMs: 10_000,
  };
  const [first, second] = await Promise.all(["one", "two"].map((value) => setDnsRecord(plan, NAME, value, never)));
  assert.deepEqual((await pebble.txt(NAME)).toSorted(), ["one", "two"]);
  await first?.();
  assert.deepEqual(await pebble.txt(NAME), ["two"]);
  await second?.();
  assert.deepEqual(await pebble.txt(NAME), []);
});

test("a program's record shows, and goes", async (t) => {
  if (skipWithout(t, missingPebble())) return;
  await using pebble = await startPebble();
  // A provider of DNS with an API of its own, and a program that speaks it.
  const provider = createServer((request, response) => {
    const [, action = "", name = "", value = ""] = (request.url ?? "").split("/");
    void (action === "present" ? pebble.setTxt(name, value) : pebble.clearTxt(name)).then(() => response.end());
  });
  provider.listen(0, "127.0.0.1");
  await once(provider, "listening");
  const dir = mkdtempSync(join(tmpdir(), "sidegate-dns-exec-"));
  t.after(() => {
    provider.close();
    provider.closeAllConnections();
    rmSync(dir, { recursive: true, force: true });
  });
  const program = join(dir, "dns.mjs");
  writeFileSync(program, `const [, , base, ...words] = process.argv; await fetch([base, ...words].join("/"));`);
  const plan: DnsPlan = {
    provider: "exec",
    command: [process.execPath, program, `http://127.0.0.1:${(provider.address() as AddressInfo).port}`],
    timeoutMs: 20_000,
    resolvers: [`127.0.0.1:${pebble.dnsPort}`],
    propagationTimeoutMs: 10_000,
  };
  const remove = await setDnsRecord(plan, NAME, "value", never);
  assert.deepEqual(await pebble.txt(NAME), ["value"]);
  await remove();
  assert.deepEqual(await pebble.txt(NAME), []);
});
