import assert from "node:assert/strict";
import { test } from "node:test";
import { parseTailscaleFlags } from "./tailscale-flags.ts";

const NOTHING = parseTailscaleFlags([]).flags;

function flags(...args: string[]) {
  const parsed = parseTailscaleFlags(args);
  assert.deepEqual(parsed.problems, [], args.join(" "));
  return parsed.flags;
}

function messages(...args: string[]): string[] {
  return parseTailscaleFlags(args).problems.map(({ index, message }) => `${index}: ${message}`);
}

test("without flags everything is as tailscale up has it, but that routes of others are not taken", () => {
  assert.deepEqual(NOTHING, {
    acceptRoutes: false,
    advertiseRoutes: [],
    exitNode: null,
    exitNodeAllowLanAccess: false,
    snatSubnetRoutes: true,
    statefulFiltering: false,
    advertiseConnector: false,
    reportPosture: false,
    operator: null,
  });
});

test("switches are parsed as Go parses them, with one dash or two", () => {
  for (const text of ["--accept-routes", "-accept-routes", "--accept-routes=true", "--accept-routes=T", "-accept-routes=1"])
    assert.equal(flags(text).acceptRoutes, true, text);
  for (const text of ["=false", "=0", "=F", "=FALSE"]) assert.equal(flags(`--snat-subnet-routes${text}`).snatSubnetRoutes, false, text);
  for (const text of ["=yes", "=on", "=", "=tRUE", "=2"])
    assert.deepEqual(messages(`--accept-routes${text}`), ["0: '--accept-routes' is true or false: write --accept-routes, or --accept-routes=false"], text);
});

test("values stand behind '=' or in the next argument, and the last one counts", () => {
  assert.equal(flags("--exit-node", "100.64.0.7").exitNode, "100.64.0.7");
  assert.equal(flags("--exit-node=100.64.0.7", "--exit-node=").exitNode, null);
  assert.equal(flags("--operator=root", "-operator", "trader").operator, "trader");
  assert.deepEqual(messages("--accept-routes", "--operator"), ["1: '--operator' needs a value: --operator=..."]);
  // A switch takes no value from the next argument.
  assert.deepEqual(messages("--accept-routes", "false"), ["1: This is not a flag: flags begin with '--', and their values follow a '='"]);
});

test("routes are networks in order, and an exit node has both of everything", () => {
  assert.deepEqual(flags("--advertise-routes=10.0.0.0/24,fd00::/64,10.0.0.0/24").advertiseRoutes, ["10.0.0.0/24", "fd00::/64"]);
  assert.deepEqual(flags("--advertise-exit-node", "--advertise-routes=0.0.0.0/0").advertiseRoutes, ["0.0.0.0/0", "::/0"]);
  assert.deepEqual(flags("--advertise-routes=").advertiseRoutes, []);
  for (const text of ["10.0.0.1", "10.0.0.0/33", "office", "10.0.0.0/24,,10.1.0.0/24", "10.0.0.0/24 10.1.0.0/24"])
    assert.match(messages(`--advertise-routes=${text}`).join(), /^0: '--advertise-routes' takes networks with commas between/, text);
  assert.match(messages("--advertise-routes=10.0.0.5/24").join(), /write 10\.0\.0\.0\/24$/);
  assert.match(messages("--advertise-routes=::/0").join(), /has ::\/0 alone/);
});

test("what contradicts itself is said at the flag that it is about", () => {
  assert.match(messages("--accept-routes", "--exit-node=laptop").join(), /^1: '--exit-node' takes the address of a node/);
  assert.match(messages("--exit-node=auto:any").join(), /^0: '--exit-node' takes the address of a node/);
  assert.match(messages("--advertise-exit-node", "--exit-node=100.64.0.7").join(), /^1: '--exit-node' contradicts/);
  assert.match(messages("--exit-node-allow-lan-access").join(), /does nothing without '--exit-node'$/);
  assert.match(messages("--operator=a b").join(), /takes the name of a user/);
});

test("what has a key of its own, does nothing or is refused is told apart", () => {
  const parsed = parseTailscaleFlags(["--hostname=a", "--auth-key", "k", "--accept-dns", "--reset", "--ssh=false", "--report-posture"]);
  assert.deepEqual(
    parsed.keys.map(({ index, key, value }) => [index, key, value]),
    [
      [0, "hostname", "a"],
      [1, "auth_key", "k"],
      [3, "accept_dns", "true"],
    ],
  );
  assert.deepEqual(
    parsed.idle.map(({ index }) => index),
    [4, 5],
  );
  assert.deepEqual(parsed.problems, []);
  assert.deepEqual(parsed.kept, ["--report-posture=true"]);
  for (const door of ["--ssh", "-ssh=true", "--webclient"]) assert.match(messages(door).join(), /would open a second door past the gateway/, door);
  assert.match(messages("--shields-up").join(), /would close the node/);
});

test("an unknown flag is told with the nearest known one, names of a prototype are unknown, and no value is told", () => {
  assert.deepEqual(messages("--acept-routes"), ["0: Unknown flag '--acept-routes'; did you mean '--accept-routes'?"]);
  assert.deepEqual(messages("--host-name=x"), ["0: Unknown flag '--host-name'; did you mean '--hostname'?"]);
  for (const name of ["constructor", "toString", "__proto__"]) assert.equal(messages(`--${name}=x`).length, 1, name);
  assert.match(messages("--accept-routes --reset").join(), /^0: Several flags stand in one entry/);
  for (const arg of ["hush", "--auth-key hush", "--frob=hush", "-", "--", "---ssh", "", "--accept-routes=hush", "--operator=hu sh", "-tskey-auth-hush"]) {
    const [message = "", ...more] = messages(arg);
    assert.notEqual(message, "", arg);
    assert.deepEqual(more, [], arg);
    assert.doesNotMatch(message, /hush/, arg);
  }
  // The value of an unknown flag is no problem of its own.
  assert.equal(messages("--frobnicate", "hard").length, 1);
});
