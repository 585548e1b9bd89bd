import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readlinkSync, rmSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import type { TestContext } from "node:test";
import { fakePids, fakeTailscaled, isAlive, keptLog, startOtherGateway } from "../../test/components/fake-tailscaled.ts";
import type { LogLine, OtherGateway } from "../../test/components/fake-tailscaled.ts";
import { waitFor } from "../../test/components/wait.ts";
import { startDaemon } from "./daemon.ts";
import type { Daemon } from "./daemon.ts";

const PATIENCE = { timeoutMs: 60_000 };
const FAST = { firstPause: 10, lastPause: 40, terminate: 300 };
const ANSWERS = "answer(); process.on('SIGTERM', () => process.exit(0));";
const dir = mkdtempSync(join(tmpdir(), "sidegate-daemon-"));
after(() => rmSync(dir, { recursive: true, force: true }));

type Started = { daemon: Daemon; stateDir: string; lines: LogLine[]; ups: () => number; downs: string[] };
type Settings = { body?: string; program?: string; stateDir?: string; limits?: Parameters<typeof startDaemon>[1] };

function start(
  t: TestContext,
  { body = ANSWERS, program = fakeTailscaled(dir, body), stateDir = join(dir, `state-${Math.random()}`), limits }: Settings = {},
): Started {
  const { log, lines } = keptLog("info");
  const downs: string[] = [];
  let ups = 0;
  const daemon = startDaemon(
    { stateDir, tun: false, log, pid: process.pid, env: process.env, program, onUp: () => (ups += 1), onDown: (reason) => void downs.push(reason) },
    { ...FAST, ...limits },
  );
  t.after(() => daemon.stop());
  return { daemon, stateDir, lines, ups: () => ups, downs };
}

function other(t: TestContext, stateDir: string, program: string): OtherGateway {
  const gateway = startOtherGateway({ stateDir, program });
  t.after(() => gateway.process.kill("SIGKILL"));
  return gateway;
}

const events = (lines: LogLine[]): string[] => lines.map(({ event }) => event).filter((event) => !/short_lived|tailscaled_log/.test(event));
const latestPid = (stateDir: string): number => fakePids(stateDir).at(-1) ?? assert.fail("no process");

test("it is up when it answers, and stop leaves no process and no file of ours", async (t) => {
  const { daemon, stateDir, lines, ups, downs } = start(t);
  assert.equal(daemon.trouble, "tailscaled is starting");
  await waitFor(() => ups() === 1, PATIENCE);
  assert.equal(daemon.trouble, "");
  assert.equal(daemon.socket, join(stateDir, "tailscaled.sock"));
  assert.equal(statSync(stateDir).mode & 0o777, 0o700);
  await Promise.all([daemon.stop(), daemon.stop()]);
  assert.equal(isAlive(latestPid(stateDir)), false);
  assert.deepEqual(readdirSync(stateDir), ["pids"]);
  assert.deepEqual([ups(), downs, daemon.restarts, daemon.trouble], [1, [], 0, "tailscaled is stopped"]);
  assert.deepEqual(events(lines), ["tailscaled_started", "tailscaled_up"]);
});

test("one that is killed is started again, and counted", async (t) => {
  const { daemon, stateDir, ups, downs, lines } = start(t);
  for (let round = 1; round <= 3; round += 1) {
    await waitFor(() => ups() === round, PATIENCE);
    assert.equal(daemon.restarts, round - 1);
    process.kill(latestPid(stateDir), "SIGKILL");
    await waitFor(() => downs.length === round, PATIENCE);
    assert.match(daemon.trouble + downs.at(-1), /^(tailscaled was killed \(SIGKILL\) by something other than the gateway.*){2}$/);
  }
  await waitFor(() => ups() === 4, PATIENCE);
  assert.deepEqual([daemon.trouble, daemon.restarts], ["", 3]);
  assert.equal(lines.filter(({ event }) => event === "tailscaled_exited").length, 3);
});

