import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { FakeLocalApi, FRESH_PREFS, noAnswer, nodePlan, RUNNING_STATUS } from "../../test/components/fake-local-api.ts";
import { waitFor } from "../../test/components/wait.ts";
import type { TailscalePlan } from "../plan/model.ts";
import { openLog } from "../telemetry/log.ts";
import type { Daemon, startDaemon } from "./daemon.ts";
import type { WhoIs } from "./local-api-types.ts";
import { LocalApiError } from "./local-api-error.ts";
import { Tailnet } from "./tailnet.ts";

type DaemonOptions = Parameters<typeof startDaemon>[0];

const TICK_MS = 50;
const PATIENT = { timeoutMs: 60_000 };
const PEER: WhoIs = { id: "n2", name: "laptop.tail.test", addresses: ["100.64.0.2"], tags: [], user: "bob@example.com", expired: false };

type Scene = {
  readonly tailnet: Tailnet;
  readonly api: FakeLocalApi;
  readonly lines: string[];
  readonly daemons: string[];
  /** Until it serves. */
  readonly serving: () => Promise<unknown>;
  readonly daemon: () => DaemonOptions;
};

/** A tailnet whose tailscaled comes up at once, and by a login with any key but `bad` becomes a running node. */
function play(t: TestContext, plan: TailscalePlan | null = nodePlan(), pid: () => number | null = () => null): Scene {
  const api = new FakeLocalApi();
  const lines: string[] = [];
  const daemons: string[] = [];
  let options: DaemonOptions | null = null;
  let key = "";
  api.on = (call) => {
    if (call.startsWith("start ")) key = call.slice(6);
    if (call === "login" && key === "bad") setImmediate(() => api.say({ error: "invalid key: bad is not valid" }));
    else if (call === "login" && key !== "") api.present = RUNNING_STATUS;
    else if (call === "login") api.present = { ...api.present, authUrl: "http://control.test/a/1" };
  };
  const start = (given: DaemonOptions): Daemon => {
    options = given;
    daemons.push(`start ${given.stateDir}${given.tun ? " tun" : ""}`);
    given.onUp();
    return {
      socket: api.socket,
      get pid() {
        return pid();
      },
      restarts: 0,
      trouble: "",
      restart: (reason) => void daemons.push(`restart: ${reason}`),
      stop: async () => void daemons.push("stop"),
    };
  };
  const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(text) });
  const tailnet = new Tailnet({ log, pid: 1 }, { openLocalApi: () => api, startDaemon: start, tickMs: TICK_MS });
  t.after(() => tailnet.close());
  tailnet.apply(plan);
  return {
    tailnet,
    api,
    lines,
    daemons,
    serving: () => waitFor(() => tailnet.status()?.serving, { ...PATIENT, what: () => `serving: ${JSON.stringify(tailnet.status())}` }),
    daemon: () => options ?? assert.fail("no daemon"),
  };
}

test("nobody is admitted before the seal was read back: shields up, login, seal, shields down", async (t) => {
  const { api, serving, tailnet, lines } = play(t);
  assert.deepEqual(tailnet.hosts, ["127.0.0.1"]);
  await serving();
  const steps = api.told.map((call) => call.replace(/^start .*/, "start"));
  assert.deepEqual(steps, ['edit {"ShieldsUp":true}', "start", "login", "seal", 'edit {"ShieldsUp":false}']);
  assert.ok(!lines.join("").includes("tskey-auth-one"));
});

test("a seal that cannot be set leaves the shields up, and says so", async (t) => {
  const { api, tailnet } = play(t, null);
  const answer = api.on;
  api.on = (call) => {
    if (call === "seal") throw new LocalApiError("refused", "no room", { status: 500 });
    return answer(call);
  };
  tailnet.apply(nodePlan());
  await waitFor(() => tailnet.status()?.seal.error !== "" && tailnet.status()?.state === "running", PATIENT);
  assert.equal(api.settings.ShieldsUp, true);
  assert.equal(tailnet.status()?.serving, false);
  assert.match(tailnet.status()?.reason ?? "", /no room; nobody is admitted/);
  assert.equal(await tailnet.whois("127.0.0.1", 5, 4003, false), null);
});

