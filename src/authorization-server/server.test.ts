import assert from "node:assert/strict";
import { createHash, generateKeyPairSync, randomUUID } from "node:crypto";
import test from "node:test";
import { SignJWT, exportJWK, decodeJwt } from "jose";
import { ALICE, client, ISSUER, memoryStore, OAuthServer, REDIRECT, resource } from "../../test/components/oauth-server.ts";
import { NOBODY } from "../plan/build-people.ts";
import type { Authentication, Proof } from "../identity/authenticate.ts";
import type { Person } from "../identity/person.ts";
import { ServerState } from "./adapter.ts";

async function proofOf(oauth: OAuthServer, token: unknown): Promise<Proof> {
  const found = await oauth.server.tokens.find(String(token));
  assert.ok(found?.kind === "identity", JSON.stringify(found));
  return found;
}

function find(oauth: OAuthServer, token: unknown): Promise<Authentication | null> {
  return Promise.resolve(oauth.server.tokens.find(String(token)));
}

test("#20 #36 the metadata is found at the root and in the forms that clients try for a resource", async () => {
  const oauth = await OAuthServer.open();
  const documents: string[] = [];
  for (const path of [
    "/.well-known/oauth-authorization-server",
    "/.well-known/openid-configuration",
    "/.well-known/oauth-authorization-server/mcp",
    "/.well-known/openid-configuration/mcp",
    "/mcp/.well-known/openid-configuration",
  ]) {
    const reply = await oauth.send(path, { headers: { origin: "https://page.example" } });
    assert.equal(reply.status, 200, path);
    assert.equal(reply.header("content-type"), "application/json");
    assert.equal(reply.header("access-control-allow-origin"), "*");
    documents.push(reply.body);
  }
  assert.equal(new Set(documents).size, 1);
  assert.equal(oauth.server.serves(ISSUER, "/.well-known/oauth-authorization-server/other"), false);
  assert.equal(oauth.server.serves("https://other.example.com", "/token"), false);
  for (const path of ["/authorize", "/token", "/register"]) assert.equal(oauth.server.serves(ISSUER, path), true);
});

test("#9 #21 the metadata says what holds, and the issuer is the same everywhere", async () => {
  const oauth = await OAuthServer.open();
  const metadata = (await oauth.send("/.well-known/oauth-authorization-server")).json();
  assert.equal(metadata["issuer"], ISSUER);
  assert.deepEqual(metadata["code_challenge_methods_supported"], ["S256"]);
  assert.deepEqual(metadata["response_types_supported"], ["code"]);
  assert.deepEqual(metadata["grant_types_supported"], ["authorization_code", "refresh_token", "client_credentials"]);
  assert.deepEqual(metadata["token_endpoint_auth_methods_supported"], ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]);
  assert.equal(metadata["client_id_metadata_document_supported"], true);
  assert.equal(metadata["authorization_response_iss_parameter_supported"], true);
  assert.deepEqual(metadata["scopes_supported"], ["mcp", "mcp:write", "offline_access"]);
  for (const name of ["authorization", "token", "registration", "revocation", "introspection"])
    assert.ok(oauth.server.serves(ISSUER, new URL(String(metadata[`${name}_endpoint`])).pathname), name);
  const { uid } = await oauth.begin({ client_id: await oauth.registered() });
  assert.equal((await oauth.approve(uid)).searchParams.get("iss"), ISSUER);
});

test("#9 where clients cannot act for people, since nobody can log in or no resource is for that, nothing is offered that needs a person", async () => {
  const nobody = { github: null, oidc: null, password: null, tailnet: false };
  const offers = async (changes: Parameters<typeof OAuthServer.open>[0]): Promise<unknown[]> => {
    const oauth = await OAuthServer.open(changes);
    const metadata = (await oauth.send("/.well-known/oauth-authorization-server")).json();
    const { status } = await oauth.register();
    const page = await oauth.send("/authorize?client_id=x");
    return [metadata["registration_endpoint"] !== undefined, metadata["grant_types_supported"], status, /Nobody can log in here/.test(page.body)];
  };
  const machines = ["client_credentials"];
  assert.deepEqual(await offers({ login: nobody }), [false, machines, 403, true]);
  assert.deepEqual(await offers({ resources: [resource({ grants: new Set(["client_credentials", "refresh_token"]) })] }), [false, machines, 403, true]);
  const people = ["authorization_code", "refresh_token", ...machines];
  assert.deepEqual(await offers({ login: { ...nobody, tailnet: true } }), [true, people, 201, false], "the tailnet is a login");
  assert.deepEqual(await offers({}), [true, people, 201, false]);
});

test("#21 the published keys have no private part", async () => {
  const oauth = await OAuthServer.open();
  const { keys } = (await oauth.send("/jwks")).json() as { keys: Record<string, unknown>[] };
  assert.ok(keys.length >= 2);
  for (const key of keys) assert.equal("d" in key, false);
});

test("#22 an authorization without PKCE, or with plain, is invalid_request", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  for (const fields of [{ code_challenge: "", code_challenge_method: "" }, { code_challenge_method: "plain" }, { code_challenge_method: "" }]) {
    const { reply } = await oauth.begin({ client_id: id, ...fields });
    const location = new URL(reply.header("location") ?? "");
    assert.equal(location.origin + location.pathname, REDIRECT);
    assert.equal(location.searchParams.get("error"), "invalid_request");
    assert.equal(location.searchParams.get("state"), "st");
    // #25
    assert.equal(location.searchParams.get("iss"), ISSUER);
  }
});

test("#23 a code is for one use, and its second use ends the tokens of the first", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  const { uid, verifier } = await oauth.begin({ client_id: id });
  const code = (await oauth.approve(uid)).searchParams.get("code") ?? "";
  const exchange = { grant_type: "authorization_code", code, code_verifier: verifier, client_id: id, redirect_uri: REDIRECT };
  const tokens = (await oauth.form("/token", exchange)).json();
  await proofOf(oauth, tokens["access_token"]);
  const again = await oauth.form("/token", exchange);
  assert.equal(again.status, 400);
  assert.equal(again.json()["error"], "invalid_grant");
  assert.notEqual((await find(oauth, tokens["access_token"]))?.kind, "identity");
  const refresh = await oauth.form("/token", { grant_type: "refresh_token", refresh_token: String(tokens["refresh_token"]), client_id: id });
  assert.equal(refresh.json()["error"], "invalid_grant");
});

