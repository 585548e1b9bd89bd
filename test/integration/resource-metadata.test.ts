// What clients without a token are told, and where: the protected resource's side of MCP authorization.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { connect } from "node:net";
import { test } from "node:test";
import type { TokenSource } from "../../src/identity/authenticate.ts";
import { fetchFrom } from "../components/http-client.ts";
import { fakeServer, oauthWay, proofOf, protectedRoute, startHttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin, startRecordingOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const MCP = "https://mcp.example/mcp";
const CHALLENGE = 'resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp", scope="mcp"';
const WELL_KNOWN = "/.well-known/oauth-protected-resource";

function gatewayOf(options: Partial<HttpGatewayOptions> & { targets: string[] }) {
  const server = fakeServer({
    issuer: "https://mcp.example",
    resources: [MCP],
    tokens: {
      good: proofOf(MCP, ["mcp"]),
      narrow: proofOf(MCP, []),
      broad: proofOf(MCP, ["admin", "mcp"]),
      other: proofOf("https://mcp.example/other", ["mcp"]),
    },
  });
  return startHttpGateway({ routes: [protectedRoute(MCP, [oauthWay(MCP, ["mcp"])])], servers: [server], ...options });
}

const bearer = (token: string): Record<string, string> => ({ host: "mcp.example", authorization: `Bearer ${token}` });

test("#1 #2 #3 every method without a token is answered 401 with the way to get one, and without an error", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url] });
  for (const [method, headers] of [
    ["POST", { "content-type": "application/json" }],
    ["GET", { accept: "text/event-stream" }],
    ["DELETE", {}],
    ["PUT", {}],
    ["OPTIONS", {}],
    ["HEAD", {}],
  ] as const) {
    const answer = await fetchFrom(gateway.port, "/mcp", { method, headers: { host: "mcp.example", ...headers }, ...(method === "POST" && { body: "{}" }) });
    assert.equal(answer.status, 401, method);
    assert.equal(answer.headers["www-authenticate"], `Bearer ${CHALLENGE}`, method);
    assert.equal(answer.headers["cache-control"], "no-store");
  }
  const upgrade = await sendRaw(
    gateway.port,
    [
      "GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n",
    ],
    1,
  );
  assert.deepEqual(upgrade.statuses, [401]);
  assert.match(upgrade.text, /www-authenticate: Bearer resource_metadata=/i);
  assert.equal(origin.requests.length, 0);
});

test("#1 a POST over HTTP/2 is answered in the same way", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url], tls: true });
  const session = connectHttp2(`https://127.0.0.1:${gateway.port}`, { rejectUnauthorized: false });
  const stream = session.request({ ":method": "POST", ":path": "/mcp", ":authority": "mcp.example" });
  stream.end("{}");
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  assert.equal(headers[":status"], 401);
  assert.equal(headers["www-authenticate"], `Bearer ${CHALLENGE}`);
  stream.resume();
  await once(stream, "close");
  session.close();
});

test("#3 a token that is not known, of another form or for another resource is invalid_token", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url] });
  for (const authorization of ["Bearer unknown", "Bearer other", "Bearer", "Basic YTpi", "Bearer a b", `Bearer ${"x".repeat(20_000)}`]) {
    const headers = { host: "mcp.example", authorization };
    const answer = await fetchFrom(gateway.port, "/mcp", { method: "POST", headers, body: "{}" });
    if (authorization.length > 16_000) assert.ok([401, 431].includes(answer.status));
    else assert.deepEqual([answer.status, answer.headers["www-authenticate"]], [401, `Bearer error="invalid_token", ${CHALLENGE}`], authorization);
  }
  assert.equal(origin.requests.length, 0);
});

test("several Authorization headers are refused, whichever of them is valid", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url] });
  const reply = await sendRaw(gateway.port, ["GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nAuthorization: Bearer good\r\nAuthorization: Bearer good\r\n\r\n"], 1);
  assert.deepEqual(reply.statuses, [400]);
  assert.equal(origin.requests.length, 0);
});

