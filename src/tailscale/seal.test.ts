import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeLocalApi, noAnswer } from "../../test/components/fake-local-api.ts";
import { LocalApiError } from "./local-api-error.ts";
import { applySeal, SealKeeper } from "./seal.ts";
import { sealedConfig } from "./serve-config.ts";

const open = new Set([4003]);
const order = { kind: "lasting", open } as const;

test("a seal is read back before it counts, and set once more when another program changed the config meanwhile", async () => {
  const api = new FakeLocalApi();
  let changes = 0;
  api.on = (call) => {
    if (call === "seal" && (changes += 1) <= 2) api.changeServe({ TCP: { "443": { HTTPS: true }, [String(changes)]: { HTTP: true } } });
  };
  const { etag } = await api.serveConfig();
  const state = await applySeal(api, order);
  assert.notEqual(state.etag, etag);
  assert.deepEqual(state, { etag: state.etag, kind: "lasting", open: [4003], refused: 65_532, foreign: [2, 443] });
  assert.equal(api.told.length, 3);
  assert.deepEqual(sealedConfig(api.serve, open, null).changed, false);
});

test("who accepts a config and does not keep it is not believed", async () => {
  const api = new FakeLocalApi();
  api.setServeConfig = async () => {};
  await assert.rejects(applySeal(api, order), { code: "ERR_TAILNET_SEAL" });
  const keeper = new SealKeeper();
  await keeper.keep(api, order);
  assert.equal(keeper.state, null);
  assert.match(keeper.error, /could not be refused.*'tailscale serve status'/);
});

test("what is proven holds while tailscaled is silent, and not when it refuses", async () => {
  const api = new FakeLocalApi();
  const keeper = new SealKeeper();
  await keeper.keep(api, order);
  assert.ok(keeper.holds(order));
  keeper.suspect();
  api.on = () => {
    throw noAnswer();
  };
  await assert.rejects(keeper.keep(api, order), { status: 0 });
  assert.ok(keeper.holds(order));
  api.on = () => {
    throw new LocalApiError("refused", "netMap is nil", { status: 500 });
  };
  await keeper.keep(api, order);
  assert.equal(keeper.state, null);
  assert.match(keeper.error, /netMap is nil/);
});

test("a config that cannot be understood is not the one that was proven", async () => {
  const api = new FakeLocalApi();
  const keeper = new SealKeeper();
  await keeper.keep(api, order);
  keeper.suspect();
  api.on = () => {
    throw new LocalApiError("bad_answer", "it is too long");
  };
  await keeper.keep(api, order);
  assert.equal(keeper.state, null);
  assert.match(keeper.error, /too long/);
});

test("a proof is kept for a while, and looked at again when there is a reason", async () => {
  const api = new FakeLocalApi();
  const keeper = new SealKeeper();
  let reads = 0;
  api.on = (call) => {
    if (call === "serveConfig") reads += 1;
  };
  await keeper.keep(api, order);
  await keeper.keep(api, order);
  assert.equal(reads, 2);
  // What did not change is not read whole.
  keeper.suspect();
  await keeper.keep(api, order);
  assert.equal(reads, 2);
  assert.notEqual(keeper.state, null);
  api.changeServe({});
  keeper.suspect();
  await keeper.keep(api, order);
  assert.equal(sealedConfig(api.serve, open, null).changed, false);
  await keeper.keep(api, { kind: "lasting", open: new Set([4004]) });
  assert.equal(api.serve.TCP?.["4004"], undefined);
  assert.notEqual(api.serve.TCP?.["4003"], undefined);
});
