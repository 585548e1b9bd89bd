import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { AuthWayPlan, PeopleMatch } from "../plan/auth-model.ts";
import { authenticate as authenticateMaybe, type Authentication, buildTokenIndex, type Proof, type TokenIndex, type TokenSource } from "./authenticate.ts";
import { authorize } from "./authorize.ts";
import type { Person } from "./person.ts";
import { isValidAt, type ClientCertificate } from "./client-certificate.ts";
import { NOBODY } from "../plan/build-people.ts";

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();
const tokens = buildTokenIndex(
  [
    { name: "ci", sha256: sha256("good-token"), scopes: ["mcp", "read"] },
    { name: "weak", sha256: sha256("weak-token"), scopes: [] },
  ],
  new Map(),
);
const authenticate = (authorization: string | null, index: TokenIndex): Authentication => {
  const found = authenticateMaybe(authorization, index);
  assert.ok(!(found instanceof Promise), "static tokens are known at once");
  return found;
};
const way = (names: string[] | null, scopes: string[] = []) => ({ kind: "token" as const, names: names === null ? null : new Set(names), scopes });

test("a token is known by its hash, in the Bearer scheme alone", () => {
  const ci = authenticate("Bearer good-token", tokens);
  assert.deepEqual(ci.kind === "identity" && [ci.by, ci.identity], ["token", { source: "token", name: "ci", scopes: ["mcp", "read"] }]);
  assert.equal(authenticate("bearer   good-token", tokens).kind, "identity");
  assert.equal(authenticate(null, tokens).kind, "none");
  for (const wrong of [
    "",
    "Bearer",
    "Bearer ",
    "Bearer good-token x",
    "Bearer good-toke",
    "Bearergood-token",
    "Basic good-token",
    "good-token",
    "Bearer good-token,",
    "Bearer\tgood-token",
    `Bearer ${"a".repeat(20_000)}`,
  ]) {
    assert.equal(authenticate(wrong, tokens).kind, "invalid", wrong);
  }
  assert.equal(authenticate("Bearer good-token", buildTokenIndex([], new Map())).kind, "invalid");
});

test("any way in admits, and scopes count together", () => {
  const ci = authenticate("Bearer good-token", tokens);
  const weak = authenticate("Bearer weak-token", tokens);
  assert.ok(!("denied" in authorize([way(null)], weak)));
  assert.ok(!("denied" in authorize([way(["x"]), way(["ci"], ["mcp", "read"])], ci)));
  assert.deepEqual(authorize([way(null, ["mcp"])], weak), { denied: "insufficient_scope", scopes: ["mcp"] });
  assert.deepEqual(authorize([way(null, ["mcp", "write"])], ci), { denied: "insufficient_scope", scopes: ["mcp", "read", "write"] });
  assert.deepEqual(authorize([way(["x"])], ci), { denied: "invalid_credentials", reason: null });
  assert.deepEqual(authorize([], ci), { denied: "invalid_credentials", reason: null });
  assert.deepEqual(authorize([way(null)], { kind: "none" }), { denied: "no_credentials" });
  assert.deepEqual(authorize([way(null)], { kind: "invalid" }), { denied: "invalid_credentials", reason: null });
});

test("auth: none admits everybody, without a name", () => {
  const permit = authorize(null, { kind: "invalid" });
  assert.ok(!("denied" in permit) && permit.identity === null);
});

const certificate: ClientCertificate = {
  subject: "CN=M\\C3\\BCller,O=Acme",
  commonName: { text: "Müller", escaped: "M\\C3\\BCller" },
  sans: ["bot.example.com", "spiffe://example.com/bot"],
  notBeforeMs: 1_000,
  notAfterMs: 2_000,
  identity: { source: "client_certificate", name: "M\\C3\\BCller", scopes: [] },
};
const certificateWay = (subjects: string[] | null, sans: string[] | null = null) => ({
  kind: "client_certificate" as const,
  subjects: subjects === null ? null : new Set(subjects),
  sans: sans === null ? null : new Set(sans),
});
const NONE = { kind: "none" } as const;

