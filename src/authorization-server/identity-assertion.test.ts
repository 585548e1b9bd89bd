import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { exportJWK, SignJWT } from "jose";
import { issuerPlan, json, makeKey, signToken, startFakeIssuer, type FakeIssuer, type SigningKey } from "../../test/components/fake-issuer.ts";
import { memoryStore } from "../../test/components/memory-store.ts";
import { client, ISSUER, OAuthServer, resource, type Reply } from "../../test/components/oauth-server.ts";
import { createTestCa } from "../../test/components/pki.ts";
import { authorize } from "../identity/authorize.ts";
import { openIssuer, type LiveIssuer } from "../identity/issuer.ts";
import type { AuthorizationServerPlan, IssuerPlan, OAuthResourcePlan, PeopleMatch } from "../plan/auth-model.ts";
import { NOBODY } from "../plan/build-people.ts";
import type { Log } from "../telemetry/log.ts";
import { JWT_BEARER } from "./adapter.ts";

const SECRET = "a-secret-of-the-agent-that-is-long-enough";
const RESOURCE = `${ISSUER}/mcp`;
const ENGINEERS: PeopleMatch = { ...NOBODY, groups: new Set(["eng"]) };
const nothing = (): void => {};
const log = { debug: nothing, info: nothing, warn: nothing, error: nothing } as unknown as Log;
const key = await makeKey("k1");

type Claims = Record<string, unknown>;
type Setting = { readonly fake: FakeIssuer; readonly live: LiveIssuer; readonly oauth: OAuthServer };

/** An issuer whose access tokens open nothing. */
function vouching(issuer: string, partial: Partial<IssuerPlan> = {}): IssuerPlan {
  return issuerPlan(issuer, { audiences: new Set(), algorithms: ["ES256"], userClaim: ["preferred_username"], ...partial });
}

/** A resource that engineers come to whom `corp` vouches for. */
function taking(fake: FakeIssuer, changes: Partial<OAuthResourcePlan> = {}, allow = ENGINEERS): OAuthResourcePlan {
  return resource({ allow: [allow], assertions: [{ issuers: new Map([["corp", fake.issuer]]), allow }], ...changes });
}

async function open(
  t: TestContext,
  changes: (fake: FakeIssuer) => Partial<AuthorizationServerPlan> = () => ({}),
  deps: Parameters<typeof OAuthServer.open>[1] = {},
): Promise<Setting> {
  const fake = await startFakeIssuer();
  fake.keys.push(key);
  const live = openIssuer(vouching(fake.issuer), log, new Map());
  t.after(async () => {
    live.close();
    await fake[Symbol.asyncDispose]();
  });
  const plan = { resources: [taking(fake)], clients: [client({ id: "agent", name: "Agent", secret: SECRET }), client({ id: "other", secret: SECRET })] };
  const oauth = await OAuthServer.open({ ...plan, ...changes(fake) }, { issuers: (name) => (name === "corp" ? live : null), ...deps });
  t.after(() => oauth.server.close());
  return { fake, live, oauth };
}

/** An assertion with which all is right, unless told otherwise; undefined takes a claim away. */
function assertionOf(issuer: string, claims: Claims = {}, header: Claims = {}, signer: SigningKey = key): Promise<string> {
  const all = {
    sub: "u-1",
    preferred_username: "alice",
    groups: ["eng"],
    aud: ISSUER,
    client_id: "agent",
    jti: randomUUID(),
    resource: RESOURCE,
    scope: "mcp",
  };
  return signToken(issuer, signer, { ...all, ...claims }, { typ: "oauth-id-jag+jwt", ...header });
}

function basic(id: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${id}:${SECRET}`).toString("base64")}` };
}

function exchange(oauth: OAuthServer, assertion: string, fields: Record<string, string> = {}, headers = basic("agent")): Promise<Reply> {
  return oauth.form("/token", { grant_type: JWT_BEARER, assertion, ...fields }, headers);
}

async function tokenOf(oauth: OAuthServer, assertion: string, fields: Record<string, string> = {}): Promise<string> {
  const reply = await exchange(oauth, assertion, fields);
  assert.equal(reply.status, 200, reply.body);
  return String(reply.json()["access_token"]);
}

async function kindOf(oauth: OAuthServer, token: string): Promise<string> {
  return (await oauth.server.tokens.find(token))?.kind ?? "unknown";
}

function refused(reply: Reply, error: string, description: RegExp, name = ""): void {
  assert.deepEqual([reply.status, reply.json()["error"]], [400, error], `${name}: ${reply.body}`);
  assert.match(String(reply.json()["error_description"]), description, name);
  assert.equal(reply.json()["access_token"], undefined);
}

