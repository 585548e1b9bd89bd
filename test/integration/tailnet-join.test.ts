// A node joins, stays, and is shut to what no listener opens: real tailscaled, Tailscale's own test control server, all on loopback.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { promisify } from "node:util";
import type { TailscaleNodePlan, TailscalePlan } from "../../src/plan/model.ts";
import type { TailnetStatus } from "../../src/tailscale/status.ts";
import { Tailnet } from "../../src/tailscale/tailnet.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { nodePlan } from "../components/fake-local-api.ts";
import { freePort } from "../components/free-port.ts";
import { componentsDir, findProgram, skipWithout } from "../components/require.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const PATIENT_MS = 90_000;
const run = promisify(execFile);

type NodePlan = TailscaleNodePlan & TailscalePlan;
type Gateway = {
  readonly tailnet: Tailnet;
  readonly plan: NodePlan;
  readonly lines: string[];
  /** Process id of the tailscaled that was started last. */
  readonly pid: () => number;
  /** Until the status is as asked. */
  readonly until: (wanted: (status: TailnetStatus) => unknown) => Promise<TailnetStatus>;
};

async function startGateway(t: TestContext, net: TestTailnet, what: Partial<NodePlan> = {}): Promise<Gateway> {
  const stateDir = what.stateDir ?? (await mkdtemp(join(tmpdir(), "sidegate-gw-")));
  const plan = nodePlan({ controlUrl: net.controlUrl, stateDir, ...what });
  const lines: string[] = [];
  const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(text) });
  const env = { ...net.env, PATH: `${join(componentsDir, "bin")}:${process.env["PATH"] ?? ""}`, HOME: stateDir };
  const tailnet = new Tailnet({ log, pid: process.pid, env });
  t.after(async () => {
    await tailnet.close();
    await rm(stateDir, { recursive: true, force: true });
  });
  tailnet.apply(plan);
  const until: Gateway["until"] = (wanted) =>
    waitFor(
      () => {
        const status = tailnet.status();
        return status !== null && wanted(status) ? status : null;
      },
      { timeoutMs: PATIENT_MS, what: () => `another status than ${JSON.stringify(tailnet.status())}` },
    );
  const pid = (): number => {
    const started = lines.filter((line) => line.includes('"tailscaled_started"')).at(-1) ?? "{}";
    return (JSON.parse(started) as { pid: number }).pid;
  };
  return { tailnet, plan, lines, pid, until };
}

/** What is served to whoever connects, on loopback. Port 0 takes a free one. */
async function serveText(t: TestContext, port: number, text: (socket: Socket) => string | Promise<string>): Promise<number> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    void Promise.resolve(text(socket)).then((said) => socket.end(said));
  }).listen(port, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** What a node hears on a port of another; empty when nothing is said or nobody answers. */
async function hear(node: TailnetNode, host: string, port: number): Promise<string> {
  try {
    const socket = await node.dial(host, port);
    let heard = "";
    socket.setTimeout(20_000, () => socket.destroy());
    socket.on("data", (chunk: Buffer) => (heard += String(chunk))).on("error", () => {});
    socket.resume();
    await once(socket, "close");
    return heard;
  } catch {
    return "";
  }
}

const idOf = async (net: TestTailnet, name: string): Promise<string | undefined> => (await net.find(name))?.ID;

test("a node that joined is the same after a restart with a wrong key, under another name and with other tags", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet({ tagOwners: "tag:a=,tag:b=tag:a" });
  const first = await startGateway(t, net, { tags: ["tag:a"] });
  const status = await first.until(({ serving }) => serving);
  assert.deepEqual([status.name, status.tags, status.user, status.warnings], ["gw.tail.test", ["tag:a"], null, []]);
  const id = await idOf(net, "gw");
  first.tailnet.apply({ ...first.plan, tags: ["tag:b"], hostname: "other" });
  await first.until(({ tags }) => tags.includes("tag:b"));
  // The test control server renames nobody by itself.
  await first.until(({ warnings }) => /'gw' was granted instead of 'other'/.test(warnings.join()));
  await net.rename("gw", "other");
  await first.until(({ name, warnings }) => name === "other.tail.test" && warnings.length === 0);
  await first.tailnet.close();

  const second = await startGateway(t, net, { ...first.plan, authKey: "tskey-auth-wrong", tags: ["tag:b"], hostname: "other" });
  await second.until(({ serving }) => serving);
  assert.equal(await idOf(net, "other"), id);
  assert.equal((await net.nodes()).length, 1);
  assert.ok(!second.lines.join("").includes("tailnet_login"), "no new login");
  assert.ok(![...first.lines, ...second.lines].join("").includes("tskey-auth-"), "no key in the log");
});