test("a certificate admits by what a way names, and is called by what matched", () => {
  const nameBy = (...args: Parameters<typeof certificateWay>): string | undefined => {
    const permit = authorize([certificateWay(...args)], NONE, certificate);
    return "denied" in permit ? permit.denied : `${permit.identity?.source}:${permit.identity?.name}`;
  };
  assert.equal(nameBy(null), "client_certificate:M\\C3\\BCller");
  assert.equal(nameBy(["x", "Müller"]), "client_certificate:M\\C3\\BCller");
  assert.equal(nameBy(["CN=M\\C3\\BCller,O=Acme"]), "client_certificate:CN=M\\C3\\BCller,O=Acme");
  assert.equal(nameBy(["x"], ["y", "spiffe://example.com/bot"]), "client_certificate:spiffe://example.com/bot");
  for (const [subjects, sans] of [
    [["müller"]],
    [["M\\C3\\BCller"]],
    [["O=Acme"]],
    [["bot.example.com"]],
    [null, ["Müller"]],
    [["x"], ["y"]],
    [[]],
    [null, []],
  ] as const) {
    assert.equal(nameBy(subjects === null ? null : [...subjects], sans === undefined ? null : [...sans]), "certificate_not_admitted", String([subjects, sans]));
  }
});

test("any way in admits, by token or by certificate, and neither stands for the other", () => {
  const ci = authenticate("Bearer good-token", tokens);
  const wrong = authenticate("Bearer wrong", tokens);
  const admitted = (...args: Parameters<typeof authorize>): unknown => {
    const permit = authorize(...args);
    return "denied" in permit ? permit.denied : permit.identity?.source;
  };
  const both = [way(["ci"], ["mcp"]), certificateWay(["Müller"])];
  assert.equal(admitted(both, wrong, certificate), "client_certificate");
  assert.equal(admitted(both, NONE, certificate), "client_certificate");
  assert.equal(admitted(both, ci, certificate), "token");
  assert.equal(admitted(both, ci, null), "token");
  assert.equal(admitted([way(null, ["write"]), certificateWay(null)], ci, certificate), "client_certificate");
  assert.equal(admitted(both, NONE, null), "no_credentials");
  assert.equal(admitted(both, wrong, null), "invalid_credentials");
  assert.equal(admitted([way(null)], NONE, certificate), "no_credentials");
  assert.equal(admitted([certificateWay(null)], ci, null), "no_certificate");
  assert.equal(admitted([certificateWay(["ci"])], ci, certificate), "certificate_not_admitted");
  assert.equal(admitted([], NONE, certificate), "no_credentials");
});

test("a certificate counts from its first to its last moment", () => {
  assert.deepEqual(
    [999, 1_000, 2_000, 2_001].map((ms) => isValidAt(certificate, ms)),
    [false, true, true, false],
  );
});

const A = "https://mcp.example.com/a";
const B = "https://mcp.example.com/b";
const users = (...names: string[]): PeopleMatch => ({ ...NOBODY, users: new Set(names) });
const person = (source: Person["source"], subject: string): Person => ({
  source,
  subject,
  name: subject,
  email: null,
  domain: null,
  orgs: [],
  teams: [],
  groups: [],
  claims: {},
  peer: null,
});
/** What a token of our own, of an issuer, or a session proves of a user of that kind. */
function proof(by: Proof["by"], more: { subject?: string; scopes?: string[]; resource?: string | null; issuer?: string | null } = {}): Proof {
  const { subject = "sam", scopes = [], resource = null, issuer = null } = more;
  const identity = { source: issuer === null ? ("password" as const) : (`issuer:${issuer}` as const), name: subject, scopes };
  return { kind: "identity", by, identity, person: person(issuer === null ? "password" : "issuer", subject), issuer, resource, expiresAtMs: null };
}
const oauth = (resource: string, scopes: string[] = [], allow = users("sam")): AuthWayPlan => ({
  kind: "oauth",
  resource,
  scopes,
  allow,
  identityAssertions: new Set(),
});
const issuer = (name: string, scopes: string[] = [], allow: PeopleMatch | null = null): AuthWayPlan => ({ kind: "issuer", issuer: name, scopes, allow });
const session = (allow = users("sam")): AuthWayPlan => ({ kind: "session", allow });
const outcome = (ways: readonly AuthWayPlan[], authentication: Authentication): string => {
  const permit = authorize(ways, authentication);
  return "denied" in permit ? permit.denied : `in as ${permit.identity?.name}`;
};