test("#34 a client gets a token for a person whom the issuer vouches for, for the resource alone, and no refresh token", async (t) => {
  for (const accessTokenFormat of ["opaque", "jwt"] as const) {
    const { fake, oauth } = await open(t, (it) => ({ resources: [taking(it, { accessTokenFormat, accessTokenMs: 900_000 })] }));
    const metadata = (await oauth.send("/.well-known/oauth-authorization-server")).json();
    assert.deepEqual(metadata["grant_types_supported"], ["authorization_code", "refresh_token", "client_credentials", JWT_BEARER]);
    assert.deepEqual(metadata["authorization_grant_profiles_supported"], ["urn:ietf:params:oauth:grant-profile:id-jag"]);

    const reply = await exchange(oauth, await assertionOf(fake.issuer, {}, { typ: "application/oauth-id-jag+jwt" }));
    assert.equal(reply.status, 200, reply.body);
    assert.equal(reply.header("cache-control"), "no-store");
    const { access_token: access, ...rest } = reply.json();
    assert.deepEqual(rest, { token_type: "Bearer", expires_in: 900, resource: RESOURCE, scope: "mcp" });
    const found = await oauth.server.tokens.find(String(access));
    assert.ok(found?.kind === "identity", JSON.stringify(found));
    assert.deepEqual(found.identity, { source: "issuer:corp", name: "alice", scopes: ["mcp"], groups: ["eng"], client: "agent" });
    assert.equal(found.resource, RESOURCE);

    const way = { kind: "oauth", resource: RESOURCE, scopes: ["mcp"], allow: ENGINEERS, identityAssertions: new Set(["corp"]) } as const;
    assert.ok("identity" in authorize([way], found));
    // The same names at a way that takes nobody's word are those of our own logins.
    for (const other of [
      { ...way, identityAssertions: new Set<string>() },
      { ...way, identityAssertions: new Set(["partner"]) },
    ])
      assert.ok("denied" in authorize([other], found));
    assert.ok("denied" in authorize([{ ...way, resource: `${ISSUER}/other` }], found));

    const [grant, ...more] = await oauth.server.grants();
    assert.equal(more.length, 0);
    assert.deepEqual([grant?.client, grant?.client_name, grant?.user, grant?.scopes], ["agent", "Agent", "issuer:corp:alice", ["mcp"]]);
    const about = (await oauth.form("/introspect", { token: String(access) }, basic("other"))).json();
    if (accessTokenFormat === "opaque") assert.deepEqual([about["active"], about["client_id"], about["aud"], about["scope"]], [true, "agent", RESOURCE, "mcp"]);
  }
});

test("#34 where no resource takes identity assertions nothing speaks of them, and each is refused", async (t) => {
  const { fake, oauth } = await open(t, () => ({ resources: [resource()] }));
  const metadata = (await oauth.send("/.well-known/oauth-authorization-server")).json();
  assert.ok(!JSON.stringify(metadata).includes("jwt-bearer"));
  assert.equal(metadata["authorization_grant_profiles_supported"], undefined);
  refused(await exchange(oauth, await assertionOf(fake.issuer)), "unsupported_grant_type", /grant_type/);
  assert.equal(fake.hits.size, 0, "nobody is asked");
});

test("#34 where nobody can log in, clients that authenticate register for identity assertions, and no others", async (t) => {
  const login = { github: null, oidc: null, password: null, tailnet: false };
  const { fake, oauth } = await open(t, () => ({ login }));
  const metadata = (await oauth.send("/.well-known/oauth-authorization-server")).json();
  assert.deepEqual(metadata["grant_types_supported"], ["client_credentials", JWT_BEARER]);
  assert.equal(metadata["registration_endpoint"], `${ISSUER}/register`);
  for (const wrong of [{}, { grant_types: [JWT_BEARER] }, { grant_types: ["authorization_code"], token_endpoint_auth_method: "client_secret_basic" }])
    refused(await oauth.register(wrong), "invalid_client_metadata", /nobody can log in here: only clients that authenticate can register, with the grant/);
  for (const grants of [[JWT_BEARER], ["authorization_code", JWT_BEARER]]) {
    const reply = await oauth.register({ grant_types: grants, token_endpoint_auth_method: "client_secret_basic", redirect_uris: undefined });
    assert.equal(reply.status, 201, reply.body);
    const { client_id: id, client_secret: secret, grant_types: given } = reply.json();
    assert.deepEqual(given, [JWT_BEARER]);
    const headers = { authorization: `Basic ${Buffer.from(`${String(id)}:${String(secret)}`).toString("base64")}` };
    const answer = await exchange(oauth, await assertionOf(fake.issuer, { client_id: id }), {}, headers);
    assert.equal(answer.status, 200, answer.body);
  }
});

