import assert from "node:assert/strict";
import { createHmac, KeyObject, randomUUID, sign as signBytes } from "node:crypto";
import { test, type TestContext } from "node:test";
import { exportSPKI } from "jose";
import { issuerPlan, json, makeKey, signToken, startFakeIssuer, type FakeIssuer, type SigningKey } from "../../test/components/fake-issuer.ts";
import { waitFor } from "../../test/components/wait.ts";
import type { IssuerPlan, ScopePlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Authentication } from "./authenticate.ts";
import { metadataUrls } from "./issuer-metadata.ts";
import { audienceKey, proofFromClaims } from "./issuer-person.ts";
import { openIssuer, type LiveIssuer } from "./issuer.ts";
import { NOBODY } from "../plan/build-people.ts";

const AUDIENCE = "https://mcp.example.com/mcp";
const logged: unknown[] = [];
const logLine = (...args: unknown[]): void => void logged.push(args);
const log = { debug: logLine, info: logLine, warn: logLine, error: logLine } as unknown as Log;
const key = await makeKey("k1");

/** An issuer with one key, and what we make of it; both end with the test. */
async function start(
  t: TestContext,
  partial: Partial<IssuerPlan> = {},
  scopes: ReadonlyMap<string, ScopePlan> = new Map(),
): Promise<{ fake: FakeIssuer; live: LiveIssuer }> {
  const fake = await startFakeIssuer();
  fake.keys.push(key);
  const live = openIssuer(issuerPlan(fake.issuer, partial), log, scopes);
  t.after(async () => {
    live.close();
    await fake[Symbol.asyncDispose]();
  });
  return { fake, live };
}

async function reason(live: LiveIssuer, token: string): Promise<string> {
  const found = await live.find(token);
  if (found === null) return "not ours";
  return found.kind === "invalid" ? (found.reason ?? "invalid") : found.kind;
}

async function proof(live: LiveIssuer, token: string): Promise<Extract<Authentication, { kind: "identity" }>> {
  const found = await live.find(token);
  assert.ok(found?.kind === "identity", JSON.stringify(found));
  return found;
}

const encode = (value: unknown): string => Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url");
const now = (): number => Math.floor(Date.now() / 1_000);

/** A token that no library would make: any header, any payload, signed with whatever `sign` does. */
function forge(header: unknown, payload: unknown, sign: (input: string) => Buffer = () => Buffer.alloc(0)): string {
  const input = `${encode(header)}.${encode(payload)}`;
  return `${input}.${sign(input).toString("base64url")}`;
}

const signedBy =
  ({ privateKey }: SigningKey) =>
  (input: string): Buffer =>
    signBytes("sha256", Buffer.from(input), { key: KeyObject.from(privateKey), dsaEncoding: "ieee-p1363" });

test("a token of the issuer is a proof of who, with scopes and an end", async (t) => {
  const { fake, live } = await start(t, { userClaim: ["preferred_username"] });
  const exp = now() + 300;
  const token = await signToken(fake.issuer, key, {
    exp,
    preferred_username: "Zoë",
    email: "Zoe@Example.com",
    email_verified: true,
    groups: ["ops", "dev"],
    scope: 'mcp mcp:write bad"scope',
    azp: "app",
  });
  const found = await proof(live, token);
  assert.deepEqual(found.identity, {
    source: "issuer:corp",
    name: "Zo\\C3\\AB",
    scopes: ["mcp", "mcp:write"],
    email: "zoe@example.com",
    groups: ["ops", "dev"],
    client: "app",
  });
  assert.deepEqual([found.by, found.issuer, found.resource, found.expiresAtMs], ["issuer", "corp", null, exp * 1_000 + 30_000]);
  assert.deepEqual([found.person?.source, found.person?.subject, found.person?.domain], ["issuer", "u-1", "example.com"]);
  const again = live.find(token);
  assert.equal(again, found, "what was verified a moment ago is known at once, as the same object");
  assert.equal(fake.hits.get("/keys"), 1);
});

test("a token signed with Ed25519 is taken under both names of its algorithm (RFC 9864), and only if they are listed", async (t) => {
  for (const alg of ["Ed25519", "EdDSA"]) {
    const own = await makeKey("ed", alg);
    const { fake, live } = await start(t);
    fake.keys.push(own);
    assert.equal((await proof(live, await signToken(fake.issuer, own))).identity.name, "u-1");
    const other = await start(t, { algorithms: ["ES256"] });
    other.fake.keys.push(own);
    assert.equal(await reason(other.live, await signToken(other.fake.issuer, own)), "The token's algorithm is not accepted");
  }
});

