// The commands against a running gateway, over its admin interface.
import assert from "node:assert/strict";
import { createServer, request, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { runSidegate } from "../components/command.ts";
import { startGateway } from "../components/gateway.ts";
import { waitFor } from "../components/wait.ts";

test("health, status and reload speak to the gateway of their file, and a bad file is refused with its problems", async () => {
  await using origin = await startOrigin();
  const yaml = (path: string): string => `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
upstreams:
  bus: { targets: ["${origin.url}"], health: { path: /health, interval: 50ms, timeout: 1s } }
routes:
  - { name: hello, path: ${path}, upstream: bus, auth: none }
`;
  await using gateway = await startGateway({ yaml: yaml("/one"), expectErrors: true });
  const env = { SIDEGATE_CONFIG: gateway.file };

  assert.deepEqual(await runSidegate(["health"], { env }), { code: 0, stdout: "ready\n", stderr: "" });
  const status = await runSidegate(["status", gateway.file]);
  assert.match(status.stdout, /^Sidegate \d+\.\d+\.\d+, ready, up .*\n/);
  assert.match(status.stdout, new RegExp(`\nweb +http +127\\.0\\.0\\.1:${gateway.port("web")} +disabled +0\n`));
  assert.match(status.stdout, /\nhello +\* +\/one +\* +\* +bus +none\n/);
  const json = JSON.parse((await runSidegate(["status", "--json"], { env })).stdout) as { config: { file: string }; pid: number };
  assert.deepEqual([json.config.file, json.pid], [gateway.file, gateway.child.pid]);

  const unchanged = await runSidegate(["reload"], { env });
  assert.deepEqual([unchanged.code, unchanged.stderr], [0, ""]);
  assert.match(unchanged.stdout, /^Nothing has changed: the file was taken .+ ago and serves\n$/);

  await gateway.save(yaml("/one").replace("upstream: bus", "upstrem: bus"));
  const refused = await runSidegate(["reload"], { env });
  assert.equal(refused.code, 64);
  assert.match(refused.stderr, /sidegate\.yaml:\d+:\d+: .*'upstrem'.*'upstream'[^]*\nThe last good configuration goes on\n$/);
  const degraded = await runSidegate(["health"], { env });
  assert.equal(degraded.code, 0);
  assert.match(degraded.stdout, /^degraded: config '.*': refused, the last good one serves: line \d+, column \d+: .*\n$/);
  assert.match((await gateway.admin("/metrics")).body, /^sidegate_config_last_reload_successful 0$/m);

  await gateway.save(yaml("/two"));
  await waitFor(async () => (await runSidegate(["health"], { env })).stdout === "ready\n");
  assert.match((await gateway.admin("/metrics")).body, /^sidegate_config_last_reload_successful 1$/m);

  origin.healthy = false;
  await waitFor(async () => (await gateway.admin("/ready")).status === 503);
  const unwell = await runSidegate(["health"], { env });
  assert.equal(unwell.code, 1);
  assert.match(unwell.stdout, /^unready: upstream 'bus': .+\n$/);
  origin.healthy = true;
  await waitFor(async () => (await gateway.admin("/ready")).status === 200);

  await gateway.stop();
  const gone = await runSidegate(["health"], { env });
  assert.equal(gone.code, 1);
  assert.match(gone.stderr, /^No gateway answers on unix:.*; is it running\?\n$/);
});

test("a refused start and a refused reload tell the warnings after the problems, as 'check' does", async () => {
  await using origin = await startOrigin();
  const yaml = (key: string): string => `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: application, internal: true } }
routes:
  - { host: a.example.com, public_url: "https://b.example.com", upstream: "${origin.url}", auth: none }
  - { host: c.example.com, ${key}: "${origin.url}", auth: none }
`;
  await using gateway = await startGateway({ yaml: yaml("upstream"), expectErrors: true });
  const env = { SIDEGATE_CONFIG: gateway.file };
  await gateway.save(yaml("upstrem"));
  const checked = await runSidegate(["check"], { env });
  assert.match(checked.stderr, /^[^\n]*'upstrem'[^]*\n\n[^\n]*: warning: Clients ask for host 'b\.example\.com'[^]*\^\n$/);
  assert.deepEqual(await runSidegate(["reload"], { env }), { code: 64, stdout: "", stderr: `${checked.stderr}The last good configuration goes on\n` });
  type Told = { outcome: string; problems: { message: string }[]; warnings: { message: string }[] };
  const { outcome, problems, warnings } = JSON.parse((await gateway.admin("/reload", "POST")).body) as Told;
  assert.equal(outcome, "refused");
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]?.message ?? "", /^Clients ask for host 'b\.example\.com'/);
  assert.ok(problems.every(({ message }) => !message.startsWith("Clients ask")));
  const logged = gateway.log.find(({ event }) => event === "reload_refused");
  assert.equal(logged?.["text"], checked.stderr);
  assert.deepEqual(logged?.["warnings"], warnings);
  assert.deepEqual(await runSidegate(["run"], { env }), {
    code: 64,
    stdout: "",
    stderr: `${checked.stderr}\nCannot use configuration file '${gateway.file}'\n`,
  });
});