test("a state whose shields are down is shut before anything else, and sealed", async (t) => {
  const { api, serving, tailnet } = play(t, null);
  api.present = RUNNING_STATUS;
  api.settings = { ...FRESH_PREFS, LoggedOut: false, WantRunning: true, ControlURL: "http://control.test", Hostname: "old" };
  tailnet.apply(nodePlan());
  await serving();
  assert.equal(api.told[0], 'edit {"ShieldsUp":true}');
  assert.match(api.told[1] ?? "", /^edit \{"Hostname":"gw"/);
  assert.deepEqual(api.told.slice(2), ["seal", 'edit {"ShieldsUp":false}']);
});

test("another login by somebody else shuts the node again", async (t) => {
  const { api, serving } = play(t);
  await serving();
  api.told.length = 0;
  const self = RUNNING_STATUS.self ?? assert.fail();
  api.changeServe({});
  api.present = { ...RUNNING_STATUS, self: { ...self, id: "n7" } };
  await waitFor(() => api.told.length === 3, PATIENT);
  assert.deepEqual(api.told, ['edit {"ShieldsUp":true}', "seal", 'edit {"ShieldsUp":false}']);
});

test("a refused key is not tried again, a browser may log in, and another key comes at once", async (t) => {
  const { api, tailnet, serving, lines } = play(t, nodePlan({ authKey: "bad" }));
  await waitFor(() => tailnet.status()?.login_url, PATIENT);
  assert.match(tailnet.status()?.reason ?? "", /refuses the auth key \('invalid key: \(key\) is not valid'\).*To log in, open http:\/\/control\.test\/a\/1/);
  await waitFor(() => api.told.filter((call) => call === "login").length === 2, PATIENT);
  assert.equal(api.told.filter((call) => call === "start bad").length, 1);
  tailnet.apply(nodePlan({ authKey: "tskey-auth-two" }));
  await serving();
  assert.equal(api.told.filter((call) => call.startsWith("start")).at(-1), "start tskey-auth-two");
  assert.equal(lines.filter((line) => line.includes("tailnet_key_refused")).length, 1);
  assert.ok(!lines.join("").includes('"bad"'));
});

test("settings that somebody takes back each time are not set in a hot loop", async (t) => {
  const { api, serving } = play(t);
  await serving();
  let edits = 0;
  const take = api.editPrefs.bind(api);
  api.editPrefs = async (prefs) => {
    edits += 1;
    const result = await take(prefs);
    api.settings = { ...result, Hostname: "mine" };
    api.say({ prefsChanged: true });
    return result;
  };
  api.settings = { ...api.settings, Hostname: "mine" };
  const before = performance.now();
  await waitFor(() => edits >= 3, PATIENT);
  assert.ok(performance.now() - before >= 2_500, "1 s and 2 s lie between them");
});

test("a tailscaled that does not answer is started again, and admits nobody meanwhile", async (t) => {
  const { api, tailnet, serving, daemons } = play(t);
  await serving();
  api.on = () => {
    throw noAnswer();
  };
  assert.equal(await tailnet.whois("127.0.0.1", 5, 4003, false), null);
  assert.equal(await tailnet.node("100.64.0.2"), undefined);
  await waitFor(() => daemons.includes("restart: it does not answer"), PATIENT);
  assert.equal(tailnet.status()?.serving, false);
});

test("a call that is never answered holds up neither apply nor status nor close", async (t) => {
  const { api, tailnet } = play(t, null);
  api.on = () => new Promise(() => {});
  tailnet.apply(nodePlan());
  await waitFor(() => tailnet.status()?.state === "starting", PATIENT);
  tailnet.apply(nodePlan({ ports: [4004] }));
  await tailnet.sealAhead(new Set(), 3_000);
  const closing = performance.now();
  await tailnet.close();
  assert.ok(performance.now() - closing < 30_000);
});

test("who a connection belongs to: peers by their node, and nobody else", async (t) => {
  const { api, tailnet, serving } = play(t);
  assert.equal(await tailnet.whois("127.0.0.1", 1, 4003, false), null);
  await serving();
  const ask = async (whois: Partial<WhoIs>): Promise<unknown> => {
    api.peers.set("127.0.0.1:7", { ...PEER, ...whois });
    return tailnet.whois("::ffff:127.0.0.1", 7, 4003, false);
  };
  const peer = { address: "100.64.0.2", id: "n2", name: "laptop.tail.test", shortName: "laptop", user: "bob@example.com", tags: [] };
  assert.deepEqual(await ask({}), peer);
  assert.deepEqual(await ask({ tags: ["tag:bots"] }), { ...peer, user: null, tags: ["tag:bots"] });
  assert.partialDeepStrictEqual(await ask({ name: "laptop.other.test" }), { shortName: "laptop.other.test" });
  assert.partialDeepStrictEqual(await ask({ name: "laptop.evil-tail.test" }), { shortName: "laptop.evil-tail.test" });
  assert.partialDeepStrictEqual(await ask({ name: "a.b.tail.test" }), { shortName: "a.b.tail.test" });
  assert.equal(await ask({ id: "n1" }), null, "our own node: a local process");
  assert.equal(await ask({ expired: true }), null);
  assert.equal(await ask({ addresses: [] }), null);
  assert.equal(await tailnet.whois("127.0.0.1", 8, 4003, false), null, "unknown");
  api.peers.set("[fd7a::2]:9", PEER);
  assert.deepEqual(await tailnet.whois("fd7a::2", 9, 4003, false), peer);
  api.peers.set("100.64.0.2", PEER);
  assert.deepEqual(await tailnet.node("100.64.0.2"), peer);
  assert.equal(await tailnet.node("100.64.0.3"), null);
});

test("more than 256 questions at once are refused", async (t) => {
  const { api, tailnet, serving } = play(t);
  await serving();
  const { promise, resolve } = Promise.withResolvers<void>();
  const answer = api.on;
  api.on = (call) => (call.startsWith("whois") ? promise : answer(call));
  api.peers.set("127.0.0.1:7", PEER);
  const asked = Array.from({ length: 300 }, () => tailnet.whois("127.0.0.1", 7, 4003, false));
  assert.equal(await asked[299], null);
  resolve();
  assert.equal((await Promise.all(asked)).filter((peer) => peer !== null).length, 256);
});

test("a connection whose other end tailscaled does not hold is nobody's, whatever it thinks of the port", async (t) => {
  const server = createServer((socket) => void socket.on("error", () => {}).resume()).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const socket = connect(port, "127.0.0.1");
  t.after(() => socket.destroy());
  await once(socket, "connect");
  const other = spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "ignore" });
  t.after(() => other.kill("SIGKILL"));
  for (const [pid, name] of [
    [process.pid, PEER.name],
    [other.pid ?? 0, undefined],
  ] as const) {
    const { api, tailnet, serving } = play(t, nodePlan(), () => pid);
    await serving();
    api.peers.set(`127.0.0.1:${socket.localPort}`, PEER);
    assert.equal((await tailnet.whois("127.0.0.1", socket.localPort ?? 0, port, true))?.name, name);
    assert.equal(tailnet.proves, true);
  }
  // A moment in which /proc does not tell is over when it tells again.
  let now = 2 ** 30;
  const { api, tailnet, serving } = play(t, nodePlan(), () => now);
  await serving();
  api.peers.set(`127.0.0.1:${socket.localPort}`, PEER);
  const ask = async (): Promise<unknown> => (await tailnet.whois("127.0.0.1", socket.localPort ?? 0, port, true))?.name;
  assert.deepEqual([await ask(), tailnet.proves], [undefined, false]);
  now = process.pid;
  assert.deepEqual([await ask(), tailnet.proves], [PEER.name, true]);
});

