// Keys that change while the server runs: what clients and browsers hold goes on, over a restart and a state that fails just then, too.
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { createLocalJWKSet, decodeProtectedHeader, jwtVerify, type JSONWebKeySet } from "jose";
import { ISSUER, memoryStore, OAuthServer, resource, type Reply } from "../../test/components/oauth-server.ts";
import { hashPassword } from "../lib/password-file.ts";
import { StateError } from "../state/state-error.ts";
import type { StateStore } from "../state/store.ts";
import { openLog } from "../telemetry/log.ts";
import { sessionCookieName } from "./endpoint.ts";
import { openLoginFlow } from "./login-flow.ts";
import { RESUME_COOKIE } from "./provider.ts";
import type { ServerDeps } from "./server.ts";

const MINUTE = 60_000;
const DAY = 86_400_000;
// As keys.ts has them: after the first of these the next keys are published, after the second they sign, after the third the ones before are gone.
const [ANNOUNCED, SIGN, GONE] = [83 * DAY, 90 * DAY, 120 * DAY];
const RESOURCE = `${ISSUER}/mcp`;
const PASSWORD = "a password of alice";
const HASH = await hashPassword(PASSWORD);

/** One clock for all, that of oidc-provider too; it stands still. */
class Clock {
  readonly #context: TestContext;
  readonly #startMs: number;
  readonly #timers: { callCount(): number };

  constructor(context: TestContext) {
    context.mock.timers.enable({ apis: ["Date", "setTimeout"], now: Date.now() });
    this.#context = context;
    this.#startMs = Date.now();
    this.#timers = context.mock.method(globalThis, "setTimeout").mock;
  }

  /** It is so long after the start, and the server has done what it does now and then: it has set its timer anew. */
  async at(ms: number): Promise<void> {
    const before = this.#timers.callCount();
    this.#context.mock.timers.tick(this.#startMs + ms - Date.now());
    const deadline = performance.now() + 20_000;
    while (this.#timers.callCount() === before) {
      assert.ok(performance.now() < deadline, "nothing was due");
      await new Promise((resolve) => void setImmediate(resolve));
    }
  }
}

function open(store: StateStore, { accessTokenMs = 3_600_000, ...deps }: Partial<ServerDeps> & { readonly accessTokenMs?: number } = {}): Promise<OAuthServer> {
  return OAuthServer.open(
    {
      resources: [resource({ accessTokenFormat: "jwt", accessTokenMs })],
      sessionOrigins: new Set([ISSUER]),
      sessionLifetimesMs: new Map([[ISSUER, 60 * DAY]]),
      login: { github: null, oidc: null, password: new Map([["alice", { hash: HASH, groups: [] }]]), tailnet: false },
    },
    { store, openFlow: openLoginFlow, ...deps },
  );
}

async function published(oauth: OAuthServer): Promise<JSONWebKeySet> {
  return (await oauth.send("/jwks")).json() as unknown as JSONWebKeySet;
}

function kids({ keys }: JSONWebKeySet): (string | undefined)[] {
  return keys.map(({ kid }) => kid);
}

/** As an upstream does that knows /jwks. @returns the key that signed it */
async function verify(token: unknown, keys: JSONWebKeySet): Promise<string | undefined> {
  await jwtVerify(String(token), createLocalJWKSet(keys), { issuer: ISSUER, audience: RESOURCE });
  return decodeProtectedHeader(String(token)).kid;
}

async function kindOf(oauth: OAuthServer, token: unknown): Promise<string | undefined> {
  return (await oauth.server.tokens.find(String(token)))?.kind;
}

/** Sends the form of the page, with a name and a password. */
function submit(oauth: OAuthServer, target: string, page: Reply): Promise<Reply> {
  const csrf = /name="csrf" value="([^"]+)"/.exec(page.body)?.[1] ?? assert.fail(`no form: ${page.status} ${page.body}`);
  return oauth.form(target, { csrf, way: "password", name: "alice", password: PASSWORD });
}

/** A page on which the browser may log in, for a client or for itself. */
type Shown = { readonly target: string; readonly page: Reply };
type Asked = Shown & { readonly clientId: string; readonly verifier: string; readonly cookies: ReadonlyMap<string, string> };

async function show(oauth: OAuthServer, target: string): Promise<Shown> {
  return { target, page: await oauth.send(target) };
}

async function ask(oauth: OAuthServer, clientId: string): Promise<Asked> {
  const { uid, verifier } = await oauth.begin({ client_id: clientId });
  const shown = await show(oauth, `/.sidegate/consent/${uid}`);
  return { clientId, verifier, ...shown, cookies: new Map([...oauth.cookies].filter(([name]) => name.startsWith(RESUME_COOKIE))) };
}

/** The person consents, and the client exchanges its code. */
async function answer(oauth: OAuthServer, { clientId, verifier, target, page, cookies }: Asked): Promise<Record<string, unknown>> {
  // A browser keeps one of them for each path.
  for (const [name, value] of cookies) oauth.cookies.set(name, value);
  const back = await oauth.follow(await submit(oauth, target, page));
  const code = back.searchParams.get("code") ?? assert.fail(back.href);
  const redirect_uri = `${back.origin}${back.pathname}`;
  const reply = await oauth.form("/token", { grant_type: "authorization_code", code, code_verifier: verifier, client_id: clientId, redirect_uri });
  assert.equal(reply.status, 200, reply.body);
  return reply.json();
}

