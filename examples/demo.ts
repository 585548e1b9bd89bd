// What `npm start` runs: the example MCP server behind Sidegate on https://localhost:8443/mcp, and what to try with it.
//   node examples/demo.ts [DIRECTORY]   default .sidegate-demo; what is in it already is kept
// HTTPS_PORT, MCP_PORT and ADMIN_PORT choose other ports for a new directory.
import { spawn, type ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";

const HTTPS_PORT = Number(process.env["HTTPS_PORT"] ?? 8443);
const MCP_PORT = Number(process.env["MCP_PORT"] ?? 18_080);
const ADMIN_PORT = Number(process.env["ADMIN_PORT"] ?? 2019);
const START_TIMEOUT_MS = 15_000;

const repository = resolve(import.meta.dirname, "..");
const directory = resolve(process.argv[2] ?? ".sidegate-demo");
const configFile = join(directory, "sidegate.yaml");
const tokenFile = join(directory, "token");
const caFile = join(directory, "state", "internal-ca", "ca.crt");

function makeDirectory(): void {
  mkdirSync(directory, { recursive: true });
  if (existsSync(configFile) && existsSync(tokenFile)) return;
  const token = `sgt_${randomBytes(32).toString("base64url")}`;
  writeFileSync(tokenFile, `${token}\n`, { mode: 0o600 });
  chmodSync(tokenFile, 0o600);
  writeFileSync(configFile, configuration(createHash("sha256").update(token).digest("hex")));
}

function configuration(tokenHash: string): string {
  return `# yaml-language-server: $schema=${relative(directory, join(repository, "schema", "config.schema.json"))}
# The demo: an MCP server on loopback, served over HTTPS to those who have the token.
# Save a change while the demo runs: it serves within a second, and nothing that is connected is dropped.
version: 1
state: { dir: ${JSON.stringify(join(directory, "state"))} }
admin: { listen: 127.0.0.1:${ADMIN_PORT} } # /health, /ready, /metrics, /status

listeners:
  https:
    protocol: http
    listen: 127.0.0.1:${HTTPS_PORT}
    tls: { internal: true } # a local CA; its certificate is ${relative(directory, caFile)}

auth:
  tokens:
    # Only the hash of the token stands here; the token itself is in the file 'token'.
    - { name: demo, sha256: "${tokenHash}", scopes: [mcp] }
    - { name: operator, sha256: "${randomBytes(32).toString("hex")}", scopes: [mcp, admin] } # a token that nobody has

routes:
  - path: /mcp
    upstream: http://127.0.0.1:${MCP_PORT}
    identity_headers: true # the tool 'whoami' shows what the server learns
    auth:
      - token: { scopes: [mcp] } # try [admin] here: the token is refused then
  # - { path: /health, methods: [GET], upstream: "http://127.0.0.1:${MCP_PORT}", auth: none }
`;
}

function invitation(): string {
  const here = (path: string): string => relative(process.cwd(), path) || ".";
  const url = `https://localhost:${HTTPS_PORT}/mcp`;
  const authorization = `-H "Authorization: Bearer $(cat ${here(tokenFile)})"`;
  const initialize = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"curl","version":"1"}}}`;
  return `
Sidegate serves ${url}

Say hello with curl:
  curl -i --cacert ${here(caFile)} ${authorization} \\
    -H 'Content-Type: application/json' -H 'Accept: application/json, text/event-stream' \\
    -d '${initialize}' ${url}

Call a tool with the MCP Inspector:
  npx --package=@modelcontextprotocol/inspector -- env NODE_EXTRA_CA_CERTS=${here(caFile)} \\
    mcp-inspector --cli ${url} --transport http --header "Authorization: Bearer $(cat ${here(tokenFile)})" \\
    --method tools/call --tool-name whoami

Without the token it is 401:
  curl -i --cacert ${here(caFile)} ${url}

Edit ${here(configFile)} and watch this terminal. Ask how things stand:
  node_modules/.bin/node src/main.ts status ${here(configFile)}

Ctrl-C stops both.
`;
}

async function isFree(port: number): Promise<boolean> {
  const server = createServer();
  server.listen(port, "127.0.0.1");
  try {
    await once(server, "listening");
    return true;
  } catch {
    return false;
  } finally {
    server.close();
  }
}

const children: ChildProcess[] = [];

/** Outside the terminal's process group: Ctrl-C reaches this process alone, which stops the others in order. */
function start(script: string, args: readonly string[], env: Record<string, string>): ChildProcess {
  const child = spawn(process.execPath, [join(repository, script), ...args], { stdio: "inherit", detached: true, env: { ...process.env, ...env } });
  children.push(child);
  child.once("exit", (code, signal) => {
    if (stopping) return;
    console.error(`${script} ended ${signal === null ? `with exit code ${code}` : `by ${signal}`}`);
    process.exitCode = code === null || code === 0 ? 1 : code;
    stop();
  });
  return child;
}

let stopping = false;
function stop(): void {
  if (stopping) return;
  stopping = true;
  for (const child of children) child.kill("SIGTERM");
}

async function answers(url: string): Promise<boolean> {
  try {
    return (await fetch(url, { signal: AbortSignal.timeout(1_000) })).ok;
  } catch {
    return false;
  }
}

/** Whether it answered with success before the deadline and before the demo was stopped. */
async function waitFor(url: string): Promise<boolean> {
  const deadline = Date.now() + START_TIMEOUT_MS;
  while (Date.now() < deadline) {
    if (stopping) return false;
    if (await answers(url)) return true;
    await sleep(50);
  }
  return false;
}

async function main(): Promise<void> {
  for (const [port, owner] of [
    [HTTPS_PORT, "Sidegate"],
    [MCP_PORT, "the MCP server"],
    [ADMIN_PORT, "Sidegate's admin interface"],
  ] as const) {
    if (await isFree(port)) continue;
    console.error(`Port ${port}, which ${owner} needs, is in use: stop what listens there ('ss -ltnp sport = :${port}' names it) and start again`);
    process.exitCode = 1;
    return;
  }
  makeDirectory();
  process.on("SIGINT", stop);
  process.on("SIGTERM", stop);
  start("examples/mcp-server/server.ts", [], { HOST: "127.0.0.1", PORT: String(MCP_PORT) });
  start("src/main.ts", ["run", configFile], {});
  const ready = (await waitFor(`http://127.0.0.1:${MCP_PORT}/health`)) && (await waitFor(`http://127.0.0.1:${ADMIN_PORT}/ready`));
  if (ready) console.log(invitation());
  else if (!stopping) {
    console.error("Sidegate did not become ready");
    process.exitCode = 1;
    stop();
  }
}

await main();
