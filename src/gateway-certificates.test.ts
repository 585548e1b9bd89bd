import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadConfig } from "./config/load.ts";
import { GatewayCertificates } from "./gateway-certificates.ts";
import { buildPlan } from "./plan/build.ts";
import { openLog } from "./telemetry/log.ts";
import { Metrics } from "./telemetry/metrics.ts";

test("the local CA certifies the node's names on listeners of the tailnet alone, and follows them", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-certificates-"));
  let names: readonly string[] = [];
  const tailnet = { runs: () => true, domains: () => [], names: () => names, certificate: () => Promise.reject(new Error("not asked for")) };
  const metrics = new Metrics();
  const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
  const certificates = new GatewayCertificates({ log, pid: 1, metrics: metrics.certificates, tailnet });
  t.after(async () => {
    await certificates.close();
    metrics.close();
    rmSync(dir, { recursive: true, force: true });
  });
  const file = join(dir, "sidegate.yaml");
  writeFileSync(
    file,
    `version: 1
state: { dir: ${dir}/state }
tls: { internal: true }
tailscale: { hostname: ib4 }
listeners:
  node: { protocol: http, listen: "tailnet:443" }
  local: { protocol: http, listen: "127.0.0.1:8443" }
`,
  );
  const loaded = await loadConfig(file, {});
  assert.ok(loaded.ok, JSON.stringify(loaded));
  (await certificates.prepare(buildPlan(loaded.config, loaded.files))).commit();

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