test("#23 of two exchanges of a code at once at most one succeeds", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  const { uid, verifier } = await oauth.begin({ client_id: id });
  const code = (await oauth.approve(uid)).searchParams.get("code") ?? "";
  const exchange = { grant_type: "authorization_code", code, code_verifier: verifier, client_id: id, redirect_uri: REDIRECT };
  const replies = await Promise.all([1, 2, 3, 4].map(() => oauth.form("/token", exchange)));
  assert.ok(replies.filter(({ status }) => status === 200).length <= 1);
});

test("#23 a code is bound to its redirect URI, its client and its verifier", async () => {
  const oauth = await OAuthServer.open();
  const [id, other] = [await oauth.registered(), await oauth.registered()];
  for (const wrong of [{ redirect_uri: "http://127.0.0.1:1/callback" }, { client_id: other }, { code_verifier: "a".repeat(43) }]) {
    const { uid, verifier } = await oauth.begin({ client_id: id });
    const code = (await oauth.approve(uid)).searchParams.get("code") ?? "";
    const reply = await oauth.form("/token", {
      grant_type: "authorization_code",
      code,
      code_verifier: verifier,
      client_id: id,
      redirect_uri: REDIRECT,
      ...wrong,
    });
    assert.equal(reply.json()["error"], "invalid_grant", JSON.stringify(wrong));
  }
});

test("#24 an address that is not registered gets a page, never a redirect", async () => {
  const oauth = await OAuthServer.open();
  const loopback = await oauth.registered();
  const web = await oauth.registered({ redirect_uris: ["https://app.example/cb"] });
  const refused: [string, string][] = [
    [loopback, "http://127.0.0.1:33418/other"],
    [loopback, "https://127.0.0.1:33418/callback"],
    [loopback, "http://127.0.0.2:33418/callback"],
    [loopback, "http://evil.example/callback"],
    [loopback, "http://127.0.0.1:33418@evil.example/callback"],
    [web, "https://app.example:8443/cb"],
    [web, "https://app.example/cb/"],
    [web, "https://app.example/cb?x=1"],
    [web, "https://APP.example.evil.example/cb"],
  ];
  for (const [id, redirect] of refused) {
    const { reply } = await oauth.begin({ client_id: id, redirect_uri: redirect });
    assert.equal(reply.status, 400, redirect);
    assert.equal(reply.header("location"), null, redirect);
    assert.match(reply.header("content-type") ?? "", /text\/html/);
    assert.ok(!reply.body.includes(redirect));
  }
  const { uid } = await oauth.begin({ client_id: loopback, redirect_uri: "http://127.0.0.1:51234/callback" });
  assert.equal((await oauth.approve(uid)).port, "51234");
});

test("#24 an unknown client at /authorize gets a page", async () => {
  const oauth = await OAuthServer.open();
  const { reply } = await oauth.begin({ client_id: "nobody" });
  assert.equal(reply.status, 400);
  assert.equal(reply.header("location"), null);
});

test("#36 /authorize takes a form as well as a query, and nothing else", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  const fields = { response_type: "code", client_id: id, redirect_uri: REDIRECT, code_challenge: "a".repeat(43), code_challenge_method: "S256" };
  const reply = await oauth.form("/authorize", fields);
  assert.match(reply.header("location") ?? "", /^\/\.sidegate\/consent\//);
  const json = await oauth.send("/authorize", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(fields) });
  assert.equal(json.status, 400);
  assert.equal((await oauth.send("/token")).status, 405);
});

test("#26 an unknown resource is invalid_target, both slash forms are one, and none means the only one", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  for (const url of [`${ISSUER}/other`, "https://evil.example/mcp", "nonsense", `${ISSUER}/mcp#x`]) {
    const { reply } = await oauth.begin({ client_id: id, resource: url });
    assert.equal(new URL(reply.header("location") ?? "").searchParams.get("error"), "invalid_target", url);
  }
  for (const fields of [{}, { resource: `${ISSUER}/mcp` }, { resource: `${ISSUER}/mcp/` }, { resource: "https://MCP.example.com/mcp" }]) {
    const tokens = await oauth.tokens({ client_id: id, ...fields });
    assert.equal((await proofOf(oauth, tokens["access_token"])).resource, `${ISSUER}/mcp`);
  }
});

test("#26 of several resources the scopes tell which one is meant; otherwise it must be named", async () => {
  const oauth = await OAuthServer.open({ resources: [resource(), resource({ url: `${ISSUER}/other`, scopes: ["other"], optionalScopes: [] })] });
  const id = await oauth.registered();
  const { reply } = await oauth.begin({ client_id: id });
  assert.equal(new URL(reply.header("location") ?? "").searchParams.get("error"), "invalid_target");
  const tokens = await oauth.tokens({ client_id: id, scope: "other" });
  assert.equal((await proofOf(oauth, tokens["access_token"])).resource, `${ISSUER}/other`);
  const query = new URLSearchParams({
    client_id: id,
    response_type: "code",
    redirect_uri: REDIRECT,
    code_challenge: "a".repeat(43),
    code_challenge_method: "S256",
  });
  query.append("resource", `${ISSUER}/mcp`);
  query.append("resource", `${ISSUER}/other`);
  const both = await oauth.send(`/authorize?${query.toString()}`);
  assert.equal(new URL(both.header("location") ?? "").searchParams.get("error"), "invalid_target");
});