test("#34 an assertion with anything wrong in it gives no token, and the answer says what it is", async (t) => {
  const { fake, oauth } = await open(t);
  const now = Math.floor(Date.now() / 1_000);
  const stranger = await makeKey("k1");
  const wrong: [string, Claims, Claims, RegExp][] = [
    ["no type", {}, { typ: undefined }, /refused: its header 'typ' must be 'oauth-id-jag\+jwt'$/],
    ["an access token", {}, { typ: "at+jwt" }, /refused: its header 'typ' must be 'oauth-id-jag\+jwt'$/],
    ["an ID token", {}, { typ: "JWT" }, /refused: its header 'typ' must be 'oauth-id-jag\+jwt'$/],
    ["a longer type", {}, { typ: "oauth-id-jag+jwt+x" }, /refused: its header 'typ' must be 'oauth-id-jag\+jwt'$/],
    ["another issuer", { iss: "https://evil.example.com" }, {}, /its issuer \('https:\/\/evil\.example\.com'\) is none/],
    ["another issuer with what an error may not hold", { iss: 'a"b\\c\nd\u00e9' }, {}, /its issuer \('a\?b\?c d\?'\) is none/],
    ["an issuer that is very long", { iss: "x".repeat(5_000) }, {}, /its issuer \('x{200}\.\.\.'\) is none/],
    ["the issuer with a slash", { iss: `${fake.issuer}/` }, {}, /its issuer \(.*\/'\) is none/],
    ["no issuer", { iss: undefined }, {}, /its issuer is none/],
    ["another server", { aud: "https://other.example.com" }, {}, /another authorization server/],
    ["the resource as audience", { aud: RESOURCE }, {}, /another authorization server/],
    ["the token endpoint as audience", { aud: `${ISSUER}/token` }, {}, /another authorization server/],
    ["two audiences", { aud: [ISSUER, "https://other.example.com"] }, {}, /one authorization server alone/],
    ["no audience", { aud: undefined }, {}, /one authorization server alone/],
    ["an empty list", { aud: [] }, {}, /one authorization server alone/],
    ["another client", { client_id: "other" }, {}, /another client/],
    ["no client", { client_id: undefined }, {}, /lacks 'client_id'/],
    ["a list of clients", { client_id: ["agent"] }, {}, /lacks 'client_id'/],
    ["nobody", { sub: undefined }, {}, /lacks 'sub'/],
    ["an empty subject", { sub: "" }, {}, /lacks 'sub'/],
    ["no id", { jti: undefined }, {}, /lacks 'jti'/],
    ["no time", { iat: undefined }, {}, /'iat'/],
    ["made tomorrow", { iat: now + 86_400 }, {}, /made in the future/],
    ["no end", { exp: undefined }, {}, /does not say when it expires/],
    ["over", { iat: now - 600, exp: now - 60 }, {}, /refused: the token has expired/],
    ["longer than an hour", { exp: now + 3_700 }, {}, /refused: it lives longer than an hour/],
    ["not yet", { nbf: now + 120 }, {}, /not valid yet/],
    ["bound to a key", { cnf: { jkt: "x" } }, {}, /a key \('cnf'\)/],
    ["of a tenant", { tenant: "acme" }, {}, /a tenant of the issuer \('tenant'\)/],
    ["for a tenant of ours", { aud_tenant: "acme" }, {}, /a tenant of this service \('aud_tenant'\)/],
    ["of details", { authorization_details: [{ type: "x" }] }, {}, /authorization details/],
    ["scopes that are no text", { scope: ["mcp"] }, {}, /'scope' is no text/],
    ["a resource that is no text", { resource: [{ url: RESOURCE }] }, {}, /'resource' names none/],
    ["no resource in its list", { resource: [] }, {}, /'resource' names none/],
    ["somebody who is not admitted", { groups: ["sales"] }, {}, /not admitted/],
  ];
  for (const [name, claims, header, reason] of wrong) {
    const reply = await exchange(oauth, await assertionOf(fake.issuer, claims, header));
    refused(reply, "invalid_grant", reason, name);
  }
  refused(await exchange(oauth, await assertionOf(fake.issuer, {}, {}, stranger)), "invalid_grant", /signature is not valid/);
  const [head = "", body = ""] = (await assertionOf(fake.issuer)).split(".");
  const none = Buffer.from(JSON.stringify({ alg: "none", typ: "oauth-id-jag+jwt" })).toString("base64url");
  refused(await exchange(oauth, `${none}.${body}.`), "invalid_grant", /algorithm is not accepted/);
  refused(await exchange(oauth, `${head}.${body}.`), "invalid_grant", /signature is not valid/);
  for (const text of ["x", "a.b.c", `${head}.${body}`]) refused(await exchange(oauth, text), "invalid_grant", /refused/, text);
  refused(await oauth.form("/token", { grant_type: JWT_BEARER }, basic("agent")), "invalid_request", /'assertion' is missing/);
  const twice = new URLSearchParams([...Object.entries({ grant_type: JWT_BEARER, assertion: await assertionOf(fake.issuer) }), ["assertion", "x"]]).toString();
  const headers = { "content-type": "application/x-www-form-urlencoded", ...basic("agent") };
  refused(await oauth.send("/token", { method: "POST", headers, body: twice }), "invalid_request", /assertion/);
  assert.deepEqual(await oauth.server.grants(), []);
});

test("#34 the audience is our issuer byte for byte, with or without a slash, also as a list of one", async (t) => {
  const { fake, oauth } = await open(t);
  for (const aud of [ISSUER, `${ISSUER}/`, [ISSUER]]) await tokenOf(oauth, await assertionOf(fake.issuer, { aud }));
  for (const aud of [`${ISSUER}//`, ISSUER.toUpperCase(), `${ISSUER}:443`, `${ISSUER}?`])
    refused(await exchange(oauth, await assertionOf(fake.issuer, { aud })), "invalid_grant", /another authorization server/, aud);
});

test("#34 an assertion counts once: of twenty at the same moment one gets a token, and what is remembered of it ends", async (t) => {
  const store = memoryStore();
  const { fake, oauth } = await open(t, () => ({}), { store });
  const assertion = await assertionOf(fake.issuer);
  const replies = await Promise.all(Array.from({ length: 20 }, () => exchange(oauth, assertion)));
  assert.equal(replies.filter(({ status }) => status === 200).length, 1);
  for (const reply of replies) if (reply.status !== 200) refused(reply, "invalid_grant", /used before/);
  // The id is what counts, not the bytes.
  const again = await assertionOf(fake.issuer, { jti: "one" });
  await tokenOf(oauth, again);
  refused(await exchange(oauth, await assertionOf(fake.issuer, { jti: "one", scope: "mcp:write" })), "invalid_grant", /used before/);
  const remembered = [...store.entries].filter(([name]) => name.includes(":assertion:"));
  assert.equal(remembered.length, 2);
  for (const [name, { untilMs }] of remembered) {
    assert.ok(untilMs > Date.now() + 290_000 && untilMs < Date.now() + 340_000, `it ends with the assertion: ${untilMs}`);
    assert.ok(!name.includes("one"));
  }
  // What was refused for something else is still of use.
  const early = await assertionOf(fake.issuer);
  refused(await exchange(oauth, early, { resource: `${ISSUER}/none` }), "invalid_target", /this server has no such resource/);
  await tokenOf(oauth, early);
});

test("#34 a client that does not authenticate gets no token, and one that does none of another's", async (t) => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = { ...(await exportJWK(publicKey)), alg: "ES256", kid: "one" };
  const { fake, oauth } = await open(t, () => ({
    clients: [client({ id: "agent", secret: SECRET }), client({ id: "signer", jwks: [jwk] }), client({ id: "desktop", redirectUris: ["http://127.0.0.1/cb"] })],
  }));
  const open_ = await assertionOf(fake.issuer, { client_id: "desktop" });
  const asPublic = await exchange(oauth, open_, { client_id: "desktop" }, {});
  assert.equal(asPublic.status, 400, asPublic.body);
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer), { client_id: "agent" }, {})).status, 401);
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer), {}, {})).status, 400);
  const proof = await new SignJWT({ jti: randomUUID() })
    .setProtectedHeader({ alg: "ES256", kid: "one" })
    .setIssuer("signer")
    .setSubject("signer")
    .setAudience(ISSUER)
    .setIssuedAt()
    .setExpirationTime("1m")
    .sign(privateKey);
  const signed = { client_assertion: proof, client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" };
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer, { client_id: "signer" }), signed, {})).status, 200);

  // Who registered itself may have the grant when it has a secret.
  const metadata = { grant_types: ["authorization_code", JWT_BEARER] };
  const registered = (await oauth.register({ ...metadata, token_endpoint_auth_method: "client_secret_post" })).json();
  assert.deepEqual(registered["grant_types"], ["authorization_code", JWT_BEARER]);
  const credentials = { client_id: String(registered["client_id"]), client_secret: String(registered["client_secret"]) };
  const own = await assertionOf(fake.issuer, { client_id: registered["client_id"] });
  assert.equal((await exchange(oauth, own, credentials, {})).status, 200);
  refused(await exchange(oauth, await assertionOf(fake.issuer), credentials, {}), "invalid_grant", /another client/);
  const publicOne = (await oauth.register({ ...metadata, token_endpoint_auth_method: "none" })).json();
  assert.deepEqual(publicOne["grant_types"], ["authorization_code"]);
  const id = String(publicOne["client_id"]);
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer, { client_id: id }), { client_id: id }, {})).status, 400);
  const plain = (await oauth.register({ token_endpoint_auth_method: "client_secret_post", grant_types: ["authorization_code"] })).json();
  const plainId = String(plain["client_id"]);
  const withoutGrant = { client_id: plainId, client_secret: String(plain["client_secret"]) };
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer, { client_id: plainId }), withoutGrant, {})).status, 400);
});

