// compose/ib-gateway-tailscale as it is shipped, in a tailnet of its own: who gets in and where, upgrades, and what HEALTHCHECK says.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { docker, healthOf, missingDocker, startCompose, type ComposeProject } from "../components/docker.ts";
import { ibClientMissing, startIbClient, type IbClient } from "../components/ib-client.ts";
import { skipWithout } from "../components/require.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const TIMEOUT_MS = 60_000;
/** How the API begins. */
const HELLO = Buffer.from("API\0\0\0\0\tv100..178", "latin1");
const NODE = { name: "ib-gateway.tail.test", tags: ["tag:trading"] };

let missing: string | null = null;
let tailnet: TestTailnet;
let laptop: TailnetNode;
let project: ComposeProject;

before(async () => {
  missing = (await missingDocker()) ?? missingTailnet() ?? ibClientMissing();
  if (missing !== null) return;
  // Containers reach each of them, whatever network they are in.
  const addresses = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  const host = addresses.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
  assert.ok(host, "the host has no address but loopback");
  tailnet = await startTailnet({ host, tagOwners: "tag:trading=" });
  laptop = await tailnet.node("laptop");
  project = await startCompose("ib-gateway-tailscale", {
    env: { TS_AUTHKEY: "tskey-auth-secret", TS_EXTRA_ARGS: `--login-server=${tailnet.controlUrl}`, IB_USER: laptop.loginName },
    environment: tailnet.env,
  });
});
after(async () => {
  if (missing !== null) return;
  await project?.[Symbol.asyncDispose]();
  await tailnet?.[Symbol.asyncDispose]();
});

/** ib_async on the laptop, which knows the gateway by its name in the tailnet. */
async function trade(port: number, clientId: number): Promise<IbClient & AsyncDisposable> {
  const forward = await laptop.forward("ib-gateway", port);
  const client = await startIbClient("127.0.0.1", forward.port, clientId);
  const close = async (): Promise<void> => {
    await client.close();
    await forward[Symbol.asyncDispose]();
  };
  return { ...client, [Symbol.asyncDispose]: close };
}

/** Asks for the positions of the account that answers with a `server` version, over one connection. */
async function assertTrades(port: number, account: string): Promise<void> {
  await using client = await trade(port, port);
  assert.deepEqual(client.greeting, { connected: true, accounts: [account], server: 178 });
  await assertPositions(client);
}

async function assertPositions(client: IbClient): Promise<void> {
  assert.deepEqual((await client.ask("positions")).answer, [
    ["AAPL", 100],
    ["SPY", 10],
  ]);
}

/** What comes of saying hello there: the first bytes of an answer, `closed` without any, or `ECONNREFUSED`. */
async function sayHello(socket: Socket): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  socket
    .setTimeout(TIMEOUT_MS, () => reject(new Error("Neither an answer nor an end")))
    .on("data", (chunk: Buffer) => resolve(chunk.toString("latin1")))
    .on("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNRESET" ? "closed" : String(error.code)))
    .on("close", () => resolve("closed"))
    .write(HELLO);
  socket.resume();
  return promise.finally(() => socket.destroy());
}

/** Runs JavaScript in Sidegate's container: there is no shell. */
function evaluate(script: string): Promise<string> {
  return project.compose("exec", "-T", "sidegate", "node", "--eval", script);
}

function sidegate(...words: string[]): Promise<string> {
  return project.compose("exec", "-T", "sidegate", "sidegate", ...words);
}

async function gatewayNodes(): Promise<string[]> {
  return (await tailnet.nodes()).filter(({ ID }) => ID !== laptop.id).map(({ ID, Name, Tags }) => `${ID} ${Name} ${Tags.join()}`);
}

/** Waits until the newest check of HEALTHCHECK says this. */
async function waitForHealth(pattern: RegExp): Promise<string> {
  const id = await project.id("sidegate");
  let last = "";
  await waitFor(
    async () => {
      last = (await healthOf(id)).Log.at(-1)?.Output ?? "";
      return pattern.test(last);
    },
    { timeoutMs: TIMEOUT_MS, what: () => `HEALTHCHECK to say ${pattern}; it says '${last}'` },
  );
  return last;
}

async function restartWith(override: object, ...flags: string[]): Promise<void> {
  await project.compose("down", "--timeout", "10", ...flags);
  const services = { sidegate: { healthcheck: { interval: "1s" }, environment: tailnet.env, ...override } };
  await writeFile(join(project.dir, "compose.override.yaml"), JSON.stringify({ services }));
  await project.compose("up", "--detach", "--no-build");
}

test("ib_async reaches both accounts by the host name, and nothing else of the container answers anywhere", async (t) => {
  if (skipWithout(t, missing)) return;
  await assertTrades(4003, "U1234567");
  await assertTrades(4004, "DU1234567");
  await waitFor(async () => /"listener":"live","client":"100\.[^]*"identity":"tailnet:[^]*"node":"laptop"/.test(await project.logs("sidegate")), {
    what: () => "the line of 'live' in the access log",
  });

  // IB Gateway itself, the admin interface, and a port that nobody listens on.
  for (const port of [4001, 4002, 2019, 4005]) assert.equal(await sayHello(await laptop.dial("ib-gateway", port)), "closed", `port ${port} on the tailnet`);
  const [network] = JSON.parse(await docker(["inspect", await project.id("network")])) as {
    NetworkSettings: { Ports: object; Networks: Record<string, { IPAddress: string }> };
  }[];
  assert.deepEqual(network?.NetworkSettings.Ports ?? {}, {});
  const address = Object.values(network?.NetworkSettings.Networks ?? {})[0]?.IPAddress;
  for (const port of [4001, 4003, 4004, 2019])
    assert.equal(await sayHello(connect(port, address)), "ECONNREFUSED", `port ${port} in Docker's network`);
  // They do listen, in the network that they share; and a process there is nobody of the tailnet.
  const local = `const socket = require("net").connect(+process.argv[1], "127.0.0.1", () => socket.write(${JSON.stringify(HELLO.toString("latin1"))}));
    socket.on("data", () => { console.log("answers"); socket.destroy() }).on("error", () => {}).on("close", () => console.log("closed"))`;
  const ask = (port: number): Promise<string> => project.compose("exec", "-T", "sidegate", "node", "--eval", local, String(port));
  assert.equal(await ask(4001), "answers\nclosed\n");
  assert.equal(await ask(4003), "closed\n");
});

