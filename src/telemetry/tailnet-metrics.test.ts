import assert from "node:assert/strict";
import { test } from "node:test";
import { TAILNET } from "../../test/components/tailnet-status.ts";
import { Metrics } from "./metrics.ts";
import type { TailnetSample } from "./tailnet-metrics.ts";

const NOW = Date.parse("2026-11-21T10:00:00.000Z");

async function samples(tailnet: TailnetSample | null): Promise<Record<string, number>> {
  const metrics = new Metrics({ tailnet: () => tailnet }, () => NOW);
  try {
    const lines = [...(await metrics.text()).matchAll(/^(sidegate_tail\S+) (\S+)$/gm)];
    return Object.fromEntries(lines.map(([, name = "", value]) => [name, Number(value)]));
  } finally {
    metrics.close();
  }
}

test("a gateway that nothing of is on the tailnet has no metrics of it", async () => {
  assert.deepEqual(await samples(null), {});
});

test("a node that fares well is up, serving and sealed; a key that does not expire has no end", async () => {
  assert.deepEqual(await samples(TAILNET), {
    sidegate_tailnet_up: 1,
    sidegate_tailnet_serving: 1,
    sidegate_tailscaled_restarts_total: 0,
    sidegate_tailnet_sealed: 1,
    sidegate_tailnet_refused_ports: 65_533,
  });
});

test("what is wrong shows, and a key that has ended is negative", async () => {
  const seal = { ...TAILNET.seal, active: false, refused: 0 };
  const expired = { ...TAILNET, state: "expired", serving: false, restarts: 3, key_expires_at: "2026-11-21T09:59:00.000Z", seal } as const;
  assert.deepEqual(await samples(expired), {
    sidegate_tailnet_up: 0,
    sidegate_tailnet_serving: 0,
    sidegate_tailscaled_restarts_total: 3,
    sidegate_tailnet_key_expiry_seconds: -60,
    sidegate_tailnet_sealed: 0,
    sidegate_tailnet_refused_ports: 0,
  });
  assert.equal((await samples({ ...expired, key_expires_at: "2026-11-21T11:00:00.000Z" }))["sidegate_tailnet_key_expiry_seconds"], 3_600);
  assert.equal((await samples({ ...TAILNET, serving: false }))["sidegate_tailnet_up"], 1);
});
