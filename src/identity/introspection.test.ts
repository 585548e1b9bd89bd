import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { issuerPlan, json, makeKey, signToken, startFakeIssuer, type FakeIssuer } from "../../test/components/fake-issuer.ts";
import { waitFor } from "../../test/components/wait.ts";
import type { IssuerPlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import { openIssuer, type LiveIssuer } from "./issuer.ts";

const AUDIENCE = "https://mcp.example.com/mcp";
const SECRET = "s e:c+r%t/é";
const logged: unknown[] = [];
const logLine = (...args: unknown[]): void => void logged.push(args);
const log = { debug: logLine, info: logLine, warn: logLine, error: logLine } as unknown as Log;

type Introspection = NonNullable<IssuerPlan["introspection"]>;

/** An issuer that knows the tokens of `answers`, and what we make of it. */
async function start(
  t: TestContext,
  partial: Partial<Introspection> | null = {},
): Promise<{ fake: FakeIssuer; live: LiveIssuer; answers: Map<string, unknown>; asked: { body: string; authorization: string | undefined }[] }> {
  const fake = await startFakeIssuer();
  const answers = new Map<string, unknown>();
  const asked: { body: string; authorization: string | undefined }[] = [];
  fake.pages.set("/introspect", (req, res, body) => {
    asked.push({ body, authorization: req.headers.authorization });
    return json(answers.get(new URLSearchParams(body).get("token") ?? "") ?? { active: false })(req, res, body);
  });
  const plan = issuerPlan(fake.issuer, {
    algorithms: ["ES256"],
    types: new Set(["at+jwt"]),
    clockToleranceMs: 0,
    introspection: partial === null ? null : { url: null, clientId: "gate way", clientSecret: SECRET, cacheMs: 10_000, ...partial },
  });
  const live = openIssuer(plan, log, new Map());
  t.after(async () => {
    live.close();
    await fake[Symbol.asyncDispose]();
  });
  return { fake, live, answers, asked };
}

async function reason(live: LiveIssuer, token: string): Promise<string> {
  const found = await live.find(token);
  return found === null ? "not ours" : found.kind === "invalid" ? (found.reason ?? "invalid") : found.kind;
}

test("#18 an opaque token that the issuer calls active is a proof; one that it does not is refused", async (t) => {
  const { live, answers, asked } = await start(t);
  const exp = Math.floor(Date.now() / 1_000) + 60;
  answers.set("good", { active: true, sub: "u-1", aud: [`${AUDIENCE}/`], scope: "mcp x", client_id: "app", exp, token_type: "Bearer", groups: ["ops"] });
  const found = await live.find("good");
  assert.ok(found?.kind === "identity", JSON.stringify(found));
  assert.deepEqual(found.identity, { source: "issuer:corp", name: "u-1", scopes: ["mcp", "x"], groups: ["ops"], client: "app" });
  assert.deepEqual([found.by, found.issuer, found.expiresAtMs], ["issuer", "corp", exp * 1_000]);
  assert.equal(await reason(live, "bad"), "The token is not active");
  assert.equal(asked.length, 2);
  assert.equal(asked[0]?.body, "token=good&token_type_hint=access_token");
  // RFC 6749, 2.3.1: form-encoded, then joined, then base64.
  const [id, secret] = Buffer.from(asked[0]?.authorization?.slice("Basic ".length) ?? "", "base64")
    .toString()
    .split(":");
  assert.deepEqual([id, secret], ["gate+way", "s+e%3Ac%2Br%25t%2F%C3%A9"]);
});

test("#18 a token that was revoked is refused when the time is over for which an answer counts", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: Date.now() });
  const { live, answers, asked } = await start(t);
  answers.set("good", { active: true, sub: "u-1", aud: AUDIENCE });
  const first = await live.find("good");
  answers.set("good", { active: false });
  t.mock.timers.tick(9_000);
  assert.equal(live.find("good"), first, "at once, as the same object");
  assert.equal(asked.length, 1);
  t.mock.timers.tick(1_000);
  assert.equal(await reason(live, "good"), "The token is not active");
  answers.set("good", { active: true, sub: "u-1", aud: AUDIENCE });
  assert.equal(await reason(live, "good"), "The token is not active", "a no counts as long");
  assert.equal(asked.length, 2);
});