test("one that ends at once is tried again with pauses that grow, and its last words are the trouble", async (t) => {
  const { daemon, lines, ups, downs } = start(t, { body: `line("netmon.New: no luck"); process.exit(1)` });
  await waitFor(() => downs.length >= 4, PATIENCE);
  assert.equal(daemon.trouble, "tailscaled ended with exit code 1: netmon.New: no luck");
  assert.equal(ups(), 0);
  const pauses = lines.filter(({ event }) => event === "tailscaled_exited").map((line) => line["next_start"]);
  assert.deepEqual(pauses.slice(0, 4), ["10ms", "20ms", "40ms", "40ms"]);
});

test("after it was up for long enough, the first pause is short again", async (t) => {
  const { stateDir, lines, ups, downs } = start(t, { limits: { steady: 0 } });
  for (let round = 1; round <= 3; round += 1) {
    await waitFor(() => ups() === round, PATIENCE);
    process.kill(latestPid(stateDir), "SIGKILL");
    await waitFor(() => downs.length === round, PATIENCE);
  }
  assert.deepEqual(new Set(lines.filter(({ event }) => event === "tailscaled_exited").map((line) => line["next_start"])), new Set(["10ms"]));
});

test("one that never answers is killed and named; the next try may do better", async (t) => {
  const body = `if (fs.existsSync(stateDir + "/well")) answer(); process.on("SIGTERM", () => {});`;
  const { daemon, stateDir, ups, downs } = start(t, { body, limits: { start: 1_500 } });
  await waitFor(() => downs.length === 1, PATIENCE);
  assert.equal(daemon.trouble, "tailscaled did not answer within 1.5s of its start, and was killed");
  writeFileSync(join(stateDir, "well"), "");
  await waitFor(() => ups() === 1, PATIENCE);
  assert.equal(daemon.trouble, "");
});

test("one that accepts connections and says nothing is killed, too", async (t) => {
  const { downs } = start(t, { body: `require("node:net").createServer(() => {}).listen(socket)`, limits: { start: 500 } });
  await waitFor(() => downs.length === 1, PATIENCE);
  assert.match(downs[0] ?? "", /did not answer within 500ms/);
});

test("restart kills one that hangs and ignores SIGTERM; while nothing runs it does nothing", async (t) => {
  const { daemon, stateDir, ups, downs, lines } = start(t, { body: `answer(); process.on("SIGTERM", () => {});` });
  daemon.restart("too early");
  await waitFor(() => ups() === 1, PATIENCE);
  const pid = latestPid(stateDir);
  daemon.restart("it hangs");
  assert.equal(daemon.trouble, "it hangs");
  await waitFor(() => ups() === 2, PATIENCE);
  assert.deepEqual([isAlive(pid), downs, daemon.restarts, daemon.trouble], [false, ["it hangs"], 1, ""]);
  assert.deepEqual(events(lines).slice(2, 5), ["tailscaled_restarting", "tailscaled_exited", "tailscaled_started"]);
});

test("stop ends one that ignores SIGTERM, one that has not answered yet, and a pause", async (t) => {
  const stubborn = start(t, { body: `answer(); process.on("SIGTERM", () => {});` });
  const silent = start(t, { body: `fs.writeFileSync(stateDir + "/ready", ""); setInterval(() => {}, 1000);` });
  const pausing = start(t, { body: "process.exit(1)", limits: { firstPause: 600_000, lastPause: 600_000 } });
  const early = start(t);
  await early.daemon.stop();
  await waitFor(() => stubborn.ups() === 1 && existsSync(join(silent.stateDir, "ready")) && pausing.downs.length === 1, PATIENCE);
  await Promise.all([stubborn, silent, pausing].map(({ daemon }) => daemon.stop()));
  for (const { stateDir } of [stubborn, silent, pausing]) {
    assert.equal(isAlive(latestPid(stateDir)), false);
    assert.deepEqual(
      readdirSync(stateDir).filter((name) => /gateway|sock/.test(name)),
      [],
    );
  }
  assert.deepEqual([stubborn.downs, silent.downs, early.ups()], [[], [], 0]);
});

