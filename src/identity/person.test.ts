import assert from "node:assert/strict";
import { test } from "node:test";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { PeopleMatch } from "../plan/auth-model.ts";
import { claimTexts, matchesPeople, type Person } from "./person.ts";
import { NOBODY } from "../plan/build-people.ts";

const SOURCES = ["github", "oidc", "password", "tailnet", "client", "issuer"] as const;
type Source = Person["source"];

const peer: TailnetPeer = { address: "100.64.0.7", id: "n1", name: "laptop.tail1234.ts.net", shortName: "laptop", user: "sam@example.com", tags: [] };

/** Somebody who has, in one login, everything by which anybody could be meant: what counts is where it was said. */
function everything(source: Source): Person {
  return {
    source,
    subject: "sam",
    name: "sam",
    email: "sam@example.com",
    domain: "example.com",
    orgs: ["acme"],
    teams: ["acme/ops"],
    groups: ["ops"],
    claims: { role: "admin" },
    peer: source === "tailnet" ? peer : null,
  };
}

/** The sources whose people a match means, when they have all that it could ask for. */
function sourcesOf(match: Partial<PeopleMatch>, change: Partial<Person> = {}): Source[] {
  return SOURCES.filter((source) => matchesPeople({ ...everything(source), ...change }, { ...NOBODY, ...match }));
}

test("an empty match is nobody, whoever asks", () => {
  assert.deepEqual(sourcesOf({}), []);
});

test("each key means the people of its own sources, and nobody of another with the same name", () => {
  const sam = new Set(["sam"]);
  assert.deepEqual(sourcesOf({ githubUsers: sam }), ["github"]);
  assert.deepEqual(sourcesOf({ githubUsers: "*" }), ["github"], "everybody at GitHub, and nobody else");
  assert.deepEqual(sourcesOf({ githubOrgs: new Set(["acme"]) }), ["github"]);
  assert.deepEqual(sourcesOf({ githubTeams: new Set(["acme/ops"]) }), ["github"]);
  assert.deepEqual(sourcesOf({ users: sam }), ["oidc", "password", "issuer"], "anybody can call himself sam at GitHub");
  assert.deepEqual(sourcesOf({ emails: new Set(["sam@example.com"]) }), ["github", "oidc", "password", "issuer"]);
  assert.deepEqual(sourcesOf({ domains: new Set(["example.com"]) }), ["github", "oidc", "password", "issuer"]);
  assert.deepEqual(sourcesOf({ groups: new Set(["ops"]) }), ["github", "oidc", "password", "issuer"]);
  assert.deepEqual(sourcesOf({ claims: [{ path: ["role"], values: new Set(["admin"]) }] }), ["github", "oidc", "password", "issuer"]);
  assert.deepEqual(sourcesOf({ clients: sam }), ["client"]);
  assert.deepEqual(sourcesOf({ ownPeople: true }), ["password", "tailnet"], "whom the operator has listed himself");
  assert.deepEqual(sourcesOf({ tailnet: { users: new Set(["sam@example.com"]), tags: null, nodes: null } }), ["tailnet"]);
});

test("a star means everybody at GitHub alone, and is otherwise a name like any", () => {
  const star = new Set(["*"]);
  for (const match of [{ githubUsers: star }, { githubOrgs: star }, { users: star }, { emails: star }, { domains: star }, { groups: star }, { clients: star }])
    assert.deepEqual(sourcesOf(match), []);
  assert.deepEqual(sourcesOf({ claims: [{ path: ["role"], values: star }] }), []);
});

test("a user of the password file or an issuer is meant by the subject, never by a name that he may choose", () => {
  assert.deepEqual(sourcesOf({ users: new Set(["root"]) }, { name: "root" }), []);
  assert.deepEqual(sourcesOf({ users: new Set(["42"]) }, { subject: "42" }), ["oidc", "password", "issuer"]);
  assert.deepEqual(sourcesOf({ githubUsers: new Set(["42"]) }, { subject: "42" }), []);
});

