// What the README's first command does: the demo serves, what it prints works, and Ctrl-C leaves nothing behind.
import assert from "node:assert/strict";
import { execFile, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { connect, createServer, type AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";
import { waitFor } from "../components/wait.ts";

const REPOSITORY = new URL("../..", import.meta.url).pathname;
const directory = await mkdtemp(join(tmpdir(), "sidegate-demo-"));
const children: ChildProcess[] = [];
after(async () => {
  for (const child of children) child.kill("SIGTERM");
  await rm(directory, { recursive: true, force: true });
});

async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  for (const server of servers) server.close();
  return ports;
}

const [https = 0, mcp = 0, admin = 0] = await freePorts(3);

function startDemo(): { child: ChildProcess; output: () => string; exited: Promise<unknown[]> } {
  const env = { ...process.env, HTTPS_PORT: String(https), MCP_PORT: String(mcp), ADMIN_PORT: String(admin) };
  const child = spawn(process.execPath, ["examples/demo.ts", directory], { cwd: REPOSITORY, env, stdio: ["ignore", "pipe", "pipe"] });
  children.push(child);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk: Buffer) => (output += chunk.toString()));
  return { child, output: () => output, exited: once(child, "exit") };
}

function isOpen(port: number): Promise<boolean> {
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const socket = connect(port, "127.0.0.1", () => resolve(true)).on("error", () => resolve(false));
  return promise.finally(() => socket.destroy());
}

/** A command of the printed invitation, its continuation lines joined. */
function printed(output: string, begins: string): string {
  const from = output.indexOf(begins);
  assert.notEqual(from, -1, output);
  return /^(?:.*\\\n)*.*/.exec(output.slice(from))?.[0].replaceAll("\\\n", " ") ?? "";
}

const hasCurl = spawnSync("curl", ["--version"]).status === 0;

test("the demo serves an MCP server over HTTPS, and what it prints works", { skip: !hasCurl && "curl is not installed: apt-get install curl" }, async () => {
  const demo = startDemo();
  await waitFor(() => demo.output().includes("Ctrl-C stops both"), { what: demo.output, timeoutMs: 30_000 });
  const sh = async (command: string): Promise<string> =>
    (await promisify(execFile)("sh", ["-c", command.replace("curl -i", "curl -i -sS --noproxy '*'")], { cwd: REPOSITORY })).stdout;

  const hello = await sh(printed(demo.output(), "curl -i --cacert"));
  assert.match(hello, /^HTTP\/2 200/);
  assert.match(hello, /"name":"sidegate-example"/);
  const denied = await sh(printed(demo.output().slice(demo.output().indexOf("Without the token")), "curl -i"));
  assert.match(denied, /^HTTP\/2 401/);
  const status = await sh(printed(demo.output(), "node_modules/.bin/node src/main.ts status"));
  assert.match(status, /ready/);

  // The token is in its own file alone.
  const config = await readFile(join(directory, "sidegate.yaml"), "utf8");
  const token = (await readFile(join(directory, "token"), "utf8")).trim();
  assert.ok(!config.includes(token) && !demo.output().includes(token));
  assert.equal((await stat(join(directory, "token"))).mode & 0o777, 0o600);

  // A second one says what is in its way.
  const second = startDemo();
  assert.deepEqual(await second.exited, [1, null]);
  assert.match(second.output(), new RegExp(`^Port ${https}, which Sidegate needs, is in use`));

  // "Edit this file and watch."
  await writeFile(join(directory, "sidegate.yaml"), config.replace("token: { scopes: [mcp] }", "token: { scopes: [admin] }"));
  await waitFor(async () => (await sh(printed(demo.output(), "curl -i --cacert"))).startsWith("HTTP/2 403"), { what: demo.output });

  demo.child.kill("SIGINT");
  assert.deepEqual(await demo.exited, [0, null]);
  for (const port of [https, mcp, admin]) assert.equal(await isOpen(port), false);
});
