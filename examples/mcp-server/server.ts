// A small MCP server (streamable HTTP, with sessions) that listens on loopback alone: what Sidegate is put in front of.
//   HOST           address to listen on, default 127.0.0.1
//   PORT           default 18080; 0 takes a free one
//   ALLOWED_HOSTS  host names that a request may ask for, with commas between. The gateway keeps the client's Host header,
//                  so its public names belong here. Default: localhost,127.0.0.1,[::1]
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { randomUUID } from "node:crypto";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";

const host = process.env["HOST"] ?? "127.0.0.1";
const port = Number(process.env["PORT"] ?? 18_080);
const allowedHosts = (process.env["ALLOWED_HOSTS"] ?? "localhost,127.0.0.1,[::1]").split(",");

/** Headers that a gateway sets, which `whoami` shows. */
const GATEWAY_HEADERS = [
  "host",
  "forwarded",
  "x-forwarded-for",
  "x-forwarded-host",
  "x-forwarded-proto",
  "x-real-ip",
  "x-request-id",
  "x-forwarded-user",
  "x-forwarded-scopes",
];

function text(value: string): { content: [{ type: "text"; text: string }] } {
  return { content: [{ type: "text", text: value }] };
}

function createMcpServer(): McpServer {
  const server = new McpServer({ name: "sidegate-example", version: "1.0.0" });
  server.registerTool("echo", { description: "Gives back the message", inputSchema: { message: z.string() } }, ({ message }) => text(message));
  server.registerTool("add", { description: "Adds two numbers", inputSchema: { a: z.number(), b: z.number() } }, ({ a, b }) => text(String(a + b)));
  server.registerTool(
    "countdown",
    {
      description: "Counts down to zero and reports each step as a progress notification",
      inputSchema: { from: z.number().int().min(1).max(100).default(5), interval_ms: z.number().int().min(0).max(60_000).default(1_000) },
    },
    async ({ from, interval_ms }, { signal, sendNotification, _meta }) => {
      for (let step = 1; step <= from; step += 1) {
        await sleep(interval_ms, undefined, { signal });
        if (_meta?.progressToken === undefined) continue;
        const params = { progressToken: _meta.progressToken, progress: step, total: from, message: `${from - step} to go` };
        await sendNotification({ method: "notifications/progress", params });
      }
      return text("Lift-off");
    },
  );
  server.registerTool("whoami", { description: "Shows what the gateway says about the caller" }, ({ requestInfo }) => {
    const headers = requestInfo?.headers ?? {};
    const lines = GATEWAY_HEADERS.filter((name) => headers[name] !== undefined).map((name) => `${name}: ${String(headers[name])}`);
    return text([...lines, `authorization: ${headers["authorization"] === undefined ? "none, the gateway keeps it" : "present"}`].join("\n"));
  });
  return server;
}

const sessions = new Map<string, StreamableHTTPServerTransport>();

/** A transport for a client that has no session yet. It refuses anything but `initialize`. */
async function openTransport(): Promise<StreamableHTTPServerTransport> {
  const transport = new StreamableHTTPServerTransport({
    sessionIdGenerator: randomUUID,
    onsessioninitialized: (id) => void sessions.set(id, transport),
    onsessionclosed: (id) => void sessions.delete(id),
  });
  await createMcpServer().connect(transport);
  return transport;
}

function refuse(response: ServerResponse, status: number, message: string): void {
  response.writeHead(status, { "content-type": "application/json" });
  response.end(JSON.stringify({ jsonrpc: "2.0", error: { code: -32_000, message }, id: null }));
}

/** Without this, a web page could reach the server through a DNS name of its own that points to loopback. */
function isAllowedHost(header: string | undefined): boolean {
  return header !== undefined && URL.canParse(`http://${header}`) && allowedHosts.includes(new URL(`http://${header}`).hostname);
}

async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
  const { pathname } = new URL(request.url ?? "/", "http://localhost");
  if (pathname === "/health") return void response.end("ok\n");
  if (!isAllowedHost(request.headers.host)) return refuse(response, 403, "Host not allowed: add it to ALLOWED_HOSTS");
  if (pathname !== "/mcp") return refuse(response, 404, "Not found: the server is at /mcp");
  const id = request.headers["mcp-session-id"];
  if (id === undefined) return await (await openTransport()).handleRequest(request, response);
  const transport = sessions.get(String(id));
  if (transport === undefined) return refuse(response, 404, "Session not found");
  await transport.handleRequest(request, response);
}

const server = createServer((request, response) => {
  handle(request, response).catch((error: unknown) => {
    console.error(error);
    if (response.headersSent) response.destroy();
    else refuse(response, 500, "Internal error");
  });
});
server.on("error", (error) => {
  console.error(`Cannot listen on ${host}:${port}: ${error.message}`);
  process.exitCode = 1;
});
server.listen(port, host, () => {
  console.log(`MCP server on http://${host}:${(server.address() as AddressInfo).port}/mcp`);
});

function stop(): void {
  server.close();
  for (const transport of sessions.values()) void transport.close();
  server.closeAllConnections();
}
process.once("SIGTERM", stop);
process.once("SIGINT", stop);
