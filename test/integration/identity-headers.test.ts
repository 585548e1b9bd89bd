// What the upstream learns of people, and what it must not: names only from us, and never our cookies.
import assert from "node:assert/strict";
import { connect as connectHttp2 } from "node:http2";
import { once } from "node:events";
import { test } from "node:test";
import { fetchFrom } from "../components/http-client.ts";
import { fakeServer, oauthWay, proofOf, protectedRoute, sessionWay, startHttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { NOBODY } from "../../src/plan/build-people.ts";
import { startRecordingOrigin } from "../components/origin.ts";
import { waitFor } from "../components/wait.ts";

const APP = "https://app.example";
const server = fakeServer({
  issuer: APP,
  resources: [APP],
  sessionOrigins: [APP],
  tokens: { good: proofOf(APP) },
  sessions: { mine: proofOf(null), gone: { kind: "invalid" } },
});
const COOKIE = "__Host-sidegate=mine";
const PAGE = { host: "app.example", "sec-fetch-mode": "navigate", "sec-fetch-site": "none", accept: "text/html" };

function start(targets: string[], options: Partial<HttpGatewayOptions> = {}) {
  return startHttpGateway({ targets, servers: [server], routes: [protectedRoute(APP, [oauthWay(APP), sessionWay()], { identityHeaders: true })], ...options });
}

test("the upstream is told user, address and groups, and a comma in a group makes no second one", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await start([origin.url]);
  const forged = Object.fromEntries(
    ["User", "User-Source", "Scopes", "Email", "Groups", "User-Node"].flatMap((name) => [
      [`X-Forwarded-${name}`, "admin"],
      [`x_forwarded_${name}`, "admin"],
    ]),
  );
  const answer = await fetchFrom(gateway.port, "/", {
    headers: { ...forged, host: "app.example", authorization: "Bearer good", "x-original-url": "/admin", "x-rewrite-url": "/admin" },
  });
  assert.equal(answer.status, 200);
  const headers = origin.requests[0]?.headers ?? [];
  assert.equal(JSON.stringify(headers).includes("admin"), false);
  const told = Object.fromEntries(headers.filter(([name]) => /^x-forwarded-(?:user|scopes|email|groups)/.test(name)));
  assert.deepEqual(told, {
    "x-forwarded-user": "octocat",
    "x-forwarded-user-source": "github",
    "x-forwarded-scopes": "",
    "x-forwarded-email": "octocat@example.com",
    "x-forwarded-groups": "staff,a\\2Cb",
  });
});

test("from a trusted proxy neither identities are believed", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await start([origin.url], { trustedProxies: ["127.0.0.1"], routes: [{}] });
  await fetchFrom(gateway.port, "/", { headers: { host: "x.example", "x-forwarded-email": "a@b.example", "x-forwarded-groups": "admin" } });
  assert.equal(JSON.stringify(origin.requests[0]?.headers).includes("admin"), false);
  assert.equal(JSON.stringify(origin.requests[0]?.headers).includes("a@b.example"), false);
});

test("our cookies reach no upstream, whatever their header looks like, and all others do", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await start([origin.url], { tls: true, routes: [protectedRoute(APP, [oauthWay(APP), sessionWay()]), { host: "open.example" }] });
  const session = connectHttp2(`https://127.0.0.1:${gateway.port}`, { rejectUnauthorized: false });
  for (const [authority, cookie, expected] of [
    ["app.example", [COOKIE, "a=1", "sidegate=x", "b=2"], "a=1; b=2"],
    ["app.example", [`a=1; ${COOKIE} ; __Host-sidegate-login=3;__Secure-sidegate.consent=4;c=__Host-sidegate`], "a=1;c=__Host-sidegate"],
    ["app.example", [COOKIE], undefined],
    ["open.example", ["sidegate=5; mysidegate=6; sidegates=7"], "mysidegate=6; sidegates=7"],
  ] as const) {
    origin.reset();
    const stream = session.request({ ":path": "/", ":authority": authority, cookie: [...cookie] });
    const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
    assert.equal(headers[":status"], 200);
    stream.resume();
    await once(stream, "close");
    assert.equal(origin.requests[0]?.headers.find(([name]) => name === "cookie")?.[1], expected);
  }
  session.close();
});

test("a person without a session is sent to the login and back, and nobody else is", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await start([origin.url]);
  const login = `${APP}/.sidegate/login?return_to=${encodeURIComponent("/page?a=1&b=%2F")}`;
  for (const headers of [
    PAGE,
    { ...PAGE, cookie: "__Host-sidegate=gone" },
    { ...PAGE, cookie: `${COOKIE}; ${COOKIE}` },
    { host: "app.example", accept: "text/html,*/*" },
  ]) {
    for (const method of ["GET", "HEAD"]) {
      const answer = await fetchFrom(gateway.port, "/page?a=1&b=%2F", { method, headers });
      assert.deepEqual([answer.status, answer.headers.location, answer.headers["cache-control"]], [302, login, "no-store"]);
    }
  }
  for (const [method, headers] of [
    ["POST", PAGE],
    ["GET", { ...PAGE, "sec-fetch-mode": "cors" }],
    ["GET", { ...PAGE, "sec-fetch-mode": "no-cors" }],
    ["GET", { host: "app.example", accept: "application/json" }],
    ["GET", { host: "app.example", accept: "text/html", "x-requested-with": "XMLHttpRequest" }],
    ["GET", { ...PAGE, authorization: "Bearer bad" }],
    ["GET", { ...PAGE, connection: "Upgrade", upgrade: "websocket" }],
  ] as const) {
    const answer = await fetchFrom(gateway.port, "/", { method, headers });
    assert.deepEqual([answer.status, answer.headers.location], [401, undefined], `${method} ${JSON.stringify(headers)}`);
    assert.equal(answer.headers["www-authenticate"]?.includes("error="), "authorization" in headers);
  }
  assert.equal(origin.requests.length, 0);
});

test("a session admits, and a person who is not admitted reads who it is and where to sign out", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await start([origin.url]);
  assert.equal((await fetchFrom(gateway.port, "/", { headers: { ...PAGE, cookie: COOKIE } })).status, 200);
  await using strict = await start([origin.url], { routes: [protectedRoute(APP, [sessionWay({ ...NOBODY, githubUsers: new Set(["hubot"]) })])] });
  const answer = await fetchFrom(strict.port, "/", { headers: { ...PAGE, cookie: COOKIE } });
  assert.equal(answer.status, 403);
  assert.match(answer.body, /octocat is not admitted/);
  assert.equal(answer.headers["content-type"], "text/html; charset=utf-8");
  const script = await fetchFrom(strict.port, "/", { headers: { host: PAGE.host, cookie: COOKIE } });
  assert.deepEqual([script.status, script.headers["content-type"]], [403, "application/json"]);
  await waitFor(() => strict.accessLog.length === 2);
  assert.equal(strict.accessLog[0]?.["identity"], "github:octocat");
});