test("#34 a client that is known by a document may exchange assertions by its key, and not without one", async (t) => {
  const ca = createTestCa();
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwk = { ...(await exportJWK(publicKey)), alg: "ES256", kid: "one" };
  const site = createServer(ca.issue("/CN=client.example", { san: "DNS:client.example" }), (req, res) => {
    const isKeyed = req.url === "/keyed.json";
    const document = {
      client_id: `${at}${req.url}`,
      client_name: "Editor",
      redirect_uris: ["http://127.0.0.1/cb"],
      grant_types: ["authorization_code", JWT_BEARER],
      ...(isKeyed ? { token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [jwk] } } : {}),
    };
    res.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify(document));
  });
  site.listen(0, "127.0.0.1");
  await once(site, "listening");
  t.after(() => {
    site.closeAllConnections();
    site.close();
  });
  const at = `https://client.example:${(site.address() as AddressInfo).port}`;
  const documents = { resolve: () => Promise.resolve(["127.0.0.1"]), isPublic: () => true, ca: ca.cert };
  const { fake, oauth } = await open(t, () => ({}), { documents });
  const proofOf = (id: string): Promise<string> =>
    new SignJWT({ jti: randomUUID() })
      .setProtectedHeader({ alg: "ES256", kid: "one" })
      .setIssuer(id)
      .setSubject(id)
      .setAudience(ISSUER)
      .setIssuedAt()
      .setExpirationTime("1m")
      .sign(privateKey);
  const type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
  const keyed = `${at}/keyed.json`;
  const assertion = await assertionOf(fake.issuer, { client_id: keyed });
  assert.equal((await exchange(oauth, assertion, { client_id: keyed }, {})).status, 401, "its name alone");
  const reply = await exchange(oauth, assertion, { client_assertion: await proofOf(keyed), client_assertion_type: type }, {});
  assert.equal(reply.status, 200, reply.body);
  assert.equal(await kindOf(oauth, String(reply.json()["access_token"])), "identity");
  const [known] = (await oauth.server.clients()).filter(({ kind }) => kind === "document");
  assert.deepEqual([known?.id, known?.name, known?.redirect_uris], [keyed, "Editor", []]);
  const bare = `${at}/bare.json`;
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer, { client_id: bare }), { client_id: bare }, {})).status, 400);
});

