// compose/mcp as it is shipped: an MCP server that only Sidegate reaches, and its users' day with it.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Agent, fetch as undiciFetch } from "undici";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { docker, healthOf, missingDocker, startCompose, type ComposeProject } from "../components/docker.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const TOKEN = "sgt_a-token-of-a-test";
const HEALTH_TIMEOUT_MS = 30_000;

let missing: string | null = null;
let project: ComposeProject;
/** config/sidegate.yaml, but that it asks for health more often, and waits less long for the clients' event streams when it stops. */
let yaml = "";

before(async () => {
  missing = await missingDocker();
  if (missing !== null) return;
  project = await startCompose("mcp", { env: { MCP_TOKEN_SHA256: createHash("sha256").update(TOKEN).digest("hex") } });
  const shipped = await readFile(join(project.dir, "config", "sidegate.yaml"), "utf8");
  const eager = shipped.replace("health: { path: /health }", "health: { path: /health, interval: 500ms }");
  assert.notEqual(eager, shipped, "config/sidegate.yaml has no health check of the server");
  yaml = `drain_timeout: 1s\n${eager}`;
});
after(async () => {
  if (missing === null) await project[Symbol.asyncDispose]();
});

/** The root of the local CA, copied out as the documentation says. */
async function copyCa(): Promise<string> {
  const file = join(project.dir, "ca.crt");
  await project.compose("cp", "sidegate:/var/lib/sidegate/internal-ca/ca.crt", file);
  return readFile(file, "utf8");
}

type McpClient = AsyncDisposable & { readonly client: Client };

async function connectClient(ca: string, token = TOKEN): Promise<McpClient> {
  const dispatcher = new Agent({ connect: { ca } });
  const transport = new StreamableHTTPClientTransport(new URL(`https://localhost:${await project.port("network", 8443)}/mcp`), {
    fetch: (url, init) => undiciFetch(url, { ...init, dispatcher }),
    requestInit: { headers: { authorization: `Bearer ${token}` } },
  });
  const client = new Client({ name: "test", version: "1.0.0" });
  const close = async (): Promise<void> => {
    await client.close();
    await dispatcher.destroy();
  };
  try {
    await client.connect(transport);
  } catch (error) {
    await close();
    throw error;
  }
  return { client, [Symbol.asyncDispose]: close };
}

async function echo({ client }: McpClient, message: string): Promise<string> {
  const { content } = await client.callTool({ name: "echo", arguments: { message } });
  return (content as { text: string }[])[0]?.text ?? "";
}

async function statusOf(ca: string, path: string): Promise<number> {
  const dispatcher = new Agent({ connect: { ca } });
  try {
    const response = await undiciFetch(`https://localhost:${await project.port("network", 8443)}${path}`, { dispatcher });
    await response.arrayBuffer();
    return response.status;
  } finally {
    await dispatcher.destroy();
  }
}

/** Waits for HEALTHCHECK's judgement and gives the line that it ends with. */
async function waitForHealth(wanted: "healthy" | "unhealthy"): Promise<string> {
  const id = await project.id("sidegate");
  const { Log } = await waitFor(
    async () => {
      const health = await healthOf(id);
      return health.Status === wanted ? health : null;
    },
    { timeoutMs: HEALTH_TIMEOUT_MS, what: () => `HEALTHCHECK to say '${wanted}'` },
  );
  return Log.at(-1)?.Output ?? "";
}

test("the official client lists and calls tools over HTTPS with the token, and only Sidegate's port is published", async (t) => {
  if (skipWithout(t, missing)) return;
  const ca = await copyCa();
  // The gateway is up at once, and Node.js in the server's container takes its time.
  await using connected = await waitFor(() => connectClient(ca), { what: () => "the server behind the gateway" });
  const { tools } = await connected.client.listTools();
  assert.deepEqual(tools.map(({ name }) => name).toSorted(), ["add", "countdown", "echo", "whoami"]);
  assert.equal(await echo(connected, "through the sidecar"), "through the sidecar");
  const { content } = await connected.client.callTool({ name: "whoami", arguments: {} });
  assert.match(JSON.stringify(content), /x-forwarded-proto: https[^]*authorization: none/);
  await assert.rejects(connectClient(ca, "sgt_wrong"), /401|Unauthorized/i);

  const published = JSON.parse(`[${(await project.compose("ps", "--format", "json")).trim().split("\n").join(",")}]`) as {
    Service: string;
    Publishers: { TargetPort: number; PublishedPort: number }[];
  }[];
  const ports = published.flatMap(({ Publishers }) => Publishers.filter(({ PublishedPort }) => PublishedPort > 0).map(({ TargetPort }) => TargetPort));
  assert.deepEqual([published.length, [...new Set(ports)]], [3, [8443]]);
  for (const { Service } of published) {
    const form = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.Config.User}}";
    const rights = await docker(["inspect", "--format", form, await project.id(Service)]);
    assert.equal(rights.trim(), "true [ALL] [no-new-privileges:true] 65532:65532", Service);
  }
});