test("#26 scopes: the needed ones by default, unknown ones left out or refused, and none where none is needed", async () => {
  const oauth = await OAuthServer.open({ resources: [resource(), resource({ url: `${ISSUER}/open`, scopes: [], optionalScopes: [] })] });
  const id = await oauth.registered();
  const mcp = { client_id: id, resource: `${ISSUER}/mcp` };
  assert.equal((await oauth.tokens(mcp))["scope"], "mcp");
  assert.equal((await oauth.tokens({ ...mcp, scope: "openid profile offline_access" }))["scope"], "mcp");
  assert.equal((await oauth.tokens({ ...mcp, scope: "mcp mcp:write unknown", nonce: "n", max_age: "10" }))["scope"], "mcp mcp:write");
  const { reply } = await oauth.begin({ ...mcp, scope: "unknown" });
  assert.equal(new URL(reply.header("location") ?? "").searchParams.get("error"), "invalid_scope");
  const open = await oauth.tokens({ client_id: id, resource: `${ISSUER}/open` });
  assert.deepEqual((await proofOf(oauth, open["access_token"])).identity.scopes, []);
});

test("#27 every refresh rotates, and narrows at most", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  const first = await oauth.tokens({ client_id: id, scope: "mcp mcp:write" });
  const refresh = (token: unknown, more: Record<string, string> = {}) =>
    oauth.form("/token", { grant_type: "refresh_token", refresh_token: String(token), client_id: id, ...more });
  const narrow = await refresh(first["refresh_token"], { scope: "mcp" });
  assert.equal(narrow.json()["scope"], "mcp");
  assert.notEqual(narrow.json()["refresh_token"], first["refresh_token"]);
  assert.deepEqual((await proofOf(oauth, narrow.json()["access_token"])).identity.scopes, ["mcp"]);
  const base = await oauth.tokens({ client_id: id });
  assert.equal((await refresh(base["refresh_token"], { scope: "mcp mcp:write" })).json()["error"], "invalid_scope");
  const elsewhere = await oauth.tokens({ client_id: id });
  assert.equal((await refresh(elsewhere["refresh_token"], { resource: `${ISSUER}/other` })).json()["error"], "invalid_target");
  assert.equal((await refresh(elsewhere["refresh_token"], { resource: `${ISSUER}/mcp/` })).status, 200);
});

test("#27 refreshes at once all succeed; the same token after 45 s ends the grant", async () => {
  let now = Date.now();
  const oauth = await OAuthServer.open({}, { now: () => now });
  const id = await oauth.registered();
  const first = await oauth.tokens({ client_id: id });
  const refresh = (token: unknown) => oauth.form("/token", { grant_type: "refresh_token", refresh_token: String(token), client_id: id });
  const replies = await Promise.all([1, 2, 3].map(() => refresh(first["refresh_token"])));
  assert.deepEqual(
    replies.map(({ status }) => status),
    [200, 200, 200],
  );
  now += 44_000;
  const late = await refresh(first["refresh_token"]);
  assert.equal(late.status, 200);
  await proofOf(oauth, late.json()["access_token"]);
  now += 2_000;
  assert.equal((await refresh(first["refresh_token"])).json()["error"], "invalid_grant");
  for (const reply of [late, ...replies]) {
    assert.notEqual((await find(oauth, reply.json()["access_token"]))?.kind, "identity");
    assert.equal((await refresh(reply.json()["refresh_token"])).json()["error"], "invalid_grant");
  }
});

test("#27 a login that is older than the file lets it count is no reason for a refresh, and one that is not goes on", async () => {
  const store = memoryStore();
  const oauth = await OAuthServer.open({}, { store });
  const id = await oauth.registered();
  const { refresh_token: token } = await oauth.tokens({ client_id: id });
  const refresh = async (loginLifetimeMs: number): Promise<Record<string, unknown>> => {
    const other = await OAuthServer.open({ resources: [resource({ loginLifetimeMs })] }, { store });
    return (await other.form("/token", { grant_type: "refresh_token", refresh_token: String(token), client_id: id })).json();
  };
  assert.equal((await refresh(0))["error"], "invalid_grant");
  assert.equal(typeof (await refresh(3_600_000))["access_token"], "string");
});

test("#18 what was given out can be taken back, also when what keeps its grant is shorter than itself", async () => {
  let now = Date.now();
  const oauth = await OAuthServer.open({ resources: [resource({ refreshTokenMs: 1_000 })] }, { now: () => now });
  const { access_token: token } = await oauth.tokens({ client_id: await oauth.registered() });
  now += 5_000;
  await proofOf(oauth, token);
  assert.equal((await oauth.server.grants()).length, 1);
  assert.ok((await oauth.server.revoke({ user: "password:alice" })) >= 1);
  assert.notEqual((await find(oauth, token))?.kind, "identity");
});

test("no access token outlives the login behind it", async () => {
  const oauth = await OAuthServer.open({ resources: [resource({ loginLifetimeMs: 60_000 })] });
  const { expires_in: lifetime } = await oauth.tokens({ client_id: await oauth.registered() });
  assert.ok(Number(lifetime) <= 60, String(lifetime));
});

test("#33 a machine that no way of the resource admits gets no token for it", async () => {
  const allow = [{ ...NOBODY, ownPeople: true, clients: new Set(["another"]) }];
  const oauth = await OAuthServer.open({ resources: [resource({ allow })], clients: [client({ id: "machine", secret: "s3cret", scopes: ["mcp"] })] });
  const reply = await oauth.form("/token", { grant_type: "client_credentials", client_id: "machine", client_secret: "s3cret" });
  assert.deepEqual([reply.status, reply.json()["error"]], [400, "unauthorized_client"]);
});

