import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { importJWK, SignJWT } from "jose";
import { openSqliteStore } from "../state/sqlite.ts";
import type { StateStore } from "../state/store.ts";
import { openLog } from "../telemetry/log.ts";
import { openKeys, type ServerKeys } from "./keys.ts";

const DAY = 86_400_000;
const START = Date.UTC(2026, 10, 21);
// Only one of the tests needs it.
const PROVIDER: string = "oidc-provider";
const LOG = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });

async function newStore(t: TestContext): Promise<StateStore> {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-keys-"));
  const store = await openSqliteStore(dir, LOG);
  t.after(async () => {
    await store.close();
    rmSync(dir, { recursive: true, force: true });
  });
  return store;
}

function kids({ jwks }: ServerKeys): string[] {
  return jwks.keys.map(({ kid }) => kid ?? assert.fail("no kid"));
}

test("the keys are made once, one for ES256 and one for RS256, and sign", async (t) => {
  const store = await newStore(t);
  const keys = await openKeys(store, "https://mcp.example", START);
  assert.deepEqual(
    keys.jwks.keys.map(({ kty, alg, use }) => [kty, alg, use]),
    [
      ["EC", "ES256", "sig"],
      ["RSA", "RS256", "sig"],
    ],
  );
  assert.equal(keys.cookieKeys.length, 1);
  assert.equal(Buffer.from(keys.cookieKeys[0] ?? "", "base64url").length, 32);
  for (const jwk of keys.jwks.keys) await new SignJWT({}).setProtectedHeader({ alg: jwk.alg ?? "" }).sign(await importJWK(jwk));
  assert.deepEqual(await openKeys(store, "https://mcp.example", START + 82 * DAY), keys);
  const other = await openKeys(store, "https://other.example", START);
  assert.equal(
    kids(other).some((kid) => kids(keys).includes(kid)),
    false,
  );
  assert.notEqual(other.cookieKeys[0], keys.cookieKeys[0]);
});

test("the provider takes them, and publishes nothing that is private", async (t) => {
  const keys = await openKeys(await newStore(t), "p", START);
  const { Provider } = (await import(PROVIDER)) as { Provider: new (issuer: string, options: unknown) => { callback(): never } };
  const provider = new Provider("https://mcp.example", { jwks: keys.jwks, cookies: { keys: keys.cookieKeys } });
  const { inject } = await import("light-my-request");
  const published = JSON.parse((await inject(provider.callback(), "/jwks")).body) as { keys: Record<string, string>[] };
  assert.deepEqual(
    published.keys.map(({ kid }) => kid),
    kids(keys),
  );
  for (const key of published.keys) for (const part of ["d", "p", "q", "dp", "dq", "qi"]) assert.equal(key[part], undefined);
});

test("the next keys are published a week before they sign, the last ones a month after", async (t) => {
  const store = await newStore(t);
  const first = await openKeys(store, "n", START);
  assert.equal(first.changesAtMs, START + 83 * DAY);

  const announced = await openKeys(store, "n", first.changesAtMs);
  assert.deepEqual(kids(announced).slice(0, 2), kids(first));
  assert.equal(kids(announced).length, 4);
  assert.equal(announced.changesAtMs, START + 90 * DAY);
  assert.deepEqual(await openKeys(store, "n", START + 90 * DAY - 1), announced);

  const second = await openKeys(store, "n", announced.changesAtMs);
  assert.deepEqual(kids(second), [...kids(announced).slice(2), ...kids(first)]);
  assert.deepEqual(second.cookieKeys, announced.cookieKeys.toReversed());
  assert.equal(second.changesAtMs, START + 120 * DAY);

  const alone = await openKeys(store, "n", second.changesAtMs);
  assert.deepEqual(kids(alone), kids(second).slice(0, 2));
  assert.equal(alone.changesAtMs, START + 173 * DAY);
  assert.equal((await store.list("keys:n:")).length, 1);
});

test("after a long time without a gateway new keys sign at once, and the old ones stay for a month from then", async (t) => {
  const store = await newStore(t);
  const first = await openKeys(store, "n", START);
  const back = START + 400 * DAY;
  const second = await openKeys(store, "n", back);
  assert.equal(kids(second).length, 4);
  assert.deepEqual(kids(second).slice(2), kids(first));
  assert.equal(second.changesAtMs, back + 30 * DAY);
  assert.equal(kids(await openKeys(store, "n", back + 30 * DAY)).length, 2);
  // A clock that was wrong once.
  assert.deepEqual(kids(await openKeys(store, "n", START - DAY)), kids(second).slice(0, 2));
});

test("gateways that start or replace keys at once end with the same ones", async (t) => {
  const store = await newStore(t);
  for (const now of [START, START + 83 * DAY, START + 500 * DAY]) {
    const all = await Promise.all(Array.from({ length: 4 }, () => openKeys(store, "n", now)));
    for (const keys of all) assert.deepEqual(keys, all[0]);
  }
});