test("ports that go away are refused before their sockets close, and come back with the next plan", async (t) => {
  const { api, tailnet, serving } = play(t, nodePlan({ ports: [4003, 4004] }));
  await serving();
  assert.equal(await tailnet.sealAhead(new Set([4004, 4005]), 30_000), true);
  assert.deepEqual([api.serve.TCP?.["4003"] !== undefined, api.serve.TCP?.["4004"], api.serve.TCP?.["4005"] !== undefined], [true, undefined, true]);
  tailnet.apply(nodePlan({ ports: [4004, 4005] }));
  await waitFor(() => api.serve.TCP?.["4005"] === undefined, PATIENT);
  assert.notEqual(api.serve.TCP?.["4003"], undefined);
  tailnet.apply(nodePlan({ ports: [4003, 4004] }));
  await waitFor(() => api.serve.TCP?.["4003"] === undefined, PATIENT);
  // What could not be proven is told.
  const { promise, resolve } = Promise.withResolvers<void>();
  api.on = (call) => (call === "seal" ? promise : undefined);
  assert.equal(await tailnet.sealAhead(new Set([4004]), 200), false);
  resolve();
});

test("switching the seal on shuts the node until it is proven, switching it off takes our entries away alone", async (t) => {
  const { api, tailnet, serving } = play(t, nodePlan({ seal: false }));
  api.changeServe({ TCP: { "443": { HTTPS: true } } });
  await serving();
  assert.match(tailnet.status()?.warnings.join() ?? "", /not sealed/);
  api.told.length = 0;
  tailnet.apply(nodePlan());
  await waitFor(() => tailnet.status()?.seal.active && tailnet.status()?.serving, PATIENT);
  assert.deepEqual(api.told, ['edit {"ShieldsUp":true}', "seal", 'edit {"ShieldsUp":false}']);
  assert.deepEqual(tailnet.status()?.seal.foreign, [443]);
  tailnet.apply(nodePlan({ seal: false }));
  await waitFor(() => Object.keys(api.serve.TCP ?? {}).length === 1, PATIENT);
});