test("#28 what real clients register is taken", async () => {
  const oauth = await OAuthServer.open();
  const payloads: Record<string, Record<string, unknown>> = {
    cursor: {
      client_name: "Cursor",
      application_type: "web",
      redirect_uris: ["cursor://anysphere.cursor-mcp/oauth/callback", "https://www.cursor.com/agents/mcp/oauth/callback"],
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
    },
    vscode: {
      client_name: "Visual Studio Code",
      client_uri: "https://code.visualstudio.com",
      grant_types: ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
      response_types: ["code"],
      redirect_uris: ["https://insiders.vscode.dev/redirect", "https://vscode.dev/redirect", "http://127.0.0.1/", "http://127.0.0.1:33418/"],
      token_endpoint_auth_method: "none",
      application_type: "native",
    },
    claude: {
      client_name: "Claude",
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      token_endpoint_auth_method: "none",
      scope: "mcp",
      redirect_uris: ["https://claude.ai/api/mcp/auth_callback"],
    },
    "unknown scope": { redirect_uris: [REDIRECT], scope: "mcp claudeai" },
    "no application_type": { redirect_uris: ["http://localhost/callback"], application_type: undefined },
    "https on this machine": { redirect_uris: ["https://localhost:8443/cb"] },
    confidential: { redirect_uris: ["https://app.example/cb"], token_endpoint_auth_method: undefined },
  };
  for (const [name, payload] of Object.entries(payloads)) {
    const reply = await oauth.register(payload);
    assert.equal(reply.status, 201, `${name}: ${reply.body}`);
    assert.equal(reply.header("cache-control"), "no-store");
    assert.deepEqual(reply.json()["redirect_uris"], payload["redirect_uris"]);
    if (name === "unknown scope") assert.equal(reply.json()["scope"], "mcp");
  }
  const cursor = await oauth.registered(payloads["cursor"]);
  const { uid } = await oauth.begin({ client_id: cursor, redirect_uri: "cursor://anysphere.cursor-mcp/oauth/callback" });
  assert.equal((await oauth.approve(uid)).protocol, "cursor:");
});

test("#28 addresses that lead to no application, or in the clear, are invalid_redirect_uri", async () => {
  const oauth = await OAuthServer.open();
  for (const uri of [
    "javascript:alert(1)",
    "data:text/html,x",
    "http://app.example/cb",
    "https://app.example/cb#x",
    "https://user@app.example/cb",
    "file:///etc/passwd",
    "intent://app#Intent;end",
    "ws://app.example/cb",
    "mailto:me@app.example",
    "/relative",
    "http://127.0.0.1.evil.example/cb",
    7,
  ]) {
    const reply = await oauth.register({ redirect_uris: [REDIRECT, uri] });
    assert.equal(reply.status, 400, String(uri));
    assert.equal(reply.json()["error"], "invalid_redirect_uri", String(uri));
  }
  assert.equal((await oauth.register({ redirect_uris: [] })).json()["error"], "invalid_redirect_uri");
});

test("#29 registrations are limited for each address and in size, and errors are those of OAuth", async () => {
  let now = Date.now();
  const oauth = await OAuthServer.open({}, { now: () => now });
  for (let i = 0; i < 30; i += 1) assert.equal((await oauth.register({}, "2001:db8::1")).status, 201);
  const refused = await oauth.register({}, "2001:db8::2");
  assert.equal(refused.status, 429);
  assert.ok(Number(refused.header("retry-after")) > 0);
  assert.equal((await oauth.register({}, "2001:db8:0:1::1")).status, 201);
  now += 601_000;
  assert.equal((await oauth.register({}, "2001:db8::1")).status, 201);
  const post = (body: string, type = "application/json") => oauth.send("/register", { method: "POST", headers: { "content-type": type }, body });
  assert.equal((await post("x".repeat(20_000))).status, 413);
  for (const body of ["", "[]", "null", "{", '"x"']) assert.equal((await post(body)).json()["error"], "invalid_client_metadata", body);
  assert.equal((await post("a=b", "application/x-www-form-urlencoded")).status, 400);
});

test("#29 an unknown client at the token endpoint is 401 invalid_client", async () => {
  const oauth = await OAuthServer.open();
  const reply = await oauth.form("/token", { grant_type: "refresh_token", refresh_token: "x", client_id: "gone" });
  assert.equal(reply.status, 401);
  assert.equal(reply.json()["error"], "invalid_client");
});

test("#18 a JWT is introspected and revoked like any other token, a person's and a machine's, and its grant goes on", async () => {
  const machine = client({ id: "machine", secret: "s3cret", scopes: ["mcp"] });
  const oauth = await OAuthServer.open({ clients: [machine], resources: [resource({ accessTokenFormat: "jwt" })] });
  const basic = { authorization: `Basic ${Buffer.from("machine:s3cret").toString("base64")}` };
  const introspect = async (token: string, fields: Record<string, string> = {}, headers: Record<string, string> = basic) =>
    (await oauth.form("/introspect", { token, ...fields }, headers)).json();
  const [id, stranger] = [await oauth.registered(), await oauth.registered()];
  const tokens = await oauth.tokens({ client_id: id });
  const access = String(tokens["access_token"]);
  const { active, aud, client_id: of, scope, iss, exp } = await introspect(access, { token_type_hint: "access_token" });
  assert.deepEqual([active, aud, of, scope, iss, typeof exp], [true, `${ISSUER}/mcp`, id, "mcp", ISSUER, "number"]);
  assert.equal((await introspect(access, { client_id: id }, {}))["active"], true, "its own client may ask");
  assert.deepEqual(await introspect(access, { client_id: stranger }, {}), { active: false });
  const own = String((await oauth.form("/token", { grant_type: "client_credentials", scope: "mcp" }, basic)).json()["access_token"]);
  assert.deepEqual([(await introspect(own))["active"], (await introspect(own))["client_id"]], [true, "machine"]);

  assert.equal((await oauth.form("/revoke", { token: access, client_id: stranger })).status, 200);
  await proofOf(oauth, access);
  assert.equal((await oauth.form("/revoke", { token: access, client_id: id })).status, 200);
  assert.deepEqual(await find(oauth, access), { kind: "invalid", reason: "The token was revoked" });
  assert.deepEqual(await introspect(access), { active: false });
  await proofOf(oauth, own);
  assert.equal((await oauth.form("/revoke", { token: own }, basic)).status, 200);
  assert.deepEqual(await find(oauth, own), { kind: "invalid", reason: "The token was revoked" });
  assert.deepEqual(await introspect(own), { active: false });
  const refreshed = await oauth.form("/token", { grant_type: "refresh_token", refresh_token: String(tokens["refresh_token"]), client_id: id });
  const next = String(refreshed.json()["access_token"]);
  await proofOf(oauth, next);

  const [head, body, signature = ""] = next.split(".");
  const forged = `${head}.${body}.${signature.startsWith("A") ? "B" : "A"}${signature.slice(1)}`;
  for (const token of [forged, `~${next}`, `~${forged}`, `${head}.${body}.`, "a.b.c", "~", "~a.b.c"]) {
    assert.deepEqual(await introspect(token), { active: false }, token);
    assert.equal((await oauth.form("/revoke", { token, client_id: stranger })).status, 200, token);
  }
  await proofOf(oauth, next);
  const twice = `${new URLSearchParams({ token: next, client_id: id }).toString()}&token=x`;
  const form = { "content-type": "application/x-www-form-urlencoded" };
  assert.equal((await oauth.send("/revoke", { method: "POST", headers: form, body: twice })).status, 400);
});