test("a missing program is named once in the log, and found when it comes", async (t) => {
  const program = join(dir, "later", "tailscaled");
  const { daemon, lines, ups, downs } = start(t, { program });
  await waitFor(() => downs.length >= 3, PATIENCE);
  assert.match(daemon.trouble, /^Cannot find tailscaled: '.*' is no program that can be executed: install Tailscale/);
  assert.equal(events(lines).filter((event) => event === "tailscaled_not_started").length, 1);
  mkdirSync(dirname(program));
  rmSync(program, { force: true });
  writeFileSync(program, `#!/bin/sh\nexec ${fakeTailscaled(dir, ANSWERS)} "$@"\n`, { mode: 0o755 });
  await waitFor(() => ups() === 1, PATIENCE);
  assert.deepEqual([daemon.trouble, daemon.restarts], ["", 0]);
});

test("a state directory that cannot be used is named, and used when it can be", async (t) => {
  const stateDir = join(dir, "taken-by-a-file");
  writeFileSync(stateDir, "");
  const { daemon, ups, downs } = start(t, { stateDir });
  await waitFor(() => downs.length >= 1, PATIENCE);
  const advice = "mount a writable volume there, or set 'tailscale.state_dir'";
  assert.equal(daemon.trouble, `Cannot keep the state of the tailnet node in '${stateDir}': it is not a directory: ${advice}`);
  rmSync(stateDir);
  await waitFor(() => ups() === 1, PATIENCE);
  assert.equal(daemon.trouble, "");

  const nowhere = start(t, { stateDir: "/proc/sidegate/state" });
  const readOnly = start(t, { stateDir: "/sys/kernel" });
  await waitFor(() => nowhere.downs.length >= 1 && readOnly.downs.length >= 1, PATIENCE);
  assert.match(nowhere.daemon.trouble, /^Cannot keep the state of the tailnet node in '\/proc\/sidegate\/state': .*mount a writable volume there/);
  assert.match(readOnly.daemon.trouble, /^Cannot keep the state of the tailnet node in '\/sys\/kernel': .*mount a writable volume there/);
});

test("a path that is too long for a socket is reached through a short one, which goes with it", async (t) => {
  const stateDir = join(dir, "long".repeat(40));
  const { daemon, ups } = start(t, { stateDir });
  await waitFor(() => ups() === 1, PATIENCE);
  assert.ok(Buffer.byteLength(daemon.socket) <= 107, daemon.socket);
  assert.equal(readlinkSync(dirname(daemon.socket)), stateDir);
  assert.equal(statSync(dirname(dirname(daemon.socket))).mode & 0o777, 0o700);
  const second = start(t, { stateDir });
  await waitFor(() => second.downs.length >= 1, PATIENCE);
  assert.match(second.daemon.trouble, /^Another gateway/);
  await second.daemon.stop();
  await daemon.stop();
  assert.equal(existsSync(dirname(dirname(daemon.socket))), false);
  assert.deepEqual(readdirSync(stateDir), ["pids"]);
});