test("#18 an answer never counts past the token's end, and with a cache of 0s each request asks", async (t) => {
  t.mock.timers.enable({ apis: ["Date"], now: 1_900_000_000_000 });
  const { live, answers } = await start(t);
  answers.set("short", { active: true, sub: "u-1", aud: AUDIENCE, exp: 1_900_000_003 });
  assert.equal(await reason(live, "short"), "identity");
  t.mock.timers.tick(3_000);
  assert.equal(await reason(live, "short"), "The token has expired");
  const strict = await start(t, { cacheMs: 0 });
  strict.answers.set("good", { active: true, sub: "u-1", aud: AUDIENCE });
  await Promise.all([Promise.resolve(strict.live.find("good")), Promise.resolve(strict.live.find("good"))]);
  assert.equal(strict.asked.length, 2);
  strict.answers.clear();
  assert.equal(await reason(strict.live, "good"), "The token is not active");
});

test("#18 requests with the same token at the same time ask once", async (t) => {
  const { live, answers, asked } = await start(t);
  answers.set("good", { active: true, sub: "u-1", aud: AUDIENCE });
  const found = await Promise.all(Array.from({ length: 50 }, () => Promise.resolve(live.find("good"))));
  assert.deepEqual([...new Set(found.map((one) => one?.kind))], ["identity"]);
  assert.equal(asked.length, 1);
});

test("#18 what the issuer says is not believed further than it goes: audience, issuer, type, times", async (t) => {
  const { live, answers } = await start(t);
  const good = { active: true, sub: "u-1", aud: AUDIENCE };
  const wrong: [unknown, string][] = [
    [{ ...good, active: "true" }, "The token is not active"],
    [{ ...good, active: 1 }, "The token is not active"],
    [{ sub: "u-1", aud: AUDIENCE }, "The token is not active"],
    [{ ...good, aud: undefined }, "The token does not say for whom it is"],
    [{ ...good, aud: "https://other.example.com" }, "The token is for another audience"],
    [{ ...good, iss: "https://evil.example.com" }, "The token is of another issuer"],
    [{ ...good, token_type: "DPoP" }, "The token is no bearer token"],
    [{ ...good, token_type: "refresh_token" }, "The token is no bearer token"],
    [{ ...good, typ: "Refresh" }, "The token is no access token"],
    [{ ...good, cnf: { "x5t#S256": "x" } }, "The token is bound to a key, and cannot be used as a bearer token"],
    [{ ...good, exp: 1 }, "The token has expired"],
    [{ ...good, exp: "9999999999" }, "The token is malformed"],
    [{ ...good, exp: null }, "The token is malformed"],
    [{ ...good, nbf: 99_999_999_999 }, "The token is not valid yet"],
    [{ active: true, aud: AUDIENCE }, "The token does not say whom it speaks of"],
  ];
  for (const [i, [answer, expected]] of wrong.entries()) {
    answers.set(`t${i}`, answer);
    assert.equal(await reason(live, `t${i}`), expected, JSON.stringify(answer));
  }
  answers.set("machine", { active: true, aud: AUDIENCE, client_id: "u-1" });
  const machine = await live.find("machine");
  assert.ok(machine?.kind === "identity");
  assert.equal(machine.person?.subject, "client:u-1", "a client is not taken for a person of the same name");
});

test("#18 an issuer that does not answer, or not as it should, is 503 and not a no", async (t) => {
  const { fake, live } = await start(t);
  for (const [i, page] of [
    json({}, 500),
    json({ error: "invalid_client" }, 401),
    json("not json"),
    json([]),
    json({ active: true, more: "x".repeat(300_000) }),
    json("", 302),
  ].entries()) {
    fake.pages.set("/introspect", page);
    const found = await live.find(`t${i}`);
    assert.ok(found?.kind === "unavailable" && found.retryAfterS > 0, JSON.stringify(found));
    if (i === 1) assert.match(found.message, /check 'client_id' and 'client_secret'/);
  }
  await fake.down();
  const found = await live.find("down");
  assert.ok(found?.kind === "unavailable" && found.message.includes("connection refused"), JSON.stringify(found));
});

