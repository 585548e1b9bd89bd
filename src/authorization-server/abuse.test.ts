// What strangers try: to fill the state, to be heard where they were not asked, to keep what was taken from them.
import assert from "node:assert/strict";
import { generateKeyPairSync, randomUUID } from "node:crypto";
import test from "node:test";
import { exportJWK, SignJWT } from "jose";
import { memoryStore as openMemory } from "../../test/components/memory-store.ts";
import { ALICE, client, ISSUER, OAuthServer, REDIRECT, resource, serverPlan } from "../../test/components/oauth-server.ts";
import { NOBODY } from "../plan/build-people.ts";
import type { Person } from "../identity/person.ts";
import { openLog } from "../telemetry/log.ts";
import { ServerState } from "./adapter.ts";
import { createSigner } from "./browser.ts";
import type { FetchDeps } from "./client-document.ts";
import { createLimit, forAll, joinLimits } from "./limit.ts";
import { openLoginFlow, type LoginFlowDeps } from "./login-flow.ts";
import { clientLabel } from "./page-consent.ts";
import { openServer } from "./server.ts";
import { Sessions } from "./sessions.ts";

const LOG = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: (text) => assert.fail(text) });

test("authorizations that nobody answers do not fill the state: an address keeps its newest", async () => {
  const store = openMemory();
  const oauth = await OAuthServer.open({}, { store });
  const id = await oauth.registered();
  const kept = (): number => [...store.entries.keys()].filter((key) => /:(?:Interaction|waiting):/.test(key)).length;
  const first = await oauth.begin({ client_id: id });
  // Somebody at another address is asked at the same time.
  const target = `/authorize?${new URLSearchParams({ response_type: "code", client_id: id, redirect_uri: REDIRECT, code_challenge: "a".repeat(43), code_challenge_method: "S256" }).toString()}`;
  const elsewhere = await oauth.send(target, { client: "198.51.100.1" });
  for (let i = 0; i < 520; i += 1) await oauth.begin({ client_id: id });
  assert.equal(kept(), 2 * 501);
  assert.equal(await oauth.pending.find(oauth.request("/"), first.uid), null);
  const uid = elsewhere.header("location")?.split("/").at(-1) ?? "";
  assert.ok((await oauth.pending.find(oauth.request("/"), uid)) !== null);
});

test("an authorization request of many KiB is refused, by GET and by POST", async () => {
  const oauth = await OAuthServer.open();
  const { reply } = await oauth.begin({ client_id: await oauth.registered(), state: "s".repeat(9_000) });
  assert.equal(reply.status, 400);
  assert.match(reply.body, /longer than/);
  assert.equal((await oauth.form("/authorize", { client_id: "x", state: "s".repeat(9_000) })).status, 400);
});

test("logins of pages that nobody finishes do not fill the state", async () => {
  const store = openMemory();
  const login = {
    ...serverPlan().login,
    github: { clientId: "id", clientSecret: "secret", baseUrl: "https://github.com", apiUrl: "https://api.github.com", ca: null },
    password: null,
  };
  const server = await openServer(serverPlan({ login, sessionOrigins: new Set([ISSUER]), sessionLifetimesMs: new Map([[ISSUER, 60_000]]) }), {
    store,
    log: LOG,
  });
  const headers = ["cookie", `__Host-sidegate-browser=${"a".repeat(43)}`];
  const target = "/.sidegate/login?return_to=/x";
  const request = {
    method: "GET",
    target,
    path: "/.sidegate/login",
    origin: ISSUER,
    headers,
    body: Buffer.alloc(0),
    client: "203.0.113.7",
    peer: null,
    requestId: "r",
  };
  for (let i = 0; i < 520; i += 1) assert.equal((await server.handle(request)).status, 303);
  assert.equal([...store.entries.keys()].filter((key) => key.startsWith("login:")).length, 500);
  server.close();
});