test("an edit on the host serves within two seconds, and a session goes on", async (t) => {
  if (skipWithout(t, missing)) return;
  const ca = await copyCa();
  await using connected = await connectClient(ca);
  assert.equal(await statusOf(ca, "/health"), 404);
  await project.save(`${yaml}  - { path: /health, upstream: mcp, auth: none }\n`);
  await waitFor(async () => (await statusOf(ca, "/health")) === 200, { timeoutMs: 2_000, what: () => "the edit to serve" });
  assert.equal(await echo(connected, "after the edit"), "after the edit");
  await project.save(yaml);
  await waitFor(async () => (await statusOf(ca, "/health")) === 404, { timeoutMs: 2_000, what: () => "the second edit to serve" });
});

test("a bad edit changes nothing, and status, health and log tell line and column", async (t) => {
  if (skipWithout(t, missing)) return;
  const ca = await copyCa();
  await using connected = await connectClient(ca);
  const lines = yaml.trimEnd().split("\n");
  await project.save(`${yaml}  - { path: /x, upstraem: mcp, auth: none }\n`);
  const place = `line ${lines.length + 1}, column 17: `;
  const status = await waitFor(async () => {
    const text = await project.compose("exec", "-T", "sidegate", "sidegate", "status");
    return text.includes("refused") ? text : null;
  });
  assert.match(status, new RegExp(`config '/etc/sidegate/sidegate\\.yaml': refused, the last good one serves: ${place}.*upstraem.*upstream`));
  assert.match(await project.compose("exec", "-T", "sidegate", "sidegate", "health"), new RegExp(`^degraded: config .*${place}`));
  assert.match(await project.logs("sidegate"), new RegExp(`"event":"reload_refused".*"line":${lines.length + 1},"column":17`));
  await assert.rejects(project.compose("exec", "-T", "sidegate", "sidegate", "check"), new RegExp(`sidegate\\.yaml:${lines.length + 1}:17: `));
  assert.equal(await echo(connected, "as before"), "as before");
  assert.equal(await statusOf(ca, "/x"), 404);
  await project.save(yaml);
  await waitFor(async () => (await project.compose("exec", "-T", "sidegate", "sidegate", "health")) === "ready\n", { what: () => "the good file to be taken" });
});

test("HEALTHCHECK names the upstream when the server is killed, and is content when it is back", async (t) => {
  if (skipWithout(t, missing)) return;
  await project.save(yaml);
  await waitForHealth("healthy");
  await project.compose("kill", "mcp");
  assert.match(await waitForHealth("unhealthy"), /^unready: upstream 'mcp': GET \/health: connection refused at 127\.0\.0\.1:18080\n/);
  await project.compose("start", "mcp");
  assert.match(await waitForHealth("healthy"), /^ready\n/);
  await using connected = await connectClient(await copyCa());
  assert.equal(await echo(connected, "back"), "back");
});

test("Sidegate is started again by its restart policy with the same CA, and an MCP session goes on", async (t) => {
  if (skipWithout(t, missing)) return;
  const ca = await copyCa();
  await using connected = await connectClient(ca);
  assert.equal(await echo(connected, "before"), "before");
  const id = await project.id("sidegate");
  await project.compose("exec", "-T", "sidegate", "node", "--eval", "process.kill(1)");
  await waitFor(async () => Number(await docker(["inspect", "--format", "{{.RestartCount}}", id])) === 1, { what: () => "the restart" });
  await waitForHealth("healthy");
  assert.equal(await copyCa(), ca);
  // The same client trusts the same CA, and the server never went away.
  assert.equal(await echo(connected, "after"), "after");
});

test("an upgrade replaces Sidegate's container alone: same CA, same port, and an MCP session goes on", async (t) => {
  if (skipWithout(t, missing)) return;
  const ca = await copyCa();
  await using connected = await connectClient(ca);
  const [id, server, port] = await Promise.all([project.id("sidegate"), project.id("mcp"), project.port("network", 8443)]);
  await project.compose("up", "--detach", "--no-build", "--wait", "--force-recreate", "sidegate");
  assert.notEqual(await project.id("sidegate"), id);
  assert.deepEqual(await Promise.all([project.id("mcp"), project.port("network", 8443)]), [server, port]);
  assert.equal(await copyCa(), ca);
  assert.equal(await echo(connected, "after the upgrade"), "after the upgrade");
});