test("a scope that is for some comes to nobody else, in the token, by a grant or by another scope", async (t) => {
  const scopes = new Map<string, ScopePlan>([
    ["write", { name: "write", description: null, includes: new Set(), allow: { ...NOBODY, groups: new Set(["ops"]) } }],
    ["all", { name: "all", description: null, includes: new Set(["write"]), allow: null }],
  ]);
  const { fake, live } = await start(t, {}, scopes);
  const scopesOf = async (claims: Record<string, unknown>): Promise<readonly string[]> =>
    (await proof(live, await signToken(fake.issuer, key, claims))).identity.scopes;
  assert.deepEqual(await scopesOf({ scope: "write all", groups: ["ops"] }), ["write", "all"]);
  assert.deepEqual(await scopesOf({ scope: "write all" }), ["all"]);
  assert.deepEqual(await scopesOf({ scope: "all" }), ["all"]);
});

test("scopes come from scope, scp or a claim of choice, and from grants, with all that they include", async (t) => {
  const scopes = new Map<string, ScopePlan>([["admin", { name: "admin", description: null, includes: new Set(["read"]), allow: null }]]);
  const { fake, live } = await start(t, { grants: [{ scopes: ["admin"], allow: { ...NOBODY, groups: new Set(["ops"]) } }] }, scopes);
  const scopesOf = async (claims: Record<string, unknown>, who = live): Promise<readonly string[]> =>
    (await proof(who, await signToken(fake.issuer, key, claims))).identity.scopes;
  assert.deepEqual(await scopesOf({ scp: ["a", "b"] }), ["a", "b"]);
  assert.deepEqual(await scopesOf({ scp: "a b" }), ["a", "b"]);
  assert.deepEqual(await scopesOf({ scope: "x", scp: "a b" }), ["x"]);
  assert.deepEqual(await scopesOf({ scope: 7 }), []);
  assert.deepEqual(await scopesOf({ scope: ["a b", "c\r\nX: y", 'd"', "e"] }), ["e"], "an entry of a list is one scope or none");
  assert.deepEqual(await scopesOf({ scope: "a", groups: ["ops"] }), ["a", "admin", "read"]);
  assert.deepEqual(await scopesOf({ scope: "a", groups: ["other"] }), ["a"]);
  const other = openIssuer(issuerPlan(fake.issuer, { scopesClaim: ["realm_access", "roles"] }), log, new Map());
  t.after(() => other.close());
  assert.deepEqual(await scopesOf({ scope: "a", realm_access: { roles: ["r"] } }, other), ["r"]);
  assert.deepEqual(await scopesOf({ scope: "a" }, other), []);
});

test("an e-mail address counts only when it was verified, and a client's id is nobody's 'sub'", async (t) => {
  const { fake, live } = await start(t, { userClaim: ["email"] });
  const personOf = async (claims: Record<string, unknown>): Promise<unknown[]> => {
    const { identity, person } = await proof(live, await signToken(fake.issuer, key, { jti: randomUUID(), ...claims }));
    return [identity.name, person?.subject, person?.email, person?.domain];
  };
  assert.deepEqual(await personOf({ email: "ceo@example.com" }), ["u-1", "u-1", null, null]);
  assert.deepEqual(await personOf({ email: "ceo@example.com", email_verified: false }), ["u-1", "u-1", null, null]);
  assert.deepEqual(await personOf({ email: "ceo@example.com", email_verified: "true" }), ["ceo@example.com", "u-1", "ceo@example.com", "example.com"]);
  assert.deepEqual((await personOf({ email: "\u212Aim@example.com", email_verified: true }))[2], "\u212Aim@example.com", "the Kelvin sign is no k");
  assert.deepEqual((await personOf({ email: "a@evil.com@example.com", email_verified: true }))[2], null);
  assert.deepEqual(await personOf({ sub: undefined, client_id: "u-1" }), ["client:u-1", "client:u-1", null, null]);
  assert.equal(await reason(live, await signToken(fake.issuer, key, { sub: undefined })), "The token does not say whom it speaks of");
  assert.equal(await reason(live, await signToken(fake.issuer, key, { sub: 7, client_id: "x" })), "The token does not say whom it speaks of");
});