test("what browsers keep is signed with the keys of now, when these change", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  let now = Date.now();
  let handed: LoginFlowDeps["keys"] | null = null;
  const store = openMemory(() => now);
  const openFlow: typeof openLoginFlow = (plan, deps) => {
    handed = deps.keys;
    return openLoginFlow(plan, deps);
  };
  const server = await openServer(serverPlan(), { store, log: LOG, now: () => now, openFlow });
  const keys: LoginFlowDeps["keys"] = handed ?? assert.fail();
  const signer = createSigner(keys);
  const [before = ""] = keys.cookieKeys;
  const old = signer.sign(["a"]);
  const until = async (isSo: () => boolean): Promise<void> => {
    const deadline = performance.now() + 20_000;
    while (!isSo()) {
      assert.ok(performance.now() < deadline, "the keys have not changed");
      await new Promise((resolve) => void setImmediate(resolve));
    }
  };
  // First the next ones are made, then they sign.
  now += 84 * 86_400_000;
  t.mock.timers.tick(86_400_000);
  await until(() => keys.cookieKeys.length === 2);
  now += 7 * 86_400_000;
  await until(() => {
    t.mock.timers.tick(86_400_000);
    return keys.cookieKeys[0] !== before;
  });
  assert.notEqual(keys.cookieKeys[0], before);
  assert.equal(signer.verify(old, ["a"]), true);
  assert.notEqual(signer.sign(["a"]), old);
  server.close();
});

test("a scope that is for some is had by nobody else, also where another scope includes it", async () => {
  const scope = (name: string, includes: string[], allow: typeof NOBODY | null) =>
    [name, { name, description: null, includes: new Set(includes), allow }] as const;
  const scopes = new Map([scope("mcp", ["mcp:trade"], null), scope("mcp:trade", [], { ...NOBODY, users: new Set(["bob"]) })]);
  const oauth = await OAuthServer.open({ scopes });
  const id = await oauth.registered();
  for (const [person, had] of [
    [ALICE, ["mcp"]],
    [{ ...ALICE, subject: "bob", name: "bob" }, ["mcp", "mcp:trade"]],
  ] as const) {
    const found = await oauth.server.tokens.find(String((await oauth.tokens({ client_id: id, scope: "mcp" }, { person }))["access_token"]));
    assert.deepEqual(found?.kind === "identity" && found.identity.scopes, had);
  }
});

for (const accessTokenFormat of ["opaque", "jwt"] as const) {
  test(`tokens that a machine got for itself are taken back with its client, and with all (${accessTokenFormat})`, async (t) => {
    t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
    const machine = client({ id: "machine", secret: "s".repeat(32), scopes: ["mcp"] });
    const other = client({ id: "signer", secret: "t".repeat(32), scopes: ["mcp"] });
    const oauth = await OAuthServer.open({ clients: [machine, other], resources: [resource({ accessTokenFormat })] }, { now: () => Date.now() });
    const get = async (id: string, secret: string): Promise<string> => {
      const reply = await oauth.form("/token", { grant_type: "client_credentials", client_id: id, client_secret: secret });
      assert.equal(reply.status, 200, reply.body);
      return String(reply.json()["access_token"]);
    };
    const kindOf = async (token: string): Promise<string | undefined> => (await oauth.server.tokens.find(token))?.kind;
    const [first, theirs] = [await get("machine", "s".repeat(32)), await get("signer", "t".repeat(32))];
    assert.equal(await kindOf(first), "identity");
    t.mock.timers.tick(2_000);
    await oauth.server.revoke({ client: "machine" });
    assert.equal(await kindOf(first), "invalid");
    assert.equal(await kindOf(theirs), "identity");
    t.mock.timers.tick(2_000);
    const second = await get("machine", "s".repeat(32));
    assert.equal(await kindOf(second), "identity");
    t.mock.timers.tick(2_000);
    await oauth.server.revoke({ all: true });
    for (const token of [first, second, theirs]) assert.equal(await kindOf(token), "invalid");
  });
}