test("#34 a client that registered for the grant stays a client when the file takes the grant away", async (t) => {
  const store = memoryStore();
  const { oauth } = await open(t, () => ({}), { store });
  const id = await oauth.registered({ grant_types: ["authorization_code", "refresh_token", JWT_BEARER], token_endpoint_auth_method: "client_secret_post" });
  const { oauth: after } = await open(t, () => ({ resources: [resource()] }), { store });
  const { uid } = await after.begin({ client_id: id });
  assert.notEqual(uid, "", "a person is asked");
});

test("#34 the token is for the resource of the assertion and of the request, and where neither names one, for the only one", async (t) => {
  const other = `${ISSUER}/other`;
  const { fake, oauth } = await open(t, (it) => ({ resources: [taking(it), taking(it, { url: other }), resource({ url: `${ISSUER}/people` })] }));
  const target = async (claims: Claims, fields: Record<string, string> = {}): Promise<unknown> => {
    const reply = await exchange(oauth, await assertionOf(fake.issuer, claims), fields);
    return reply.json()["resource"] ?? reply.json()["error"];
  };
  assert.equal(await target({ resource: other }), other);
  assert.equal(await target({ resource: `${other}/` }), other);
  assert.equal(await target({ resource: [other, "https://api.example.com/"] }), other);
  assert.equal(await target({ resource: [RESOURCE, other] }), "invalid_target");
  assert.equal(await target({ resource: [RESOURCE, other] }, { resource: other }), other);
  assert.equal(await target({ resource: undefined }, { resource: other }), other);
  assert.equal(await target({ resource: undefined }), "invalid_target");
  assert.equal(await target({}, { resource: other }), "invalid_target");
  assert.equal(await target({}, { resource: "https://elsewhere.example.com/" }), "invalid_target");
  assert.equal(await target({ resource: "https://elsewhere.example.com/" }), "invalid_target");
  assert.equal(await target({ resource: "https://elsewhere.example.com/" }, { resource: RESOURCE }), "invalid_target");
  assert.equal(await target({ resource: `${ISSUER}/people` }), "invalid_target");
  assert.equal(await target({ resource: undefined }, { resource: `${ISSUER}/people` }), "invalid_target");

  const { fake: only, oauth: single } = await open(t, (it) => ({ resources: [taking(it), resource({ url: `${ISSUER}/people` })] }));
  assert.equal((await exchange(single, await assertionOf(only.issuer, { resource: undefined }))).json()["resource"], RESOURCE);
  // A parameter without a value is as good as none (RFC 6749, 3.2).
  assert.equal((await exchange(single, await assertionOf(only.issuer), { resource: "", scope: "" })).json()["resource"], RESOURCE);
});

