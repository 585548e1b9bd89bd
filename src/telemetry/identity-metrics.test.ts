import assert from "node:assert/strict";
import { test } from "node:test";
import type { IdentityProviderSample } from "./identity-metrics.ts";
import { Metrics } from "./metrics.ts";

async function samples(providers: readonly IdentityProviderSample[]): Promise<string[]> {
  const metrics = new Metrics({ identityProviders: () => providers });
  try {
    return (await metrics.text()).split("\n").filter((line) => line.startsWith("sidegate_identity_"));
  } finally {
    metrics.close();
  }
}

test("a provider that is well, or was never asked, is up; one that fails is not", async () => {
  const up = { kind: "issuer", name: "corp", failing: false };
  assert.deepEqual(await samples([up, { kind: "login", name: "github", failing: true }]), [
    'sidegate_identity_provider_up{kind="issuer",name="corp"} 1',
    'sidegate_identity_provider_up{kind="login",name="github"} 0',
  ]);
});

test("two of one name are one sample, which is down when one of them is", async () => {
  const [up, down] = [false, true].map((failing) => ({ kind: "login", name: "github", failing }));
  assert.ok(up !== undefined && down !== undefined);
  for (const both of [
    [up, down],
    [down, up],
  ])
    assert.deepEqual(await samples(both), ['sidegate_identity_provider_up{kind="login",name="github"} 0']);
});