test("an assertion that never ends is refused, so that what is remembered of it ends, too", async () => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const store = openMemory();
  const oauth = await OAuthServer.open({}, { store });
  const id = await oauth.registered({ token_endpoint_auth_method: "private_key_jwt", jwks: { keys: [{ ...(await exportJWK(publicKey)), alg: "ES256" }] } });
  const status = async (seconds: number): Promise<Record<string, unknown>> => {
    const exp = Math.floor(Date.now() / 1_000) + seconds;
    const assertion = await new SignJWT({ jti: randomUUID(), exp })
      .setProtectedHeader({ alg: "ES256" })
      .setIssuer(id)
      .setSubject(id)
      .setAudience(ISSUER)
      .sign(privateKey);
    const type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    return (await oauth.form("/token", { grant_type: "authorization_code", code: "x", client_assertion_type: type, client_assertion: assertion })).json();
  };
  const remembered = (): number => [...store.entries.keys()].filter((key) => key.includes(":ReplayDetection:")).length;
  assert.equal((await status(300))["error"], "invalid_grant");
  assert.equal(remembered(), 1);
  assert.equal((await status(86_400))["error"], "invalid_client");
  assert.equal(remembered(), 1);
});

test("#28 addresses that open a part of the system are no redirect URIs", async () => {
  const oauth = await OAuthServer.open();
  for (const uri of [
    "ms-appinstaller:?source=https://evil.example/x.msix",
    "ms-msdt:/id",
    "search-ms:query=x",
    "itms-services://?action=download-manifest",
    "chrome://settings",
    "shell:x",
    "MS-Word:ofe|u|x",
    "a:",
  ]) {
    const reply = await oauth.register({ redirect_uris: [uri] });
    assert.equal(reply.json()["error"], "invalid_redirect_uri", uri);
  }
  for (const uri of ["cursor://anysphere.cursor-mcp/oauth/callback", "vscode://x/y", "com.example.app:/cb"]) await oauth.registered({ redirect_uris: [uri] });
});

test("#29 registrations that nobody uses end sooner, and an address has so many a day", async () => {
  let now = Date.now();
  const store = openMemory(() => now);
  const oauth = await OAuthServer.open({}, { store, now: () => now });
  let taken = 0;
  for (let i = 0; i < 400; i += 1) {
    if ((await oauth.register()).status === 201) taken += 1;
    if (i % 29 === 28) now += 601_000;
  }
  assert.equal(taken, 200);
  const unused = await oauth.registered({}).catch(() => null);
  assert.equal(unused, null);
  now += 86_400_000;
  const [first, used] = [await oauth.registered(), await oauth.registered()];
  await oauth.tokens({ client_id: used });
  now += 31 * 86_400_000;
  assert.equal((await oauth.begin({ client_id: first })).uid, "");
  assert.notEqual((await oauth.begin({ client_id: used })).uid, "");
});

test("what was granted on the word of a provider ends when that is no provider any more, and nobody takes it over", async () => {
  const store = openMemory();
  const at = (baseUrl: string | null) => ({
    ...serverPlan().login,
    github: baseUrl === null ? null : { clientId: "id", clientSecret: "secret", baseUrl, apiUrl: baseUrl, ca: null },
  });
  const allowed = resource({ allow: [{ ...NOBODY, githubUsers: "*" }] });
  const first: Person = { ...ALICE, source: "github", subject: "1", name: "alice" };
  const open = (baseUrl: string | null) => OAuthServer.open({ login: at(baseUrl), resources: [allowed] }, { store });
  const old = await open("https://github.com");
  const id = await old.registered();
  const tokens = await old.tokens({ client_id: id }, { person: first });
  const token = String(tokens["access_token"]);
  assert.equal((await old.server.tokens.find(token))?.kind, "identity");
  const moved = await open("https://github.example.com");
  assert.equal((await moved.server.tokens.find(token))?.kind, "invalid");
  // The person with the same number there is another one.
  await moved.tokens({ client_id: id }, { person: { ...first, name: "mallory" } });
  assert.equal((await moved.server.tokens.find(token))?.kind, "invalid");
  const refreshed = await moved.form("/token", { grant_type: "refresh_token", refresh_token: String(tokens["refresh_token"]), client_id: id });
  assert.equal(refreshed.json()["error"], "invalid_grant");
  const without = await open(null);
  assert.equal((await without.server.tokens.find(token))?.kind, "invalid");
  // And those of before count again when it comes back.
  const back = await (await open("https://github.com")).server.tokens.find(token);
  assert.equal(back?.kind === "identity" && back.identity.name, "alice");
});

