// What a CA that is overloaded, broken or hostile does to an order: a scripted CA, because Pebble is none of these.
import assert from "node:assert/strict";
import { createServer } from "node:net";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";
import { AcmeError } from "../../src/certificates/acme-issuer.ts";
import { openAcmeIssuer } from "../../src/certificates/acme-open-issuer.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { startOrigin, type Running } from "../components/echo.ts";

type Answer = { status?: number; headers?: Record<string, string>; body?: unknown };
type Script = Record<string, (base: string) => Answer>;

const NAME = "a.example.com";
const PROBLEM = "urn:ietf:params:acme:error:";

// Nobody listens there: a request that went by a proxy would fail.
for (const name of ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"]) process.env[name] = "http://127.0.0.1:1";

/** A CA up to the validation. `script` replaces what is answered to single paths. */
async function setUp(t: TestContext, script: Script) {
  const good: Script = {
    "/dir": (base) => ({ body: { newNonce: `${base}/nonce`, newAccount: `${base}/account`, newOrder: `${base}/order`, renewalInfo: `${base}/renewal` } }),
    "/nonce": () => ({}),
    "/account": (base) => ({ status: 201, headers: { location: `${base}/account/1` }, body: { status: "valid" } }),
    "/order": (base) => ({
      status: 201,
      headers: { location: `${base}/order/1` },
      body: { status: "pending", identifiers: [], authorizations: [`${base}/authz`], finalize: `${base}/finalize` },
    }),
    "/authz": (base) => ({
      body: { status: "pending", identifier: { type: "dns", value: NAME }, challenges: [{ type: "http-01", url: `${base}/challenge`, token: "token" }] },
    }),
    "/challenge": () => ({ body: {} }),
  };
  const times: { path: string; atMs: number }[] = [];
  let nonce = 0;
  const ca: Running = await startOrigin((request: IncomingMessage, response) => {
    const path = request.url ?? "";
    times.push({ path, atMs: performance.now() });
    const { status = 200, headers = {}, body = "" } = (script[path] ?? good[path])?.(`http://${request.headers.host}`) ?? { status: 404 };
    request.resume().on("end", () => {
      response.writeHead(status, { "replay-nonce": `n${nonce++}`, "content-type": "application/json", ...headers });
      response.end(typeof body === "string" ? body : JSON.stringify(body));
    });
  });
  const stateDir = mkdtempSync(join(tmpdir(), "sidegate-acme-"));
  t.after(async () => {
    await ca[Symbol.asyncDispose]();
    rmSync(stateDir, { recursive: true });
  });
  const logged: string[] = [];
  const log = openLog({ level: "info", format: "json" }, { isTty: false, colors: false, write: (line) => void logged.push(line) });
  const challenges = new AcmeChallenges();
  const issuer = openAcmeIssuer({ stateDir, challenges, log });
  const account = { key: "k", directoryUrl: `http://127.0.0.1:${ca.port}/dir`, email: null, ca: null, eab: null };
  const stop = new AbortController();
  return {
    issuer,
    account,
    stop,
    challenges,
    port: ca.port,
    pathTimes: (path: string) => times.filter((each) => each.path === path).map(({ atMs }) => atMs),
    /** How an order fails. */
    fail: async (): Promise<AcmeError> => {
      const order = issuer.order({ account, names: [NAME], challenge: "http-01", dns: null, replaces: null, signal: stop.signal });
      const error: unknown = await order.then(
        () => assert.fail("the order should fail"),
        (reason: unknown) => reason,
      );
      assert.ok(error instanceof AcmeError, String(error));
      assert.equal(challenges.http("token"), null);
      // No secret, and nothing that moves a cursor.
      assert.doesNotMatch(error.message, /PRIVATE|[\p{Cc}\p{Cf}]/u);
      return error;
    },
  };
}

void test("a CA that is overloaded says how long to wait, and is not asked again before", async (t) => {
  const limited = (headers: Record<string, string>) => () => ({
    status: 429,
    headers: { "content-type": "application/problem+json", ...headers },
    body: { type: `${PROBLEM}rateLimited`, detail: "Too many\u001b[2J orders\r\nof \u202eyours." },
  });
  const byOrder = await setUp(t, { "/order": limited({ "retry-after": "120" }) });
  const error = await byOrder.fail();
  assert.equal(error.message, `CA '127.0.0.1:${byOrder.port}' refused the request: Too many [2J orders of yours (rateLimited)`);
  assert.deepEqual([error.retryAfterMs, error.problem], [120_000, "rateLimited"]);
  assert.equal(byOrder.pathTimes("/order").length, 1);

  const byNonce = await setUp(t, {
    "/nonce": () => ({ status: 503, headers: { "retry-after": new Date(Date.now() + 90_000).toUTCString() }, body: "<html>" }),
  });
  const busy = await byNonce.fail();
  assert.equal(busy.message, `CA '127.0.0.1:${byNonce.port}' answered with status 503`);
  assert.ok(busy.retryAfterMs !== null && busy.retryAfterMs > 85_000 && busy.retryAfterMs <= 90_000);
  assert.equal(byNonce.pathTimes("/nonce").length, 1);

  const byRenewal = await setUp(t, { "/dir": limited({}) });
  await assert.rejects(byRenewal.issuer.renewalWindow(byRenewal.account, "", byRenewal.stop.signal), { problem: "rateLimited", retryAfterMs: null });
});

void test("redirects are not followed and answers have a limit", async (t) => {
  const elsewhere = await startOrigin();
  t.after(() => elsewhere[Symbol.asyncDispose]());
  const moved = await setUp(t, { "/dir": () => ({ status: 302, headers: { location: `http://127.0.0.1:${elsewhere.port}/` } }) });
  assert.match((await moved.fail()).message, /answered with status 302 at 'https?:\/\/.*\/dir'; check 'directory'$/);
  assert.deepEqual(elsewhere.requests, []);
  const large = await setUp(t, { "/dir": () => ({ body: "x".repeat(2_000_000) }) });
  assert.match((await large.fail()).message, /sent an answer of more than 1024 KiB$/);
  for (const body of ["<html>", "[]", "null", '{"newNonce":1}']) {
    const strange = await setUp(t, { "/dir": () => ({ body }) });
    assert.match((await strange.fail()).message, /^CA '127\.0\.0\.1:\d+' gave |^'https?:\/\/.*\/dir' is no ACME directory; check 'directory'$/);
  }
});

void test("a CA cannot send us to where TLS does not protect", async (t) => {
  const elsewhere = await startOrigin();
  t.after(() => elsewhere[Symbol.asyncDispose]());
  for (const url of [
    `http://127.0.0.1:${elsewhere.port}/`,
    `http://localhost:${elsewhere.port}/`,
    "file:///etc/passwd",
    "https://me@ca.example/",
    "https://:secret@ca.example/",
    "\u001b",
  ]) {
    const scene = await setUp(t, {
      "/order": (base) => ({ status: 201, headers: { location: `${base}/order/1` }, body: { status: "pending", authorizations: [url] } }),
    });
    assert.match((await scene.fail()).message, /gave the address '.*', which is no https URL$/);
  }
  assert.deepEqual(elsewhere.requests, []);
});

void test("a CA cannot have names, paths or numbers proven that were not ordered", async (t) => {
  const authorization = (base: string, value: string, token: string) => ({
    body: { status: "pending", identifier: { type: "dns", value }, challenges: [{ type: "http-01", url: `${base}/challenge`, token }] },
  });
  const cases: [Script, RegExp][] = [
    [{ "/authz": (base) => authorization(base, "bank.example", "token") }, /wants 'bank\.example' proven, which is not in the order$/],
    [{ "/authz": (base) => authorization(base, NAME, "../../x") }, /sent a challenge for 'a\.example\.com' that cannot be used$/],
    [
      {
        "/order": (base) => ({
          status: 201,
          headers: { location: `${base}/o` },
          body: { status: "pending", authorizations: [`${base}/authz`, `${base}/authz`] },
        }),
      },
      /wants more proven than was ordered$/,
    ],
  ];
  for (const [script, message] of cases) {
    const scene = await setUp(t, script);
    assert.match((await scene.fail()).message, message);
    assert.equal(scene.pathTimes("/challenge").length, 0);
  }
});

void test("pending challenges are looked at as rarely as the CA asks", async (t) => {
  const scene = await setUp(t, {
    "/authz": (base) => ({
      headers: { "retry-after": "1" },
      body: { status: "pending", identifier: { type: "dns", value: NAME }, challenges: [{ type: "http-01", url: `${base}/challenge`, token: "token" }] },
    }),
  });
  setTimeout(() => scene.stop.abort(), 2500).unref();
  assert.match((await scene.fail()).message, /was stopped$/);
  const looks = scene.pathTimes("/authz").slice(1);
  assert.equal(looks.length, 2);
  assert.ok((looks[1] ?? 0) - (looks[0] ?? 0) >= 990);
});

void test("a CA that takes connections and says nothing is left at once when the order is aborted", async (t) => {
  const silent = createServer().listen(0, "127.0.0.1");
  await once(silent, "listening");
  const sockets = new Set<import("node:net").Socket>();
  silent.on("connection", (socket) => sockets.add(socket.on("error", () => {})));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    silent.close();
  });
  const scene = await setUp(t, { "/order": () => ({ status: 500 }) });
  const { port } = silent.address() as import("node:net").AddressInfo;
  const account = { ...scene.account, directoryUrl: `https://127.0.0.1:${port}/dir` };
  const window = scene.issuer.renewalWindow(account, "", scene.stop.signal);
  await once(silent, "connection");
  const started = performance.now();
  scene.stop.abort();
  await assert.rejects(window, { code: "ERR_ACME", message: `What was asked of CA '127.0.0.1:${port}' was stopped` });
  assert.ok(performance.now() - started < 500);
});
