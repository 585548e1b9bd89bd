// compose/ib-gateway-tailscale as it is shipped: who gets in and where, and that edits, stops and upgrades keep sessions and the node.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { docker, healthOf } from "../components/docker.ts";
import { skipWithout } from "../components/require.ts";
import { assertPositions, AUTH_KEY, hailDirectly, missingTailnetCompose, startTailnetCompose, type TailnetCompose } from "../components/tailnet-compose.ts";
import { waitFor } from "../components/wait.ts";

const TIMEOUT_MS = 60_000;

let missing: string | null = null;
let story: TailnetCompose;

before(async () => {
  missing = await missingTailnetCompose();
  if (missing === null) story = await startTailnetCompose();
});
after(async () => {
  if (missing === null) await story?.[Symbol.asyncDispose]();
});

function sidegate(...words: string[]): Promise<string> {
  return story.project.compose("exec", "-T", "sidegate", "sidegate", ...words);
}

test("ib_async reaches both accounts by the host name, and nothing else of the container answers anywhere", async (t) => {
  if (skipWithout(t, missing)) return;
  const { project, assertTrades, hail, hailInside } = story;
  await assertTrades(4003, "U1234567");
  await assertTrades(4004, "DU1234567");
  await waitFor(async () => /"listener":"live","client":"100\.[^]*"identity":"tailnet:[^]*"node":"laptop"/.test(await project.logs("sidegate")), {
    what: () => "the line of 'live' in the access log",
  });

  // IB Gateway itself, the admin interface, and a port that nobody listens on.
  for (const port of [4001, 4002, 2019, 4005]) assert.equal(await hail(port), "closed", `port ${port} on the tailnet`);
  const [network] = JSON.parse(await docker(["inspect", await project.id("network")])) as {
    NetworkSettings: { Ports: object; Networks: Record<string, { IPAddress: string }> };
  }[];
  assert.deepEqual(network?.NetworkSettings.Ports ?? {}, {});
  const address = Object.values(network?.NetworkSettings.Networks ?? {})[0]?.IPAddress ?? "";
  for (const port of [4001, 4003, 4004, 2019]) assert.equal(await hailDirectly(address, port), "ECONNREFUSED", `port ${port} in Docker's network`);
  // They do listen, in the network that they share; and a process there is nobody of the tailnet.
  assert.equal(await hailInside("127.0.0.1", 4001), "answered\nclosed\n");
  assert.equal(await hailInside("127.0.0.1", 4003), "closed\n");
});

test("commands answer in the read-only container, and the auth key stands nowhere", async (t) => {
  if (skipWithout(t, missing)) return;
  const { project } = story;
  assert.match(
    await sidegate("tailnet"),
    /^TAILNET {2}ib-gateway\.tail\.test\n {2}state +running\n {2}addresses +100\.[^]*\n {2}tags +tag:trading\n[^]*\n {2}seal +65533 ports refused; open: 4003 4004\n/,
  );
  assert.match(await sidegate("tailnet", "netcheck"), /DERP latency:\n\s+- test: /);
  assert.match(await sidegate("status"), /ib-gateway\.tail\.test/);
  assert.equal((await healthOf(await project.id("sidegate"))).Status, "healthy");
  // Health checks come and go meanwhile.
  const seen = `const { readdirSync, readFileSync } = require("fs");
    const read = (pid, file) => { try { return readFileSync("/proc/" + pid + "/" + file, "utf8") } catch { return "" } };
    for (const pid of readdirSync("/proc").filter((name) => /^\\d+$/.test(name) && +name !== process.pid)) {
      const command = read(pid, "cmdline");
      if (command.includes("tskey-")) console.log("the key is in", command);
      if (command.startsWith("/usr/local/bin/tailscaled\\0")) console.log(/^Uid:.*/m.exec(read(pid, "status"))[0], /tskey-|^$/.test(read(pid, "environ")));
    }`;
  assert.match(await project.compose("exec", "-T", "sidegate", "node", "--eval", seen), /^Uid:(?:\t65532){4} false\n$/);
  assert.ok(!(await project.logs("sidegate")).includes(AUTH_KEY));
});

test("a session outlives an edit, a stop drains it and ends in time, and each start is the same node", async (t) => {
  if (skipWithout(t, missing)) return;
  const { project, trade, assertTrades, hail, gatewayNodes, waitForHealth } = story;
  const nodes = await gatewayNodes();
  assert.equal(nodes.length, 1);
  assert.match(nodes[0] ?? "", / ib-gateway\.tail\.test tag:trading$/);
  await using session = await trade(4003, 21);
  const file = join(project.dir, "config", "sidegate.yaml");
  const yaml = await readFile(file, "utf8");
  await project.save(yaml.replace("tailnet:4004", "tailnet:4006"));
  await waitFor(async () => (await sidegate("tailnet")).includes("open: 4003 4006"), { timeoutMs: TIMEOUT_MS, what: () => "the edit to serve" });
  await assertTrades(4006, "DU1234567");
  assert.equal(await hail(4004), "closed");
  await assertPositions(session);
  await project.save(yaml);

  const id = await project.id("sidegate");
  await project.compose("stop", "sidegate");
  assert.equal((await docker(["inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", id])).trim(), "0 false");
  assert.match(await project.logs("sidegate"), /"event":"stopping"[^]*Drain deadline passed[^]*"event":"stopped"/);

  // The key was for the first start: the volume holds the login.
  const joined = (await project.logs("sidegate")).split('"event":"tailnet_login"').length;
  await project.compose("start", "sidegate");
  await waitForHealth(/^ready\n/);
  // The end of its session may have been lost with tailscaled: then it notices when it sends.
  assert.equal(typeof (await session.ask("time")).error, "string");
  await assertTrades(4003, "U1234567");
  assert.equal((await project.logs("sidegate")).split('"event":"tailnet_login"').length, joined);
  assert.deepEqual(await gatewayNodes(), nodes);

  await project.compose("up", "--detach", "--no-build", "--force-recreate", "--wait");
  assert.notEqual(await project.id("sidegate"), id);
  await assertTrades(4003, "U1234567");
  await assertTrades(4004, "DU1234567");
  assert.doesNotMatch(await project.logs("sidegate"), /"event":"tailnet_login"/);
  assert.deepEqual(await gatewayNodes(), nodes);
});