test("#4 #6 #8 the metadata of the only route stands at its path, at the twin with a slash and at the root", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url] });
  for (const path of [`${WELL_KNOWN}/mcp`, `${WELL_KNOWN}/mcp/`, WELL_KNOWN, `${WELL_KNOWN}/`]) {
    const answer = await fetchFrom(gateway.port, path, { headers: { host: "mcp.example" } });
    assert.deepEqual([answer.status, answer.headers["content-type"], answer.headers["access-control-allow-origin"]], [200, "application/json", "*"], path);
    assert.deepEqual(JSON.parse(answer.body), {
      resource: MCP,
      authorization_servers: ["https://mcp.example"],
      bearer_methods_supported: ["header"],
      scopes_supported: ["mcp"],
    });
  }
  const head = await fetchFrom(gateway.port, `${WELL_KNOWN}/mcp`, { method: "HEAD", headers: { host: "mcp.example" } });
  assert.deepEqual([head.status, head.body], [200, ""]);
  const preflight = await fetchFrom(gateway.port, `${WELL_KNOWN}/mcp`, { method: "OPTIONS", headers: { host: "mcp.example", origin: "https://any.example" } });
  assert.deepEqual([preflight.status, preflight.headers["access-control-allow-origin"]], [204, "*"]);
  assert.equal((await fetchFrom(gateway.port, `${WELL_KNOWN}/mcp`, { method: "POST", headers: { host: "mcp.example" } })).status, 405);
  for (const path of [`${WELL_KNOWN}/other`, `${WELL_KNOWN}/mcp/x`]) {
    const missing = await fetchFrom(gateway.port, path, { headers: { host: "mcp.example" } });
    assert.deepEqual([missing.status, missing.headers["content-type"]], [404, "application/json"]);
    assert.equal((JSON.parse(missing.body) as { error: { code: string } }).error.code, "ERR_NO_RESOURCE");
  }
  assert.equal(origin.requests.length, 0, "an upstream's own metadata is nowhere to be seen");
});

test("#5 the query of a public URL stands behind the path of its metadata", async () => {
  await using origin = await startRecordingOrigin();
  const url = `${MCP}?tenant=a`;
  const server = fakeServer({ issuer: "https://mcp.example", resources: [url] });
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [protectedRoute(url, [oauthWay(url)]), protectedRoute(MCP, [oauthWay(MCP)], { priority: 1 })],
  });
  const at = async (path: string): Promise<unknown> =>
    (JSON.parse((await fetchFrom(gateway.port, path, { headers: { host: "mcp.example" } })).body) as { resource?: string }).resource;
  assert.equal(await at(`${WELL_KNOWN}/mcp?tenant=a`), url);
  assert.equal(await at(`${WELL_KNOWN}/mcp`), MCP);
  const denied = await fetchFrom(gateway.port, "/mcp", { headers: { host: "mcp.example" } });
  assert.equal(denied.headers["www-authenticate"], `Bearer resource_metadata="https://mcp.example${WELL_KNOWN}/mcp?tenant=a"`);
});

test("#6 #7 two routes of a host are two resources, and the root names none", async () => {
  await using origin = await startRecordingOrigin();
  const other = "https://mcp.example/%7eother/";
  await using gateway = await gatewayOf({
    targets: [origin.url],
    routes: [
      protectedRoute(MCP, [oauthWay(MCP, ["mcp"])]),
      protectedRoute(other, [oauthWay(other)], { path: { kind: "regex", source: "^/~other/.*x$" } }),
      // The same address: one resource with the scopes of both.
      protectedRoute(`${MCP}/`, [oauthWay(MCP, ["write"])], { methods: new Set(["PUT"]) }),
    ],
  });
  const documentAt = async (path: string): Promise<{ status: number; resource?: string; scopes_supported?: string[] }> => {
    const { status, body } = await fetchFrom(gateway.port, path, { headers: { host: "mcp.example" } });
    return { status, ...(JSON.parse(body) as { resource?: string }) };
  };
  assert.equal((await documentAt(WELL_KNOWN)).status, 404);
  assert.deepEqual((await documentAt(`${WELL_KNOWN}/mcp`)).scopes_supported, ["mcp", "write"]);
  assert.equal((await documentAt(`${WELL_KNOWN}/mcp`)).resource, MCP);
  for (const path of ["/%7Eother", "/~other", "/%7eother/"]) assert.equal((await documentAt(WELL_KNOWN + path)).resource, other, path);
  const challenged = await fetchFrom(gateway.port, "/~other/path/x", { headers: { host: "mcp.example" } });
  assert.equal(challenged.headers["www-authenticate"], `Bearer resource_metadata="https://mcp.example${WELL_KNOWN}/%7eother/"`);
});

