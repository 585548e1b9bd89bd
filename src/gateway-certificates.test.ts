import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { loadConfig } from "./config/load.ts";
import { GatewayCertificates } from "./gateway-certificates.ts";
import { buildPlan } from "./plan/build.ts";
import { openLog } from "./telemetry/log.ts";
import { Metrics } from "./telemetry/metrics.ts";

/** @param names of the node in the tailnet, as they are known now. */
function open(t: TestContext, names: () => readonly string[]) {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-certificates-"));
  const tailnet = { runs: () => true, domains: () => [], names, certificate: () => Promise.reject(new Error("not asked for")) };
  const metrics = new Metrics();
  const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
  const certificates = new GatewayCertificates({ log, pid: 1, metrics: metrics.certificates, tailnet });
  t.after(async () => {
    await certificates.close();
    metrics.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const serve = async (yaml: string): Promise<void> => {
    const file = join(dir, "sidegate.yaml");
    writeFileSync(file, `version: 1\nstate: { dir: ${dir}/state }\ntls: { internal: true }\n${yaml}`);
    const loaded = await loadConfig(file, {});
    assert.ok(loaded.ok, JSON.stringify(loaded));
    (await certificates.prepare(buildPlan(loaded.config, loaded.files))).commit();
  };
  return { certificates, serve };
}

test("the local CA certifies the node's names on listeners of the tailnet alone, and follows them", async (t) => {
  let names: readonly string[] = [];
  const { certificates, serve } = open(t, () => names);
  await serve(`tailscale: { hostname: ib4 }
listeners:
  node: { protocol: http, listen: "tailnet:443" }
  local: { protocol: http, listen: "127.0.0.1:8443" }
`);

  const has = (listener: string, name: string): boolean | undefined => certificates.tls.get(listener)?.fallback?.info.names.includes(name);
  const known = (): unknown[] => ["node", "local"].map((listener) => [has(listener, "localhost"), has(listener, "ib4.tail.test"), has(listener, "100.64.0.7")]);
  assert.deepEqual(known(), [
    [true, false, false],
    [true, false, false],
  ]);
  names = ["ib4.tail.test", "ib4", "100.64.0.7"];
  assert.deepEqual(known(), [
    [true, true, true],
    [true, false, false],
  ]);
  assert.equal(certificates.list().length, 2);
});

test("the local CA certifies hosts and the names of public addresses, wherever a proxy or a mapping may have their port, on the listeners that serve them", async (t) => {
  const { certificates, serve } = open(t, () => []);
  await serve(`trusted_proxies: [10.0.0.2]
listeners:
  one: { protocol: http, listen: "127.0.0.1:8443" }
  two: { protocol: http, listen: "127.0.0.1:9443" }
routes:
  - { host: A.example.com, public_url: "https://outer.example.com", listeners: [one], upstream: "http://127.0.0.1:1", auth: none }
  - { public_url: "https://b.example.com", listeners: [one], upstream: "http://127.0.0.1:1", auth: none }
  - { path: /x, public_url: "https://c.example.com:9000/x", upstream: "http://127.0.0.1:1", auth: none }
`);
  const asked = ["a", "outer", "b", "c", "d"].map((label) => `${label}.example.com`);
  const known = (listener: string): string[] => {
    const tls = certificates.tls.get(listener);
    for (const name of asked) tls?.find(name);
    return asked.filter((name) => tls?.list().some(({ names }) => names.includes(name)));
  };
  assert.deepEqual(known("one"), ["a.example.com", "outer.example.com", "b.example.com", "c.example.com"]);
  assert.deepEqual(known("two"), ["c.example.com"]);
});