test("#34 scopes are those that the issuer vouches for, the resource offers, the request names and the person may have", async (t) => {
  const scopes = new Map(
    [
      { name: "mcp:write", includes: new Set(["mcp"]), allow: null },
      { name: "mcp:admin", includes: new Set(["mcp", "mcp:write"]), allow: { ...NOBODY, groups: new Set(["admins"]) } },
    ].map((scope) => [scope.name, { ...scope, description: null }]),
  );
  const { fake, oauth } = await open(t, (it) => ({ scopes, resources: [taking(it, { optionalScopes: ["mcp:write", "mcp:admin"] })] }));
  const granted = async (scope: string | undefined, asked?: string, groups = ["eng"]): Promise<unknown> => {
    const reply = await exchange(oauth, await assertionOf(fake.issuer, { scope, groups }), asked === undefined ? {} : { scope: asked });
    return reply.json()["error"] ?? reply.json()["scope"];
  };
  assert.equal(await granted("mcp mcp:write openid other"), "mcp mcp:write");
  assert.equal(await granted("mcp mcp:write", "mcp"), "mcp");
  assert.equal(await granted("mcp", "mcp mcp:write"), "mcp", "a request widens nothing");
  assert.equal(await granted("mcp:write", "mcp"), "mcp", "one that includes others is enough for these");
  assert.equal(await granted(undefined), "mcp");
  assert.equal(await granted(undefined, "mcp:write"), "mcp:write");
  assert.equal(await granted(undefined, "mcp:write nothing"), "mcp:write");
  assert.equal(await granted("mcp mcp:admin"), "mcp", "what is for some comes to nobody else");
  assert.equal(await granted("mcp mcp:admin", undefined, ["eng", "admins"]), "mcp mcp:admin");
  for (const [scope, asked] of [["other"], [""], ["mcp", "mcp:write"], ["mcp", "other"], [undefined, "other"], ["mcp:admin"], ["mcp:admin", "mcp"]] as const)
    assert.equal(await granted(scope, asked), "invalid_scope", `${String(scope)} for ${String(asked)}`);

  const bare = await open(t, (it) => ({ resources: [taking(it, { scopes: [], scopeSets: [[]], optionalScopes: [] })] }));
  const reply = await exchange(bare.oauth, await assertionOf(bare.fake.issuer, { scope: "of others" }));
  assert.deepEqual([reply.status, reply.json()["scope"]], [200, undefined], reply.body);
  assert.equal(await kindOf(bare.oauth, String(reply.json()["access_token"])), "identity");
  assert.deepEqual((await bare.oauth.server.grants())[0]?.resources, [RESOURCE]);
});

test("#34 an issuer that is down is 503 with a time to wait, costs no assertion, and is asked once", async (t) => {
  const { fake, oauth } = await open(t);
  fake.pages.set("/keys", json({ error: "gone" }, 500));
  const assertion = await assertionOf(fake.issuer);
  for (let i = 0; i < 5; i += 1) {
    const reply = await exchange(oauth, assertion);
    assert.deepEqual([reply.status, reply.json()["error"]], [503, "temporarily_unavailable"], reply.body);
    assert.equal(reply.header("retry-after"), "5");
    assert.ok(!reply.body.includes(fake.origin));
  }
  assert.equal(fake.hits.get("/keys"), 1);
  const { oauth: closed } = await open(t, () => ({ resources: [taking(fake)] }), { issuers: () => null });
  assert.equal((await exchange(closed, assertion)).status, 503, "one that is not there any more");
});

test("#34 keys rotate as with access tokens: a new one is fetched once, an unknown one costs no more", async (t) => {
  const { fake, oauth } = await open(t);
  await tokenOf(oauth, await assertionOf(fake.issuer));
  const newer = await makeKey("k2");
  fake.keys.push(newer);
  await tokenOf(oauth, await assertionOf(fake.issuer, {}, {}, newer));
  const unknown = await makeKey("k3");
  for (let i = 0; i < 5; i += 1) refused(await exchange(oauth, await assertionOf(fake.issuer, {}, {}, unknown)), "invalid_grant", /unknown key/);
  assert.equal(fake.hits.get("/keys"), 2);
});