test("routes of any host with the same path and different addresses do not answer for each other", async () => {
  await using origin = await startRecordingOrigin();
  const [a, b] = ["https://a.example/mcp", "https://b.example/mcp"];
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [fakeServer({ issuer: "https://a.example", resources: [a] }), fakeServer({ issuer: "https://b.example", resources: [b] })],
    routes: [protectedRoute(a, [oauthWay(a)], { host: null, methods: new Set(["GET"]) }), protectedRoute(b, [oauthWay(b)], { host: null })],
  });
  const resourceAt = async (host: string): Promise<unknown> =>
    (JSON.parse((await fetchFrom(gateway.port, `${WELL_KNOWN}/mcp`, { headers: { host } })).body) as { resource?: string }).resource;
  assert.equal(await resourceAt("a.example"), a);
  assert.equal(await resourceAt("b.example"), b);
  assert.equal(await resourceAt("c.example"), undefined);
});

test("#10 a forged Host or X-Forwarded-* changes no address that clients are told", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url], routes: [protectedRoute(MCP, [oauthWay(MCP, ["mcp"])], { host: null })] });
  const forged = { "x-forwarded-host": "evil.example", "x-forwarded-proto": "http", forwarded: "host=evil.example", "x-forwarded-prefix": "/evil" };
  const challenged = await fetchFrom(gateway.port, "/mcp", { headers: { host: "mcp.example", ...forged } });
  assert.equal(challenged.headers["www-authenticate"], `Bearer ${CHALLENGE}`);
  const described = await fetchFrom(gateway.port, `${WELL_KNOWN}/mcp`, { headers: { host: "evil.example", ...forged } });
  assert.equal(described.body.includes("evil"), false);
  assert.equal((await fetchFrom(gateway.port, "/mcp", { headers: { host: "evil.example", ...forged } })).status, 421);
});

test("#14 a token in the query admits nobody, and never goes on", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url] });
  for (const name of ["access_token", "access%5Ftoken", "%61ccess_token"]) {
    assert.equal((await fetchFrom(gateway.port, `/mcp?${name}=good`, { headers: { host: "mcp.example" } })).status, 401);
    const twice = await fetchFrom(gateway.port, `/mcp?x=1&${name}=good`, { headers: bearer("good") });
    assert.deepEqual([twice.status, twice.headers["www-authenticate"]], [400, 'Bearer error="invalid_request"']);
  }
  assert.equal((await fetchFrom(gateway.port, "/mcp?token_access=1", { headers: bearer("good") })).status, 200);
  assert.equal(origin.requests.length, 1);
  await waitFor(() => gateway.accessLog.length === 7);
  assert.equal(JSON.stringify(gateway.accessLog).includes("good"), false);
});

test("#15 the client's token stays here; the upstream gets its own credential", async () => {
  await using origin = await startRecordingOrigin();
  await using plain = await gatewayOf({ targets: [origin.url] });
  await using credentialed = await gatewayOf({ targets: [origin.url], upstream: { authorization: "Bearer upstream-secret" } });
  for (const [gateway, expected] of [
    [plain, []],
    [credentialed, ["Bearer upstream-secret"]],
  ] as const) {
    origin.reset();
    const answer = await fetchFrom(gateway.port, "/mcp", { headers: { ...bearer("good"), "proxy-authorization": "Bearer good" } });
    assert.equal(answer.status, 200);
    const headers = origin.requests[0]?.headers ?? [];
    assert.deepEqual(
      headers.filter(([name]) => name === "authorization").map(([, value]) => value),
      expected,
    );
    assert.equal(JSON.stringify(headers).includes("good"), false);
    await waitFor(() => gateway.accessLog.length === 1);
    assert.deepEqual([gateway.accessLog[0]?.["identity"], gateway.accessLog[0]?.["client_id"]], ["github:octocat", "test-client"]);
  }
});

