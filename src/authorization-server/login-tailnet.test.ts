import assert from "node:assert/strict";
import { test } from "node:test";
import { matchesPeople } from "../identity/person.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import { tailnetPerson } from "./login-tailnet.ts";
import { NOBODY } from "../plan/build-people.ts";

const LAPTOP: TailnetPeer = { address: "100.64.0.1", id: "n1", name: "laptop.tail.ts.net", shortName: "laptop", user: "alice@example.com", tags: [] };
const BOT: TailnetPeer = { address: "100.64.0.2", id: "n2", name: "bot.tail.ts.net", shortName: "bot", user: "tagged-devices", tags: ["tag:bots"] };
test("the user of a node is the person", () => {
  const person = tailnetPerson(LAPTOP);
  assert.deepEqual([person.source, person.subject, person.name, person.peer], ["tailnet", "alice@example.com", "alice@example.com", LAPTOP]);
  assert.ok(matchesPeople(person, { ...NOBODY, tailnet: { users: new Set(["alice@example.com"]), tags: null, nodes: null } }));
});

test("a tagged node is itself, whatever user stands beside its tags", () => {
  const person = tailnetPerson(BOT);
  assert.deepEqual([person.subject, person.name], ["n2", "tag:bots"]);
  assert.ok(!matchesPeople(person, { ...NOBODY, tailnet: { users: new Set(["tagged-devices"]), tags: null, nodes: null } }));
});

test("a login name of the tailnet is no verified e-mail address", () => {
  const person = tailnetPerson(LAPTOP);
  assert.ok(!matchesPeople(person, { ...NOBODY, emails: new Set(["alice@example.com"]), domains: new Set(["example.com"]) }));
});
