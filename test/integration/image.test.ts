// The image by itself: what it may do, how it stops, how it fails to start, and what it bears.
import assert from "node:assert/strict";
import { chmod, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { Agent, get, type IncomingMessage } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { before, test } from "node:test";
import { buildImage, docker, healthOf, missingDocker, runImage, startImage, startNeighbour, type ImageRun } from "../components/docker.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

// The upstream, in the container's network: an endless event stream, or the headers that came.
const ORIGIN = `require("node:http").createServer((request, response) => {
  if (request.url !== "/events") return response.end(JSON.stringify(request.headers));
  response.writeHead(200, { "content-type": "text/event-stream" });
  const timer = setInterval(() => response.write("data: tick\\n\\n"), 100);
  response.on("close", () => clearInterval(timer));
}).listen(9000, "127.0.0.1")`;

const WEB = `version: 1
listeners:
  web: { protocol: http, listen: ":8080" }
routes:
  - { upstream: http://127.0.0.1:9000, auth: none }
`;
const READ_MS = 5_000;

let missing: string | null = null;
before(async () => {
  missing = await missingDocker();
  if (missing === null) await buildImage();
});

type Answer = { status: number; body: string };

function fetchText(url: string, options: { agent?: Agent; headers?: Record<string, string> } = {}): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  get(url, { timeout: READ_MS, ...options }, (response) => {
    let body = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => (body += chunk));
    response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    response.on("error", reject);
  })
    .on("timeout", () => reject(new Error(`No answer within ${READ_MS} ms`)))
    .on("error", reject);
  return promise;
}

function statusOf(url: string): Promise<number> {
  return fetchText(url).then(({ status }) => status);
}

/** Runs JavaScript inside the container: there is no shell. */
async function evaluate(run: ImageRun, script: string): Promise<string> {
  const { exitCode, output } = await run.container.exec(["node", "--eval", script]);
  assert.equal(exitCode, 0, output);
  return output;
}

async function countInLogs(run: ImageRun, text: string): Promise<number> {
  return (await run.logs()).split(text).length - 1;
}

test("the image runs without rights on a read-only file system, its commands answer, and it stops at once", async (t) => {
  if (skipWithout(t, missing)) return;
  // Not root by itself, without any flag that says so.
  assert.equal((await docker(["image", "inspect", "--format", "{{.Config.User}}", await buildImage()])).trim(), "65532:65532");
  await using run = await startImage({ yaml: WEB, ports: [8080] });
  const status = await evaluate(run, "process.stdout.write(require('node:fs').readFileSync('/proc/1/status', 'utf8'))");
  assert.match(status, /^Uid:\s+65532\s+65532\s+65532\s+65532$/m);
  assert.match(status, /^Gid:\s+65532\s/m);
  for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"]) assert.match(status, new RegExp(`^${set}:\\s+0+$`, "m"));
  assert.match(status, /^NoNewPrivs:\s+1$/m);
  assert.equal(await evaluate(run, "try { require('node:fs').writeFileSync('/app/x', '') } catch (error) { process.stdout.write(error.code) }"), "EROFS");

  const answers = Object.fromEntries(
    await Promise.all([["status"], ["check"], ["health"], ["token", "new"]].map(async (words) => [words.join(" "), await run.exec(...words)] as const)),
  );
  for (const [name, { exitCode, output }] of Object.entries(answers)) assert.equal(exitCode, 0, `${name}: ${output}`);
  assert.match(answers["status"]?.output ?? "", /^Sidegate \S+, ready, up .*, process 1\n[^]*web +http +\*:8080/);
  assert.match(answers["health"]?.output ?? "", /^ready\n$/);
  assert.match(answers["token new"]?.output ?? "", /\bsgt_[\w-]{43}\n[^]*sha256: "[0-9a-f]{64}"/);

  const startedAt = performance.now();
  assert.equal(await run.stop(), 0);
  assert.ok(performance.now() - startedAt < 2_000, `docker stop took ${performance.now() - startedAt} ms`);
  const log = await run.logs();
  assert.match(log, /"event":"stopped"/);
  assert.doesNotMatch(log, /"level":"(?:warn|error|fatal)"|Warning/);
});

