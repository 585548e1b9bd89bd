import assert from "node:assert/strict";
import { test } from "node:test";
import { ALICE, BOT, EVE, FOREIGN_BOT, match, NAMESAKE } from "../../test/components/tailnet-listeners.ts";
import { authorize } from "./authorize.ts";
import { admitsPeer, matchesTailnet, tailnetIdentity } from "./tailnet.ts";

const PEERS = { ALICE, BOT, EVE, FOREIGN_BOT, NAMESAKE };
const NONE = { kind: "none" } as const;

test("users are nodes without tags, tags are those of our own tailnet, nodes go by their own name", () => {
  const admitted = (of: Parameters<typeof match>[0]): string =>
    Object.entries(PEERS)
      .filter(([, peer]) => matchesTailnet(peer, match(of)))
      .map(([name]) => name)
      .join(" ");
  assert.equal(admitted({}), "ALICE BOT EVE FOREIGN_BOT NAMESAKE");
  assert.equal(admitted({ users: ["alice@example.com"] }), "ALICE");
  assert.equal(admitted({ users: ["mallory@example.org"] }), "NAMESAKE");
  assert.equal(admitted({ tags: ["tag:ci", "tag:bots"] }), "BOT");
  assert.equal(admitted({ nodes: ["laptop"] }), "ALICE");
  assert.equal(admitted({ nodes: ["laptop.tail2.ts.net", "bot.tail1.ts.net"] }), "BOT NAMESAKE");
  assert.equal(admitted({ users: ["eve@example.com"], tags: ["tag:bots"], nodes: ["laptop"] }), "ALICE BOT EVE");
  assert.equal(admitted({ users: [], tags: [], nodes: [] }), "");
});

test("a port of the tailnet admits nobody whom it does not know, also without rules", () => {
  const tailnet = { kind: "tailnet", port: 1 } as const;
  const tcp = { kind: "tcp", host: null, port: 1 } as const;
  const rules = match({ users: ["alice@example.com"] });
  assert.equal(admitsPeer({ listen: tailnet, allowTailnet: null }, null), false);
  assert.equal(admitsPeer({ listen: tailnet, allowTailnet: match({}) }, null), false);
  assert.equal(admitsPeer({ listen: tailnet, allowTailnet: null }, NAMESAKE), true);
  assert.equal(admitsPeer({ listen: tailnet, allowTailnet: rules }, ALICE), true);
  assert.equal(admitsPeer({ listen: tailnet, allowTailnet: rules }, EVE), false);
  assert.equal(admitsPeer({ listen: tcp, allowTailnet: null }, null), true);
  assert.equal(admitsPeer({ listen: tcp, allowTailnet: rules }, null), false);
});

test("an identity is the user or the tags, never words of another tailnet, in printable ASCII that stays distinct", () => {
  const nameOf = (...[peer]: Parameters<typeof tailnetIdentity>): string => tailnetIdentity(peer).name;
  assert.deepEqual(tailnetIdentity(ALICE), { source: "tailnet", name: "alice@example.com", scopes: [], node: "laptop" });
  assert.equal(nameOf(BOT), "tag:bots,tag:ci");
  assert.equal(nameOf(NAMESAKE), "mallory@example.org");
  assert.equal(tailnetIdentity(NAMESAKE).node, "laptop.tail2.ts.net");
  assert.equal(nameOf(FOREIGN_BOT), "bot.tail2.ts.net");
  assert.equal(nameOf({ ...ALICE, user: null }), "laptop.tail1.ts.net");
  assert.equal(nameOf({ ...ALICE, user: "müller\r\nx-a: b" }), "m\\C3\\BCller\\0D\\0Ax-a:\\20b");
  assert.equal(nameOf({ ...ALICE, user: "m\\c3" }), "m\\5Cc3");
});

test("any way admits, none stands for another, and the denial says what would", () => {
  const token = { kind: "token", names: null, scopes: [] } as const;
  const certificate = { kind: "client_certificate", subjects: null, sans: null } as const;
  const way = { kind: "tailnet", match: match({ users: ["alice@example.com"] }) } as const;
  const outcome = (...args: Parameters<typeof authorize>): string => {
    const permit = authorize(...args);
    return "denied" in permit ? permit.denied : `${permit.identity?.source}:${permit.identity?.name}`;
  };
  const identity = { source: "token", name: "ci", scopes: [] } as const;
  const ci = { kind: "identity", by: "token", identity, person: null, issuer: null, resource: null, expiresAtMs: null } as const;
  assert.equal(outcome([way], NONE, null, ALICE), "tailnet:alice@example.com");
  assert.equal(outcome([way], { kind: "invalid" }, null, ALICE), "tailnet:alice@example.com");
  assert.equal(outcome([way], ci, null, null), "not_on_tailnet");
  assert.equal(outcome([way], ci, null, EVE), "tailnet_not_admitted");
  assert.equal(outcome([token, way], ci, null, EVE), "token:ci");
  assert.equal(outcome([token, way], NONE, null, EVE), "no_credentials");
  assert.equal(outcome([token, way], { kind: "invalid" }, null, null), "invalid_credentials");
  assert.equal(outcome([token], NONE, null, ALICE), "no_credentials");
  assert.equal(outcome([certificate], NONE, null, ALICE), "no_certificate");
  assert.equal(outcome([certificate, way], NONE, null, EVE), "tailnet_not_admitted");
  assert.equal(outcome([certificate, way], NONE, null, null), "no_certificate");
  assert.equal(outcome([], NONE, null, ALICE), "no_credentials");
});