test("a new password ends what the one before has opened", async () => {
  const store = openMemory();
  const login = (hash: string) => ({ ...serverPlan().login, password: new Map([["alice", { hash, groups: [] }]]) });
  const old = await OAuthServer.open({ login: login("one") }, { store });
  const token = String((await old.tokens({ client_id: await old.registered() }))["access_token"]);
  assert.equal((await old.server.tokens.find(token))?.kind, "identity");
  assert.equal((await (await OAuthServer.open({ login: login("two") }, { store })).server.tokens.find(token))?.kind, "invalid");
  const sessions = (hash: string): Sessions =>
    new Sessions({ issuer: ISSUER, lifetimesMs: new Map([[ISSUER, 60_000]]), login: login(hash), store, log: LOG, now: Date.now });
  const cookie = await sessions("one").create(ISSUER, ALICE);
  assert.equal((await sessions("one").find(cookie, ISSUER)).kind, "identity");
  assert.equal((await sessions("two").find(cookie, ISSUER)).kind, "none");
  // Nor is it shown to the operator as one that counts.
  assert.deepEqual([(await sessions("one").list()).length, (await sessions("two").list()).length], [1, 0]);
});

test("keys of clients are not fetched as often as strangers ask for it", async () => {
  let lookups = 0;
  const documents: FetchDeps = { resolve: async () => [`192.0.2.${(lookups += 1) % 2}`], isPublic: () => false, ca: null };
  const oauth = await OAuthServer.open({}, { documents });
  const id = await oauth.registered({ token_endpoint_auth_method: "private_key_jwt", jwks_uri: "https://victim.example/keys" });
  const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const assertion = await new SignJWT({ jti: "j", exp: Math.floor(Date.now() / 1_000) + 60 })
    .setProtectedHeader({ alg: "ES256" })
    .setIssuer(id)
    .setSubject(id)
    .setAudience(ISSUER)
    .sign(privateKey);
  const type = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
  for (let i = 0; i < 100; i += 1)
    assert.ok(
      (await oauth.form("/token", { grant_type: "authorization_code", code: "x", client_assertion_type: type, client_assertion: assertion })).status < 500,
    );
  assert.equal(lookups, 60);
});

test("#29 registrations from very many addresses are limited in all, and the idle ones that stay are the latest", async () => {
  let now = Date.now();
  const store = openMemory(() => now);
  const oauth = await OAuthServer.open({}, { store, now: () => now });
  const state = new ServerState(store, ISSUER, () => now);
  const adapter = state.adapter("Client");
  for (let i = 0; i < 5_002; i += 1) {
    now += 1;
    await adapter.upsert(`client-${i}`, { client_id: `client-${i}` }, undefined);
  }
  const used = await oauth.registered();
  await oauth.tokens({ client_id: used });
  await state.sweep();
  assert.equal(await adapter.find("client-1"), undefined);
  assert.notEqual(await adapter.find("client-2"), undefined);
  assert.notEqual(await adapter.find(used), undefined);
});

test("a limit for all is not used up by whom one of their own holds back", () => {
  const all = forAll(createLimit(3, 1_000, () => 0));
  const limit = joinLimits(
    createLimit(2, 1_000, () => 0),
    all,
  );
  assert.deepEqual(
    ["a", "a", "a", "a", "b", "b", "c"].map((client) => limit.take(client)),
    [0, 0, 1, 1, 0, 1, 1],
  );
});

