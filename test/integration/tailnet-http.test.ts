// HTTP on the tailnet: MCP over HTTPS with the identity of the caller's node, beside other ways in.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders } from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { connect } from "node:tls";
import { Agent, fetch as undiciFetch, request } from "undici";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { freePort } from "../components/free-port.ts";
import { startMcpServer, type McpServer } from "../components/mcp-server.ts";
import { skipWithout } from "../components/require.ts";
import { startTailnetGateway, type TailnetGateway } from "../components/tailnet-gateway.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const TOKEN = "sgt_a-token-of-a-test";
const missing = missingTailnet();

let tailnet: TestTailnet;
let mcp: McpServer;
let gateway: TailnetGateway;
let [laptop, bot]: TailnetNode[] = [];
let ports: { https: number; plain: number };
const seen: IncomingHttpHeaders[] = [];
const origin = createServer((incoming, response) => {
  seen.push(incoming.headers);
  response.end("hello");
});

before(async () => {
  if (missing !== null) return;
  origin.listen(0, "127.0.0.1");
  await once(origin, "listening");
  ports = { https: await freePort(), plain: await freePort() };
  [tailnet, mcp] = await Promise.all([startTailnet(), startMcpServer("streamableHttp")]);
  [laptop, bot] = await Promise.all([tailnet.node("laptop"), tailnet.node("bot", { tags: ["tag:agents"] })]);
  gateway = await startTailnetGateway(tailnet, {
    yaml: `listeners:
  https: { protocol: http, listen: "tailnet:${ports.https}", tls: { internal: true } }
  plain: { protocol: http, listen: "tailnet:${ports.plain}" }
  local: { protocol: http, listen: "127.0.0.1:0" }
auth:
  tokens: [{ name: ci, sha256: ${createHash("sha256").update(TOKEN).digest("hex")} }]
upstreams:
  mcp: http://127.0.0.1:${mcp.port}
  origin: http://127.0.0.1:${(origin.address() as AddressInfo).port}
routes:
  - { path_prefix: /mcp, upstream: mcp, auth: [{ tailnet: { users: ["${laptop?.loginName}"] } }] }
  - { path: /any-way, upstream: origin, identity_headers: true, auth: [{ token: { names: [ci] } }, { tailnet: { tags: [tag:agents] } }] }
  - { path: /devices, upstream: origin, identity_headers: true, auth: [{ tailnet: { nodes: [laptop] } }] }
`,
  });
});
after(async () => {
  if (missing !== null) return;
  await gateway?.[Symbol.asyncDispose]();
  await Promise.all([mcp?.[Symbol.asyncDispose](), tailnet?.[Symbol.asyncDispose]()]);
  origin.close();
});

type Asker = AsyncDisposable & { ask(path: string, headers?: Record<string, string>): Promise<{ status: number; body: string }> };

/** Requests from a node, one after another on one connection. */
async function askerOn(node: TailnetNode | undefined, listener: "https" | "plain"): Promise<Asker> {
  assert.ok(node !== undefined);
  const forward = await node.forward("gateway", ports[listener]);
  const dispatcher = new Agent({ connections: 1, connect: { ca: await gateway.ca() } });
  return {
    ask: async (path, headers = {}) => {
      const { statusCode, body } = await request(`${listener === "https" ? "https" : "http"}://localhost:${forward.port}${path}`, { dispatcher, headers });
      return { status: statusCode, body: await body.text() };
    },
    [Symbol.asyncDispose]: async () => {
      await dispatcher.destroy();
      await forward[Symbol.asyncDispose]();
    },
  };
}