test("#16 #17 a token without a scope is told all that it needs, and a broader one does", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await gatewayOf({ targets: [origin.url], routes: [protectedRoute(MCP, [oauthWay(MCP, ["mcp", "write"])])] });
  const lacking = await fetchFrom(gateway.port, "/mcp", { method: "POST", headers: bearer("good"), body: "{}" });
  assert.equal(lacking.status, 403);
  assert.equal(
    lacking.headers["www-authenticate"],
    'Bearer error="insufficient_scope", resource_metadata="https://mcp.example/.well-known/oauth-protected-resource/mcp", scope="mcp write"',
  );
  await using wide = await gatewayOf({ targets: [origin.url] });
  assert.equal((await fetchFrom(wide.port, "/mcp", { headers: bearer("narrow") })).status, 403);
  assert.equal((await fetchFrom(wide.port, "/mcp", { headers: bearer("broad") })).status, 200);
});

test("an endpoint of the server comes before routes, and a Host that is not the server's reaches it from no stranger", async () => {
  await using origin = await startRecordingOrigin();
  const server = fakeServer({ issuer: "https://mcp.example", resources: [MCP], anyHost: true });
  const routes = [protectedRoute(MCP, [oauthWay(MCP)], { host: null, path: { kind: "any" } })];
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes });
  assert.equal((await fetchFrom(gateway.port, "/authorize?x=1", { headers: { host: "mcp.example:8443" } })).body, "https://mcp.example/authorize");
  // The page of a stranger whose name leads here would share its origin with the server.
  assert.equal((await fetchFrom(gateway.port, "/authorize", { headers: { host: "rebound.example" } })).status, 421);
  assert.equal(server.requests.length, 1);
  await using behind = await startHttpGateway({ targets: [origin.url], servers: [server], routes, trustedProxies: ["127.0.0.1"] });
  assert.equal((await fetchFrom(behind.port, "/authorize", { headers: { host: "10.0.0.1" } })).body, "https://mcp.example/authorize");
});

test("what an endpoint is told has no word of proxies, one Cookie header, and its answer is fit for HTTP/2", async () => {
  await using origin = await startRecordingOrigin();
  const server = fakeServer({
    issuer: "https://mcp.example",
    resources: [MCP],
    answer: () => ({ status: 204, headers: ["Set-Cookie", "a=1", "Set-Cookie", "b=2", "Connection", "keep-alive", "Transfer-Encoding", "chunked"], body: "" }),
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes: [protectedRoute(MCP, [oauthWay(MCP)])], tls: true });
  const session = connectHttp2(`https://127.0.0.1:${gateway.port}`, { rejectUnauthorized: false });
  const stream = session.request({
    ":method": "POST",
    ":path": "/token",
    ":authority": "mcp.example",
    cookie: ["x=1", "y=2"],
    "x-forwarded-host": "evil.example",
    "x-forwarded-user": "root",
    "x-real-ip": "6.6.6.6",
    "content-type": "application/x-www-form-urlencoded",
  });
  stream.end("grant_type=x");
  const [headers] = (await once(stream, "response")) as [Record<string, unknown>];
  assert.deepEqual([headers[":status"], headers["set-cookie"], headers["content-length"]], [204, ["a=1", "b=2"], undefined]);
  stream.resume();
  await once(stream, "close");
  session.close();
  const [request] = server.requests;
  assert.equal(request?.body.toString(), "grant_type=x");
  assert.deepEqual(request?.headers, ["content-type", "application/x-www-form-urlencoded", "cookie", "x=1; y=2"]);
});

test("a body for an endpoint is asked for, limited, and given up with its client", async () => {
  await using origin = await startRecordingOrigin();
  const server = fakeServer({ issuer: "https://mcp.example", resources: [MCP] });
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes: [protectedRoute(MCP, [oauthWay(MCP)])] });
  const head = "POST /token HTTP/1.1\r\nHost: mcp.example\r\n";
  const asked = await sendRaw(gateway.port, [`${head}Expect: 100-continue\r\nContent-Length: 3\r\n\r\n`, 50, "abc"], 2);
  assert.deepEqual(asked.statuses, [100, 200]);
  const tooLarge = await sendRaw(gateway.port, [`${head}Content-Length: 70000\r\n\r\n`, "x".repeat(70_000)], 1);
  assert.deepEqual([tooLarge.statuses, tooLarge.closed], [[413], true]);
  const client = connect(gateway.port, "127.0.0.1");
  client.write(`${head}Content-Length: 10\r\n\r\nabc`);
  await waitFor(() => gateway.state.live.active === 1);
  client.destroy();
  await waitFor(() => gateway.accessLog.some(({ status }) => status === 499));
  await waitFor(() => gateway.state.live.active === 0);
  assert.equal(server.requests.length, 1);
});