test("#18 what the file takes away is not active any more, neither the access token nor the refresh token", async () => {
  const machine = client({ id: "machine", secret: "s3cret", scopes: ["mcp"] });
  const basic = { authorization: `Basic ${Buffer.from("machine:s3cret").toString("base64")}` };
  const store = memoryStore();
  const before = await OAuthServer.open({ clients: [machine] }, { store });
  const tokens = await before.tokens({ client_id: await before.registered() });
  const given = [String(tokens["access_token"]), String(tokens["refresh_token"])];
  const active = async (oauth: OAuthServer): Promise<unknown[]> =>
    Promise.all(given.map(async (token) => (await oauth.form("/introspect", { token }, basic)).json()["active"]));
  assert.deepEqual(await active(before), [true, true]);
  before.server.close();
  const { login } = before.plan;
  const withoutAlice = await OAuthServer.open({ clients: [machine], login: { ...login, password: new Map() } }, { store });
  assert.deepEqual(await active(withoutAlice), [false, false]);
  assert.deepEqual(await find(withoutAlice, given[0]), { kind: "invalid", reason: "The account is not there any more" });
  withoutAlice.server.close();
  const withoutResource = await OAuthServer.open({ clients: [machine], resources: [resource({ url: `${ISSUER}/other` })] }, { store });
  assert.equal((await active(withoutResource))[0], false);
  withoutResource.server.close();
  const again = await OAuthServer.open({ clients: [machine] }, { store });
  assert.deepEqual(await active(again), [true, true]);
});

test("#29 clients, grants and refresh tokens outlive a restart", async () => {
  const store = memoryStore();
  const before = await OAuthServer.open({}, { store });
  const id = await before.registered();
  const tokens = await before.tokens({ client_id: id });
  before.server.close();
  const after = await OAuthServer.open({}, { store });
  await proofOf(after, tokens["access_token"]);
  const reply = await after.form("/token", { grant_type: "refresh_token", refresh_token: String(tokens["refresh_token"]), client_id: id });
  assert.equal(reply.status, 200, reply.body);
  await after.tokens({ client_id: id });
});

test("#29 a client that was not used for 90 days is gone, and one that is used stays", async () => {
  let now = Date.now();
  const oauth = await OAuthServer.open({}, { now: () => now });
  const [idle, used] = [await oauth.registered(), await oauth.registered()];
  now += 20 * 86_400_000;
  await oauth.tokens({ client_id: used });
  now += 60 * 86_400_000;
  assert.deepEqual(
    (await oauth.server.clients()).map(({ id }) => id),
    [used],
  );
  assert.equal((await oauth.begin({ client_id: idle })).uid, "");
  assert.notEqual((await oauth.begin({ client_id: used })).uid, "");
});

test("#31 only the browser that began an authorization can answer it, and once", async () => {
  const oauth = await OAuthServer.open();
  const { uid } = await oauth.begin({ client_id: await oauth.registered() });
  const mine = oauth.request(`/.sidegate/consent/${uid}`);
  const other = { ...mine, headers: ["cookie", `__Host-sidegate-browser=${"a".repeat(43)}`] };
  assert.equal(await oauth.pending.find(other, uid), null);
  assert.equal(await oauth.pending.find({ ...mine, headers: [] }, uid), null);
  assert.equal((await oauth.pending.approve(other, uid, ALICE, ["mcp"])).status, 400);
  const found = await oauth.pending.find(mine, uid);
  assert.equal(found?.clientName, "Test");
  assert.equal(found?.clientKind, "registered");
  assert.equal(found?.redirectUri, REDIRECT);
  assert.deepEqual(found?.scopes, ["mcp"]);
  const answers = await Promise.all([oauth.pending.approve(mine, uid, ALICE, ["mcp"]), oauth.pending.approve(mine, uid, ALICE, ["mcp"])]);
  assert.deepEqual(
    answers.map(({ status }) => status).toSorted((a, b) => a - b),
    [303, 400],
  );
  assert.equal((await oauth.server.grants()).length, 1);
});

test("#31 two authorizations in one browser do not get in each other's way", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  const [first, second] = [await oauth.begin({ client_id: id, state: "one" }), await oauth.begin({ client_id: id, state: "two" })];
  const answer = await oauth.pending.find(oauth.request("/"), first.uid);
  assert.ok(answer !== null);
  assert.ok((await oauth.pending.find(oauth.request("/"), second.uid)) !== null);
});

test("#32 consent is asked for again: the same client, a new redirect, new scopes", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  await oauth.tokens({ client_id: id });
  for (const fields of [
    {},
    { redirect_uri: "http://127.0.0.1:1/callback" },
    { scope: "mcp:write" },
    { prompt: "consent" },
    { prompt: "login" },
    { prompt: "select_account" },
  ]) {
    const { uid } = await oauth.begin({ client_id: id, ...fields });
    assert.notEqual(uid, "", JSON.stringify(fields));
    assert.ok((await oauth.approve(uid)).searchParams.has("code"), JSON.stringify(fields));
  }
  const { reply } = await oauth.begin({ client_id: id, prompt: "none" });
  assert.equal(new URL(reply.header("location") ?? "").searchParams.get("error"), "login_required");
});

