// The client of the LocalAPI against the real tailscaled, on a tailnet of its own on loopback.
import assert from "node:assert/strict";
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { LocalApiError } from "../../src/tailscale/local-api-error.ts";
import type { BusMessage, LocalApi, LocalStatus } from "../../src/tailscale/local-api-types.ts";
import { openLocalApi } from "../../src/tailscale/local-api.ts";
import { findProgram, skipWithout } from "../components/require.ts";
import { missingTailnet, startTailnet, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const PATIENT = { timeoutMs: 90_000 };
const KEY = "tskey-auth-good";

type Node = { readonly api: LocalApi; readonly daemon: ChildProcess };

async function startTailnetFor(t: TestContext, options: Parameters<typeof startTailnet>[0] = {}): Promise<TestTailnet> {
  const net = await startTailnet(options);
  t.after(() => net[Symbol.asyncDispose]());
  return net;
}

/** A tailscaled that has not joined. */
async function startNode(t: TestContext, { env }: TestTailnet): Promise<Node> {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-tailscaled-"));
  const socket = join(dir, "s.sock");
  const daemon = spawn(findProgram("tailscaled") ?? "", ["--tun=userspace-networking", `--statedir=${dir}`, `--socket=${socket}`, "--port=0"], {
    stdio: "ignore",
    env: { PATH: process.env["PATH"], ...env },
  });
  const api = openLocalApi(socket, { timeoutMs: 30_000 });
  t.after(async () => {
    await api.close();
    if (daemon.exitCode === null && daemon.signalCode === null) {
      daemon.kill("SIGKILL");
      await once(daemon, "exit");
    }
    rmSync(dir, { recursive: true, force: true, maxRetries: 10 });
  });
  await waitFor(async () => (await api.status()).state === "NeedsLogin", PATIENT);
  return { api, daemon };
}

async function reach(api: LocalApi, wanted: (status: LocalStatus) => boolean, what: string): Promise<LocalStatus> {
  return waitFor(
    async () => {
      const status = await api.status();
      return wanted(status) ? status : null;
    },
    { ...PATIENT, what: () => what },
  );
}

async function joinTailnet({ api }: Node, { controlUrl }: TestTailnet, name: string): Promise<LocalStatus> {
  await api.start(KEY, { ControlURL: controlUrl, WantRunning: true, Hostname: name });
  await api.loginInteractive();
  return reach(api, ({ state }) => state === "Running", "the node to run");
}

function follow(t: TestContext, api: LocalApi): { readonly messages: BusMessage[]; readonly end: Promise<unknown> } {
  const messages: BusMessage[] = [];
  const stop = new AbortController();
  const end = api.watch((message) => messages.push(message), stop.signal).catch((error: unknown) => error);
  t.after(async () => {
    stop.abort();
    await end;
  });
  return { messages, end };
}

test("a node joins by key, is told of by the bus, changes its name, and is gone after a logout", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  const net = await startTailnetFor(t, { authKey: KEY });
  const node = await startNode(t, net);
  const { api } = node;
  const { messages } = follow(t, api);
  await waitFor(() => messages.length > 0, PATIENT);
  assert.match(messages[0]?.sessionId ?? "", /^[0-9a-f]{16}$/);
  assert.equal(messages[0]?.state, "NeedsLogin");
  const fresh = await api.status();
  assert.deepEqual([fresh.self, fresh.haveNodeKey, fresh.addresses, fresh.tun], [null, false, [], false]);
  assert.equal((await api.prefs()).LoggedOut, true);

  // A key that is refused is told in the control server's words, and not repeated.
  await api.start("tskey-auth-wrong", { ControlURL: net.controlUrl, WantRunning: true, ShieldsUp: true });
  await api.loginInteractive();
  await waitFor(() => messages.some(({ error }) => error === "invalid authkey"), { ...PATIENT, what: () => "the refusal of the key" });
  await reach(api, ({ health }) => health.some((text) => text.includes("invalid authkey")), "the refusal of the key in the status");

  const running = await joinTailnet(node, net, "Gate-Way");
  assert.equal(running.self?.dnsName, "gate-way.tail.test");
  assert.match(running.self?.user ?? "", /^user-\d+@fake-control\.example\.net$/);
  assert.deepEqual([running.suffix, running.tailnet, running.certDomains], ["tail.test", "fake-control.example.net", ["gate-way.tail.test"]]);
  assert.deepEqual(running.addresses.length, 2);
  assert.deepEqual([running.self?.keyExpiry, running.self?.expired, running.self?.tags], [null, false, []]);
  await waitFor(() => messages.some(({ state }) => state === "Running"), PATIENT);
  assert.ok(messages.some(({ loginFinished }) => loginFinished) && messages.some(({ netMapChanged }) => netMapChanged));
  assert.equal(messages.filter(({ loginUrl }) => loginUrl !== undefined).length, 0);
  // What an earlier start set stays.
  assert.equal((await api.prefs()).ShieldsUp, true);

  messages.length = 0;
  const changed = await api.editPrefs({ ShieldsUp: false, AppConnector: { Advertise: false }, NoStatefulFiltering: false, AdvertiseTags: [], ExitNodeIP: "" });
  assert.deepEqual([changed.ShieldsUp, changed.NoStatefulFiltering, changed.Hostname, changed.WantRunning], [false, false, "Gate-Way", true]);
  await waitFor(() => messages.some(({ prefsChanged }) => prefsChanged), PATIENT);
  const refused = await api.editPrefs({ ExitNodeIP: "not an address" }).catch((error: unknown) => error);
  assert.ok(refused instanceof LocalApiError && refused.status === 400, String(refused));

  await api.logout();
  const gone = await reach(api, ({ state }) => state === "NeedsLogin", "the logout");
  assert.deepEqual([gone.self, gone.haveNodeKey], [null, false]);
  const { Hostname, ControlURL, LoggedOut } = await api.prefs();
  assert.deepEqual([Hostname, ControlURL, LoggedOut], ["", "", true]);
});