test("a reload tells the warnings of the file that serves, whether it or the watch was first, and 'reload' prints them as 'check' does", async () => {
  await using origin = await startOrigin();
  const yaml = (host: string): string => `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: application, internal: true } }
routes:
  - { host: a.example.com, public_url: "https://${host}.example.com", upstream: "${origin.url}", auth: none }
`;
  await using gateway = await startGateway({ yaml: yaml("a") });
  const env = { SIDEGATE_CONFIG: gateway.file };
  assert.deepEqual((await runSidegate(["reload"], { env })).stderr, "");
  await gateway.edit(yaml("b"));
  const { stderr } = await runSidegate(["check"], { env });
  assert.match(stderr, /: warning: Clients ask for host 'b\.example\.com'/);
  const unchanged = await runSidegate(["reload"], { env });
  assert.deepEqual([unchanged.code, unchanged.stderr], [0, stderr]);
  assert.match(unchanged.stdout, /^Nothing has changed: the file was taken .+ ago and serves\n$/);
  const answer = JSON.parse((await gateway.admin("/reload", "POST")).body);
  assert.deepEqual([answer.outcome, answer.changed, answer.text], ["unchanged", false, stderr]);
  assert.deepEqual([answer.warnings.length, answer.warnings[0].path], [1, "routes[0].public_url"]);
  assert.equal(answer.loaded_at, (await gateway.status()).config.loaded_at);
  // The watch has yet to look.
  const own = (await gateway.status()).config.loaded_at;
  for (const host of ["c", "d", "e", "f", "g"]) {
    await gateway.save(yaml(host));
    const { outcome, changed, warnings } = JSON.parse((await gateway.admin("/reload", "POST")).body);
    assert.equal(changed, outcome === "changed");
    assert.match(warnings[0].message, new RegExp(`'${host}\\.example\\.com'`));
  }
  assert.notEqual((await gateway.status()).config.loaded_at, own);
});

test("SIGHUP for a file that was refused and is as it was says that it is still refused, and nothing when it serves", async () => {
  await using origin = await startOrigin();
  const yaml = (key: string): string => `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
routes:
  - { path: /x, ${key}: "${origin.url}", auth: none }
`;
  await using gateway = await startGateway({ yaml: yaml("upstream"), expectErrors: true });
  const count = (event: string): number => gateway.log.filter((line) => line["event"] === event).length;
  await gateway.save(yaml("upstrem"));
  await waitFor(() => count("reload_refused") === 1);
  assert.equal((await gateway.admin("/reload", "POST")).status, 422);
  assert.equal(count("still_refused"), 0);
  gateway.child.kill("SIGHUP");
  await waitFor(() => count("still_refused") === 1);
  const line = gateway.log.find(({ event }) => event === "still_refused");
  assert.deepEqual([line?.msg, line?.level], ["Configuration still refused, the last good one goes on", "info"]);
  assert.equal(line?.["since"], (await gateway.status()).config.refused.at);
  assert.equal(count("reload_refused"), 1);
  await gateway.edit(yaml("upstream").replace("/x", "/y"));
  gateway.child.kill("SIGHUP");
  await gateway.admin("/reload", "POST");
  assert.equal(count("still_refused"), 1);
});

test("requests are counted by route, and the series of a removed route vanish", async () => {
  await using origin = await startOrigin();
  const yaml = (name: string): string => `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
routes:
  - { name: ${name}, path: /x, upstream: "${origin.url}", auth: none }
`;
  await using gateway = await startGateway({ yaml: yaml("first") });
  assert.equal(await get(gateway.port("web"), "/x"), 200);
  assert.equal(await get(gateway.port("web"), "/nowhere"), 404);
  const before = (await gateway.admin("/metrics")).body;
  assert.match(before, /^sidegate_http_requests_total\{listener="web",route="first",code="200"\} 1$/m);
  assert.match(before, /^sidegate_http_requests_total\{listener="web",route="-",code="404"\} 1$/m);
  assert.match(before, /^sidegate_connections_accepted_total\{listener="web"\} 2$/m);
  await gateway.edit(yaml("second"));
  const after = (await gateway.admin("/metrics")).body;
  assert.doesNotMatch(after, /route="first"/);
  assert.match(after, /^sidegate_http_requests_total\{listener="web",route="-",code="404"\} 1$/m);
  assert.match(after, /^sidegate_config_reloads_total\{result="success"\} 1$/m);
});