test("a key that is refused is named, and another one joins", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet({ authKey: "tskey-auth-good" });
  const gateway = await startGateway(t, net, { authKey: "tskey-auth-bad" });
  const status = await gateway.until(({ state }) => state === "needs_login");
  assert.match(status.reason, /refuses the auth key \('invalid authkey'\): make another one/);
  // The key is dropped: what asks now is a login by a browser.
  await waitFor(() => gateway.lines.filter((line) => line.includes('"tailnet_login"')).length === 2, { timeoutMs: PATIENT_MS });
  gateway.tailnet.apply({ ...gateway.plan, authKey: "tskey-auth-good" });
  await gateway.until(({ serving }) => serving);
});

test("without a key: the URL, then the approval, then it runs; a logout lasts until another key comes", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet({ requireAuth: true, requireApproval: true });
  const gateway = await startGateway(t, net, { authKey: null });
  const asking = await gateway.until(({ login_url }) => login_url !== null);
  assert.equal(asking.state, "needs_login");
  assert.match(asking.reason, /^To log in, open http/);
  await net.approve(asking.login_url ?? "");
  const waiting = await gateway.until(({ state }) => state === "needs_approval");
  assert.match(waiting.reason, /waits for approval/);
  await net.approveDevice("gw");
  const running = await gateway.until(({ serving }) => serving);
  assert.deepEqual([running.reason, running.login_url], ["", null]);

  assert.deepEqual([(await gateway.tailnet.logout())?.ok], [true]);
  const out = await gateway.until(({ state }) => state === "stopped");
  assert.match(out.reason, /^Logged out by command/);
  await net.require({ auth: false, approval: false });
  gateway.tailnet.apply({ ...gateway.plan, hostname: "gw2" });
  await gateway.until(({ hostname, state }) => hostname === "gw2" && state === "stopped");
  gateway.tailnet.apply({ ...gateway.plan, authKey: "tskey-auth-any" });
  await gateway.until(({ serving }) => serving);
});

test("a key that expires ends the service with the reason, and a login with the key brings it back; the ACL may end it, too", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet({ tagOwners: "tag:a=,tag:b=" });
  const gateway = await startGateway(t, net, { tags: ["tag:a"] });
  await gateway.until(({ serving }) => serving);
  await net.expire("gw", "48h");
  const warned = await gateway.until(({ warnings }) => warnings.length > 0);
  assert.match(warned.warnings.join(), /The key of the node expires on/);
  await net.expireAll(true);
  const expired = await gateway.until(({ state }) => state === "expired");
  assert.match(expired.reason, /The key of the node has expired/);
  assert.equal(expired.serving, false);
  await waitFor(() => gateway.lines.join("").includes("Logging in anew with the auth key"), { timeoutMs: PATIENT_MS });
  await net.expireAll(false);
  await net.expire("gw", null);
  await gateway.until(({ serving }) => serving);

  gateway.tailnet.apply({ ...gateway.plan, tags: ["tag:b"] });
  const ended = await gateway.until(({ state }) => state === "expired");
  assert.match(ended.reason, /ended the login when the tags became 'tag:b'.*'tagOwners'/);
});

test("a control server that is away at the start is named, and the node joins when it comes", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet();
  const port = await freePort();
  const gateway = await startGateway(t, net, { controlUrl: `http://127.0.0.1:${port}`, timeoutMs: 1_000 });
  const away = await gateway.until(({ reason }) => reason.includes("It has been joining for"));
  assert.match(away.reason, new RegExp(`cannot reach the control server 'http://127\\.0\\.0\\.1:${port}'.*connection refused`));
  assert.equal(away.state, "starting");
  const control = Number(new URL(net.controlUrl).port);
  const open = new Set<Socket>();
  const proxy = createServer((socket) => {
    const upstream = connect(control, "127.0.0.1");
    for (const side of [socket, upstream]) open.add(side.on("error", () => {}));
    socket.pipe(upstream).pipe(socket);
  }).listen(port, "127.0.0.1");
  t.after(() => {
    proxy.close();
    for (const socket of open) socket.destroy();
  });
  await gateway.until(({ serving }) => serving);
});

test("another control server in the file costs no login: the node stays where it is, and says so, until somebody logs it out", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet();
  await using other = await startTailnet();
  const gateway = await startGateway(t, net);
  await gateway.until(({ serving }) => serving);
  const [before] = await net.nodes();
  gateway.tailnet.apply({ ...gateway.plan, controlUrl: other.controlUrl });
  await gateway.until(({ warnings, serving }) => serving && /stays there.*'sidegate tailnet logout'/.test(warnings.join()));
  gateway.tailnet.apply({ ...gateway.plan, controlUrl: null });
  await gateway.until(({ warnings, serving }) => serving && warnings.length === 0);
  assert.deepEqual([(await net.nodes()).map(({ ID }) => ID), await other.nodes()], [[before?.ID], []]);
  assert.equal((await gateway.tailnet.logout())?.ok, true);
  gateway.tailnet.apply({ ...gateway.plan, controlUrl: other.controlUrl });
  await waitFor(() => other.find("gw"), { timeoutMs: PATIENT_MS });
  await gateway.until(({ serving }) => serving);
});