test("#18 an issuer that refuses the gateway is told as failing until it answers; a token that it does not know is no failure", async (t) => {
  const { fake, live, answers } = await start(t);
  assert.equal(await reason(live, "unknown"), "The token is not active");
  assert.equal(live.provider().outage, null);
  const page = fake.pages.get("/introspect");
  fake.pages.set("/introspect", json({ error: "invalid_client", error_description: "their words" }, 401));
  const before = logged.length;
  for (const token of ["a", "b"]) assert.equal(await reason(live, token), "unavailable");
  const error = live.provider().outage?.error ?? "";
  assert.match(error, /status 401 at .*check 'client_id' and 'client_secret' of its 'introspection'/);
  assert.doesNotMatch(error, /their words/);
  if (page !== undefined) fake.pages.set("/introspect", page);
  answers.set("c", { active: true, sub: "u-1", aud: AUDIENCE });
  assert.equal(await reason(live, "c"), "identity");
  assert.equal(live.provider().outage, null);
  const told = JSON.stringify(logged.slice(before));
  assert.deepEqual([told.split("cannot be asked about tokens").length, told.split("can be asked about tokens again").length], [2, 2], told);
});

test("#18 what an issuer says of a token that anybody may make up is no failure of the issuer, and floods no log", async (t) => {
  const { fake, live } = await start(t);
  const page = fake.pages.get("/introspect");
  const before = logged.length;
  for (const [i, odd] of [json({ error: "invalid_request" }, 400), json("<html>", 400), json("", 413), json("", 422), json("", 429), json("", 431)].entries()) {
    fake.pages.set("/introspect", odd);
    assert.equal(await reason(live, `odd${i}`), "unavailable");
    assert.equal(live.provider().outage, null, `odd${i}`);
    if (page !== undefined) fake.pages.set("/introspect", page);
    assert.equal(await reason(live, `unknown${i}`), "The token is not active");
  }
  assert.doesNotMatch(JSON.stringify(logged.slice(before)), /asked about tokens/);
  // Some say with 400 that they do not take the gateway.
  for (const [i, refusal] of [json({ error: "invalid_client" }, 400), json({ error: "unauthorized_client" }, 400), json("", 403), json("", 404)].entries()) {
    fake.pages.set("/introspect", refusal);
    assert.equal(await reason(live, `refused${i}`), "unavailable");
    assert.match(live.provider().outage?.error ?? "", /status 40\d at/);
    if (page !== undefined) fake.pages.set("/introspect", page);
    assert.equal(await reason(live, `fine${i}`), "The token is not active");
    assert.equal(live.provider().outage, null);
  }
});

test("#18 only tokens that nothing can be read of are sent: never another issuer's JWT, nor any where introspection is not asked for", async (t) => {
  const { fake, live, asked } = await start(t);
  const key = await makeKey("k1");
  assert.equal(await reason(live, await signToken("https://other.example.com", key)), "not ours");
  assert.equal(await reason(live, await signToken(fake.issuer, key)), "unavailable", "its own are verified, never asked about");
  assert.equal(asked.length, 0);
  assert.equal(await reason((await start(t, null)).live, "opaque"), "not ours");
});

test("#18 a flood of invented tokens is asked about 256 at a time", async (t) => {
  const { fake, live } = await start(t);
  const waiting: (() => void)[] = [];
  fake.pages.set("/introspect", (req, res, body) => void waiting.push(() => void json({ active: false })(req, res, body)));
  const found = Array.from({ length: 300 }, (_one, i) => Promise.resolve(live.find(`t${i}`)));
  const refused = await Promise.all(found.slice(256));
  assert.deepEqual([...new Set(refused.map((one) => one?.kind))], ["unavailable"]);
  await waitFor(() => {
    for (const answer of waiting.splice(0)) answer();
    return (fake.hits.get("/introspect") ?? 0) >= 256;
  });
  for (const answer of waiting.splice(0)) answer();
  assert.deepEqual([...new Set((await Promise.all(found.slice(0, 256))).map((one) => one?.kind))], ["invalid"]);
  assert.equal(fake.hits.get("/introspect"), 256);
});

test("a client without a secret names itself in the form", async (t) => {
  const { live, asked } = await start(t, { clientSecret: null, clientId: "public" });
  await live.find("x");
  assert.deepEqual(asked, [{ body: "token=x&token_type_hint=access_token&client_id=public", authorization: undefined }]);
});

test("neither tokens nor secrets are ever in the log", () => {
  assert.ok(logged.length > 5);
  assert.doesNotMatch(JSON.stringify(logged), /good|opaque|s\+e%3A|s e:c/);
});
