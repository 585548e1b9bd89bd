// A session belongs to whoever opened it: its id in other hands opens nothing.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fetchFrom, openRequest, type Answer } from "../components/http-client.ts";
import type { Proof } from "../../src/identity/authenticate.ts";
import { sameResourceKey } from "../../src/lib/public-url.ts";
import { EVERYBODY, fakeServer, OCTOCAT, OTHER_TOKEN, proofOf, startHttpGateway, TOKEN } from "../components/http-gateway.ts";
import { bodyOf, startOrigin } from "../components/origin.ts";
import { createHash, randomUUID } from "node:crypto";
import { startGateway } from "../components/gateway.ts";
import { waitFor } from "../components/wait.ts";

const ANY_TOKEN = { kind: "token", names: null, scopes: [] } as const;
const BOUND = { auth: [ANY_TOKEN], mcp: { sessionBinding: true } };
const UNKNOWN = { jsonrpc: "2.0", error: { code: -32_001, message: "Session not found" }, id: null };
const PING = '{"jsonrpc":"2.0","id":1,"method":"ping"}';

/** Opens a session for each POST without one; knows those that it opened. */
async function startSessions() {
  const open = new Set<string>();
  const seen: string[] = [];
  const origin = await startOrigin(async (req, res) => {
    const id = req.headers["mcp-session-id"] ?? new URL(req.url ?? "", "http://x").searchParams.get("sessionId");
    seen.push(`${req.method} ${String(id)}`);
    await bodyOf(req);
    if (id === null) {
      const made = randomUUID();
      open.add(made);
      return void res.writeHead(200, { "Mcp-Session-Id": made, "Content-Type": "application/json" }).end('{"jsonrpc":"2.0","id":1,"result":{}}');
    }
    if (!open.has(String(id))) return void res.writeHead(404, { "Content-Type": "application/json" }).end(JSON.stringify(UNKNOWN));
    if (req.method === "DELETE") open.delete(String(id));
    res.writeHead(req.method === "POST" ? 202 : 200).end();
  });
  return { origin, open, seen, [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose]() };
}

function send(port: number, token: string, session: string | null, args: { method?: string; path?: string } = {}): Promise<Answer> {
  const { method = "POST", path = "/mcp" } = args;
  return fetchFrom(port, path, {
    method,
    headers: { authorization: `Bearer ${token}`, "content-type": "application/json", ...(session === null ? {} : { "mcp-session-id": session }) },
    ...(method === "POST" ? { body: PING } : {}),
  });
}

test("#46 a session used with another principal's token is 404, by any method, and the upstream never hears of it", async () => {
  await using upstream = await startSessions();
  await using gateway = await startHttpGateway({ targets: [upstream.origin.url], routes: [BOUND, { ...BOUND, path: { kind: "prefix", path: "/other" } }] });
  const session = String((await send(gateway.port, TOKEN, null)).headers["mcp-session-id"]);
  assert.equal((await send(gateway.port, TOKEN, session)).status, 202);
  const before = upstream.seen.length;
  for (const method of ["POST", "GET", "DELETE"]) {
    // Another route to the same upstream is no way round.
    for (const path of ["/mcp", "/other/mcp"]) {
      const refused = await send(gateway.port, OTHER_TOKEN, session, { method, path });
      assert.equal(refused.status, 404, method);
      assert.deepEqual(JSON.parse(refused.body), UNKNOWN);
    }
  }
  assert.equal(upstream.seen.length, before);
  assert.equal((await send(gateway.port, TOKEN, session)).status, 202);
  assert.match(String(gateway.accessLog.find(({ status }) => status === 404)?.["error"]), /Session not found/);
  const twice = await fetchFrom(gateway.port, "/mcp", { headers: { authorization: `Bearer ${OTHER_TOKEN}`, "mcp-session-id": [randomUUID(), session] } });
  assert.equal(twice.status, 400);
});