test("only what listeners open answers, also while tailscaled is killed and comes back, and when a port goes away", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet();
  const decoys: number[] = [];
  for (let i = 0; i < 40; i += 1) decoys.push(await serveText(t, 0, () => "SECRET"));
  const port = await freePort();
  const [gateway, laptop] = await Promise.all([startGateway(t, net, { ports: [port] }), net.node("laptop")]);
  await serveText(t, port, async ({ remoteAddress = "", remotePort = 0 }) =>
    JSON.stringify(await gateway.tailnet.whois(remoteAddress, remotePort, port, false)),
  );
  const { addresses, socket } = await gateway.until(({ serving }) => serving);
  const [address = ""] = addresses;

  const heard = await hear(laptop, address, port);
  assert.partialDeepStrictEqual(JSON.parse(heard), {
    id: laptop.id,
    name: "laptop.tail.test",
    shortName: "laptop",
    user: laptop.loginName,
    address: laptop.address,
  });
  assert.partialDeepStrictEqual(await gateway.tailnet.node(laptop.address), { id: laptop.id });
  assert.equal(await gateway.tailnet.node(address), null, "our own node is nobody");
  const local = connect(port, "127.0.0.1");
  t.after(() => local.destroy());
  assert.equal(String(await once(local, "data")), "null", "a local process is nobody");
  assert.deepEqual(new Set(await Promise.all(decoys.map((decoy) => hear(laptop, address, decoy)))), new Set([""]));

  let isDone = false;
  const leaks: string[] = [];
  const probing = Promise.all(
    decoys.slice(0, 8).map(async (decoy) => {
      while (!isDone) leaks.push(await hear(laptop, address, decoy));
    }),
  );
  process.kill(gateway.pid(), "SIGKILL");
  await gateway.until(({ state }) => state === "off");
  await gateway.until(({ serving, restarts }) => serving && restarts === 1);
  await waitFor(() => hear(laptop, address, port), { timeoutMs: PATIENT_MS });
  isDone = true;
  await probing;
  assert.ok(leaks.every((text) => text === ""));

  // A port that goes away is refused before its socket closes.
  await gateway.tailnet.sealAhead(new Set(), 3_000);
  assert.equal(await hear(laptop, address, port), "");
  gateway.tailnet.apply(gateway.plan);
  await waitFor(() => hear(laptop, address, port), { timeoutMs: PATIENT_MS });

  // Somebody else's serve config on our port is left alone, and named.
  await run(findProgram("tailscale") ?? "", [`--socket=${socket}`, "serve", "--bg", `--tcp=${port}`, `tcp://127.0.0.1:${decoys[0] ?? 0}`]);
  gateway.tailnet.apply({ ...gateway.plan, ports: [port, await freePort()].toSorted((a, b) => a - b) });
  const taken = await gateway.until(({ seal }) => seal.foreign.length > 0);
  assert.match(taken.reason, new RegExp(`^Port ${port} is taken by another serve config`));
  assert.equal(await hear(laptop, address, port), "SECRET");
});

test("a tailscaled of somebody else is sealed as long as we are there, and never told anything else", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using net = await startTailnet();
  const decoy = await serveText(t, 0, () => "SECRET");
  const port = await freePort();
  const [theirs, laptop] = await Promise.all([net.node("theirs"), net.node("laptop")]);
  const external = { kind: "external", socket: theirs.socket, timeoutMs: 60_000, seal: false, ports: [port] } as const;
  const gateway = await startGateway(t, net);
  await serveText(
    t,
    port,
    async ({ remoteAddress = "", remotePort = 0 }) => (await gateway.tailnet.whois(remoteAddress, remotePort, port, false))?.shortName ?? "nobody",
  );
  gateway.tailnet.apply(external);
  const open = await gateway.until(({ mode, serving }) => mode === "external" && serving);
  assert.match(open.warnings.join(), /The node is not sealed/);
  assert.deepEqual(gateway.tailnet.hosts, ["127.0.0.1"]);
  assert.deepEqual([await hear(laptop, theirs.address, port), await hear(laptop, theirs.address, decoy)], ["laptop", "SECRET"]);
  gateway.tailnet.apply({ ...external, seal: true });
  await gateway.until(({ seal }) => seal.active);
  assert.deepEqual([await hear(laptop, theirs.address, port), await hear(laptop, theirs.address, decoy)], ["laptop", ""]);
  await gateway.tailnet.close();
  await waitFor(() => hear(laptop, theirs.address, decoy), { timeoutMs: PATIENT_MS });
});
