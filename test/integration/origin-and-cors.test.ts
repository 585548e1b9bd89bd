// Pages of strangers: what they may not make a browser do, and what pages that are named may read.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CorsPlan } from "../../src/plan/model.ts";
import { fetchFrom } from "../components/http-client.ts";
import { fakeServer, oauthWay, proofOf, protectedRoute, sessionWay, startHttpGateway } from "../components/http-gateway.ts";
import { startOrigin, startRecordingOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";

const MCP = "https://mcp.example/mcp";
const INSPECTOR = "https://inspector.example";
const CORS: CorsPlan = {
  origins: new Set([INSPECTOR]),
  methods: "GET, POST, DELETE",
  headers: null,
  exposeHeaders: "WWW-Authenticate, Mcp-Session-Id, MCP-Protocol-Version",
  credentials: false,
  maxAgeSeconds: 600,
};
const server = fakeServer({
  issuer: "https://mcp.example",
  resources: [MCP],
  sessionOrigins: ["https://mcp.example"],
  tokens: { good: proofOf(MCP, ["mcp"]) },
  sessions: { mine: proofOf(null) },
});
const origins = new Set(["https://mcp.example", INSPECTOR]);
const GOOD = { host: "mcp.example", authorization: "Bearer good" };

test("#39 an Origin that is not named is 403 before any credential counts, none is well, and a foreign Host is 4xx", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [protectedRoute(MCP, [oauthWay(MCP)], { cors: CORS, origins })],
  });
  for (const [from, status] of [
    [undefined, 200],
    ["https://mcp.example", 200],
    [INSPECTOR, 200],
    ["https://evil.example", 403],
    ["https://mcp.example.evil.example", 403],
    ["https://mcp.example:8443", 403],
    ["http://mcp.example", 403],
    ["null", 403],
    ["", 403],
  ] as const) {
    for (const method of ["POST", "GET", "DELETE"]) {
      const answer = await fetchFrom(gateway.port, "/mcp", { method, headers: from === undefined ? GOOD : { ...GOOD, origin: from } });
      assert.equal(answer.status, status, `${method} ${from}`);
    }
  }
  const upgrade = await sendRaw(
    gateway.port,
    [
      "GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nAuthorization: Bearer good\r\nOrigin: https://evil.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    ],
    1,
  );
  assert.deepEqual(upgrade.statuses, [403]);
  assert.equal((await fetchFrom(gateway.port, "/mcp", { headers: { ...GOOD, host: "rebound.example" } })).status, 404);
  await using anyHost = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [protectedRoute(MCP, [oauthWay(MCP)], { host: null, origins })],
  });
  assert.equal((await fetchFrom(anyHost.port, "/mcp", { headers: { ...GOOD, host: "rebound.example" } })).status, 421);
  assert.equal((await fetchFrom(anyHost.port, "/mcp", { headers: GOOD })).status, 200);
});

test("#37 a preflight is answered without credentials, and lets all headers of MCP through", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [protectedRoute(MCP, [oauthWay(MCP)], { cors: CORS, origins })],
  });
  const asked = "authorization, content-type, accept, last-event-id, mcp-session-id, mcp-protocol-version, mcp-method, mcp-name, mcp-param-x";
  const preflight = (from: string): Record<string, string> => ({
    host: "mcp.example",
    origin: from,
    "access-control-request-method": "POST",
    "access-control-request-headers": asked,
  });
  const answer = await fetchFrom(gateway.port, "/mcp", { method: "OPTIONS", headers: preflight(INSPECTOR) });
  assert.equal(answer.status, 204);
  assert.equal(answer.headers["access-control-allow-origin"], INSPECTOR);
  assert.equal(answer.headers["access-control-allow-headers"], asked);
  const stranger = await fetchFrom(gateway.port, "/mcp", { method: "OPTIONS", headers: preflight("https://evil.example") });
  assert.equal(stranger.headers["access-control-allow-origin"], undefined);
  assert.equal(origin.requests.length, 0);
});