test("of gateways that start at once with the same directory one gets it, and the next when that one is gone", async (t) => {
  const stateDir = join(dir, "shared");
  const program = fakeTailscaled(dir, ANSWERS);
  // All find the socket of a gateway that was killed.
  mkdirSync(stateDir);
  const script = `require("node:net").createServer().listen(${JSON.stringify(join(stateDir, "gateway.sock"))}, () => process.kill(process.pid, "SIGKILL"))`;
  spawnSync(process.execPath, ["-e", script]);
  assert.ok(statSync(join(stateDir, "gateway.sock")).isSocket());
  const all = Array.from({ length: 8 }, () => start(t, { stateDir, program }));
  for (let left = all.length; left > 0; left -= 1) {
    await waitFor(() => all.filter(({ daemon }) => daemon.trouble === "").length === 1, PATIENCE);
    await waitFor(() => all.every(({ daemon }) => daemon.trouble === "" || /^Another gateway|is stopped/.test(daemon.trouble)), PATIENCE);
    assert.equal(fakePids(stateDir).filter(isAlive).length, 1);
    const [winner = assert.fail()] = all.filter(({ daemon }) => daemon.trouble === "");
    await winner.daemon.stop();
  }
  assert.equal(fakePids(stateDir).length, all.length);
  assert.equal(fakePids(stateDir).some(isAlive), false);
});

test("the tailscaled of a live gateway is never touched; that of a killed one is ended and replaced", async (t) => {
  const stateDir = join(dir, "orphan");
  const program = fakeTailscaled(dir, `answer(); process.on("SIGTERM", () => {});`);
  const first = other(t, stateDir, program);
  await waitFor(() => first.output().includes("UP"), { ...PATIENCE, what: first.output });
  const orphan = latestPid(stateDir);
  t.after(() => isAlive(orphan) && process.kill(orphan, "SIGKILL"));
  const { daemon, downs, ups, lines } = start(t, { stateDir, program });
  await waitFor(() => downs.length >= 2, PATIENCE);
  assert.match(
    daemon.trouble,
    new RegExp(
      `^Another gateway \\(process ${first.process.pid} on '.*'\\) uses the state directory '${stateDir}': give each its own 'tailscale\\.state_dir'$`,
    ),
  );
  assert.equal(isAlive(orphan), true);

  first.process.kill("SIGKILL");
  await waitFor(() => ups() === 1, PATIENCE);
  assert.equal(isAlive(orphan), false);
  assert.equal(lines.find(({ event }) => event === "tailscaled_orphan")?.["pid"], orphan);
  assert.equal(daemon.restarts, 0);
});

test("a tailscaled that nobody here started is left alone, and named", async (t) => {
  const stateDir = mkdtempSync(join(dir, "foreign-"));
  const server = createServer(() => {});
  await new Promise<void>((resolve) => server.listen(join(stateDir, "tailscaled.sock"), resolve));
  const { daemon, downs, ups } = start(t, { stateDir });
  await waitFor(() => downs.length >= 2, PATIENCE);
  assert.match(daemon.trouble, /^A tailscaled that this gateway did not start answers on '.*tailscaled\.sock', perhaps in another container: end it, or give/);
  await new Promise((resolve) => server.close(resolve));
  await waitFor(() => ups() === 1, PATIENCE);
});

test("a process that only has the number of an earlier tailscaled is not killed", async (t) => {
  const stateDir = mkdtempSync(join(dir, "number-"));
  const namespace = readlinkSync("/proc/self/ns/pid");
  // Ours, with a start time that is not ours; a pid that is no pid; and a record that is no record.
  for (const text of [JSON.stringify({ tailscaled: { pid: process.pid, started: "1", namespace } }), '{"tailscaled":{"pid":-1}}', "null", '"', "[1]"]) {
    writeFileSync(join(stateDir, "gateway.json"), text);
    const { daemon, ups } = start(t, { stateDir });
    await waitFor(() => ups() === 1, PATIENCE);
    await daemon.stop();
  }
});

test("a flood in its log does not stop it from serving, and is bounded", async (t) => {
  const body = `${ANSWERS} setInterval(() => { for (let i = 0; i < 200; i += 1) line("Received error: " + Math.random()); }, 5);`;
  const { daemon, lines, ups } = start(t, { body });
  await waitFor(() => ups() === 1, PATIENCE);
  await waitFor(() => lines.length >= 20, PATIENCE);
  await daemon.stop();
  assert.ok(Number(lines.find(({ event }) => event === "tailscaled_log_dropped")?.["count"]) > 0);
});