test("#25 #31 a refusal goes back to the client with the error and the issuer", async () => {
  const oauth = await OAuthServer.open();
  for (const error of ["access_denied", "temporarily_unavailable", "server_error"] as const) {
    const { uid } = await oauth.begin({ client_id: await oauth.registered() });
    const answer = await oauth.pending.deny(oauth.request("/"), uid, error, "not today");
    const location = new URL(answer.headers[answer.headers.indexOf("Location") + 1] ?? "");
    const back = new URL((await oauth.send(location.pathname)).header("location") ?? "");
    assert.equal(back.searchParams.get("error"), error);
    assert.equal(back.searchParams.get("iss"), ISSUER);
    assert.equal(back.searchParams.get("state"), "st");
  }
});

test("who is not admitted to the resource gets no grant, and no scope that is not his", async () => {
  const scopes = new Map([
    ["mcp:write", { name: "mcp:write", description: null, includes: new Set<string>(), allow: { ...NOBODY, githubUsers: new Set(["octocat"]) } }],
  ]);
  const oauth = await OAuthServer.open({ scopes });
  const id = await oauth.registered();
  const mallory: Person = { ...ALICE, source: "github", subject: "7", name: "mallory" };
  const { uid } = await oauth.begin({ client_id: id });
  assert.equal((await oauth.approve(uid, { person: mallory })).searchParams.get("error"), "access_denied");
  const tokens = await oauth.tokens({ client_id: id, scope: "mcp mcp:write" });
  assert.equal(tokens["scope"], "mcp");
  const more = await oauth.begin({ client_id: id, scope: "mcp mcp:write" });
  const back = await oauth.approve(more.uid, { scopes: ["mcp", "admin"] });
  assert.ok(back.searchParams.has("code"));
});

test("#33 machines get tokens with a secret, by header or form, for their own scopes", async () => {
  const oauth = await OAuthServer.open({ clients: [client({ id: "machine", secret: "s3cret", scopes: ["mcp"] })] });
  const basic = { authorization: `Basic ${Buffer.from("machine:s3cret").toString("base64")}` };
  const header = await oauth.form("/token", { grant_type: "client_credentials" }, basic);
  assert.equal(header.status, 200, header.body);
  assert.equal(header.json()["refresh_token"], undefined);
  const proof = await proofOf(oauth, header.json()["access_token"]);
  assert.deepEqual(proof.identity, { source: "client", name: "machine", scopes: ["mcp"] });
  assert.equal(proof.person?.subject, "machine");
  assert.equal(proof.resource, `${ISSUER}/mcp`);
  const form = await oauth.form("/token", { grant_type: "client_credentials", client_id: "machine", client_secret: "s3cret", scope: "mcp mcp:write" });
  assert.equal(form.json()["scope"], "mcp");
  const more = await oauth.form("/token", { grant_type: "client_credentials", scope: "mcp:write" }, basic);
  assert.equal(more.json()["error"], "invalid_scope");
  const wrong = await oauth.form("/token", { grant_type: "client_credentials", client_id: "machine", client_secret: "other" });
  assert.equal(wrong.status, 401);
  const none = await oauth.form("/token", { grant_type: "client_credentials", client_id: "machine" });
  assert.equal(none.status, 401);
});

test("#33 machines get tokens with a signed assertion, once for each; a client of strangers gets none for itself", async () => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const jwks = [{ ...(await exportJWK(publicKey)), alg: "ES256", kid: "one" }];
  const oauth = await OAuthServer.open({ clients: [client({ id: "signer", jwks, scopes: ["mcp"] })] });
  const assertion = await new SignJWT({ jti: randomUUID() })
    .setProtectedHeader({ alg: "ES256", kid: "one" })
    .setIssuer("signer")
    .setSubject("signer")
    .setAudience(`${ISSUER}/token`)
    .setIssuedAt()
    .setExpirationTime("1m")
    .sign(privateKey);
  const fields = {
    grant_type: "client_credentials",
    client_assertion: assertion,
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
  };
  const first = await oauth.form("/token", fields);
  assert.equal(first.status, 200, first.body);
  assert.equal((await proofOf(oauth, first.json()["access_token"])).identity.name, "signer");
  assert.equal((await oauth.form("/token", fields)).status, 401);
  const stranger = (
    await oauth.register({ token_endpoint_auth_method: "client_secret_post", grant_types: ["authorization_code", "client_credentials"] })
  ).json();
  const refused = await oauth.form("/token", {
    grant_type: "client_credentials",
    client_id: String(stranger["client_id"]),
    client_secret: String(stranger["client_secret"]),
  });
  assert.equal(refused.status, 400);
  assert.equal(refused.json()["access_token"], undefined);
});

test("#18 a revoked token is refused at once, and introspection says that it is not active", async () => {
  const oauth = await OAuthServer.open({ clients: [client({ id: "machine", secret: "s3cret", scopes: ["mcp"] })] });
  const id = await oauth.registered();
  const tokens = await oauth.tokens({ client_id: id });
  const access = String(tokens["access_token"]);
  const basic = { authorization: `Basic ${Buffer.from("machine:s3cret").toString("base64")}` };
  const introspect = async () => (await oauth.form("/introspect", { token: access }, basic)).json();
  assert.equal((await introspect())["active"], true);
  assert.equal((await introspect())["aud"], `${ISSUER}/mcp`);
  const stranger = await oauth.registered();
  assert.deepEqual((await oauth.form("/introspect", { token: access, client_id: stranger })).json(), { active: false });
  const secretive = (await oauth.register({ token_endpoint_auth_method: "client_secret_post" })).json();
  const credentials = { client_id: String(secretive["client_id"]), client_secret: String(secretive["client_secret"]) };
  assert.deepEqual((await oauth.form("/introspect", { token: access, ...credentials })).json(), { active: false });
  await proofOf(oauth, access);
  assert.ok(!(oauth.server.tokens.find(access) instanceof Promise), "it is in the cache");
  const revoked = await oauth.form("/revoke", { token: access, client_id: id });
  assert.equal(revoked.status, 200);
  assert.equal(revoked.header("cache-control"), "no-store");
  assert.equal(await find(oauth, access), null);
  assert.deepEqual(await introspect(), { active: false });
  const refreshed = await oauth.form("/token", { grant_type: "refresh_token", refresh_token: String(tokens["refresh_token"]), client_id: id });
  assert.equal(refreshed.status, 200, "the access token alone was revoked");
  await oauth.form("/revoke", { token: String(refreshed.json()["refresh_token"]), client_id: id });
  assert.equal(await find(oauth, refreshed.json()["access_token"]), null, "with the refresh token all goes");
});

