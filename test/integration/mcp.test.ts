// A real MCP server behind HTTPS with a token, and the SDK's client in front.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { Agent, fetch as undiciFetch } from "undici";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom } from "../components/http-client.ts";
import { startMcpServer } from "../components/mcp-server.ts";
import { waitFor } from "../components/wait.ts";

const TOKEN = "sgt_a-token-of-a-test";
const SHA256 = createHash("sha256").update(TOKEN).digest("hex");

const yaml = (port: number, routes: string): string => `listeners:
  https: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
auth:
  tokens: [{ name: me, sha256: ${SHA256} }]
upstreams:
  mcp: http://127.0.0.1:${port}
routes:
${routes}`;

type Fetch = typeof globalThis.fetch;

async function clientOf(gateway: Gateway, path: string, transport: "http" | "sse", token = TOKEN): Promise<{ client: Client; close: () => Promise<void> }> {
  const dispatcher = new Agent({ connect: { ca: await gateway.ca() } });
  // The library's fetch and the built-in one differ in their types alone.
  const fetchThrough = ((url: string, init: object) =>
    undiciFetch(url, { ...init, headers: { ...headersOf(init), authorization: `Bearer ${token}` }, dispatcher })) as unknown as Fetch;
  const url = new URL(`https://localhost:${gateway.port("https")}${path}`);
  const client = new Client({ name: "test", version: "1.0.0" });
  await client.connect(
    // The SDK's types do not know exactOptionalPropertyTypes.
    // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
    (transport === "http"
      ? new StreamableHTTPClientTransport(url, { fetch: fetchThrough })
      : new SSEClientTransport(url, { fetch: fetchThrough })) as Parameters<Client["connect"]>[0],
  );
  return {
    client,
    close: async () => {
      await client.close();
      await dispatcher.destroy();
    },
  };
}

function headersOf(init: object): Record<string, string> {
  const { headers } = init as { headers?: ConstructorParameters<typeof Headers>[0] };
  return Object.fromEntries(new Headers(headers).entries());
}

test("streamable HTTP: tools are listed and called, progress is streamed, an edit drops no session", async () => {
  await using server = await startMcpServer("streamableHttp");
  const route = "  - { path_prefix: /mcp, upstream: mcp, auth: [{ token: { names: [me] } }] }\n";
  await using gateway = await startGateway({ yaml: yaml(server.port, route) });
  const { client, close } = await clientOf(gateway, "/mcp", "http");
  const { tools } = await client.listTools();
  const names = tools.map(({ name }) => name);
  assert.ok(names.includes("echo"), names.join());
  const result = await client.callTool({ name: "echo", arguments: { message: "through the gateway" } });
  assert.match(JSON.stringify(result.content), /through the gateway/);

  const long = names.find((name) => /long/i.test(name));
  assert.ok(long !== undefined, names.join());
  const progressAt: number[] = [];
  const finished = await client.callTool({ name: long, arguments: { duration: 2, steps: 4 } }, undefined, {
    onprogress: () => progressAt.push(performance.now()),
  });
  const doneAt = performance.now();
  assert.ok(finished.content);
  assert.ok(progressAt.length >= 2, `${progressAt.length} progress notifications`);
  assert.ok(doneAt - (progressAt[0] ?? doneAt) > 500, "progress came only with the result");

  for (let i = 0; i < 10; i += 1) await gateway.edit(yaml(server.port, `${route}  - { path: /other/${i}, upstream: mcp, auth: none }\n`));
  const again = await client.callTool({ name: "echo", arguments: { message: "after ten edits" } });
  assert.match(JSON.stringify(again.content), /after ten edits/);
  await close();
});

for (const [path, route] of [
  ["/sse", "{ upstream: mcp, auth: [{ token: {} }] }"],
  ["/old/sse", "{ path_prefix: /old, strip_prefix: /old, upstream: mcp, auth: [{ token: {} }], mcp: {}, public_url: PUBLIC }"],
] as const)
  test(`#47 the older SSE transport works at ${path}, with the SDK's client and the reference server, and its messages need a token`, async () => {
    await using server = await startMcpServer("sse");
    const routes = `  - ${route.replace("PUBLIC", '"https://localhost/old/sse"')}\n`;
    await using gateway = await startGateway({ yaml: yaml(server.port, routes) });
    const { client, close } = await clientOf(gateway, path, "sse");
    const { tools } = await client.listTools();
    assert.ok(tools.length > 0);
    const result = await client.callTool({ name: "echo", arguments: { message: "over sse" } });
    assert.match(JSON.stringify(result.content), /over sse/);
    await close();
    const posts = (): Record<string, unknown>[] => gateway.accessLog.filter(({ method }) => method === "POST");
    await waitFor(() => posts().length >= 3);
    const prefix = path.slice(0, -"/sse".length);
    for (const post of posts()) assert.deepEqual([post["path"], post["status"]], [`${prefix}/message`, 202]);
    const { status } = await fetchFrom(gateway.port("https"), `${prefix}/message?sessionId=1`, {
      ca: await gateway.ca(),
      method: "POST",
      body: "{}",
      headers: { host: "localhost", "content-type": "application/json" },
    });
    assert.equal(status, 401);
  });

test("a wrong token gets 401 and the server never hears of it", async () => {
  await using server = await startMcpServer("streamableHttp");
  await using gateway = await startGateway({ yaml: yaml(server.port, "  - { path_prefix: /mcp, upstream: mcp, auth: [{ token: {} }] }\n") });
  await assert.rejects(clientOf(gateway, "/mcp", "http", "sgt_wrong"), /401|Unauthorized/i);
  const line = await waitFor(() => gateway.accessLog.find((entry) => entry["status"] === 401));
  assert.ok(!("identity" in line) || line["identity"] === null || line["identity"] === "");
  assert.doesNotMatch(server.log(), /session/i);
});