test("#11 a token of our own counts for its resource alone", () => {
  assert.equal(outcome([oauth(A)], proof("oauth", { resource: A })), "in as sam");
  assert.equal(outcome([oauth(B)], proof("oauth", { resource: A })), "invalid_credentials");
  assert.equal(outcome([oauth(B), oauth(A)], proof("oauth", { resource: A })), "in as sam");
  for (const resource of [null, "", `${A}/`, A.toUpperCase(), "https://mcp.example.com"])
    assert.equal(outcome([oauth(A)], proof("oauth", { resource })), "invalid_credentials", String(resource));
  assert.equal(outcome([oauth("")], proof("oauth", { resource: "" })), "invalid_credentials", "two addresses that are none are not the same");
});

test("#12 an issuer's token counts for ways of that issuer alone, and one without a name for none", () => {
  assert.equal(outcome([issuer("corp")], proof("issuer", { issuer: "corp" })), "in as sam");
  assert.equal(outcome([issuer("corp")], proof("issuer", { issuer: "other" })), "invalid_credentials");
  assert.equal(outcome([issuer("corp")], proof("issuer", { issuer: null })), "invalid_credentials");
  assert.equal(outcome([issuer("corp"), issuer("other")], proof("issuer", { issuer: "other" })), "in as sam");
});

test("what was proven in one way does not open another, though it is the same person", () => {
  const all: [Proof["by"], AuthWayPlan, Proof][] = [
    ["token", way(null), { ...proof("token"), person: null }],
    ["oauth", oauth(A), proof("oauth", { resource: A })],
    ["issuer", issuer("corp"), proof("issuer", { issuer: "corp" })],
    ["session", session(), proof("session")],
  ];
  for (const [by, own] of all)
    for (const [kind, , shown] of all) assert.equal(outcome([own], shown), kind === by ? "in as sam" : "invalid_credentials", `${kind} shown to ${by}`);
  for (const [by, , shown] of all) assert.equal(outcome(all.map(([, own]) => own).toReversed(), shown), "in as sam", by);
});

test("who is known and not meant is told so; who is not known is not", () => {
  const eve = { subject: "eve" };
  for (const [ways, shown] of [
    [[oauth(A)], proof("oauth", { ...eve, resource: A })],
    [[issuer("corp", [], users("sam"))], proof("issuer", { ...eve, issuer: "corp" })],
    [[session()], proof("session", eve)],
    [[way(null), oauth(A), session()], proof("session", eve)],
  ] as const)
    assert.equal(outcome(ways, shown), "not_admitted");
  const denied = authorize([oauth(A)], proof("oauth", { ...eve, resource: A }));
  assert.ok("denied" in denied && denied.denied === "not_admitted" && denied.identity.name === "eve");
  assert.equal(outcome([issuer("corp", [], NOBODY)], proof("issuer", { issuer: "corp" })), "not_admitted", "an empty 'allow' is nobody");
  assert.equal(outcome([oauth(A)], { ...proof("oauth", { resource: A }), person: null }), "not_admitted");
  assert.equal(outcome([way(["ci"])], { ...proof("token"), person: null }), "invalid_credentials", "that a static token exists is not told");
});