test("#18 one client cannot revoke what another has", async () => {
  const oauth = await OAuthServer.open();
  const [mine, other] = [await oauth.registered(), await oauth.registered()];
  const tokens = await oauth.tokens({ client_id: mine });
  await oauth.form("/revoke", { token: String(tokens["refresh_token"]), client_id: other });
  await proofOf(oauth, tokens["access_token"]);
});

test("#18 what another gateway on the same state revokes is refused after two seconds", async () => {
  let now = Date.now();
  const store = memoryStore(() => now);
  const [here, there] = [await OAuthServer.open({}, { store, now: () => now }), await OAuthServer.open({}, { store, now: () => now })];
  const tokens = await here.tokens({ client_id: await here.registered() });
  await proofOf(here, tokens["access_token"]);
  assert.equal(await there.server.revoke({ all: true }), 2);
  now += 2_000;
  assert.equal(await find(here, tokens["access_token"]), null);
});

test("#33 a machine's token that was taken back stays worthless to its end, also when tokens lived longer by the file of before", async () => {
  const day = 86_400_000;
  for (const accessTokenFormat of ["opaque", "jwt"] as const) {
    let now = Date.now();
    const store = memoryStore(() => now);
    const withLifetime = (accessTokenMs: number): Promise<OAuthServer> => {
      const clients = [client({ id: "machine", secret: "s3cret", scopes: ["mcp"] })];
      return OAuthServer.open({ clients, resources: [resource({ accessTokenFormat, accessTokenMs })] }, { store, now: () => now });
    };
    const long = await withLifetime(60 * day);
    const reply = await long.form("/token", { grant_type: "client_credentials", client_id: "machine", client_secret: "s3cret" });
    const token = reply.json()["access_token"];
    now += 1_000;
    const short = await withLifetime(3_600_000);
    await proofOf(short, token);
    await short.server.revoke({ client: "machine" });
    assert.equal((await find(short, token))?.kind, "invalid");
    now += 3 * day;
    assert.equal((await find(short, token))?.kind, "invalid", accessTokenFormat);
    for (const { server } of [long, short]) server.close();
  }
});

test("#12 an expired token says so; what is not of us is left to others", async () => {
  let now = Date.now();
  const oauth = await OAuthServer.open({}, { now: () => now });
  const tokens = await oauth.tokens({ client_id: await oauth.registered() });
  await proofOf(oauth, tokens["access_token"]);
  // oidc-provider counts from the second in which it gave the token out, by the clock.
  now = Date.now() + 3_600_000;
  assert.deepEqual(await find(oauth, tokens["access_token"]), { kind: "invalid", reason: "The token has expired" });
  for (const token of [
    "x",
    "a".repeat(43),
    "a.b.c",
    `${Buffer.from('{"alg":"none"}').toString("base64url")}.${Buffer.from('{"iss":"https://other"}').toString("base64url")}.x`,
  ])
    assert.equal(await find(oauth, token), null);
  assert.equal(await find(oauth, tokens["refresh_token"]), null);
});

test("#12 JWT access tokens: what they say, and that they end with their grant", async () => {
  const oauth = await OAuthServer.open({ resources: [resource({ accessTokenFormat: "jwt" })] });
  const id = await oauth.registered();
  const token = String((await oauth.tokens({ client_id: id }))["access_token"]);
  const claims = decodeJwt(token);
  assert.equal(claims.iss, ISSUER);
  assert.equal(claims.aud, `${ISSUER}/mcp`);
  const proof = await proofOf(oauth, token);
  assert.equal(proof.identity.name, "alice");
  assert.equal(proof.identity.client, id);
  const [head = "", body = "", signature = ""] = token.split(".");
  const none = `${Buffer.from('{"alg":"none","typ":"at+jwt"}').toString("base64url")}.${body}.${signature}`;
  assert.equal((await find(oauth, none))?.kind, "invalid");
  const other = Buffer.from(JSON.stringify({ ...claims, scope: "mcp mcp:write" })).toString("base64url");
  assert.equal((await find(oauth, `${head}.${other}.${signature}`))?.kind, "invalid");
  assert.equal(await oauth.server.revoke({ client: id }), 1);
  assert.equal((await find(oauth, token))?.kind, "invalid");
});

test("#35 answers with tokens are not to be stored, and take no cookies", async () => {
  const oauth = await OAuthServer.open();
  const id = await oauth.registered();
  await oauth.tokens({ client_id: id });
  const replies = [
    await oauth.form("/token", { grant_type: "refresh_token", refresh_token: "x", client_id: id }),
    await oauth.register(),
    await oauth.register({ redirect_uris: [] }),
    await oauth.form("/introspect", { token: "x", client_id: id }),
    await oauth.form("/revoke", { token: "x", client_id: id }),
    await oauth.send("/token", { method: "POST", body: "x" }),
  ];
  for (const reply of replies) {
    assert.equal(reply.header("cache-control"), "no-store");
    assert.equal(reply.header("set-cookie"), null);
    assert.equal(reply.header("access-control-allow-origin"), "*");
    assert.equal(reply.header("access-control-allow-credentials"), null);
  }
});

test("#37 any page may ask for metadata, tokens and registrations", async () => {
  const oauth = await OAuthServer.open();
  for (const path of ["/token", "/register", "/revoke", "/.well-known/oauth-authorization-server", "/jwks"]) {
    const headers = {
      origin: "https://page.example",
      "access-control-request-method": "POST",
      "access-control-request-headers": "content-type,mcp-protocol-version",
    };
    const reply = await oauth.send(path, { method: "OPTIONS", headers });
    assert.equal(reply.status, 204, path);
    assert.equal(reply.header("access-control-allow-origin"), "*");
    assert.equal(reply.header("access-control-allow-headers"), "content-type,mcp-protocol-version");
  }
  assert.equal((await oauth.send("/authorize", { method: "OPTIONS" })).header("access-control-allow-origin"), null);
});