test("tailscaled and tailscale of the image run without rights on a read-only file system", async (t) => {
  if (skipWithout(t, missing)) return;
  const hardened = ["--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--network=none", "--env=TS_NO_LOGS_NO_SUPPORT=true"];
  const flags = ["--tun=userspace-networking", "--statedir=/tmp/state", "--socket=/tmp/tailscaled.sock", "--port=0"];
  const id = (await docker(["run", "--detach", ...hardened, "--entrypoint=tailscaled", await buildImage(), ...flags])).trim();
  t.after(() => docker(["rm", "--force", "--volumes", id]));
  const tailscale = (...words: string[]): Promise<string> => docker(["exec", id, "tailscale", "--socket=/tmp/tailscaled.sock", ...words]);
  const status = await waitFor(async () => JSON.parse(await tailscale("status", "--json")) as { BackendState: string; TUN: boolean }, {
    timeoutMs: 20_000,
    what: () => "tailscaled to answer",
  });
  assert.deepEqual({ state: status.BackendState, tun: status.TUN }, { state: "NeedsLogin", tun: false });
  const owner = await docker(["exec", id, "node", "--eval", "process.stdout.write(require('node:fs').readFileSync('/proc/1/status', 'utf8'))"]);
  assert.match(owner, /^Uid:(?:\s65532){4}$/m);
  // Both are of the version that the Dockerfile pins.
  const [, pinned] = /^ARG TAILSCALE_IMAGE=.*:v(.*)$/m.exec(await readFile(new URL("../../Dockerfile", import.meta.url), "utf8")) ?? [];
  assert.match(await tailscale("version", "--daemon"), new RegExp(`^Client: ${pinned}\\b[^]*^Daemon: ${pinned}\\b`, "m"));
});

test("SIGTERM lets an open event stream go on until the drain deadline, and all is over within Docker's ten seconds", async (t) => {
  if (skipWithout(t, missing)) return;
  await using run = await startImage({ yaml: WEB, ports: [8080] });
  await using _origin = await startNeighbour(run.container.getId(), ORIGIN);
  const url = `http://127.0.0.1:${run.port(8080)}/`;
  await waitFor(async () => (await statusOf(url)) === 200, { what: () => "the upstream" });
  const response = await new Promise<IncomingMessage>((resolve, reject) => get(`${url}events`, resolve).on("error", reject));
  let lastEventAt = 0;
  response.on("data", () => (lastEventAt = performance.now()));
  response.on("error", () => {}); // cut at the deadline
  await waitFor(() => lastEventAt > 0, { what: () => "the first event" });

  const stopAt = performance.now();
  const stopped = run.stop();
  await waitFor(async () => (await countInLogs(run, '"event":"stopping"')) === 1, { what: () => "the drain" });
  await assert.rejects(statusOf(url), "a new connection is taken while draining");
  assert.equal(await stopped, 0);
  const tookMs = performance.now() - stopAt;
  assert.ok(tookMs > 7_500 && tookMs < 10_000, `docker stop took ${tookMs} ms`);
  assert.ok(lastEventAt - stopAt > 7_000, `the last event came ${lastEventAt - stopAt} ms after SIGTERM`);
  assert.match(await run.logs(), /Drain deadline passed/);
});