test("GitHub names are compared without their case; subjects and groups with it", () => {
  assert.deepEqual(sourcesOf({ githubUsers: new Set(["sam"]) }, { name: "SAM" }), ["github"]);
  assert.deepEqual(sourcesOf({ users: new Set(["sam"]) }, { subject: "SAM" }), []);
  assert.deepEqual(sourcesOf({ groups: new Set(["ops"]) }, { groups: ["OPS"] }), []);
});

test("an organisation is no group, a group no organisation, a team no organisation", () => {
  const bare = { orgs: [], teams: [], groups: [], email: null, domain: null, claims: {} };
  assert.deepEqual(sourcesOf({ groups: new Set(["acme", "acme/ops"]) }, { ...bare, orgs: ["acme"], teams: ["acme/ops"] }), []);
  assert.deepEqual(sourcesOf({ githubOrgs: new Set(["acme"]), githubTeams: new Set(["acme"]) }, { ...bare, groups: ["acme"] }), []);
  assert.deepEqual(sourcesOf({ githubOrgs: new Set(["acme/ops", "acme"]) }, { ...bare, teams: ["acme/ops"] }), []);
});

test("an address that was not verified is null, and means nobody", () => {
  assert.deepEqual(sourcesOf({ emails: new Set(["sam@example.com"]), domains: new Set(["example.com"]) }, { email: null, domain: null }), []);
  assert.deepEqual(sourcesOf({ domains: new Set(["example.com"]) }, { domain: "evil.example.com" }), [], "a domain is not those below it");
});

test("somebody of the tailnet is meant by the tailnet alone, and by what the connection says", () => {
  const match = { tailnet: { users: new Set(["eve@example.com"]), tags: null, nodes: null } };
  assert.deepEqual(sourcesOf(match), []);
  assert.deepEqual(sourcesOf({ tailnet: { users: null, tags: null, nodes: null } }, { peer: null }), []);
});

test("one match of many is enough", () => {
  assert.deepEqual(sourcesOf({ users: new Set(["x"]), groups: new Set(["x", "ops"]), emails: new Set(["y@example.com"]) }), [
    "github",
    "oidc",
    "password",
    "issuer",
  ]);
});

test("claims are found by their path: texts, lists, numbers and truths; nothing is inherited, and no object is a text", () => {
  const claims = {
    role: "admin",
    n: 7,
    yes: true,
    list: ["a", 1, { b: "c" }, null, ["deep"]],
    realm_access: { roles: ["x", "y"] },
    "https://example.com/roles": ["url"],
    nothing: null,
    "a.b": "dotted",
  };
  assert.deepEqual(claimTexts(claims, ["role"]), ["admin"]);
  assert.deepEqual(claimTexts(claims, ["n"]), ["7"]);
  assert.deepEqual(claimTexts(claims, ["yes"]), ["true"]);
  assert.deepEqual(claimTexts(claims, ["list"]), ["a", "1"]);
  assert.deepEqual(claimTexts(claims, ["realm_access", "roles"]), ["x", "y"]);
  assert.deepEqual(claimTexts(claims, ["https://example.com/roles"]), ["url"]);
  for (const path of [
    ["none"],
    ["role", "length"],
    ["list", "length"],
    ["constructor", "name"],
    ["__proto__"],
    ["realm_access"],
    ["nothing"],
    ["nothing", "x"],
    ["a", "b"],
    [],
  ])
    assert.deepEqual(claimTexts(claims, path), [], path.join("."));
});

test("a claim admits by any of its values, in their exact form", () => {
  const match = (path: string[], ...values: string[]): Partial<PeopleMatch> => ({ claims: [{ path, values: new Set(values) }] });
  assert.equal(sourcesOf(match(["role"], "x", "admin")).length, 4);
  assert.equal(sourcesOf(match(["role"], "Admin")).length, 0);
  assert.equal(sourcesOf(match(["roles"], "admin")).length, 0);
  assert.equal(sourcesOf(match(["role"], "admin"), { claims: { role: "admin user" } }).length, 0);
  assert.equal(sourcesOf(match(["role"], "admin"), { claims: Object.create({ role: "admin" }) as Record<string, unknown> }).length, 0);
});
