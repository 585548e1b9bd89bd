// A short form means what its long form with nothing but defaults means.
import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { loadConfig } from "../../src/config/load.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { UpstreamPlan } from "../../src/plan/model.ts";

async function upstreamsOf(yaml: string): Promise<Omit<UpstreamPlan, "name" | "key">[]> {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-short-"));
  try {
    const file = join(dir, "sidegate.yaml");
    await writeFile(file, `version: 1\n${yaml}`);
    const loaded = await loadConfig(file, {});
    assert.ok(loaded.ok, JSON.stringify(loaded));
    return [...buildPlan(loaded.config, loaded.files).upstreams.values()].map(({ name: _name, key: _key, ...rest }) => rest);
  } finally {
    await rm(dir, { recursive: true });
  }
}

test("a URL on a route is an upstream with the schema's defaults", async () => {
  const listener = `listeners:\n  web: { protocol: http, listen: "127.0.0.1:8080" }\n`;
  const short = await upstreamsOf(`${listener}routes:\n  - { upstream: "http://127.0.0.1:1", auth: none }\n`);
  const long = await upstreamsOf(`upstreams:\n  up: { targets: ["http://127.0.0.1:1"] }\n${listener}routes:\n  - { upstream: up, auth: none }\n`);
  assert.deepEqual(short, long);
});

test("the name of a TCP health check is that check with the schema's defaults", async () => {
  const listener = (health: string): string => `listeners:\n  tcp: { protocol: tcp, listen: "127.0.0.1:4003", upstream: "127.0.0.1:1", health: ${health} }\n`;
  assert.deepEqual(await upstreamsOf(listener("ib_api")), await upstreamsOf(listener("{ check: ib_api }")));
});