test("the access log goes to a file of its listener, through reloads that leave it alone, and into another directory when told", async () => {
  await using origin = await startOrigin();
  const logs = await mkdtemp(join(tmpdir(), "sidegate-logs-"));
  const yaml = (dir: string, path: string): string => `
access_log: { dir: "${join(logs, dir)}", retention: 1h }
listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
  quiet: { protocol: http, listen: "127.0.0.1:0", access_log: "off" }
routes:
  - { path_prefix: ${path}, upstream: "${origin.url}", auth: none }
`;
  const lines = async (dir: string): Promise<string[]> => (await readFile(join(logs, dir, "web.log"), "utf8")).split("\n").slice(0, -1);
  try {
    await using gateway = await startGateway({ yaml: yaml("a", "/") });
    await get(gateway.port("web"), "/1");
    await get(gateway.port("quiet"), "/quiet");
    await gateway.edit(yaml("a", "/2"));
    await get(gateway.port("web"), "/2");
    await waitFor(async () => (await lines("a")).length === 2);
    await gateway.edit(yaml("b", "/3"));
    await get(gateway.port("web"), "/3");
    await waitFor(async () => existsSync(join(logs, "b", "web.log")) && (await lines("b")).length === 1);
    assert.equal((await lines("a")).length, 2);
    assert.deepEqual(await readdir(join(logs, "b")), ["web.log"]);
    for (const line of [...(await lines("a")), ...(await lines("b"))]) assert.equal(typeof JSON.parse(line), "object");
    assert.deepEqual(gateway.accessLog, []);
  } finally {
    await rm(logs, { recursive: true, force: true });
  }
});

test("what cannot be had at the start exits with 69 and one sentence", async () => {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-start-"));
  await using origin = await startOrigin();
  const port = new URL(origin.url).port;
  const start = async (yaml: string) => {
    await writeFile(join(dir, "sidegate.yaml"), `version: 1\nstate: { dir: "${dir}/state" }\n${yaml}`);
    return runSidegate(["run", "sidegate.yaml"], { cwd: dir });
  };
  try {
    const listener = 'listeners: { web: { protocol: http, listen: "127.0.0.1:0" } }\n';
    const taken = await start(`admin: { listen: "127.0.0.1:${port}" }\n${listener}`);
    assert.equal(taken.code, 69);
    assert.ok(taken.stderr.includes(`Cannot listen on 127.0.0.1:${port} for the admin interface: address already in use\n`), taken.stderr);
    await writeFile(join(dir, "a-file"), "");
    const log = await start(`admin: { listen: "unix:${dir}/admin.sock" }\naccess_log: { dir: "${dir}/a-file/logs" }\n${listener}`);
    assert.equal(log.code, 69);
    assert.match(log.stderr, /Cannot write the access log '.*\/a-file\/logs\/web\.log': a part of the path is not a directory\n/);
    // Another program with an admin interface on the port is not taken for a gateway.
    await writeFile(join(dir, "other.yaml"), `admin: { listen: "127.0.0.1:${port}" }\n`);
    const other = await runSidegate(["health", "other.yaml"], { cwd: dir });
    assert.deepEqual(other, { code: 1, stdout: "", stderr: `No gateway answers on 127.0.0.1:${port} (another program does); is it running?\n` });
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});

type Origin = AsyncDisposable & { readonly url: string; healthy: boolean };

async function startOrigin(): Promise<Origin> {
  const server: Server = createServer((incoming, response) => {
    response.statusCode = incoming.url === "/health" && !origin.healthy ? 500 : 200;
    response.end("{}");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const origin: Origin = {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    healthy: true,
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
    },
  };
  return origin;
}

function get(port: number, path: string): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  request({ host: "127.0.0.1", port, path, agent: false }, (response) => {
    response.resume();
    response.on("end", () => resolve(response.statusCode ?? 0));
  })
    .on("error", reject)
    .end();
  return promise;
}