test("#16 a missing scope is told with those that are granted, all together, and only to whom the way admits", () => {
  const shown = proof("oauth", { resource: A, scopes: ["mcp", "x"] });
  assert.deepEqual(authorize([oauth(A, ["mcp", "write"])], shown), { denied: "insufficient_scope", scopes: ["mcp", "x", "write"] });
  assert.deepEqual(authorize([oauth(A, ["write"]), oauth(A, ["admin"])], shown), { denied: "insufficient_scope", scopes: ["mcp", "x", "write"] });
  assert.equal(outcome([oauth(A, ["write"]), oauth(A, ["mcp"])], shown), "in as sam", "any way is enough");
  assert.equal(outcome([oauth(A, ["write"], users("eve"))], shown), "not_admitted");
  assert.equal(outcome([oauth(B, ["write"])], shown), "invalid_credentials");
  const foreign = proof("issuer", { issuer: "corp", scopes: ["mcp"] });
  assert.deepEqual(authorize([issuer("corp", ["mcp", "write"])], foreign), { denied: "insufficient_scope", scopes: ["mcp", "write"] });
  assert.equal(outcome([issuer("other", []), issuer("corp", ["write"])], foreign), "insufficient_scope");
  assert.equal(outcome([session()], proof("session")), "in as sam", "sessions have no scopes");
});

test("what cannot be checked is neither let in nor called wrong, unless a certificate admits", () => {
  const unavailable: Authentication = { kind: "unavailable", message: "down", retryAfterS: 5 };
  assert.deepEqual(authorize([issuer("corp")], unavailable), { denied: "unavailable", message: "down", retryAfterS: 5 });
  assert.ok(!("denied" in authorize([issuer("corp"), certificateWay(null)], unavailable, certificate)));
  assert.deepEqual(authorize([issuer("corp")], { kind: "invalid", reason: "The token has expired" }), {
    denied: "invalid_credentials",
    reason: "The token has expired",
  });
});

test("sources are asked in turn until one proves something, and what is not known weighs more than a no", async () => {
  const asked: string[] = [];
  const source = (name: string, answer: Authentication | null, late = false): TokenSource => ({
    find: () => {
      asked.push(name);
      return late ? Promise.resolve(answer) : answer;
    },
  });
  const known = proof("issuer", { issuer: "corp" });
  const no: Authentication = { kind: "invalid", reason: "The token is for another audience" };
  const down: Authentication = { kind: "unavailable", message: "down", retryAfterS: 5 };
  const ask = async (...sources: TokenSource[]): Promise<Authentication> => authenticateMaybe("Bearer x", tokens, sources);
  for (const late of [false, true]) {
    assert.equal(await ask(source("a", null, late), source("b", known, late), source("c", no)), known);
    assert.equal(await ask(source("a", no, late), source("b", known, late)), known, "two issuers of one name may differ in their audience");
    assert.equal(await ask(source("a", down, late), source("b", known, late)), known);
    assert.equal(await ask(source("a", no, late), source("b", null, late)), no);
    assert.equal(await ask(source("a", no, late), source("b", down, late)), down);
    assert.equal(await ask(source("a", down, late), source("b", no, late)), down);
    assert.deepEqual(await ask(source("a", null, late), source("b", null, late)), { kind: "invalid" });
    for (const word of [no, down]) {
      asked.length = 0;
      assert.equal(await ask({ ...source("own", word, late), isOwn: true }, source("b", known, late)), word);
      assert.deepEqual(asked, ["own"], "a token of ours, or one that may be, is shown to no issuer");
    }
    assert.equal(await ask({ ...source("own", null, late), isOwn: true }, source("b", known, late)), known);
  }
  asked.length = 0;
  const ci = authenticateMaybe("Bearer good-token", tokens, [source("a", known)]);
  assert.ok(!(ci instanceof Promise) && ci.kind === "identity" && ci.by === "token");
  assert.deepEqual(asked, [], "a static token is shown to nobody");
});