test("#28 metadata of many KiB are refused", async () => {
  const oauth = await OAuthServer.open();
  const uris = Array.from({ length: 10 }, (_, i) => `https://app.example/${i}/${"x".repeat(1_000)}`);
  assert.equal((await oauth.register({ redirect_uris: uris })).json()["error"], "invalid_client_metadata");
});

test("#31 a client's name cannot paint over the page, nor be nothing to see", () => {
  const label = (clientName: string): string => clientLabel({ clientName, clientId: "id-1" });
  assert.equal(label(`Zalgo${"\u0336".repeat(60)}`), "Zalgo\u0336\u0336");
  assert.equal(label("\u3164\u115f\u2800 \u200b\u202e"), "id-1");
  assert.equal(label("\ud83d"), "\ufffd");
  assert.equal(label("Café Ω 日本語"), "Café Ω 日本語");
});

for (const accessTokenFormat of ["opaque", "jwt"] as const) {
  test(`what is taken out of the file ends with it: an optional scope, a client (${accessTokenFormat})`, async () => {
    const store = openMemory();
    const app = client({ id: "app", redirectUris: [REDIRECT] });
    const served = resource({ accessTokenFormat });
    const before = await OAuthServer.open({ clients: [app], resources: [served] }, { store });
    const scopesOf = async (oauth: OAuthServer, token: unknown): Promise<readonly string[] | null> => {
      const found = await oauth.server.tokens.find(String(token));
      return found?.kind === "identity" ? found.identity.scopes : null;
    };
    const { access_token: token } = await before.tokens({ client_id: "app", scope: "mcp mcp:write" });
    assert.deepEqual(await scopesOf(before, token), ["mcp", "mcp:write"]);
    const narrow = await OAuthServer.open({ clients: [app], resources: [{ ...served, optionalScopes: [] }] }, { store });
    assert.deepEqual(await scopesOf(narrow, token), ["mcp"]);
    const without = await OAuthServer.open({ resources: [served] }, { store });
    assert.equal(await scopesOf(without, token), null);
  });
}

test("#24 #25 nobody who only registered can use our address to send people to a site of theirs: they are asked first", async () => {
  const site = "https://evil.example/landing";
  const known = client({ id: "known", redirectUris: [site] });
  const oauth = await OAuthServer.open({ clients: [known] });
  const id = await oauth.registered({ redirect_uris: [site] });
  for (const wrong of [
    { prompt: "none" },
    { scope: "unknown" },
    { resource: "https://other.example" },
    { response_type: "token" },
    { response_mode: "fragment" },
    { response_mode: "form_post" },
    { prompt: "none", response_mode: "form_post" },
  ]) {
    const { reply } = await oauth.begin({ client_id: id, redirect_uri: site, ...wrong });
    const what = JSON.stringify(wrong);
    assert.equal(reply.status, 400, what);
    assert.equal(reply.header("location"), null, what);
    assert.ok(!/<script|<form/i.test(reply.body), what);
    assert.match(reply.body, /href="https:\/\/evil\.example\/landing[?#][^"]*error=[^"]*"[^>]*>Back to evil\.example</, what);
    assert.match(reply.header("content-security-policy") ?? "", /default-src 'none'/, what);
  }
  const twice = `/authorize?${new URLSearchParams([
    ["client_id", "known"],
    ["client_id", id],
    ["redirect_uri", site],
    ["response_type", "code"],
    ["prompt", "none"],
  ]).toString()}`;
  assert.equal((await oauth.send(twice)).header("location"), null);
  // Of whom the operator knows, and on the person's own machine, the client is told at once.
  assert.equal(
    new URL((await oauth.begin({ client_id: "known", redirect_uri: site, prompt: "none" })).reply.header("location") ?? "").searchParams.get("iss"),
    ISSUER,
  );
  const local = await oauth.begin({ client_id: await oauth.registered(), prompt: "none" });
  assert.equal(new URL(local.reply.header("location") ?? "").searchParams.get("error"), "login_required");
});