test("of Google accounts the domain is that of the organisation, not that of an address which anybody may have had verified", () => {
  const domain = (issuer: string, claims: Record<string, unknown>): string | null | undefined =>
    proofFromClaims(
      { sub: "1", aud: AUDIENCE, email: "eve@example.com", email_verified: true, ...claims },
      new Set([AUDIENCE]),
      issuerPlan(issuer),
      new Map(),
      false,
    ).person?.domain;
  assert.equal(domain("https://accounts.google.com", {}), null);
  assert.equal(domain("https://accounts.google.com", { hd: "Example.org" }), "example.org");
  assert.equal(domain("https://login.example.com", { hd: "example.org" }), "example.com");
});

test("#12 tokens that are expired, not valid yet, endless, or for nobody in particular are refused with the reason", async (t) => {
  const { fake, live } = await start(t);
  const refused = async (claims: Record<string, unknown>, header: Record<string, unknown> = {}): Promise<string> =>
    reason(live, await signToken(fake.issuer, key, claims, header));
  assert.equal(await refused({ exp: now() - 60 }), "The token has expired");
  assert.equal(await refused({ exp: undefined }), "The token does not say when it expires");
  assert.equal(await refused({ nbf: now() + 60 }), "The token is not valid yet");
  assert.equal(await refused({ aud: undefined }), "The token does not say for whom it is");
  assert.equal(await refused({ aud: "https://other.example.com" }), "The token is for another audience");
  assert.equal(await refused({ aud: [] }), "The token is for another audience");
  assert.equal(await refused({ aud: ["https://other.example.com", 7] }), "The token is malformed");
  assert.equal(await refused({ aud: { [AUDIENCE]: true } }), "The token is malformed");
  assert.equal(await refused({ aud: `${AUDIENCE} https://other.example.com` }), "The token is for another audience");
  assert.equal(await refused({ aud: ["https://other.example.com", AUDIENCE] }), "identity");
  assert.equal(await refused({ cnf: { jkt: "x" } }), "The token is bound to a key, and cannot be used as a bearer token");
  for (const exp of ["9999999999", null, true, {}]) {
    const token = forge({ alg: "ES256", kid: "k1", typ: "at+jwt" }, { iss: fake.issuer, sub: "u", aud: AUDIENCE, exp }, signedBy(key));
    assert.match(await reason(live, token), /^The token (?:is not valid|does not say when it expires)$/, String(exp));
  }
});

test("#12 clocks may differ by the tolerance, and no more", async (t) => {
  const { fake, live } = await start(t, { clockToleranceMs: 30_000 });
  const refused = async (claims: Record<string, unknown>): Promise<string> => reason(live, await signToken(fake.issuer, key, claims));
  assert.equal(await refused({ exp: now() - 20 }), "identity");
  assert.equal(await refused({ exp: now() - 31 }), "The token has expired");
  assert.equal(await refused({ nbf: now() + 20 }), "identity");
  assert.equal(await refused({ nbf: now() + 40 }), "The token is not valid yet");
});

test("#12 a token signed with alg none is refused, in any spelling and with any signature", async (t) => {
  const { fake, live } = await start(t);
  const claims = { iss: fake.issuer, sub: "admin", aud: AUDIENCE, exp: now() + 300 };
  for (const alg of ["none", "None", "NONE", "nOnE", "", null, undefined, 0, ["ES256"], { alg: "ES256" }])
    for (const signature of [Buffer.alloc(0), Buffer.from("x")]) {
      const found = await reason(
        live,
        forge({ alg, typ: "at+jwt", kid: "k1" }, claims, () => signature),
      );
      assert.equal(found, "The token's algorithm is not accepted", JSON.stringify(alg));
    }
  assert.equal(fake.hits.get("/keys"), undefined, "it costs no fetch");
});

test("#12 an HMAC made with the public key as its secret is refused, even where the file lists the algorithm", async (t) => {
  const rsa = await makeKey("rsa", "RS256");
  const { fake, live } = await start(t, { algorithms: ["RS256", "HS256"] });
  fake.keys.push(rsa);
  const claims = { iss: fake.issuer, sub: "admin", aud: AUDIENCE, exp: now() + 300 };
  const secrets = [await exportSPKI(rsa.publicKey), (await exportSPKI(rsa.publicKey)).trim(), JSON.stringify(rsa.jwk), rsa.jwk.n ?? "", ""];
  for (const secret of secrets)
    for (const kid of ["rsa", "k1", undefined]) {
      const token = forge({ alg: "HS256", typ: "at+jwt", kid }, claims, (input) => createHmac("sha256", secret).update(input).digest());
      assert.match(await reason(live, token), /^The token /);
    }
  assert.equal(await reason(live, await signToken(fake.issuer, rsa)), "identity", "the key itself is good");
});

