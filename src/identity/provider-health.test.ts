import assert from "node:assert/strict";
import { test } from "node:test";
import { ProviderHealth } from "./provider-health.ts";

const START_MS = Date.parse("2026-11-21T10:00:00.000Z");
const MINUTE_MS = 60_000;

function setUp() {
  const told: string[] = [];
  const clock = { nowMs: START_MS };
  const health = new ProviderHealth<"metadata" | "keys">({
    who: { kind: "issuer", name: "corp", url: "https://login.example.com" },
    faultOf: (error) => (error instanceof RangeError ? null : (error as Error).message),
    onChange: (what, error) => told.push(`${what}: ${error ?? "well"}`),
    now: () => clock.nowMs,
  });
  const fails = (what: "metadata" | "keys", error: string | Error): Promise<void> =>
    assert.rejects(health.watch(what, () => Promise.reject(typeof error === "string" ? new Error(error) : error)));
  const works = (what: "metadata" | "keys"): Promise<string> => health.watch(what, () => Promise.resolve("answer"));
  return { health, told, clock, fails, works };
}

test("a provider is well before it is asked and after it has answered, and what is asked comes through", async () => {
  const { health, told, works } = setUp();
  const well = { kind: "issuer", name: "corp", url: "https://login.example.com", outage: null };
  assert.deepEqual(health.describe(), well);
  assert.equal(await works("keys"), "answer");
  assert.deepEqual([health.describe(), told], [well, []]);
});

test("an outage has its newest error and its beginning, and is told once when it begins and once when it ends", async () => {
  const { health, told, clock, fails, works } = setUp();
  await fails("keys", "connection refused");
  clock.nowMs += 5 * MINUTE_MS;
  await fails("keys", "timed out");
  assert.deepEqual(health.describe().outage, { error: "timed out", sinceMs: START_MS });
  await works("keys");
  assert.equal(health.describe().outage, null);
  assert.deepEqual(told, ["keys: connection refused", "keys: well"]);
});

test("what is no fault of the provider is no outage, and ends none", async () => {
  const { health, told, fails } = setUp();
  await fails("keys", new RangeError("a wrong code"));
  assert.equal(health.describe().outage, null);
  await fails("keys", "down");
  await fails("keys", new RangeError("a wrong code"));
  assert.equal(health.describe().outage?.error, "down");
  assert.deepEqual(told, ["keys: down"]);
});

test("of several things that fail the first is told, and each recovers by itself", async () => {
  const { health, clock, fails, works } = setUp();
  await fails("keys", "no keys");
  clock.nowMs += 1;
  await fails("metadata", "no metadata");
  assert.equal(health.describe().outage?.error, "no keys");
  await works("keys");
  assert.equal(health.describe().outage?.error, "no metadata");
  await works("metadata");
  assert.equal(health.describe().outage, null);
});

test("an error counts for 10 minutes after it was last seen, and one that comes later is a new one", async () => {
  const { health, told, clock, fails, works } = setUp();
  await fails("keys", "down");
  clock.nowMs += 9 * MINUTE_MS;
  await fails("keys", "down");
  clock.nowMs += 10 * MINUTE_MS - 1;
  assert.equal(health.describe().outage?.sinceMs, START_MS);
  clock.nowMs += 1;
  assert.equal(health.describe().outage, null);
  clock.nowMs += 60 * MINUTE_MS;
  await fails("keys", "down again");
  assert.deepEqual(health.describe().outage, { error: "down again", sinceMs: clock.nowMs });
  clock.nowMs += 60 * MINUTE_MS;
  await works("keys");
  assert.deepEqual(told, ["keys: down", "keys: down again", "keys: well"], "the log has an end for each beginning that nobody saw the end of");
});

test("one that fails and works in turn is told once a minute, and when it stays down", async () => {
  const { health, told, clock, fails, works } = setUp();
  for (let i = 0; i < 100; i += 1) {
    await fails("keys", "one of two machines is down");
    assert.notEqual(health.describe().outage, null);
    await works("keys");
    assert.equal(health.describe().outage, null);
  }
  assert.deepEqual(told, ["keys: one of two machines is down", "keys: well"]);
  await fails("keys", "both are down");
  assert.equal(told.length, 2);
  clock.nowMs += MINUTE_MS;
  await fails("keys", "both are down");
  assert.equal(health.describe().outage?.sinceMs, START_MS);
  await fails("keys", "both are down");
  await works("keys");
  assert.deepEqual(told.slice(2), ["keys: both are down", "keys: well"]);
});

test("a clock that is put back does not make an error last", async () => {
  const { health, clock, fails } = setUp();
  await fails("keys", "down");
  clock.nowMs -= 600 * MINUTE_MS;
  assert.equal(health.describe().outage, null);
});

test("what ends after it was closed is told to nobody", async () => {
  const { health, told, fails } = setUp();
  health.close();
  await fails("keys", "closed");
  assert.deepEqual(told, []);
});