test("a foreign serve config on a port of ours is named", async (t) => {
  const { api, tailnet, serving } = play(t, null);
  api.changeServe({ TCP: { "4003": { TCPForward: "127.0.0.1:1" } } });
  tailnet.apply(nodePlan());
  await serving();
  assert.match(tailnet.status()?.reason ?? "", /^Port 4003 is taken by another serve config/);
});

test("the shields go up before tailscaled stops; another state directory is another tailscaled, a new name is not", async (t) => {
  const { api, tailnet, serving, daemons } = play(t);
  await serving();
  tailnet.apply(nodePlan({ hostname: "other" }));
  await waitFor(() => api.settings.Hostname === "other", PATIENT);
  tailnet.apply(nodePlan({ stateDir: "/elsewhere" }));
  await waitFor(() => daemons.length === 3, PATIENT);
  assert.deepEqual(daemons, ["start /nowhere", "stop", "start /elsewhere"]);
  await serving();
  await tailnet.close();
  assert.equal(api.told.at(-1), 'edit {"ShieldsUp":true}');
  assert.equal(tailnet.status(), null);
});

test("an ephemeral node logs out when it is closed", async (t) => {
  const { api, tailnet, serving, daemons } = play(t, nodePlan({ ephemeral: true }));
  await serving();
  await tailnet.close();
  assert.equal(api.told.at(-1), "logout");
  assert.equal(daemons.at(-1), "stop");
});

test("a logout by command lasts until another key comes", async (t) => {
  const { api, tailnet, serving } = play(t);
  await serving();
  assert.equal((await tailnet.logout())?.ok, true);
  await waitFor(() => tailnet.status()?.state === "stopped", PATIENT);
  const starts = api.told.filter((call) => call.startsWith("start")).length;
  tailnet.apply(nodePlan({ hostname: "other" }));
  await waitFor(() => tailnet.status()?.hostname === "other", PATIENT);
  assert.equal(api.told.filter((call) => call.startsWith("start")).length, starts);
  tailnet.apply(nodePlan({ authKey: "tskey-auth-two" }));
  await serving();
});