test("#12 a symmetric or private key in the issuer's document verifies nothing", async (t) => {
  const { fake, live } = await start(t);
  fake.pages.set("/keys", json({ keys: [{ kty: "oct", kid: "k1", k: encode("secret"), alg: "HS256" }, key.jwk] }));
  const claims = { iss: fake.issuer, sub: "admin", aud: AUDIENCE, exp: now() + 300 };
  const token = forge({ alg: "HS256", typ: "at+jwt", kid: "k1" }, claims, (input) => createHmac("sha256", "secret").update(input).digest());
  assert.equal(await reason(live, token), "The token's algorithm is not accepted");
  assert.equal(await reason(live, await signToken(fake.issuer, key)), "identity");
});

test("#12 keys and addresses that a token brings along are ignored", async (t) => {
  const { fake, live } = await start(t);
  const evil = await makeKey("k1");
  const spki = Buffer.from((await exportSPKI(evil.publicKey)).replaceAll(/-----[^-]+-----|\s/g, ""), "base64").toString("base64");
  const hits = { count: 0 };
  fake.pages.set("/evil", (req, res, body) => {
    hits.count += 1;
    return json({ keys: [evil.jwk] })(req, res, body);
  });
  for (const header of [{ jwk: evil.jwk }, { jku: `${fake.origin}/evil` }, { x5u: `${fake.origin}/evil` }, { x5c: [spki] }]) {
    assert.equal(await reason(live, await signToken(fake.issuer, evil, {}, header)), "The token's signature is not valid", JSON.stringify(header));
    assert.equal(await reason(live, await signToken(fake.issuer, key, {}, header)), "identity", "nor do they harm a good one");
  }
  assert.equal(hits.count, 0);
});

test("#12 names of keys lead nowhere but to the issuer's keys", async (t) => {
  const { fake, live } = await start(t);
  const evil = await makeKey("evil");
  await proof(live, await signToken(fake.issuer, key));
  const claims = { iss: fake.issuer, sub: "admin", aud: AUDIENCE, exp: now() + 300 };
  for (const kid of ["../../dev/null", "__proto__", "constructor", "k1\u0000", "K1", "k1 ", "' OR 1=1 --", "x".repeat(4_000), ""])
    assert.equal(await reason(live, forge({ alg: "ES256", typ: "at+jwt", kid }, claims, signedBy(evil))), "The token is signed with an unknown key", kid);
  for (const kid of [null, 1, ["k1"], { kid: "k1" }])
    assert.equal(await reason(live, forge({ alg: "ES256", typ: "at+jwt", kid }, claims, signedBy(evil))), "The token is malformed");
  assert.equal(await reason(live, await signToken(fake.issuer, evil, {}, { kid: undefined })), "The token's signature is not valid");
});

test("#12 a token without the name of its key is tried with all that could be meant", async (t) => {
  const { fake, live } = await start(t);
  fake.keys.push(await makeKey("k2"), await makeKey("k3"));
  const [, , third] = fake.keys;
  assert.ok(third !== undefined);
  assert.equal(await reason(live, await signToken(fake.issuer, third, {}, { kid: undefined })), "identity");
  assert.equal(await reason(live, await signToken(fake.issuer, third, { aud: "x" }, { kid: undefined })), "The token is for another audience");
  assert.equal(await reason(live, await signToken(fake.issuer, third, { exp: 1 }, { kid: undefined })), "The token has expired");
  assert.equal(await reason(live, await signToken(fake.issuer, await makeKey("evil"), {}, { kid: undefined })), "The token's signature is not valid");
});

test("#12 an algorithm that the file does not list is refused though the key is the issuer's", async (t) => {
  const ps = await makeKey("ps", "PS256");
  const es384 = await makeKey("es384", "ES384");
  const { fake, live } = await start(t, { algorithms: ["ES256"] });
  fake.keys.push(ps, es384);
  for (const one of [ps, es384]) assert.equal(await reason(live, await signToken(fake.issuer, one)), "The token's algorithm is not accepted");
});