test("a connection from the tailnet is its node's, one from this machine is nobody's", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  const net = await startTailnetFor(t);
  const gateway = await startNode(t, net);
  const running = await joinTailnet(gateway, net, "gateway");
  const laptop = await net.node("laptop");

  const accepted: Socket[] = [];
  const server = createServer((socket) => void accepted.push(socket.on("error", () => {}))).listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => {
    server.close();
    for (const socket of accepted) socket.destroy();
  });
  const { port } = server.address() as { port: number };
  const connection = await waitFor(() => laptop.dial("gateway", port), { ...PATIENT, what: () => "a connection of the laptop" });
  t.after(() => connection.destroy());
  const socket = await waitFor(() => accepted[0], { ...PATIENT, what: () => "the connection of the laptop" });

  const whois = await gateway.api.whois(`127.0.0.1:${socket.remotePort}`);
  assert.ok(whois);
  assert.deepEqual([whois.name, whois.id, whois.user], ["laptop.tail.test", laptop.id, laptop.loginName]);
  assert.deepEqual([whois.addresses[0], whois.tags, whois.expired], [laptop.address, [], false]);
  assert.equal((await gateway.api.whois(laptop.address))?.name, "laptop.tail.test");
  assert.equal((await gateway.api.whois(running.addresses[1] ?? ""))?.id, running.self?.id);
  assert.equal(await gateway.api.whois(`127.0.0.1:${port}`), null);
  assert.equal(await gateway.api.whois("100.99.99.99"), null);
  const nonsense = await gateway.api.whois("nonsense").catch((error: unknown) => error);
  assert.ok(nonsense instanceof LocalApiError && nonsense.status === 400, String(nonsense));
  // A burst of strangers, each of whom stops tailscaled for a moment, does not stop the rest for long.
  const burst = Array.from({ length: 20 }, (_, index) => gateway.api.whois(`127.0.0.1:${1_000 + index}`));
  assert.equal((await gateway.api.status()).state, "Running");
  assert.equal((await gateway.api.whois(`127.0.0.1:${socket.remotePort}`))?.name, "laptop.tail.test");
  assert.deepEqual(new Set(await Promise.all(burst)), new Set([null]));

  // A tag that is given while it is connected.
  await net.setTags("laptop", ["tag:Bots"]);
  await waitFor(async () => (await gateway.api.whois(`127.0.0.1:${socket.remotePort}`))?.tags[0] === "tag:bots", PATIENT);
});

test("a serve config of every port goes there and back, and not over another's change", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  const net = await startTailnetFor(t);
  const node = await startNode(t, net);
  const { api } = node;
  await joinTailnet(node, net, "gateway");
  const { config, etag } = await api.serveConfig();
  assert.deepEqual(config, {});
  const TCP = Object.fromEntries(Array.from({ length: 65_535 }, (_, index) => [String(index + 1), { TCPForward: "127.0.0.1:0" }]));
  await api.setServeConfig({ TCP }, etag);
  const sealed = await api.serveConfig();
  assert.deepEqual(sealed.config, { TCP });
  const late = await api.setServeConfig({}, etag).catch((error: unknown) => error);
  assert.ok(late instanceof LocalApiError && late.status === 412, String(late));
  await api.setServeConfig({}, sealed.etag);
  assert.deepEqual((await api.serveConfig()).config, {});
});

test("a login by URL, its expiry, and the death of tailscaled are told", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  const net = await startTailnetFor(t, { requireAuth: true });
  const node = await startNode(t, net);
  const { api } = node;
  const { messages, end } = follow(t, api);
  await api.start("", { ControlURL: net.controlUrl, WantRunning: true, Hostname: "gateway" });
  await api.loginInteractive();
  const told = await waitFor(() => messages.find(({ loginUrl }) => loginUrl !== undefined), { ...PATIENT, what: () => "the URL on the bus" });
  const { authUrl } = await api.status();
  assert.equal(authUrl, told.loginUrl);
  await net.approve(authUrl);
  await reach(api, ({ state }) => state === "Running", "the node to run");

  messages.length = 0;
  await net.expireAll(true);
  const expired = await reach(api, ({ state }) => state === "NeedsLogin", "the expiry");
  assert.deepEqual([expired.self?.expired, expired.haveNodeKey], [true, true]);
  await waitFor(() => messages.some(({ state }) => state === "NeedsLogin"), PATIENT);
  assert.ok(messages.some(({ netMapChanged }) => netMapChanged));

  node.daemon.kill("SIGKILL");
  const error = await end;
  assert.ok(error instanceof LocalApiError && error.failure === "unreachable", String(error));
  // While it dies its socket takes connections still.
  await waitFor(() => node.daemon.signalCode !== null, PATIENT);
  const after = await api.status().catch((reason: unknown) => reason);
  assert.equal((after as Error).message, `tailscaled does not answer on '${api.socket}': connection refused`);
});