test("a logout that comes as the gateway stops gets an answer", async (t) => {
  const { tailnet, serving } = play(t);
  await serving();
  const closing = tailnet.close();
  assert.equal((await tailnet.logout())?.ok, false);
  await closing;
});

test("what is granted otherwise, what expires and what is away is said", async (t) => {
  const { api, tailnet, serving } = play(t, nodePlan({ tags: ["tag:x"] }));
  await serving();
  const self = RUNNING_STATUS.self ?? assert.fail();
  api.present = { ...RUNNING_STATUS, self: { ...self, dnsName: "gw-1.tail.test", keyExpiry: new Date(Date.now() + 86_400_000) } };
  await waitFor(() => tailnet.status()?.warnings.length === 3, PATIENT);
  const [name, tags, expiry] = tailnet.status()?.warnings ?? [];
  assert.match(name ?? "", /'gw-1' was granted instead of 'gw'/);
  assert.match(tags ?? "", /'tag:x' were not granted/);
  assert.match(expiry ?? "", /expires on/);
  api.present = { ...RUNNING_STATUS, state: "NeedsMachineAuth" };
  await waitFor(() => tailnet.status()?.state === "needs_approval", PATIENT);
  assert.equal(tailnet.status()?.serving, false);
  assert.match(tailnet.status()?.reason ?? "", /waits for approval.*'http:\/\/control\.test'/);
});

test("joining that takes too long is said once, with what keeps it", async (t) => {
  const { api, tailnet, lines } = play(t, null);
  api.on = () => {};
  tailnet.apply(nodePlan({ timeoutMs: 200 }));
  await waitFor(() => tailnet.status()?.reason.includes("It has been joining for"), PATIENT);
  assert.match(tailnet.status()?.reason ?? "", /^The control server does not answer.*tries on$/);
  const before = tailnet.status()?.reason;
  await waitFor(() => tailnet.status()?.reason !== before, PATIENT);
  assert.equal(lines.filter((line) => line.includes("tailnet_join_slow")).length, 1);
});

test("the settings of a tailscaled of somebody else are never changed; its seal ends with the session", async (t) => {
  const external = { kind: "external", socket: "/run/theirs.sock", timeoutMs: 60_000, seal: false, ports: [4003] } as const;
  const { api, tailnet, serving, daemons } = play(t, null);
  api.changeServe({ TCP: { "443": { HTTPS: true } } });
  api.settings = { ...FRESH_PREFS, LoggedOut: false, WantRunning: true };
  api.present = RUNNING_STATUS;
  tailnet.apply(external);
  await serving();
  assert.deepEqual([api.told, daemons, tailnet.hosts], [[], [], ["127.0.0.1"]]);
  assert.match(tailnet.status()?.warnings.join() ?? "", /not sealed/);
  tailnet.apply({ ...external, seal: true });
  await waitFor(() => tailnet.status()?.seal.active, PATIENT);
  assert.deepEqual([api.told, tailnet.status()?.seal.foreign], [["seal"], [443]]);
  assert.equal((await tailnet.logout())?.ok, false);
  await tailnet.close();
  assert.deepEqual(api.serve, { TCP: { "443": { HTTPS: true } }, Foreground: {} });
  assert.deepEqual(api.told, ["seal"]);
});

test("a tailscaled that ends is off, with the reason, and is shut anew when it is back", async (t) => {
  const { api, tailnet, serving, daemon } = play(t);
  await serving();
  daemon().onDown("killed");
  await waitFor(() => tailnet.status()?.serving === false, PATIENT);
  assert.equal(await tailnet.whois("127.0.0.1", 7, 4003, false), null);
  api.told.length = 0;
  daemon().onUp();
  await serving();
  assert.deepEqual(api.told, ['edit {"ShieldsUp":true}', 'edit {"ShieldsUp":false}']);
});
