// The reference MCP server of the protocol's authors (server-everything), as a child process on a port of its own.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { freePort } from "./free-port.ts";
import { waitFor } from "./wait.ts";

const PROGRAM = new URL("../../node_modules/@modelcontextprotocol/server-everything/dist/index.js", import.meta.url).pathname;
const START_TIMEOUT_MS = 20_000;

export type McpServer = AsyncDisposable & { readonly port: number; readonly log: () => string };

/** @param transport streamableHttp serves /mcp; sse serves the older /sse and /message */
export async function startMcpServer(transport: "streamableHttp" | "sse"): Promise<McpServer> {
  const port = await freePort();
  const child = spawn(process.execPath, [PROGRAM, transport], { env: { PATH: process.env["PATH"], PORT: String(port) }, stdio: ["ignore", "pipe", "pipe"] });
  let log = "";
  child.stdout.on("data", (chunk) => (log += String(chunk)));
  child.stderr.on("data", (chunk) => (log += String(chunk)));
  const exited = once(child, "exit");
  await waitFor(() => fetch(`http://127.0.0.1:${port}/`).then(() => true), { timeoutMs: START_TIMEOUT_MS, what: () => `the MCP server to start: ${log}` });
  return {
    port,
    log: () => log,
    [Symbol.asyncDispose]: async () => {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