test("#11 a token of ours is shown to no issuer, also on a route that takes none of ours", async () => {
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  const shown: string[] = [];
  const corp: TokenSource = {
    find: (token) => {
      shown.push(token);
      return null;
    },
  };
  const server = fakeServer({ issuer: "https://mcp.example", resources: [MCP], tokens: { ours: proofOf(MCP) } });
  const other = "https://other.example/mcp";
  const issuerWay = { kind: "issuer", issuer: "corp", scopes: [], allow: null } as const;
  const routes = [protectedRoute(MCP, [oauthWay(MCP)]), protectedRoute(other, [issuerWay])];
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], issuers: { corp }, routes });
  const ask = (token: string) => fetchFrom(gateway.port, "/mcp", { headers: { ...bearer(token), host: "other.example" } });
  assert.deepEqual([(await ask("ours")).status, (await ask("theirs")).status], [401, 401]);
  assert.deepEqual(shown, ["theirs"]);
});

test("a source of tokens that never answers keeps no client waiting, and nothing of one that went away", async () => {
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  const never = new Promise<never>(() => {});
  const server = fakeServer({ issuer: "https://mcp.example", resources: [MCP], tokens: { slow: never } });
  const routes = [protectedRoute(MCP, [oauthWay(MCP)])];
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes, identifyMs: 150 });
  const late = await fetchFrom(gateway.port, "/mcp", { headers: bearer("slow") });
  assert.deepEqual([late.status, late.headers["retry-after"]], [503, "5"]);
  const upgrade =
    "GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nAuthorization: Bearer slow\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";
  // A second answer never comes: the end of the connection is what is waited for.
  const upgraded = await sendRaw(gateway.port, [upgrade, "early bytes"], 2);
  assert.deepEqual([upgraded.statuses, upgraded.closed], [[503], true]);
  const expecting = await sendRaw(
    gateway.port,
    ["POST /mcp HTTP/1.1\r\nHost: mcp.example\r\nAuthorization: Bearer slow\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", 200, "abc"],
    1,
  );
  assert.deepEqual(expecting.statuses, [503], "no body is asked for");

  await using patient = await startHttpGateway({ targets: [origin.url], servers: [server], routes, identifyMs: 60_000 });
  for (const request of ["GET /mcp HTTP/1.1\r\nHost: mcp.example\r\nAuthorization: Bearer slow\r\n\r\n", upgrade]) {
    patient.accessLog.length = 0;
    const client = connect(patient.port, "127.0.0.1");
    client.write(request);
    await waitFor(() => patient.state.live.active === 1);
    client.destroy();
    // A socket that waits for an upgrade is not read: its end shows when it is cut.
    if (request === upgrade) for (const socket of patient.sockets) socket.destroy();
    await waitFor(() => patient.accessLog.length === 1 && patient.state.live.active === 0);
    assert.deepEqual([patient.accessLog[0]?.["status"], patient.accessLog[0]?.["aborted"]], [499, true]);
  }
});

test("a listener that drains closes the connection after an answer that took time", async () => {
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  const { promise, resolve } = Promise.withResolvers<ReturnType<typeof proofOf>>();
  const server = fakeServer({ issuer: "https://mcp.example", resources: [MCP], tokens: { slow: promise } });
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes: [protectedRoute(MCP, [oauthWay(MCP)])] });
  const answer = fetchFrom(gateway.port, "/mcp", { headers: { ...bearer("slow"), connection: "keep-alive" } });
  await waitFor(() => gateway.state.live.active === 1);
  gateway.state.drain.draining = true;
  resolve(proofOf(MCP));
  assert.deepEqual([(await answer).status, (await answer).headers.connection], [200, "close"]);
});