test("a bad file exits with 64 and all its problems, and what the machine does not give with 69", async (t) => {
  if (skipWithout(t, missing)) return;
  const dir = await mkdtemp(join(tmpdir(), "sidegate-start-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const start = async (yaml: string, ...flags: string[]) => {
    const folder = await mkdtemp(join(dir, "config-"));
    await writeFile(join(folder, "sidegate.yaml"), yaml);
    await chmod(folder, 0o755); // the image's user is nobody on the host
    return runImage(["--volume", `${folder}:/etc/sidegate:ro`, ...flags]);
  };

  const bad = await start(WEB.replace("listen:", "lisen:").replace("auth: none", "auth: nobody"));
  assert.equal(bad.code, 64, bad.stderr);
  assert.match(bad.stderr, /\/etc\/sidegate\/sidegate\.yaml:3:\d+: [^]*'lisen'[^]*\/etc\/sidegate\/sidegate\.yaml:5:\d+: [^]*auth/);
  assert.equal(bad.stdout, "");
  const none = await runImage([]);
  assert.equal(none.code, 64, none.stderr);
  assert.match(none.stderr, /'?\/etc\/sidegate\/sidegate\.yaml'?[^]*no such file/);

  await using run = await startImage({ yaml: WEB, ports: [8080] });
  const taken = await start(`admin: { listen: "unix:/tmp/admin.sock" }\n${WEB}`, "--network", `container:${run.container.getId()}`, "--tmpfs", "/tmp");
  assert.equal(taken.code, 69, taken.stderr);
  assert.match(taken.stderr, /^Cannot listen .*8080.*address already in use\n$/);
  const tls = WEB.replace('":8080"', '":8080", tls: { internal: true }');
  const noState = await start(`state: { dir: /nowhere }\n${tls}`);
  assert.equal(noState.code, 69, noState.stderr);
  assert.match(noState.stderr, /^Cannot .*\/nowhere.*: (?:read-only file system|permission denied|no such file or directory)/);
  const noLogs = await start(`access_log: { dir: /nowhere }\n${WEB}`);
  assert.equal(noLogs.code, 69, noLogs.stderr);
  assert.match(noLogs.stderr, /^Cannot write the access log '\/nowhere\/web\.log': (?:read-only file system|permission denied|no such file or directory)\n$/);
});

test("a single mounted file is said once to be a bad idea, and writes into it still serve", async (t) => {
  if (skipWithout(t, missing)) return;
  const dir = await mkdtemp(join(tmpdir(), "sidegate-file-"));
  const file = join(dir, "sidegate.yaml");
  await writeFile(file, WEB);
  await using run = await startImage({ yaml: WEB, ports: [8080], mounts: { "/etc/sidegate/sidegate.yaml": file } });
  t.after(() => rm(dir, { recursive: true, force: true }));
  const lookup = '"event":"single_file_mount"';
  assert.equal(await countInLogs(run, lookup), 1);
  assert.match(await run.logs(), /mounted as a single file[^\n]*Mount its directory instead, as in: -v \\"\$PWD\/config:\/etc\/sidegate:ro\\"/);
  const url = `http://127.0.0.1:${run.port(8080)}/`;
  assert.equal(await statusOf(url), 502);
  await writeFile(file, WEB.replace("upstream:", "path: /other, upstream:"));
  await waitFor(async () => (await statusOf(url)) === 404, { what: () => "the write to serve" });
  assert.equal(await countInLogs(run, lookup), 1);
});

test("a full disk under the access log is said once and counted, and requests are served on within 128 MiB", async (t) => {
  if (skipWithout(t, missing)) return;
  await using run = await startImage({
    yaml: `access_log: { dir: /logs }\n${WEB}`,
    ports: [8080],
    tmpfs: { "/logs": "size=64k,uid=65532,gid=65532,mode=700" },
    memoryBytes: 128 * 1024 * 1024,
  });
  await using _origin = await startNeighbour(run.container.getId(), ORIGIN);
  const url = `http://127.0.0.1:${run.port(8080)}/`;
  await waitFor(async () => (await statusOf(url)) === 200, { what: () => "the upstream" });
  // A line takes at most 2 KiB of each; beyond 8 MiB of waiting lines the next ones are lost.
  const agent = new Agent({ keepAlive: true, maxSockets: 16 });
  t.after(() => agent.destroy());
  const options = { agent, headers: { "user-agent": "u".repeat(2_000) } };
  let left = 2_600;
  const work = async (): Promise<void> => {
    while (left-- > 0) assert.equal((await fetchText(`${url}${"p".repeat(2_000)}`, options)).status, 200);
  };
  await Promise.all(Array.from({ length: 16 }, work));

  const metrics = await evaluate(run, "fetch('http://127.0.0.1:2019/metrics').then(async (answer) => process.stdout.write(await answer.text()))");
  const dropped = Number(/^sidegate_access_log_dropped_total (\d+)$/m.exec(metrics)?.[1]);
  assert.ok(dropped > 100 && dropped < 2_600, `${dropped} lines counted as lost`);
  assert.equal(await countInLogs(run, "Cannot write the access log '/logs/web.log': no space left on the device"), 1);
  assert.equal(await statusOf(url), 200);
  const id = run.container.getId();
  assert.equal(
    (await docker(["inspect", "--format", "{{.HostConfig.Memory}} {{.State.Running}} {{.State.OOMKilled}} {{.RestartCount}}", id])).trim(),
    "134217728 true false 0",
  );
  assert.equal((await healthOf(id)).Status, "healthy");
});

test("a swap of Kubernetes' ..data and a changed secret file serve within two seconds", async (t) => {
  if (skipWithout(t, missing)) return;
  // As the kubelet writes a ConfigMap: sidegate.yaml -> ..data/sidegate.yaml, ..data -> ..1.
  const config = await mkdtemp(join(tmpdir(), "sidegate-configmap-"));
  const secrets = await mkdtemp(join(tmpdir(), "sidegate-secrets-"));
  t.after(() => Promise.all([config, secrets].map((dir) => rm(dir, { recursive: true, force: true }))));
  const yaml = (path: string): string => `version: 1
listeners:
  web: { protocol: http, listen: ":8080" }
upstreams:
  origin: { targets: [http://127.0.0.1:9000], authorization_file: /run/secrets/upstream }
routes:
  - { path: ${path}, upstream: origin, auth: none }
`;
  const project = async (version: number, path: string): Promise<void> => {
    await mkdir(join(config, `..${version}`));
    await writeFile(join(config, `..${version}`, "sidegate.yaml"), yaml(path));
    await symlink(`..${version}`, join(config, "..data_tmp"));
    await rename(join(config, "..data_tmp"), join(config, "..data"));
  };
  await project(1, "/one");
  await symlink("..data/sidegate.yaml", join(config, "sidegate.yaml"));
  await writeFile(join(secrets, "upstream"), "Bearer first\n");
  await Promise.all([config, secrets].map((dir) => chmod(dir, 0o755)));

  await using run = await startImage({
    yaml: WEB,
    ports: [8080],
    mounts: { "/etc/configmap": config, "/run/secrets": secrets },
    env: { SIDEGATE_CONFIG: "/etc/configmap/sidegate.yaml" },
  });
  await using _origin = await startNeighbour(run.container.getId(), ORIGIN);
  const url = `http://127.0.0.1:${run.port(8080)}`;
  const authorization = async (path: string): Promise<unknown> => {
    const { status, body } = await fetchText(url + path);
    return status === 200 ? (JSON.parse(body) as Record<string, unknown>)["authorization"] : status;
  };
  await waitFor(async () => (await authorization("/one")) === "Bearer first", { what: () => "the first version to serve" });

  await project(2, "/two");
  await rm(join(config, "..1"), { recursive: true });
  await waitFor(async () => (await authorization("/two")) === "Bearer first", { timeoutMs: 2_000, what: () => "the swap to serve" });
  assert.equal(await authorization("/one"), 404);

  await writeFile(join(secrets, "upstream.new"), "Bearer second\n");
  await rename(join(secrets, "upstream.new"), join(secrets, "upstream"));
  await waitFor(async () => (await authorization("/two")) === "Bearer second", { timeoutMs: 2_000, what: () => "the secret to serve" });
  await writeFile(join(secrets, "upstream"), "Bearer third\n");
  await waitFor(async () => (await authorization("/two")) === "Bearer third", { timeoutMs: 2_000, what: () => "the secret written in place to serve" });
  assert.doesNotMatch(await run.logs(), /first|second|third|"level":"(?:error|fatal)"/);
});

test("the starter of 'init mcp' serves as it is, and its local CA outlives the container in a volume", async (t) => {
  if (skipWithout(t, missing)) return;
  const dir = await mkdtemp(join(tmpdir(), "sidegate-starter-"));
  const name = dir.slice(dir.lastIndexOf("/") + 1).toLowerCase();
  t.after(async () => {
    await docker(["volume", "rm", "--force", name]);
    await rm(dir, { recursive: true, force: true });
  });
  await chmod(dir, 0o755);
  await writeFile(join(dir, "sidegate.yaml"), (await runImage([], "init", "mcp", "--output", "-")).stdout);
  const caOf = async (...flags: string[]): Promise<string> => {
    const hardened = ["--read-only", "--cap-drop=ALL", "--volume", `${dir}:/etc/sidegate:ro`, "--env", `MCP_TOKEN_SHA256=${"0".repeat(64)}`];
    const id = (await docker(["run", "--detach", "--health-interval=1s", ...hardened, ...flags, await buildImage()])).trim();
    try {
      await waitFor(async () => (await healthOf(id)).Status === "healthy", { timeoutMs: 20_000, what: () => "the container to be healthy" });
      const owner = "const { uid, mode } = require('node:fs').statSync('/var/lib/sidegate'); process.stdout.write(`${uid} ${(mode & 0o777).toString(8)}`)";
      assert.equal(await docker(["exec", id, "node", "--eval", owner]), "65532 700");
      await docker(["cp", `${id}:/var/lib/sidegate/internal-ca/ca.crt`, join(dir, "ca.crt")]);
      return await readFile(join(dir, "ca.crt"), "utf8");
    } finally {
      await docker(["rm", "--force", "--volumes", id]);
    }
  };
  const first = await caOf("--volume", `${name}:/var/lib/sidegate`);
  assert.match(first, /^-----BEGIN CERTIFICATE-----/);
  assert.equal(await caOf("--volume", `${name}:/var/lib/sidegate`), first);
  // Without a flag the image's own volume takes it, a new one for each container.
  assert.notEqual(await caOf(), first);
});