async function refresh(oauth: OAuthServer, clientId: string, tokens: Record<string, unknown>): Promise<Record<string, unknown>> {
  const reply = await oauth.form("/token", { grant_type: "refresh_token", refresh_token: String(tokens["refresh_token"]), client_id: clientId });
  assert.equal(reply.status, 200, reply.body);
  return reply.json();
}

async function sessionOf(oauth: OAuthServer): Promise<string> {
  const cookie = oauth.cookies.get(sessionCookieName(ISSUER)) ?? assert.fail([...oauth.cookies.keys()].join(" "));
  return (await oauth.server.findSession(cookie, ISSUER)).kind;
}

test("tokens, sessions and logins under way go on when the keys change, also over a restart, and the old keys go when nothing needs them", async (t) => {
  const clock = new Clock(t);
  const store = memoryStore();
  const oauth = await open(store);
  const first = await published(oauth);

  await clock.at(ANNOUNCED);
  const announced = await published(oauth);
  assert.deepEqual(kids(announced).slice(0, 2), kids(first));
  assert.equal(announced.keys.length, 4);
  const next = kids(announced).slice(2);

  // The last that the old ones sign.
  await clock.at(SIGN - 10 * MINUTE);
  assert.deepEqual(await published(oauth), announced);
  const id = await oauth.registered();
  const tokens = await answer(oauth, await ask(oauth, id));
  assert.ok(kids(first).includes(await verify(tokens["access_token"], first)));
  const login = oauth.server.loginLocation(ISSUER, "/page");
  await submit(oauth, login, await oauth.send(login));
  const [underWay, longUnderWay, loginUnderWay] = [await ask(oauth, id), await ask(oauth, id), await show(oauth, `${login}&choose=1`)];

  await clock.at(SIGN);
  const both = await published(oauth);
  assert.deepEqual(kids(both), [...next, ...kids(first)]);
  assert.deepEqual([await kindOf(oauth, tokens["access_token"]), await sessionOf(oauth)], ["identity", "identity"]);
  await verify(tokens["access_token"], both);
  const refreshed = await refresh(oauth, id, tokens);
  // Who fetched the keys a week ago knows the one that signs now.
  assert.equal(await verify(refreshed["access_token"], announced), next[0]);
  assert.equal(await kindOf(oauth, refreshed["access_token"]), "identity");
  assert.equal(await verify((await answer(oauth, underWay))["access_token"], both), next[0]);
  assert.equal((await submit(oauth, loginUnderWay.target, loginUnderWay.page)).header("location"), "/page");
  assert.equal(await sessionOf(oauth), "identity");

  oauth.server.close();
  const again = await open(store);
  for (const [name, value] of oauth.cookies) again.cookies.set(name, value);
  assert.deepEqual(await published(again), both);
  assert.deepEqual([await kindOf(again, tokens["access_token"]), await sessionOf(again)], ["identity", "identity"]);
  assert.equal(await verify((await answer(again, longUnderWay))["access_token"], both), next[0]);

  await clock.at(GONE - 10 * MINUTE);
  assert.deepEqual(await published(again), both);
  const later = await refresh(again, id, refreshed);
  await clock.at(GONE);
  assert.deepEqual(kids(await published(again)), next);
  assert.equal(await verify((await refresh(again, id, later))["access_token"], await published(again)), next[0]);
  assert.deepEqual([await kindOf(again, later["access_token"]), await sessionOf(again)], ["identity", "identity"]);
  assert.equal((await store.list("keys:")).length, 1);
  again.server.close();
});

test("keys that cannot change because the state fails are told of, the present ones serve on, and a minute later it is tried again", async (t) => {
  const clock = new Clock(t);
  const memory = memoryStore();
  let isBroken = false;
  const list: StateStore["list"] = (prefix) =>
    isBroken && prefix.startsWith("keys:") ? Promise.reject(new StateError("The disk is full")) : memory.list(prefix);
  const told: string[] = [];
  const log = openLog({ level: "warn", format: "json" }, { isTty: false, colors: false, write: (text) => void told.push(text) });
  const oauth = await open({ ...memory, list }, { log });
  const first = await published(oauth);

  isBroken = true;
  for (const tries of [1, 2]) {
    await clock.at(ANNOUNCED + (tries - 1) * MINUTE);
    assert.equal(told.length, tries);
    assert.match(told.at(-1) ?? "", /"level":"warn".*The disk is full.*it is tried again/);
    assert.deepEqual(await published(oauth), first);
  }
  const tokens = await answer(oauth, await ask(oauth, await oauth.registered()));
  assert.equal(await kindOf(oauth, tokens["access_token"]), "identity");

  isBroken = false;
  await clock.at(ANNOUNCED + 2 * MINUTE);
  assert.equal((await published(oauth)).keys.length, 4);
  assert.equal(told.length, 2);
  assert.equal(await kindOf(oauth, tokens["access_token"]), "identity");
  oauth.server.close();
});

test("a JWT that lives for months is good to its end: the key that signed it stays for as long", async (t) => {
  const clock = new Clock(t);
  const oauth = await open(memoryStore(), { accessTokenMs: 60 * DAY });
  await clock.at(ANNOUNCED);
  await clock.at(SIGN - 10 * MINUTE);
  const tokens = await answer(oauth, await ask(oauth, await oauth.registered()));
  await clock.at(SIGN);
  await clock.at(GONE);
  assert.equal(await kindOf(oauth, tokens["access_token"]), "identity");
  await verify(tokens["access_token"], await published(oauth));
  await clock.at(SIGN + 61 * DAY);
  assert.equal((await published(oauth)).keys.length, 2);
  assert.equal(await kindOf(oauth, tokens["access_token"]), "invalid");
  oauth.server.close();
});
