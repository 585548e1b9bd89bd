// Strict-Transport-Security is on every answer over https and on none over http; the other security headers stand where the upstream says nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import type { CorsPlan, RoutePlan } from "../../src/plan/model.ts";
import { fetchFrom, type RequestArgs } from "../components/http-client.ts";
import { openExchange } from "../components/http-exchange.ts";
import { certificate, OTHER_TOKEN, startHttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const HSTS = "max-age=31536000; includeSubDomains";
const ALL = { "strict-transport-security": HSTS, "x-content-type-options": "nosniff", "x-frame-options": "DENY", "referrer-policy": "no-referrer" };
const CORS: CorsPlan = { origins: "*", methods: "GET", headers: null, exposeHeaders: "", credentials: false, maxAgeSeconds: 1 };
const TOKEN_WAY = [{ kind: "token", names: null, scopes: ["mcp"] }] as const;

async function startStory(options: Partial<HttpGatewayOptions> = {}, own: Record<string, string | string[]> = {}) {
  const origin = await startOrigin(
    (req, res) => {
      for (const [name, value] of Object.entries(own)) res.setHeader(name, value);
      if (req.url === "/moved") res.writeHead(301, { Location: "/there" });
      res.end("ok");
    },
    (_req, socket) => void socket.end("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"),
  );
  const routes: Partial<RoutePlan>[] = [
    { path: { kind: "prefix", path: "/private" }, auth: TOKEN_WAY },
    { path: { kind: "prefix", path: "/shared" }, cors: CORS },
    { path: { kind: "prefix", path: "/get" }, methods: new Set(["GET"]) },
    { path: { kind: "exact", path: "/moved" } },
    { path: { kind: "exact", path: "/" } },
  ];
  const gateway = await startHttpGateway({ targets: [origin.url], routes, ...options, listener: { hsts: HSTS, securityHeaders: true, ...options.listener } });
  return {
    origin,
    gateway,
    [Symbol.asyncDispose]: async () => {
      await gateway[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
    },
  };
}

/** The four headers, as far as they are there; each must be there once. */
function seen(headers: NodeJS.Dict<string | string[]>): Record<string, unknown> {
  return Object.fromEntries(Object.keys(ALL).flatMap((name) => (headers[name] === undefined ? [] : [[name, headers[name]]])));
}

const ANSWERS: [what: string, status: number, path: string, args: RequestArgs][] = [
  ["the upstream's answer", 200, "/", {}],
  ["to HEAD", 200, "/", { method: "HEAD" }],
  ["a redirect of the upstream", 301, "/moved", {}],
  ["401", 401, "/private", {}],
  ["403", 403, "/private", { headers: { authorization: `Bearer ${OTHER_TOKEN}` } }],
  ["404", 404, "/nowhere", {}],
  ["405", 405, "/get", { method: "POST" }],
  ["400", 400, "//", {}],
  ["417", 417, "/", { headers: { expect: "something" } }],
  ["a preflight", 204, "/shared", { method: "OPTIONS", headers: { origin: "https://b.example", "access-control-request-method": "GET" } }],
];

for (const [what, status, path, args] of ANSWERS) {
  test(`over https: ${what}; over http the same without Strict-Transport-Security`, async () => {
    await using secure = await startStory({ tls: true });
    const answer = await fetchFrom(secure.gateway.port, path, { ...args, ca: certificate().cert });
    assert.deepEqual([answer.status, seen(answer.headers)], [status, ALL]);
    await using plain = await startStory();
    const { "strict-transport-security": _, ...others } = ALL;
    const same = await fetchFrom(plain.gateway.port, path, args);
    assert.deepEqual([same.status, seen(same.headers)], [status, others]);
  });
}

test("over HTTP/2 they are there, too, on answers of the upstream and of the gateway", async () => {
  await using story = await startStory({ tls: true }, { "Strict-Transport-Security": "max-age=1" });
  for (const [path, status] of [
    ["/", 200],
    ["/private", 401],
  ] as const) {
    const exchange = openExchange(story.gateway.port, "h2", path);
    const { status: got, headers } = await exchange.head;
    assert.deepEqual([got, seen(headers)], [status, ALL], path);
    exchange.abort();
  }
});

test("when the upstream is away the 502 has them", async () => {
  await using story = await startStory({ tls: true });
  await story.origin[Symbol.asyncDispose]();
  const answer = await fetchFrom(story.gateway.port, "/", { ca: certificate().cert });
  assert.deepEqual([answer.status, seen(answer.headers)], [502, ALL]);
});

test("the 101 and the answer to bytes that are no request have them", async () => {
  await using story = await startStory({ tls: true });
  const say = async (bytes: string): Promise<string> => {
    const socket = connectTls({ port: story.gateway.port, host: "127.0.0.1", servername: "localhost", ca: certificate().cert });
    let text = "";
    socket.on("data", (chunk) => (text += chunk.toString("latin1")));
    socket.on("error", () => {});
    socket.write(bytes);
    await waitFor(() => text.includes("\r\n\r\n"));
    socket.destroy();
    return text;
  };
  const upgraded = await say("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
  assert.match(upgraded, /^HTTP\/1\.1 101 /);
  const refused = await say("nonsense\r\n\r\n");
  assert.match(refused, /^HTTP\/1\.1 400 /);
  for (const text of [upgraded, refused])
    for (const [name, value] of Object.entries(ALL)) assert.ok(text.toLowerCase().includes(`\r\n${name}: ${value.toLowerCase()}\r\n`), name);
  await using plain = await startStory();
  const { text } = await sendRaw(plain.gateway.port, ["nonsense\r\n\r\n"], 1);
  assert.match(text, /X-Frame-Options: DENY/);
  assert.doesNotMatch(text, /Strict-Transport-Security/i);
});

test("behind a proxy its client's scheme decides", async () => {
  await using story = await startStory({ listener: { tls: { mode: "behind_proxy" } }, trustedProxies: ["127.0.0.1"] });
  const get = async (proto: string, path = "/", localAddress = "127.0.0.1") =>
    (await fetchFrom(story.gateway.port, path, { localAddress, headers: { "x-forwarded-proto": proto } })).headers["strict-transport-security"];
  assert.equal(await get("https"), HSTS);
  assert.equal(await get("https", "/private"), HSTS);
  assert.equal(await get("http"), undefined);
  assert.equal(await get("https, http"), undefined);
  assert.equal(await get("https", "/", "127.0.0.2"), undefined, "the 403 of one who only says so");
});

test("over http no answer has the header of the upstream either, where the gateway has its own", async () => {
  await using story = await startStory({}, { "Strict-Transport-Security": "max-age=1" });
  assert.equal((await fetchFrom(story.gateway.port, "/")).headers["strict-transport-security"], undefined);
  await using off = await startStory({ listener: { hsts: null } }, { "strict-transport-security": "max-age=1" });
  assert.equal((await fetchFrom(off.gateway.port, "/")).headers["strict-transport-security"], "max-age=1");
});

test("what the upstream says of itself stays, but for Strict-Transport-Security", async () => {
  const own = {
    "strict-transport-security": ["max-age=1", "max-age=2"],
    "X-FRAME-OPTIONS": "SAMEORIGIN",
    "referrer-policy": "origin",
    "X-Content-Type-Options": "nosniff",
    "X-Other-Header-1": "x",
  };
  await using story = await startStory({ tls: true }, own);
  const answer = await fetchFrom(story.gateway.port, "/", { ca: certificate().cert });
  assert.deepEqual(seen(answer.headers), { ...ALL, "x-frame-options": "SAMEORIGIN", "referrer-policy": "origin" });
  assert.equal(answer.headers["x-other-header-1"], "x");
});

test("the rules of a route have the last word", async () => {
  const rules = {
    set: [
      ["X-Frame-Options", "SAMEORIGIN"],
      ["Strict-Transport-Security", "max-age=0"],
    ],
    remove: new Set(["referrer-policy"]),
  } as const;
  await using story = await startStory({ tls: true, routes: [{ responseHeaders: rules }] }, { "referrer-policy": "origin", "x-frame-options": "DENY" });
  const answer = await fetchFrom(story.gateway.port, "/", { ca: certificate().cert });
  assert.deepEqual(seen(answer.headers), { "strict-transport-security": "max-age=0", "x-content-type-options": "nosniff", "x-frame-options": "SAMEORIGIN" });
});

test("each is there only when it is asked for", async () => {
  for (const [listener, names] of [
    [{ hsts: null, securityHeaders: false }, []],
    [{ hsts: HSTS, securityHeaders: false }, ["strict-transport-security"]],
    [{ hsts: null, securityHeaders: true }, ["x-content-type-options", "x-frame-options", "referrer-policy"]],
  ] as const) {
    await using story = await startStory({ tls: true, listener });
    for (const path of ["/", "/nowhere"])
      assert.deepEqual(Object.keys(seen((await fetchFrom(story.gateway.port, path, { ca: certificate().cert })).headers)), names);
  }
});