test("#34 tokens end with their grant, client, person, all of them, and by /revoke", async (t) => {
  const { fake, oauth } = await open(t, (it) => ({ resources: [taking(it), taking(it, { url: `${ISSUER}/jwt`, accessTokenFormat: "jwt" })] }));
  const { server } = oauth;
  const both = async (): Promise<string[]> => [
    await tokenOf(oauth, await assertionOf(fake.issuer)),
    await tokenOf(oauth, await assertionOf(fake.issuer, { resource: `${ISSUER}/jwt` })),
  ];
  const kinds = async (tokens: readonly string[]): Promise<string[]> => await Promise.all(tokens.map((token) => kindOf(oauth, token)));
  for (const revocation of [{ client: "agent" }, { user: "issuer:corp:alice" }, { all: true }] as const) {
    const tokens = await both();
    assert.deepEqual(await kinds(tokens), ["identity", "identity"]);
    await server.revoke({ user: "issuer:other:alice" });
    assert.equal(await server.revoke({ client: "other" }), 0);
    assert.deepEqual(await kinds(tokens), ["identity", "identity"]);
    await server.revoke(revocation);
    assert.ok(!(await kinds(tokens)).includes("identity"), JSON.stringify(revocation));
    assert.deepEqual(await server.grants(), []);
  }
  const tokens = await both();
  for (const { id } of await server.grants()) assert.equal(await server.revoke({ grant: id }), 1);
  assert.ok(!(await kinds(tokens)).includes("identity"));

  const [opaque = ""] = await both();
  await oauth.form("/revoke", { token: opaque }, basic("other"));
  assert.equal(await kindOf(oauth, opaque), "identity", "another client's");
  assert.equal((await oauth.form("/revoke", { token: opaque }, basic("agent"))).status, 200);
  assert.notEqual(await kindOf(oauth, opaque), "identity");
  assert.deepEqual((await server.grants()).map((grant) => grant.resources).flat(), [`${ISSUER}/jwt`], "nothing stays of a grant whose only token is gone");
});

test("#34 a token ends when its issuer leaves the file or the route, or is another one under the same name", async (t) => {
  for (const accessTokenFormat of ["opaque", "jwt"] as const) {
    const store = memoryStore();
    const { fake, oauth } = await open(t, (it) => ({ resources: [taking(it, { accessTokenFormat })] }), { store });
    const token = await tokenOf(oauth, await assertionOf(fake.issuer));
    const after = async (assertions: OAuthResourcePlan["assertions"], changes: Partial<AuthorizationServerPlan> = {}): Promise<string> => {
      const { oauth: edited } = await open(t, () => ({ resources: [taking(fake, { assertions, accessTokenFormat })], ...changes }), { store });
      return await kindOf(edited, token);
    };
    const same = { issuers: new Map([["corp", fake.issuer]]), allow: ENGINEERS };
    assert.equal(await after([same]), "identity");
    assert.equal(await after([]), "invalid");
    assert.equal(await after([{ ...same, issuers: new Map([["corp", "https://elsewhere.example.com"]]) }]), "invalid");
    assert.equal(await after([{ ...same, issuers: new Map([["partner", fake.issuer]]) }]), "invalid");
    assert.equal(await after([same], { clients: [] }), "invalid", "its client is gone");
    assert.equal(await after([same]), "identity");
  }
});

test("#34 people of two issuers with the same subject are two, and neither gets what the other's groups open", async (t) => {
  const partner = await startFakeIssuer();
  t.after(() => partner[Symbol.asyncDispose]());
  partner.keys.push(key);
  const theirs = openIssuer(vouching(partner.issuer, { name: "partner" }), log, new Map());
  t.after(() => theirs.close());
  const guests: PeopleMatch = { ...NOBODY, users: new Set(["u-1"]) };
  const lives = new Map<string, LiveIssuer>([["partner", theirs]]);
  const { fake, live, oauth } = await open(
    t,
    (it) => ({
      resources: [
        taking(it, {
          allow: [ENGINEERS, guests],
          assertions: [
            { issuers: new Map([["corp", it.issuer]]), allow: ENGINEERS },
            { issuers: new Map([["partner", partner.issuer]]), allow: guests },
          ],
        }),
      ],
    }),
    { issuers: (name) => lives.get(name) ?? null },
  );
  lives.set("corp", live);
  await tokenOf(oauth, await assertionOf(fake.issuer));
  await tokenOf(oauth, await assertionOf(partner.issuer, { groups: [] }));
  assert.deepEqual((await oauth.server.grants()).map(({ user }) => user).toSorted(), ["issuer:corp:alice", "issuer:partner:alice"]);
  refused(await exchange(oauth, await assertionOf(fake.issuer, { groups: [] })), "invalid_grant", /not admitted/);
  refused(await exchange(oauth, await assertionOf(partner.issuer, { sub: "u-2" })), "invalid_grant", /not admitted/);
  await oauth.server.revoke({ user: "issuer:partner:alice" });
  assert.deepEqual(
    (await oauth.server.grants()).map(({ user }) => user),
    ["issuer:corp:alice"],
  );
  // One whose name leads to somebody else by now, or who signs for another.
  lives.set("corp", theirs);
  refused(await exchange(oauth, await assertionOf(fake.issuer)), "invalid_grant", /./);
});