test("#12 types that are not listed are refused, whatever their case; none only where the file says so", async (t) => {
  const { fake, live } = await start(t);
  const withType = async (typ: unknown, who = live): Promise<string> => reason(who, await signToken(fake.issuer, key, {}, { typ }));
  for (const typ of ["at+jwt", "AT+JWT", "application/at+jwt", "Application/AT+JWT", "JWT", "jwt"]) assert.equal(await withType(typ), "identity", typ);
  for (const typ of [undefined, "none", "", "id+jwt", "logout+jwt", "dpop+jwt", "secevent+jwt", "at+jwt ", "application/application/at+jwt"])
    assert.equal(await withType(typ), "The token is of a type that is not accepted", String(typ));
  const lax = openIssuer(issuerPlan(fake.issuer, { types: new Set(["none"]) }), log, new Map());
  t.after(() => lax.close());
  assert.equal(await withType(undefined, lax), "identity");
  assert.equal(await withType("none", lax), "The token is of a type that is not accepted");
  assert.equal(await withType("at+jwt", lax), "The token is of a type that is not accepted");
});

test("#12 an ID token, a logout token and a refresh token are no access tokens, though their audience may be ours", async (t) => {
  const { fake, live } = await start(t);
  const withClaims = async (claims: Record<string, unknown>, typ = "JWT"): Promise<string> => reason(live, await signToken(fake.issuer, key, claims, { typ }));
  for (const claims of [{ nonce: "n" }, { at_hash: "x" }, { c_hash: "x" }, { typ: "ID" }, { typ: "Refresh" }, { events: {} }, { typ: "ID", nonce: "n" }])
    assert.equal(await withClaims(claims), "The token is no access token", JSON.stringify(claims));
  assert.equal(await withClaims({ typ: "Bearer", nonce: "n" }), "identity", "as older Keycloaks have it");
  assert.equal(await withClaims({ nonce: "n" }, "at+jwt"), "identity", "a type of its own leaves no doubt");
});

test("#12 critical extensions are refused, known or not", async (t) => {
  const { fake, live } = await start(t);
  const claims = { iss: fake.issuer, sub: "u", aud: AUDIENCE, exp: now() + 300 };
  for (const more of [{ crit: ["exp"], exp: 1 }, { crit: ["b64"], b64: false }, { crit: ["b64"], b64: true }, { crit: [] }, { crit: null }, { crit: "b64" }])
    assert.equal(
      await reason(live, forge({ alg: "ES256", typ: "at+jwt", kid: "k1", ...more }, claims, signedBy(key))),
      "The token has a critical extension that is not known",
      JSON.stringify(more),
    );
});

test("#12 another issuer's token is not ours, and one that pretends to be is refused", async (t) => {
  const { fake, live } = await start(t);
  const other = await start(t, { name: "other" });
  const evil = await makeKey("k1");
  other.fake.keys.splice(0, 1, evil);
  assert.equal(await reason(live, await signToken(other.fake.issuer, evil)), "not ours");
  assert.equal(await reason(live, await signToken(fake.issuer, evil)), "The token's signature is not valid");
  for (const iss of [`${fake.issuer}/`, fake.issuer.toUpperCase(), `${fake.issuer}#`, [fake.issuer], { [fake.issuer]: 1 }, undefined, ""])
    assert.equal(await reason(live, await signToken(fake.issuer, key, { iss })), "not ours", JSON.stringify(iss));
});

test("#12 rubbish is not ours and breaks nothing: huge, deeply nested, half a token", async (t) => {
  const { fake, live } = await start(t);
  const deep = `${"[".repeat(100_000)}${"]".repeat(100_000)}`;
  const claims = `{"iss":${JSON.stringify(fake.issuer)},"sub":"u","aud":"${AUDIENCE}","exp":${now() + 300},"deep":${deep}}`;
  for (const token of ["", ".", "..", "a.b.c", "a.b.c.d.e", "....", `${encode("{}")}.${encode("[]")}.x`, "x".repeat(1_000_000), forge(`[${deep}]`, claims)])
    assert.equal(await reason(live, token), "not ours", token.slice(0, 20));
  const signed = forge({ alg: "ES256", typ: "at+jwt", kid: "k1" }, claims, signedBy(key));
  assert.equal(await reason(live, signed), "identity", "what nobody asks for does not matter");
  assert.equal(await reason(live, `${signed}x`), "The token's signature is not valid");
  assert.equal(await reason(live, signed.slice(0, -8)), "The token's signature is not valid");
  const groups = forge({ alg: "ES256", typ: "at+jwt", kid: "k1" }, claims.replace('"deep"', '"groups"'), signedBy(key));
  assert.equal(await reason(live, groups), "identity");
});