test("#10 a spoofed host or forwarded header changes no address", async () => {
  const oauth = await OAuthServer.open();
  const headers = { host: "evil.example", "x-forwarded-host": "evil.example", "x-forwarded-proto": "http", forwarded: "host=evil.example" };
  assert.ok(!(await oauth.send("/.well-known/oauth-authorization-server", { headers })).body.includes("evil"));
  const id = await oauth.registered();
  const query = new URLSearchParams({
    client_id: id,
    response_type: "code",
    redirect_uri: REDIRECT,
    code_challenge: "a".repeat(43),
    code_challenge_method: "S256",
  });
  const reply = await oauth.send(`/authorize?${query.toString()}`, { headers });
  const uid = (reply.header("location") ?? "").split("/").at(-1) ?? "";
  const answer = await oauth.pending.approve(oauth.request("/"), uid, ALICE, ["mcp"]);
  assert.ok(answer.headers[answer.headers.indexOf("Location") + 1]?.startsWith(`${ISSUER}/authorize/`));
  assert.ok(reply.headers.some((line) => line.startsWith("sidegate-authorization=") && /; secure/i.test(line) && /; httponly/i.test(line)));
});

test("operators see clients and grants, and take them back by grant, client, user or all", async () => {
  const oauth = await OAuthServer.open({ clients: [client({ id: "app", redirectUris: ["https://app.example/cb"], name: "The app" })] });
  const id = await oauth.registered();
  const bob: Person = { ...ALICE, subject: "bob", name: "bob" };
  const tokens = [await oauth.tokens({ client_id: id }), await oauth.tokens({ client_id: id }, { person: bob })];
  await oauth.tokens({ client_id: "app", redirect_uri: "https://app.example/cb" });
  const clients = await oauth.server.clients();
  assert.deepEqual(
    clients.map(({ kind, name }) => `${kind} ${name}`),
    ["static The app", "registered Test"],
  );
  const grants = await oauth.server.grants();
  assert.deepEqual(grants.map(({ user, client_name: clientName }) => `${user} ${clientName}`).toSorted(), [
    "password:alice Test",
    "password:alice The app",
    "password:bob Test",
  ]);
  assert.deepEqual(grants[0]?.resources, [`${ISSUER}/mcp`]);
  assert.equal(await oauth.server.revoke({ grant: "unknown" }), 0);
  // The harness has one session for each time that it is asked.
  assert.equal(await oauth.server.revoke({ user: "password:alice" }), 2 + 1);
  assert.deepEqual(oauth.revokedUsers, ["password:alice"]);
  assert.equal(await find(oauth, tokens[0]?.["access_token"]), null);
  await proofOf(oauth, tokens[1]?.["access_token"]);
  const [left] = await oauth.server.grants();
  assert.equal(await oauth.server.revoke({ grant: left?.id ?? "" }), 1);
  assert.equal(await find(oauth, tokens[1]?.["access_token"]), null);
  await oauth.tokens({ client_id: id });
  assert.equal(await oauth.server.revoke({ client: id }), 1);
  assert.equal((await oauth.server.clients()).length, 1);
  assert.equal((await oauth.begin({ client_id: id })).uid, "");
});

test("no token, code or secret is a key or, but for clients' own secrets, a value of the state", async () => {
  const store = memoryStore();
  const oauth = await OAuthServer.open({}, { store });
  const id = await oauth.registered();
  const { uid, verifier } = await oauth.begin({ client_id: id });
  const code = (await oauth.approve(uid)).searchParams.get("code") ?? "";
  const reply = await oauth.form("/token", { grant_type: "authorization_code", code, code_verifier: verifier, client_id: id, redirect_uri: REDIRECT });
  const text = JSON.stringify(await store.list(""));
  for (const secret of [code, String(reply.json()["access_token"]), String(reply.json()["refresh_token"])]) {
    assert.ok(!text.includes(secret));
    assert.ok(text.includes(createHash("sha256").update(secret).digest("base64url")));
  }
});

test("a server for sessions alone has no endpoints of OAuth", async () => {
  const oauth = await OAuthServer.open({ resources: [], sessionOrigins: new Set([ISSUER]) });
  for (const path of ["/authorize", "/token", "/register", "/jwks", "/.well-known/oauth-authorization-server"])
    assert.equal(oauth.server.serves(ISSUER, path), false, path);
});

test("a token says what its scopes include now, and loses those that are not the person's any more", async () => {
  const store = memoryStore();
  const scope = (name: string, includes: string[], allow: typeof NOBODY | null = null) => ({ name, description: null, includes: new Set(includes), allow });
  const oauth = await OAuthServer.open({ scopes: new Map([["mcp:write", scope("mcp:write", ["mcp:read"])]]) }, { store });
  const tokens = await oauth.tokens({ client_id: await oauth.registered(), scope: "mcp mcp:write" });
  assert.deepEqual((await proofOf(oauth, tokens["access_token"])).identity.scopes, ["mcp", "mcp:write", "mcp:read"]);
  const edited = await OAuthServer.open({ scopes: new Map([["mcp:write", scope("mcp:write", [], NOBODY)]]) }, { store });
  assert.deepEqual((await proofOf(edited, tokens["access_token"])).identity.scopes, ["mcp"]);
});

test("a resource that is not for refresh tokens gives none", async () => {
  const oauth = await OAuthServer.open({ resources: [resource({ grants: new Set(["authorization_code"]) })] });
  const tokens = await oauth.tokens({ client_id: await oauth.registered() });
  assert.equal(tokens["refresh_token"], undefined);
});

test("what nobody can use any more is swept: grants that ended, their people, clients", async () => {
  let now = Date.now();
  const store = memoryStore(() => now);
  const oauth = await OAuthServer.open({}, { store, now: () => now });
  await oauth.tokens({ client_id: await oauth.registered() });
  now += 200 * 86_400_000;
  await new ServerState(store, ISSUER, () => now).sweep();
  assert.deepEqual(
    (await store.list("oauth:")).map(({ key }) => key),
    [],
  );
});