test("commands answer in the read-only container, and the auth key stands nowhere", async (t) => {
  if (skipWithout(t, missing)) return;
  assert.match(
    await sidegate("tailnet"),
    /^TAILNET {2}ib-gateway\.tail\.test\n {2}state +running\n {2}addresses +100\.[^]*\n {2}tags +tag:trading\n[^]*\n {2}seal +65533 ports refused; open: 4003 4004\n/,
  );
  assert.match(await sidegate("tailnet", "netcheck"), /DERP latency:\n\s+- test: /);
  assert.match(await sidegate("status"), /ib-gateway\.tail\.test/);
  assert.equal((await healthOf(await project.id("sidegate"))).Status, "healthy");
  const seen = `const { readdirSync, readFileSync } = require("fs");
    for (const pid of readdirSync("/proc").filter((name) => /^\\d+$/.test(name) && +name !== process.pid)) {
      const [command, status, environ] = ["cmdline", "status", "environ"].map((file) => readFileSync("/proc/" + pid + "/" + file, "utf8"));
      if (command.includes("tskey-")) console.log("the key is in", command);
      if (command.startsWith("/usr/local/bin/tailscaled\\0")) console.log(/^Uid:.*/m.exec(status)[0], environ.includes("tskey-"));
    }`;
  assert.match(await evaluate(seen), /^Uid:(?:\t65532){4} false\n$/);
  assert.doesNotMatch(await project.logs("sidegate"), /tskey-auth-secret/);
});

test("a session outlives an edit, a stop drains it and ends in time, and each start is the same node", async (t) => {
  if (skipWithout(t, missing)) return;
  const before = await gatewayNodes();
  assert.equal(before.length, 1);
  assert.match(before[0] ?? "", new RegExp(` ${NODE.name} ${NODE.tags.join()}$`));
  await using session = await trade(4003, 21);
  const file = join(project.dir, "config", "sidegate.yaml");
  const yaml = await readFile(file, "utf8");
  await project.save(yaml.replace("tailnet:4004", "tailnet:4006"));
  await waitFor(async () => (await sidegate("tailnet")).includes("open: 4003 4006"), { timeoutMs: TIMEOUT_MS, what: () => "the edit to serve" });
  await assertTrades(4006, "DU1234567");
  assert.equal(await sayHello(await laptop.dial("ib-gateway", 4004)), "closed");
  await assertPositions(session);
  await project.save(yaml);

  const id = await project.id("sidegate");
  await project.compose("stop", "sidegate");
  assert.equal((await docker(["inspect", "--format", "{{.State.ExitCode}} {{.State.OOMKilled}}", id])).trim(), "0 false");
  assert.match(await project.logs("sidegate"), /"event":"stopping"[^]*Drain deadline passed[^]*"event":"stopped"/);
  assert.deepEqual(await session.next(), { error: "disconnected" });

  // The key was for the first start: the volume holds the login.
  const joined = (await project.logs("sidegate")).split('"event":"tailnet_login"').length;
  await project.compose("start", "sidegate");
  await waitForHealth(/^ready\n/);
  await assertTrades(4003, "U1234567");
  assert.equal((await project.logs("sidegate")).split('"event":"tailnet_login"').length, joined);
  assert.deepEqual(await gatewayNodes(), before);

  await project.compose("up", "--detach", "--no-build", "--force-recreate", "--wait");
  assert.notEqual(await project.id("sidegate"), id);
  await assertTrades(4003, "U1234567");
  await assertTrades(4004, "DU1234567");
  assert.doesNotMatch(await project.logs("sidegate"), /"event":"tailnet_login"/);
  assert.deepEqual(await gatewayNodes(), before);
});

test("HEALTHCHECK names a state volume that is read-only, and the URL to log in at", async (t) => {
  if (skipWithout(t, missing)) return;
  const healthcheck = { interval: "1s", start_period: "1s" };
  await restartWith({ healthcheck, volumes: ["state:/var/lib/sidegate:ro"] });
  await waitForHealth(/^unready: .*'\/var\/lib\/sidegate\/tailscale'.*read-only file system.*mount a writable volume/);

  await tailnet.require({ auth: true });
  await restartWith({ healthcheck, environment: { ...tailnet.env, TS_AUTHKEY: "" } }, "--volumes");
  const said = await waitForHealth(/^unready: .*http:\S+\/auth\//);
  await waitFor(async () => (await healthOf(await project.id("sidegate"))).Status === "unhealthy", { timeoutMs: TIMEOUT_MS });
  await tailnet.approve(/http:\S+\/auth\/\w+/.exec(said)?.[0] ?? "");
  await waitForHealth(/^ready\n/);
});