test("#37 a page that is named can read 401 and 403 with their challenge, 404 and the upstream's session", async () => {
  await using origin = await startOrigin((req, res) => void res.writeHead(req.url === "/mcp/404" ? 404 : 200, { "mcp-session-id": "s" }).end());
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [
      protectedRoute(MCP, [oauthWay(MCP, ["admin"])], { path: { kind: "prefix", path: "/mcp/admin" }, cors: CORS, origins }),
      protectedRoute(MCP, [oauthWay(MCP)], { cors: CORS, origins }),
    ],
  });
  for (const [path, authorization, status] of [
    ["/mcp", null, 401],
    ["/mcp", "Bearer bad", 401],
    ["/mcp/admin", "Bearer good", 403],
    ["/mcp/404", "Bearer good", 404],
    ["/mcp", "Bearer good", 200],
  ] as const) {
    const answer = await fetchFrom(gateway.port, path, {
      headers: { host: "mcp.example", origin: INSPECTOR, ...(authorization !== null && { authorization }) },
    });
    assert.equal(answer.status, status);
    assert.equal(answer.headers["access-control-allow-origin"], INSPECTOR);
    assert.equal(answer.headers["access-control-expose-headers"], CORS.exposeHeaders);
    assert.match(String(answer.headers["vary"]), /Origin/);
  }
  const stranger = await fetchFrom(gateway.port, "/mcp", { headers: { host: "mcp.example", origin: "https://evil.example" } });
  assert.deepEqual([stranger.status, stranger.headers["access-control-allow-origin"]], [403, undefined]);
});

test("what changes something by a session must come from a page of ours", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes: [protectedRoute(MCP, [oauthWay(MCP), sessionWay()])] });
  const cookie = "__Host-sidegate=mine";
  for (const [method, headers, status] of [
    ["POST", {}, 200],
    ["POST", { origin: "https://mcp.example", "sec-fetch-site": "same-origin" }, 200],
    ["POST", { "sec-fetch-site": "same-origin" }, 200],
    ["POST", { "sec-fetch-site": "cross-site" }, 403],
    ["POST", { "sec-fetch-site": "same-site" }, 403],
    ["DELETE", { "sec-fetch-site": "cross-site" }, 403],
    ["POST", { origin: "https://evil.example" }, 403],
    ["POST", { origin: "null" }, 403],
    ["GET", { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate" }, 200],
  ] as const) {
    const answer = await fetchFrom(gateway.port, "/mcp", { method, headers: { host: "mcp.example", cookie, ...headers } });
    assert.equal(answer.status, status, `${method} ${JSON.stringify(headers)}`);
  }
  const byToken = await fetchFrom(gateway.port, "/mcp", {
    method: "POST",
    headers: { host: "mcp.example", authorization: "Bearer good", "sec-fetch-site": "cross-site" },
  });
  assert.equal(byToken.status, 200, "a token is sent by nobody's browser of itself");
});

test("#39 where pages of all origins may call, none of them acts by the session of its visitor", async () => {
  await using origin = await startRecordingOrigin();
  const cors = { ...CORS, origins: "*" } as const;
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [protectedRoute(MCP, [sessionWay(), oauthWay(MCP)], { cors, origins: "*" })],
  });
  const cookie = { host: "mcp.example", cookie: "__Host-sidegate=mine" };
  // A neighbour's page is of the same site: the browser sends the cookie with what it asks for.
  const neighbour = { ...cookie, origin: "https://neighbour.example", "sec-fetch-site": "same-site" };
  for (const method of ["POST", "GET"]) assert.equal((await fetchFrom(gateway.port, "/mcp", { method, headers: neighbour })).status, 403, method);
  const upgrade = `GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nCookie: ${cookie.cookie}\r\nOrigin: https://neighbour.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`;
  assert.deepEqual((await sendRaw(gateway.port, [upgrade], 1)).statuses, [403]);
  assert.equal(origin.requests.length, 0);
  assert.equal((await fetchFrom(gateway.port, "/mcp", { method: "POST", headers: { ...cookie, origin: "https://mcp.example" } })).status, 200);
  assert.equal((await fetchFrom(gateway.port, "/mcp", { method: "POST", headers: { ...GOOD, origin: "https://neighbour.example" } })).status, 200);
});