test("#13 audiences are compared without regard to the host's case and a slash at the end, and to nothing else", async (t) => {
  const { fake, live } = await start(t, { audiences: new Set([AUDIENCE, "api://Corp"]) });
  const withAudience = async (aud: string): Promise<boolean> => (await reason(live, await signToken(fake.issuer, key, { aud }))) === "identity";
  for (const aud of [AUDIENCE, `${AUDIENCE}/`, "https://MCP.Example.com/mcp", "HTTPS://mcp.example.com/mcp/", "api://Corp"])
    assert.ok(await withAudience(aud), aud);
  const others = [
    "https://mcp.example.com/MCP",
    "https://mcp.example.com/mcp//",
    "https://mcp.example.com",
    "https://mcp.example.com/x/../mcp",
    "https://mcp.example.com/mcp?",
    "https://mcp.example.com/mcp#",
    "https://mcp.example.com:443/mcp",
    "https://evil@mcp.example.com/mcp",
    "http://mcp.example.com/mcp",
    " https://mcp.example.com/mcp",
    "https:\\\\mcp.example.com\\mcp",
    "https://mcp.example.com.evil.com/mcp",
    "api://corp",
    "api://Corp/",
    "api://other",
  ];
  for (const aud of others) assert.ok(!(await withAudience(aud)), aud);
  assert.equal(audienceKey("https://h/a?b=/"), "https://h/a?b=/");
});

test("metadata is found wherever the issuer has it, and only its own counts", async (t) => {
  assert.deepEqual(metadataUrls("https://h/a/"), [
    "https://h/a/.well-known/openid-configuration",
    "https://h/.well-known/oauth-authorization-server/a",
    "https://h/.well-known/openid-configuration/a",
    "https://h/a/.well-known/oauth-authorization-server",
  ]);
  assert.deepEqual(metadataUrls("https://h"), ["https://h/.well-known/openid-configuration", "https://h/.well-known/oauth-authorization-server"]);
  for (const place of [
    "/t/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server/t",
    "/.well-known/openid-configuration/t",
    "/t/.well-known/oauth-authorization-server",
  ]) {
    await using fake = await startFakeIssuer({ path: "/t", metadata: place });
    fake.keys.push(key);
    if (place !== "/t/.well-known/openid-configuration") {
      // A page for people, and the metadata of somebody else, stand in the places before.
      fake.pages.set("/t/.well-known/openid-configuration", (_req, res) => void res.end("<html>"));
    }
    const live = openIssuer(issuerPlan(fake.issuer), log, new Map());
    t.after(() => live.close());
    assert.equal(await reason(live, await signToken(fake.issuer, key)), "identity", place);
    assert.equal(JSON.parse((await live.metadata()) ?? "")?.issuer, fake.issuer);
  }
  const { fake, live } = await start(t);
  fake.pages.set("/.well-known/openid-configuration", json({ issuer: `${fake.issuer}/`, jwks_uri: `${fake.origin}/keys` }));
  const found = await live.find(await signToken(fake.issuer, key));
  assert.ok(found?.kind === "unavailable" && /is that of 'http.*\/'/.test(found.message), JSON.stringify(found));
  assert.equal(fake.hits.get("/keys"), undefined);
  assert.equal(await live.metadata(), null);
});

test("metadata cannot send the gateway to an address without TLS, and redirects are not followed", async (t) => {
  const { fake, live } = await start(t);
  fake.pages.set("/.well-known/openid-configuration", json({ issuer: fake.issuer, jwks_uri: "http://169.254.169.254/latest" }));
  const found = await live.find(await signToken(fake.issuer, key));
  assert.ok(found?.kind === "unavailable" && found.message.includes("which is no https URL"), JSON.stringify(found));
  const other = await start(t);
  other.fake.pages.set("/elsewhere", json({ keys: [key.jwk] }));
  other.fake.pages.set("/keys", (_req, res) => void res.writeHead(302, { location: "/elsewhere" }).end());
  assert.equal(await reason(other.live, await signToken(other.fake.issuer, key)), "unavailable");
  assert.equal(other.fake.hits.get("/elsewhere"), undefined);
});