test("#46 an id that nobody is known to have passes, and is theirs who first use it well; DELETE ends that", async () => {
  await using upstream = await startSessions();
  await using gateway = await startHttpGateway({ targets: [upstream.origin.url], routes: [BOUND] });
  const survivor = randomUUID();
  assert.equal((await send(gateway.port, OTHER_TOKEN, survivor)).status, 404);
  // What did not succeed binds nothing.
  upstream.open.add(survivor);
  assert.equal((await send(gateway.port, TOKEN, survivor)).status, 202);
  const seen = upstream.seen.length;
  assert.equal((await send(gateway.port, OTHER_TOKEN, survivor)).status, 404);
  assert.equal(upstream.seen.length, seen);
  assert.equal((await send(gateway.port, TOKEN, survivor, { method: "DELETE" })).status, 200);
  upstream.open.add(survivor);
  assert.equal((await send(gateway.port, OTHER_TOKEN, survivor)).status, 202);
});

test("#46 a route with oauth binds without being asked to: to the person, whatever client they use", async () => {
  await using upstream = await startSessions();
  const resource = "http://127.0.0.1/mcp";
  const proof = (name: string, client: string): Proof => {
    const known = proofOf(resource);
    return { ...known, person: { ...OCTOCAT, subject: name }, identity: { ...known.identity, client } };
  };
  const server = fakeServer({
    issuer: "http://127.0.0.1",
    resources: [resource],
    tokens: { "a-desktop": proof("a", "desktop"), "a-editor": proof("a", "editor"), "b-desktop": proof("b", "desktop") },
  });
  await using gateway = await startHttpGateway({
    targets: [upstream.origin.url],
    servers: [server],
    routes: [
      {
        publicUrl: resource,
        auth: [{ kind: "oauth", resource: sameResourceKey(resource), scopes: [], allow: EVERYBODY, identityAssertions: new Set<string>() }],
      },
    ],
  });
  const session = String((await send(gateway.port, "a-desktop", null)).headers["mcp-session-id"]);
  assert.equal((await send(gateway.port, "a-editor", session)).status, 202);
  assert.equal((await send(gateway.port, "b-desktop", session)).status, 404);
  const auth = [{ kind: "oauth", resource: sameResourceKey(resource), scopes: [], allow: EVERYBODY, identityAssertions: new Set<string>() }] as const;
  const routes = [{ publicUrl: resource, auth, mcp: { sessionBinding: false } }];
  await using loose = await startHttpGateway({ targets: [upstream.origin.url], servers: [server], routes });
  assert.equal((await send(loose.port, "b-desktop", session)).status, 202, "unless the file says otherwise");
});

test("#46 where binding is off, ids pass as they are", async () => {
  await using upstream = await startSessions();
  await using gateway = await startHttpGateway({ targets: [upstream.origin.url], routes: [{ auth: [ANY_TOKEN], mcp: { sessionBinding: false } }] });
  const session = String((await send(gateway.port, TOKEN, null)).headers["mcp-session-id"]);
  assert.equal((await send(gateway.port, OTHER_TOKEN, session)).status, 202);
});

test("#46 an edit of the file forgets no session, and another listener is no way round", async () => {
  await using upstream = await startSessions();
  const sha256 = (token: string): string => createHash("sha256").update(token).digest("hex");
  const yaml = (more: string): string => `listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
  side: { protocol: http, listen: "127.0.0.1:0" }
auth:
  tokens: [{ name: a, sha256: ${sha256("sgt_a")} }, { name: b, sha256: ${sha256("sgt_b")} }]
upstreams: { up: "${upstream.origin.url}" }
routes:
${more}  - { path: /mcp, upstream: up, auth: [{ token: {} }], public_url: "http://127.0.0.1/mcp", mcp: {} }
`;
  await using gateway = await startGateway({ yaml: yaml("") });
  const session = String((await send(gateway.port("web"), "sgt_a", null)).headers["mcp-session-id"]);
  assert.equal((await send(gateway.port("web"), "sgt_b", session)).status, 404);
  await gateway.edit(yaml("  - { path: /else, upstream: up, auth: none }\n"));
  assert.equal((await send(gateway.port("web"), "sgt_b", session)).status, 404);
  assert.equal((await send(gateway.port("side"), "sgt_b", session)).status, 404);
  assert.equal((await send(gateway.port("side"), "sgt_a", session)).status, 202);
  assert.ok(!upstream.seen.includes(`POST ${session}`) || upstream.seen.filter((line) => line.endsWith(session)).length === 1);
});