test("#34 what an issuer tells one client of a person counts for no other: neither wider nor narrower", async (t) => {
  const scopes = new Map(
    [
      { name: "mcp:write", includes: new Set(["mcp:admin"]), allow: null },
      { name: "mcp:admin", includes: new Set<string>(), allow: { ...NOBODY, groups: new Set(["admins"]) } },
    ].map((scope) => [scope.name, { ...scope, description: null }]),
  );
  const people: PeopleMatch = { ...ENGINEERS, users: new Set(["u-1"]) };
  // Answers are kept for two seconds.
  let ahead = 0;
  const { fake, oauth } = await open(t, (it) => ({ scopes, resources: [taking(it, { optionalScopes: ["mcp:write", "mcp:admin"] }, people)] }), {
    now: () => Date.now() + ahead,
  });
  const seen = async (token: string): Promise<unknown> => {
    ahead += 2_000;
    const found = await oauth.server.tokens.find(token);
    assert.ok(found?.kind === "identity", JSON.stringify(found));
    return [found.identity.groups ?? [], found.identity.scopes];
  };
  const weak = await tokenOf(oauth, await assertionOf(fake.issuer, { groups: [], scope: "mcp:write" }));
  assert.deepEqual(await seen(weak), [[], ["mcp:write"]]);
  const theirs = await assertionOf(fake.issuer, { groups: ["eng", "admins"], client_id: "other" });
  const reply = await exchange(oauth, theirs, {}, basic("other"));
  assert.equal(reply.status, 200, reply.body);
  assert.deepEqual(await seen(weak), [[], ["mcp:write"]]);
  assert.deepEqual(await seen(String(reply.json()["access_token"])), [["eng", "admins"], ["mcp"]]);
  // What the issuer told last counts for all that the same client has.
  await tokenOf(oauth, await assertionOf(fake.issuer, { groups: ["eng"] }));
  assert.deepEqual(await seen(weak), [["eng"], ["mcp:write"]]);
});

test("#34 what an issuer says of a person counts no longer than a login would, also where tokens live longer", async (t) => {
  const { fake, oauth } = await open(t, (it) => ({ resources: [taking(it, { accessTokenMs: 7_200_000, loginLifetimeMs: 1_800_000 })] }));
  assert.equal((await exchange(oauth, await assertionOf(fake.issuer))).json()["expires_in"], 1_800);
  const { fake: other, oauth: usual } = await open(t);
  assert.equal((await exchange(usual, await assertionOf(other.issuer))).json()["expires_in"], 3_600);
});

test("#34 a person whose tokens are taken back while one is being made does not keep that one", async (t) => {
  const store = memoryStore();
  const taken: Promise<number>[] = [];
  const pausing: typeof store = {
    ...store,
    set: async (name, value, ttlMs) => {
      // The grant stands, and what operators are told of it does not yet.
      if (name.includes(":about:")) await (taken[0] ??= oauth.server.revoke({ user: "issuer:corp:alice" }));
      await store.set(name, value, ttlMs);
    },
  };
  const { fake, oauth } = await open(t, () => ({}), { store: pausing });
  const token = await tokenOf(oauth, await assertionOf(fake.issuer));
  assert.equal(taken.length, 1);
  assert.notEqual(await kindOf(oauth, token), "identity");
});

test("#34 an identity assertion is no access token for a route with 'issuer', and an access token no assertion", async (t) => {
  const fake = await startFakeIssuer();
  t.after(() => fake[Symbol.asyncDispose]());
  fake.keys.push(key);
  const live = openIssuer(vouching(fake.issuer, { audiences: new Set([ISSUER, RESOURCE]), types: new Set(["at+jwt", "jwt", "none"]) }), log, new Map());
  t.after(() => live.close());
  for (const typ of ["oauth-id-jag+jwt", "application/oauth-id-jag+jwt", "OAUTH-ID-JAG+JWT"]) {
    const assertion = await assertionOf(fake.issuer, {}, { typ });
    assert.equal((await live.find(assertion))?.kind, "invalid", typ);
    assert.equal((await live.readAssertion(assertion)).kind, "assertion", typ);
    assert.equal((await live.find(assertion))?.kind, "invalid", "nor after it was read");
  }
  for (const typ of ["at+jwt", "JWT", undefined]) {
    const token = await assertionOf(fake.issuer, {}, { typ });
    assert.equal((await live.find(token))?.kind, "identity");
    assert.equal((await live.readAssertion(token)).kind, "invalid");
  }
  const strict = openIssuer(vouching(fake.issuer), log, new Map());
  t.after(() => strict.close());
  assert.equal((await strict.find(await assertionOf(fake.issuer, {}, { typ: "at+jwt" })))?.kind, "invalid", "without an audience none is for us");
});