test("an MCP client of an admitted person works over HTTPS without any token, and somebody else's is told why not", async (t) => {
  if (skipWithout(t, missing)) return;
  assert.ok(laptop !== undefined);
  await using forward = await laptop.forward("gateway", ports.https);
  const dispatcher = new Agent({ connect: { ca: await gateway.ca() } });
  const fetchThrough = ((url: string, init: object) => undiciFetch(url, { ...init, dispatcher })) as unknown as typeof fetch;
  const transport = new StreamableHTTPClientTransport(new URL(`https://localhost:${forward.port}/mcp`), { fetch: fetchThrough });
  const client = new Client({ name: "test", version: "1.0.0" });
  // The SDK's types do not know exactOptionalPropertyTypes.
  // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
  await client.connect(transport as Parameters<Client["connect"]>[0]);
  const result = await client.callTool({ name: "echo", arguments: { message: "over the tailnet" } });
  assert.match(JSON.stringify(result.content), /over the tailnet/);
  await client.close();
  await dispatcher.destroy();
  const entry = await waitFor(() => gateway.accessLog.find(({ path, status }) => path === "/mcp" && status === 200));
  assert.deepEqual([entry["client"], entry["identity"], entry["node"]], [laptop.address, `tailnet:${laptop.loginName}`, "laptop"]);

  await using other = await askerOn(bot, "https");
  const refused = await other.ask("/mcp");
  assert.equal(refused.status, 403, refused.body);
});

test("a certificate of the local CA fits what clients in the tailnet call the node", async (t) => {
  if (skipWithout(t, missing)) return;
  assert.ok(laptop !== undefined);
  await using forward = await laptop.forward("gateway", ports.https);
  const [ca, { tailnet: node }] = await Promise.all([gateway.ca(), gateway.status()]);
  const statusAs = async (servername: string): Promise<number> => {
    const dispatcher = new Agent({ connect: { ca, servername } });
    const { statusCode, body } = await request(`https://localhost:${forward.port}/nothing`, { dispatcher });
    await body.dump();
    await dispatcher.destroy();
    return statusCode;
  };
  for (const name of ["gateway.tail.test", "gateway"]) assert.equal(await statusAs(name), 404, name);
  await assert.rejects(statusAs("other.tail.test"), { code: "ERR_TLS_CERT_ALTNAME_INVALID" });
  // By address a client sends no server name.
  const socket = connect({ host: "127.0.0.1", port: forward.port, ca, checkServerIdentity: () => undefined });
  await once(socket, "secureConnect");
  const shown = socket.getPeerX509Certificate();
  socket.destroy();
  assert.equal(node?.addresses.length, 2);
  for (const address of node.addresses) assert.equal(shown?.checkIP(address), address);
});

test("a token or the tailnet admits, each by itself, and the upstream is told who and by what", async (t) => {
  if (skipWithout(t, missing)) return;
  await using ofBot = await askerOn(bot, "plain");
  await using ofLaptop = await askerOn(laptop, "plain");
  seen.length = 0;
  assert.equal((await ofBot.ask("/any-way", { "x-forwarded-user": "root", "tailscale-user-login": "root@example.com" })).status, 200);
  assert.equal((await ofLaptop.ask("/any-way")).status, 401);
  assert.equal((await ofLaptop.ask("/any-way", { authorization: `Bearer ${TOKEN}` })).status, 200);
  assert.equal((await ofLaptop.ask("/devices")).status, 200);
  assert.equal((await ofBot.ask("/devices")).status, 403);
  // The same connection still speaks for the same node.
  assert.equal((await ofBot.ask("/any-way")).status, 200);
  assert.deepEqual(
    seen.map((headers) =>
      ["x-forwarded-for", "x-forwarded-user", "x-forwarded-user-source", "x-forwarded-user-node", "tailscale-user-login"].map((name) => headers[name]),
    ),
    [
      [bot?.address, "tag:agents", "tailnet", "bot", undefined],
      [laptop?.address, "ci", "token", undefined, undefined],
      [laptop?.address, laptop?.loginName, "tailnet", "laptop", undefined],
      [bot?.address, "tag:agents", "tailnet", "bot", undefined],
    ],
  );
});

test("on another listener the tailnet is no way in, whatever a request says of itself", async (t) => {
  if (skipWithout(t, missing)) return;
  const url = `http://127.0.0.1:${gateway.port("local")}/devices`;
  const response = await fetch(url, { headers: { "x-forwarded-for": laptop?.address ?? "", "tailscale-user-login": laptop?.loginName ?? "" } });
  assert.equal(response.status, 403, await response.text());
  // A process of this machine does not get as far as HTTP.
  await assert.rejects(fetch(`http://127.0.0.1:${ports.plain}/devices`));
});