test("a flood of invented key names costs one fetch in 30 s, and rotated keys are found by the first token that needs them", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  assert.equal(await reason(live, await signToken(fake.issuer, key)), "identity");
  assert.equal(fake.hits.get("/keys"), 1);
  const evil = await makeKey("evil");
  const flood = async (): Promise<void> => {
    const found = await Promise.all(Array.from({ length: 50 }, async () => reason(live, await signToken(fake.issuer, evil, {}, { kid: randomUUID() }))));
    assert.deepEqual([...new Set(found)], ["The token is signed with an unknown key"]);
  };
  await flood();
  await flood();
  assert.equal(fake.hits.get("/keys"), 2);
  t.mock.timers.tick(29_000);
  await flood();
  assert.equal(fake.hits.get("/keys"), 2);
  t.mock.timers.tick(1_000);
  await flood();
  assert.equal(fake.hits.get("/keys"), 3);
  const next = await makeKey("k2");
  fake.keys.push(next);
  t.mock.timers.tick(30_000);
  const found = await Promise.all(Array.from({ length: 20 }, async (_one, i) => reason(live, await signToken(fake.issuer, next, { jti: String(i) }))));
  assert.deepEqual([...new Set(found)], ["identity"]);
  assert.equal(fake.hits.get("/keys"), 4, "many at once wait for one fetch");
});

test("#12 when the issuer has swapped its keys, tokens of the old ones are refused; forged ones always were", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  const old = await signToken(fake.issuer, key);
  assert.equal(await reason(live, old), "identity");
  const next = await makeKey("k1");
  fake.keys.splice(0, 1, next);
  assert.equal(await reason(live, await signToken(fake.issuer, await makeKey("k1"))), "The token's signature is not valid");
  t.mock.timers.tick(30_000);
  assert.equal(await reason(live, await signToken(fake.issuer, next)), "identity", "also under the name of the old key");
  assert.equal(await reason(live, old), "The token's signature is not valid");
  assert.equal(await reason(live, await signToken(fake.issuer, await makeKey("k1"))), "The token's signature is not valid");
});

test("keys that the issuer no longer has are forgotten within ten minutes, without a token that asks for it", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  const long = await signToken(fake.issuer, key, { exp: now() + 86_400 });
  assert.equal(await reason(live, long), "identity");
  fake.keys.splice(0, 1, await makeKey("k2"));
  t.mock.timers.tick(600_000);
  assert.equal(await reason(live, long), "The token is signed with an unknown key");
});

test("an issuer that cannot be asked is told as failing, by what began it, and as well again when it has answered", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  const who = { kind: "issuer", name: "corp", url: fake.issuer };
  assert.deepEqual(live.provider(), { ...who, outage: null }, "nothing was asked yet");
  const beganMs = Date.now();
  await fake.down();
  const token = await signToken(fake.issuer, key);
  assert.equal(await reason(live, token), "unavailable");
  const { outage, ...rest } = live.provider();
  assert.deepEqual(rest, who);
  assert.match(outage?.error ?? "", /^Issuer 'corp' cannot be asked at 'http:\/\/127\.0\.0\.1:\d+': connection refused$/);
  assert.equal(outage?.sinceMs, beganMs);
  await fake.up();
  t.mock.timers.tick(5_000);
  assert.equal(await reason(live, token), "identity");
  assert.equal(live.provider().outage, null);
  // Its keys alone: what is known goes on, and the operator hears of it.
  fake.pages.set("/keys", json({}, 500));
  t.mock.timers.tick(5 * 60_000);
  assert.equal(await reason(live, await signToken(fake.issuer, key, { jti: "2" })), "identity");
  await waitFor(() => live.provider().outage?.error.includes("answered with status 500 at"));
});

test("while the issuer is down its known keys serve for a day, and nobody waits for it", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  const long = await signToken(fake.issuer, key, { exp: now() + 10 * 86_400 });
  assert.equal(await reason(live, long), "identity");
  await fake.down();
  t.mock.timers.tick(11 * 60_000);
  assert.equal(await reason(live, long), "identity");
  t.mock.timers.tick(12 * 3_600_000);
  assert.equal(await reason(live, long), "identity");
  const unknown = await live.find(await signToken(fake.issuer, await makeKey("k2")));
  assert.equal(unknown?.kind, "unavailable", "nobody can say whether that key is the issuer's");
  t.mock.timers.tick(12 * 3_600_000);
  const found = await live.find(long);
  assert.ok(found?.kind === "unavailable" && found.retryAfterS > 0 && found.message.includes("connection refused"), JSON.stringify(found));
  await fake.up();
  t.mock.timers.tick(5_000);
  assert.equal(await reason(live, long), "identity");
});

