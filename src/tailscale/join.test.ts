import assert from "node:assert/strict";
import { test } from "node:test";
import { FRESH_PREFS, FRESH_STATUS, nodePlan, RUNNING_STATUS } from "../../test/components/fake-local-api.ts";
import { afterFailedExchange, afterRefusal, createJoinMemory, hideKeys, nextStep, refusalInWords } from "./join.ts";
import type { JoinMemory } from "./join.ts";
import type { LocalPrefs, LocalStatus } from "./local-api-types.ts";
import { plannedPrefs } from "./prefs.ts";

const NOW = Date.parse("2026-11-21T12:00:00Z");
const plan = nodePlan();
const JOINED: LocalPrefs = { ...FRESH_PREFS, ...plannedPrefs(plan), WantRunning: true, LoggedOut: false };
const self = RUNNING_STATUS.self ?? assert.fail();

function decide(what: {
  plan?: typeof plan;
  status?: LocalStatus;
  prefs?: LocalPrefs;
  memory?: Partial<JoinMemory>;
  now?: number;
}): ReturnType<typeof nextStep> {
  const memory = { ...createJoinMemory(), ...what.memory };
  return nextStep(what.plan ?? plan, what.status ?? FRESH_STATUS, what.prefs ?? FRESH_PREFS, memory, null, what.now ?? NOW);
}

test("a fresh node logs in with the key and with its shields up", () => {
  const step = decide({});
  assert.ok(step.kind === "login");
  assert.equal(step.authKey, "tskey-auth-one");
  assert.partialDeepStrictEqual(step.prefs, { ShieldsUp: true, WantRunning: true, LoggedOut: false, ControlURL: "http://control.test", Hostname: "gw" });
});

test("without a key somebody logs in by a browser, and is asked once", () => {
  const keyless = nodePlan({ authKey: null });
  assert.partialDeepStrictEqual(decide({ plan: keyless }), { kind: "login", authKey: null });
  const memory = { attempt: { authKey: null, controlUrl: "http://control.test" } };
  assert.equal(decide({ plan: keyless, memory, prefs: JOINED }).kind, "wait");
});

test("a state that holds a login needs no key, wherever the login has come to", () => {
  for (const state of ["NoState", "Starting", "Running", "NeedsMachineAuth"] as const)
    assert.equal(decide({ status: { ...RUNNING_STATUS, state, self: null }, prefs: JOINED }).kind, "wait", state);
});

test("a node that was told to be down is brought up, with what else changed", () => {
  const step = decide({ status: { ...RUNNING_STATUS, state: "Stopped" }, prefs: { ...JOINED, WantRunning: false, Hostname: "old" } });
  assert.deepEqual(step, { kind: "edit", prefs: { Hostname: "gw", WantRunning: true } });
});

test("after a logout, an expiry or a removal the key is used again", () => {
  const cases: [string, LocalStatus, LocalPrefs][] = [
    ["logout that was not confirmed", { ...RUNNING_STATUS, state: "NeedsLogin", self: null }, { ...JOINED, LoggedOut: true, WantRunning: false }],
    ["expiry", { ...RUNNING_STATUS, state: "NeedsLogin", self: { ...self, expired: true } }, JOINED],
    ["removal", { ...RUNNING_STATUS, state: "NeedsLogin", self: null }, JOINED],
  ];
  for (const [name, status, prefs] of cases) assert.partialDeepStrictEqual(decide({ status, prefs }), { kind: "login", authKey: "tskey-auth-one" }, name);
});

test("a refused key waits for longer each time, while a browser may log in; another key is tried at once", () => {
  let memory: JoinMemory = { ...createJoinMemory(), attempt: { authKey: "tskey-auth-one", controlUrl: "http://control.test" } };
  const waits = [];
  for (let i = 0; i < 6; i += 1) {
    memory = afterRefusal(memory, "tskey-auth-one", "no", NOW);
    const retryAt = memory.refused?.retryAtMs ?? 0;
    waits.push((retryAt - NOW) / 60_000);
    assert.partialDeepStrictEqual(decide({ memory, now: retryAt - 1 }), { kind: "login", authKey: null });
    assert.partialDeepStrictEqual(decide({ memory, now: retryAt }), { kind: "login", authKey: "tskey-auth-one" });
  }
  assert.deepEqual(waits, [5, 10, 20, 40, 60, 60]);
  const other = nodePlan({ authKey: "tskey-auth-two" });
  assert.partialDeepStrictEqual(decide({ plan: other, memory }), { kind: "login", authKey: "tskey-auth-two" });
});

test("a failed exchange of an OAuth secret does not take the URL away that somebody may have open", () => {
  const attempt = { authKey: null, controlUrl: "http://control.test" };
  const memory = afterFailedExchange({ ...createJoinMemory(), attempt }, "tskey-auth-one", "no answer", NOW);
  assert.equal(decide({ memory, prefs: JOINED, now: NOW + 59_000 }).kind, "wait");
  assert.partialDeepStrictEqual(decide({ memory, prefs: JOINED, now: NOW + 60_000 }), { kind: "login", authKey: "tskey-auth-one" });
});

test("a node that is logged in stays with its control server, whatever the file names; another login goes where it says", () => {
  const moved = nodePlan({ controlUrl: "http://other.test" });
  const silent = nodePlan({ controlUrl: null });
  for (const plan of [moved, silent]) assert.equal(decide({ plan, status: RUNNING_STATUS, prefs: JOINED }).kind, "wait");
  assert.partialDeepStrictEqual(decide({ plan: moved }), { kind: "login", prefs: { ControlURL: "http://other.test" } });
  // Of a node whose login has ended the state knows where it belongs.
  const ended = { ...RUNNING_STATUS, state: "NeedsLogin" as const };
  assert.partialDeepStrictEqual(decide({ plan: silent, status: ended, prefs: JOINED }), { kind: "login", prefs: { ControlURL: "http://control.test" } });
});

test("a logout by command holds until the key or the control server is another", () => {
  const memory = { loggedOut: { authKey: "tskey-auth-one", controlUrl: "http://control.test" } };
  assert.equal(decide({ memory }).kind, "wait");
  assert.equal(decide({ memory, plan: nodePlan({ hostname: "new" }) }).kind, "wait");
  assert.equal(decide({ memory, plan: nodePlan({ authKey: "tskey-auth-two" }) }).kind, "login");
  assert.equal(decide({ memory, plan: nodePlan({ controlUrl: null }) }).kind, "login");
});

test("a refusal is told with what to do, and without the key", () => {
  const tagged = nodePlan({ tags: ["tag:x"], controlUrl: null });
  assert.match(refusalInWords(tagged, "requested tags [tag:x] are invalid or not permitted"), /'tag:x'.*'tagOwners'/);
  assert.match(refusalInWords(tagged, "invalid key: key expired"), /has expired.*login\.tailscale\.com\/admin\/settings\/keys/);
  assert.match(refusalInWords(tagged, "auth key already used"), /used already.*reusable/);
  assert.match(refusalInWords(plan, "invalid key: tskey-auth-one"), /refuses the auth key.*'http:\/\/control\.test'/);
  assert.equal(hideKeys("bad tskey-client-a-b and hskey-c\n", "hskey-c"), "bad (key) and (key)");
});
