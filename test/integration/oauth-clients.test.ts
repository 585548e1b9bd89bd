// The clients that people use, each from the first 401 to a called tool: a real server behind the gateway, GitHub as the login, a scripted person.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { Client as ModernClient, StreamableHTTPClientTransport as ModernTransport } from "@modelcontextprotocol/client";
import { auth, UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { WebSocketClientTransport } from "@modelcontextprotocol/sdk/client/websocket.js";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import type { Transport as SdkTransport } from "@modelcontextprotocol/sdk/shared/transport.js";
import type { JSONRPCMessage } from "@modelcontextprotocol/sdk/types.js";
import { WebSocketServer } from "ws";
import { z } from "zod";
import { freePort } from "../components/free-port.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { startGithub, type Github } from "../components/github.ts";
import { startMcpServer } from "../components/mcp-server.ts";
import { MemoryOAuth } from "../components/oauth-client.ts";
import { approve } from "../components/person.ts";
import { waitFor } from "../components/wait.ts";

type Transport = StreamableHTTPClientTransport | SSEClientTransport;
type Setting = { readonly github: Github; readonly origin: string; gateway: Gateway; restart(): Promise<void> };

/** /mcp is streamable HTTP, below /old the older transport, whose prefix is stripped. */
async function open(t: TestContext): Promise<Setting> {
  const github = await startGithub();
  const [http, sse] = await Promise.all([startMcpServer("streamableHttp"), startMcpServer("sse")]);
  const port = await freePort();
  const origin = `http://127.0.0.1:${port}`;
  const oauth = "[{ oauth: { scopes: [mcp], allow: { github_users: [octocat] } } }]";
  const dir = await mkdtemp(join(tmpdir(), "sidegate-state-"));
  const ws = startWebSocketServer();
  await once(ws, "listening");
  const yaml = `state: { dir: ${dir} }
listeners:
  web: { protocol: http, listen: "127.0.0.1:${port}", tls: { mode: disabled } }
auth:
  login:
    github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", upstream: "http://127.0.0.1:${http.port}", auth: ${oauth} }
  - { path_prefix: /old, public_url: "${origin}/old", strip_prefix: /old, upstream: "http://127.0.0.1:${sse.port}", auth: ${oauth} }
  - { path: /ws, public_url: "${origin}/ws", upstream: "http://127.0.0.1:${(ws.address() as AddressInfo).port}", auth: ${oauth} }
`;
  const setting: Setting = {
    github,
    origin,
    gateway: await startGateway({ yaml }),
    restart: async () => {
      await setting.gateway[Symbol.asyncDispose]();
      setting.gateway = await startGateway({ yaml });
    },
  };
  t.after(async () => {
    await setting.gateway[Symbol.asyncDispose]();
    for (const one of [http, sse, github]) await one[Symbol.asyncDispose]();
    ws.close();
    await rm(dir, { recursive: true, force: true });
  });
  return setting;
}

/** A server of the reference SDK's protocol over WebSocket, for which that SDK has no server. */
function startWebSocketServer(): WebSocketServer {
  const server = new WebSocketServer({ host: "127.0.0.1", port: 0, handleProtocols: (offered) => (offered.has("mcp") ? "mcp" : false) });
  server.on("connection", (socket) => {
    const mcp = new McpServer({ name: "over-websocket", version: "1.0.0" });
    mcp.registerTool("echo", { inputSchema: { message: z.string() } }, ({ message }) => ({ content: [{ type: "text", text: message }] }));
    const transport: SdkTransport = {
      start: () => Promise.resolve(),
      send: (message) => {
        socket.send(JSON.stringify(message));
        return Promise.resolve();
      },
      close: () => {
        socket.close();
        return Promise.resolve();
      },
    };
    socket.on("message", (data: Buffer) => transport.onmessage?.(JSON.parse(data.toString()) as JSONRPCMessage));
    socket.on("close", () => transport.onclose?.());
    void mcp.connect(transport);
  });
  return server;
}

/** Connects as the SDK's documentation says: try, let the person log in, bring the code, try again. */
async function connect(make: (oauth: MemoryOAuth) => Transport, oauth: MemoryOAuth): Promise<Client> {
  const client = () => new Client({ name: "story", version: "1.0.0" });
  const first = make(oauth);
  const asked = oauth.asked;
  try {
    const connected = client();
    // The SDK's types do not know exactOptionalPropertyTypes.
    // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
    await connected.connect(first as Parameters<Client["connect"]>[0]);
    return connected;
  } catch (error) {
    if (!(error instanceof UnauthorizedError) && oauth.asked === asked) throw error;
  }
  await first.finishAuth(oauth.code());
  const connected = client();
  // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
  await connected.connect(make(oauth) as Parameters<Client["connect"]>[0]);
  return connected;
}

async function callsATool(client: Client): Promise<void> {
  const { tools } = await client.listTools();
  assert.ok(tools.some(({ name }) => name === "echo"));
  const result = await client.callTool({ name: "echo", arguments: { message: "through the gateway" } });
  assert.match(JSON.stringify(result.content), /through the gateway/);
}

test("#53 the SDK's client of the older revisions logs in once, over streamable HTTP and SSE, and comes back after a restart without being asked", async (t) => {
  const setting = await open(t);
  const oauth = new MemoryOAuth(approve);
  const make = (provider: MemoryOAuth): Transport => new StreamableHTTPClientTransport(new URL(`${setting.origin}/mcp`), { authProvider: provider });
  const client = await connect(make, oauth);
  await callsATool(client);
  await client.close();
  assert.equal(oauth.asked, 1);
  const issued = oauth.saved;
  assert.ok(issued?.refresh_token !== undefined);

  const overSse = new MemoryOAuth(approve);
  const old = await connect((provider) => new SSEClientTransport(new URL(`${setting.origin}/old/sse`), { authProvider: provider }), overSse);
  await callsATool(old);
  await old.close();

  await setting.restart();
  // Whoever comes back with an access token that nobody knows refreshes, and is not asked.
  oauth.saved = { ...issued, access_token: "of-yesterday" };
  const again = await connect(make, oauth);
  await callsATool(again);
  await again.close();
  assert.equal(oauth.asked, 1);
  assert.notEqual(oauth.saved.access_token, issued.access_token);

  assert.ok(
    setting.gateway.accessLog.some((line) => line["identity"] === "github:octocat"),
    "the access log names the person",
  );
});

test("#53 the SDK's client over WebSocket calls a tool with its token, and does not get in without", async (t) => {
  const setting = await open(t);
  const oauth = new MemoryOAuth(approve);
  assert.equal(await auth(oauth, { serverUrl: `${setting.origin}/ws` }), "REDIRECT");
  assert.equal(await auth(oauth, { serverUrl: `${setting.origin}/ws`, authorizationCode: oauth.code() }), "AUTHORIZED");
  const Plain = globalThis.WebSocket;
  t.after(() => (globalThis.WebSocket = Plain));
  const connectWith = async (headers: Record<string, string>): Promise<Client> => {
    // Browsers could not send the header; the client of Node.js can.
    globalThis.WebSocket = class extends Plain {
      constructor(url: string | URL, protocols?: ConstructorParameters<typeof WebSocket>[1]) {
        super(url, { protocols, headers } as never);
      }
    };
    const client = new Client({ name: "story", version: "1.0.0" });
    // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
    await client.connect(new WebSocketClientTransport(new URL(`${setting.origin.replace("http", "ws")}/ws`)) as Parameters<Client["connect"]>[0]);
    return client;
  };
  await assert.rejects(connectWith({}));
  const client = await connectWith({ authorization: `Bearer ${oauth.saved?.access_token}` });
  await callsATool(client);
  await client.close();
});

test("#53 the SDK's client of both eras logs in, and checks the issuer that comes with the code", async (t) => {
  const setting = await open(t);
  const oauth = new MemoryOAuth(approve);
  const make = (): ModernTransport => new ModernTransport(new URL(`${setting.origin}/mcp`), { authProvider: oauth as never });
  const first = make();
  await assert.rejects(new ModernClient({ name: "story", version: "1.0.0" }).connect(first));
  assert.equal(oauth.asked, 1);
  assert.equal(oauth.callback?.searchParams.get("iss"), setting.origin);
  await first.finishAuth(oauth.callback?.searchParams ?? new URLSearchParams());
  const client = new ModernClient({ name: "story", version: "1.0.0" });
  await client.connect(make());
  const result = await client.callTool({ name: "echo", arguments: { message: "of both eras" } });
  assert.match(JSON.stringify(result), /of both eras/);
  await client.close();
});

test("#53 mcp-remote shows its address, the person consents, and its client on standard input and output calls a tool", async (t) => {
  const setting = await open(t);
  const home = await mkdtemp(join(tmpdir(), "sidegate-remote-"));
  t.after(() => rm(home, { recursive: true, force: true }));
  const program = new URL("../../node_modules/mcp-remote/dist/proxy.js", import.meta.url).pathname;
  const transport = new StdioClientTransport({
    command: process.execPath,
    args: [program, `${setting.origin}/mcp`, String(await freePort()), "--allow-http"],
    env: { PATH: "/nonexistent", HOME: home, MCP_REMOTE_CONFIG_DIR: home },
    stderr: "pipe",
  });
  let text = "";
  let visited = false;
  transport.stderr?.on("data", (chunk: Buffer) => {
    text += chunk.toString();
    const url = /https?:\/\/\S+\/authorize\?\S+/.exec(text)?.[0];
    if (url === undefined || visited) return;
    visited = true;
    void approve(new URL(url)).then((to) => fetch(to));
  });
  const client = new Client({ name: "story", version: "1.0.0" });
  t.after(() => client.close());
  await client.connect(transport, { timeout: 60_000 }).catch((error: unknown) => assert.fail(`${String(error)}\n${text}`));
  await callsATool(client);
});

for (const era of ["legacy", "auto"]) {
  test(`#53 the inspector's command line (${era}) logs in and lists the tools`, async (t) => {
    const setting = await open(t);
    const home = await mkdtemp(join(tmpdir(), "sidegate-inspector-"));
    t.after(() => rm(home, { recursive: true, force: true }));
    await writeFile(join(home, "empty"), "");
    const program = new URL("../../node_modules/@modelcontextprotocol/inspector/clients/launcher/build/index.js", import.meta.url).pathname;
    const callback = `http://127.0.0.1:${await freePort()}/oauth/callback`;
    const args = [
      "--cli",
      `${setting.origin}/mcp`,
      "--transport",
      "http",
      "--method",
      "tools/list",
      "--format",
      "json",
      "--callback-url",
      callback,
      "--protocol-era",
      era,
    ];
    const child = spawn(process.execPath, [program, ...args], {
      env: { PATH: process.env["PATH"], HOME: home, MCP_AUTO_OPEN_ENABLED: "true" },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const exited = once(child, "exit");
    t.after(() => child.kill("SIGKILL"));
    let [out, text] = ["", ""];
    child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
    child.stderr.on("data", (chunk: Buffer) => (text += chunk.toString()));
    const address = (): string | undefined => /https?:\/\/\S+\/authorize\?[^\s"]+/.exec(text + out)?.[0];
    await waitFor(() => address() !== undefined || child.exitCode !== null, {
      timeoutMs: 30_000,
      what: () => `the inspector to show an address:\n${out}\n${text}`,
    });
    await approve(new URL(address() ?? assert.fail(`${out}\n${text}`))).then((to) => fetch(to));
    const [code] = (await exited) as [number | null];
    assert.equal(code, 0, `${out}\n${text}`);
    assert.match(out, /"echo"/);
  });
}