test("keys that have moved to another address are found there", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  assert.equal(await reason(live, await signToken(fake.issuer, key)), "identity");
  const next = await makeKey("k2");
  fake.pages.set("/.well-known/openid-configuration", json({ issuer: fake.issuer, jwks_uri: `${fake.origin}/moved` }));
  fake.pages.set("/moved", json({ keys: [next.jwk] }));
  fake.pages.set("/keys", json({}, 404));
  t.mock.timers.tick(60_000);
  const token = await signToken(fake.issuer, next);
  assert.equal(await reason(live, token), "unavailable", "the first look goes to where they were");
  t.mock.timers.tick(30_000);
  assert.equal(await reason(live, token), "identity");
});

test("a gateway that was there before its issuer serves as soon as that is up, and asks no more than each 5 s", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  fake.pages.set("/.well-known/openid-configuration", json({}, 503));
  const token = await signToken(fake.issuer, key);
  for (let i = 0; i < 5; i += 1) assert.equal(await reason(live, token), "unavailable");
  assert.equal(fake.hits.get("/.well-known/openid-configuration"), 1);
  fake.pages.set("/.well-known/openid-configuration", json({ issuer: fake.issuer, jwks_uri: `${fake.origin}/keys` }));
  assert.equal(await reason(live, token), "unavailable");
  t.mock.timers.tick(5_000);
  assert.equal(await reason(live, token), "identity");
});

test("a document of keys that is empty, malformed or too long does not take the place of a good one", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t);
  const token = (): Promise<string> => signToken(fake.issuer, key, { jti: randomUUID(), exp: now() + 86_400 });
  assert.equal(await reason(live, await token()), "identity");
  const encryption = { ...key.jwk, use: "enc" };
  for (const wrong of [
    "",
    "[]",
    "null",
    "{",
    '{"keys":[]}',
    '{"keys":{}}',
    '{"keys":[7]}',
    { keys: [encryption] },
    { keys: [key.jwk], more: "x".repeat(270_000) },
  ]) {
    fake.pages.set("/keys", json(wrong));
    const before = fake.hits.get("/keys") ?? 0;
    t.mock.timers.tick(11 * 60_000);
    await waitFor(
      async () => {
        // The look of the round before may still be on its way.
        t.mock.timers.tick(31_000);
        assert.equal(await reason(live, await token()), "identity", JSON.stringify(wrong).slice(0, 50));
        return (fake.hits.get("/keys") ?? 0) > before;
      },
      { abortOnError: true },
    );
  }
});

test("a request that waits for an issuer which goes with a reload still gets its answer", async (t) => {
  const { fake, live } = await start(t);
  const { promise, resolve } = Promise.withResolvers<void>();
  fake.pages.set("/keys", async (req, res, body) => {
    await promise;
    return json({ keys: [key.jwk] })(req, res, body);
  });
  const found = live.find(await signToken(fake.issuer, key));
  await waitFor(() => fake.hits.get("/keys") === 1);
  live.close();
  resolve();
  assert.equal((await found)?.kind, "identity");
});

test("an issuer that takes a connection and says nothing costs one wait of 5 s", async (t) => {
  const { fake, live } = await start(t);
  fake.pages.set("/keys", () => {});
  const began = performance.now();
  const found = await live.find(await signToken(fake.issuer, key));
  assert.ok(found?.kind === "unavailable" && found.message.includes("no answer within 5 s"), JSON.stringify(found));
  assert.ok(performance.now() - began < 7_000);
  const again = performance.now();
  assert.equal(await reason(live, await signToken(fake.issuer, key)), "unavailable");
  assert.ok(performance.now() - again < 1_000);
});

test("a token that was verified is known for 10 s, and never past its end", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { fake, live } = await start(t, { clockToleranceMs: 0 });
  const long = await signToken(fake.issuer, key);
  const short = await signToken(fake.issuer, key, { exp: now() + 4 });
  await live.find(long);
  await live.find(short);
  t.mock.timers.tick(3_000);
  assert.ok(!(live.find(long) instanceof Promise) && !(live.find(short) instanceof Promise));
  t.mock.timers.tick(2_000);
  assert.equal(await reason(live, short), "The token has expired");
  t.mock.timers.tick(5_000);
  assert.ok(live.find(long) instanceof Promise);
});

test("no token is ever in the log", () => {
  assert.ok(logged.length > 10);
  assert.doesNotMatch(JSON.stringify(logged), /eyJ[A-Za-z0-9_-]{10}/);
});