test("#46 #47 a session of the older transport is bound by its endpoint event, which gets the prefix back", async () => {
  const session = randomUUID();
  let posts = 0;
  await using origin = await startOrigin(async (req, res) => {
    if (req.method === "POST") {
      posts += 1;
      await bodyOf(req);
      return void res.writeHead(202).end("Accepted");
    }
    // The event comes in two pieces, and the client must not wait for a third.
    res.writeHead(200, { "Content-Type": "text/event-stream" });
    res.write("event: endpoint\r\ndata: /mess");
    setImmediate(() => res.write(`age?sessionId=${session}\r\n\r\n`));
  });
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    routes: [{ ...BOUND, path: { kind: "prefix", path: "/old" }, stripPrefix: "/old" }],
  });
  const { request, response } = await openRequest(gateway.port, "/old/sse", { headers: { authorization: `Bearer ${TOKEN}`, accept: "text/event-stream" } });
  let text = "";
  response.on("data", (chunk) => (text += String(chunk)));
  response.on("error", () => {});
  await waitFor(() => text.endsWith("\r\n\r\n"));
  assert.equal(text, `event: endpoint\r\ndata: /old/message?sessionId=${session}\r\n\r\n`);
  const path = `/old/message?sessionId=${session}`;
  const refused = await send(gateway.port, OTHER_TOKEN, null, { path });
  assert.deepEqual([refused.status, JSON.parse(refused.body), posts], [404, UNKNOWN, 0]);
  assert.equal(
    (await send(gateway.port, OTHER_TOKEN, null, { path: `/old/message?x=1&sessionId=%${session.charCodeAt(0).toString(16)}${session.slice(1)}` })).status,
    404,
  );
  assert.equal((await send(gateway.port, TOKEN, null, { path })).status, 202);
  assert.equal(posts, 1);
  request.on("error", () => {});
  request.destroy();
  await waitFor(() => gateway.state.live.active === 0);
});

test("#46 a leaked id in another spelling opens nothing; outside of MCP a word in a query is no session", async () => {
  const id = "0f1e2d3c4b5a69788796a5b4c3d2e1f0";
  await using origin = await startOrigin(async (req, res) => {
    await bodyOf(req);
    if (req.method === "POST") return void res.writeHead(202).end();
    res.writeHead(200, { "Content-Type": "text/event-stream" }).end(`event: endpoint\ndata: /messages/?session_id=${id}\n\n`);
  });
  const resource = "http://127.0.0.1/mcp";
  const proof = (subject: string): Proof => ({ ...proofOf(resource), person: { ...OCTOCAT, subject } });
  const server = fakeServer({ issuer: "http://127.0.0.1", resources: [resource], tokens: { a: proof("a"), b: proof("b") } });
  const route = {
    publicUrl: resource,
    auth: [{ kind: "oauth", resource: sameResourceKey(resource), scopes: [], allow: EVERYBODY, identityAssertions: new Set<string>() }],
  } as const;
  for (const mcp of [null, { sessionBinding: true }]) {
    await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes: [{ ...route, mcp }] });
    assert.equal((await send(gateway.port, "a", null, { method: "GET", path: "/sse" })).status, 200);
    const message = async (token: string, session: string): Promise<number> =>
      (await send(gateway.port, token, null, { path: `/messages/?session_id=${encodeURIComponent(session)}` })).status;
    assert.equal(await message("a", id), 202);
    for (const same of [id, id.toUpperCase(), `{${id}}`, `urn:uuid:${id}`, `\uff10${id.slice(1)}`, ` ${id.slice(1)}`])
      assert.equal(await message("b", same), 404, same);
    for (const word of ["overnight", "München"]) {
      assert.equal(await message("a", word), 202);
      assert.equal(await message("b", word), mcp === null ? 202 : 404);
    }
  }
});
