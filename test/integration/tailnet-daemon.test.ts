// Supervision of the real tailscaled: it needs no tailnet for that.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, chownSync, copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import type { TestContext } from "node:test";
import { startDaemon } from "../../src/tailscale/daemon.ts";
import { isAlive, keptLog, startOtherGateway } from "../components/fake-tailscaled.ts";
import type { OtherGateway } from "../components/fake-tailscaled.ts";
import { findProgram, skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const PATIENCE = { timeoutMs: 90_000 };
const program = findProgram("tailscaled") ?? "";
const missing = program === "" ? "tailscaled is missing" : null;
const dir = mkdtempSync(join(tmpdir(), "sidegate-tailnet-daemon-"));
after(() => rmSync(dir, { recursive: true, force: true }));

type Started = ReturnType<typeof startDaemon> & { ups: () => number; downs: string[]; lines: ReturnType<typeof keptLog>["lines"] };

function start(t: TestContext, stateDir: string): Started {
  const { log, lines } = keptLog();
  const downs: string[] = [];
  let ups = 0;
  const env = { TS_NO_LOGS_NO_SUPPORT: "true" };
  const daemon = startDaemon(
    { stateDir, tun: false, log, pid: process.pid, env, program, onUp: () => (ups += 1), onDown: (reason) => void downs.push(reason) },
    { firstPause: 20, lastPause: 100 },
  );
  t.after(() => daemon.stop());
  return Object.assign(daemon, { ups: () => ups, downs, lines });
}

async function startOther(
  t: TestContext,
  options: Omit<Parameters<typeof startOtherGateway>[0], "program"> & { program?: string },
  until: RegExp,
): Promise<OtherGateway> {
  const other = startOtherGateway({ program, ...options });
  t.after(() => other.process.kill("SIGKILL"));
  await waitFor(() => until.test(other.output()), { ...PATIENCE, what: () => `${until} in ${other.output()}` });
  return other;
}

function pidOf(stateDir: string): number {
  const { tailscaled } = JSON.parse(readFileSync(join(stateDir, "gateway.json"), "utf8")) as { tailscaled: { pid: number } | null };
  assert.ok(tailscaled !== null, "no process is recorded");
  return tailscaled.pid;
}

/** Null when the command works here: namespaces need rights that not every machine gives. */
function whyNot(...command: string[]): string | null {
  const [name = "", ...args] = command;
  return spawnSync(name, [...args, "true"]).status === 0 ? null : `'${command.join(" ")}' is not possible here`;
}

test("it starts, keeps all that it writes in its directory, survives kill -9, a hang, and stops", async (t) => {
  if (skipWithout(t, missing)) return;
  const stateDir = join(dir, "life");
  const daemon = start(t, stateDir);
  await waitFor(() => daemon.ups() === 1, PATIENCE);
  assert.equal(daemon.trouble, "");
  const first = pidOf(stateDir);
  process.kill(first, "SIGKILL");
  await waitFor(() => daemon.ups() === 2, PATIENCE);
  assert.deepEqual([daemon.restarts, daemon.downs.length, isAlive(first)], [1, 1, false]);

  const second = pidOf(stateDir);
  process.kill(second, "SIGSTOP");
  daemon.restart("the LocalAPI does not answer");
  await waitFor(() => daemon.ups() === 3, PATIENCE);
  assert.deepEqual([daemon.restarts, daemon.downs.at(-1), isAlive(second)], [2, "the LocalAPI does not answer", false]);

  const third = pidOf(stateDir);
  process.kill(third, "SIGTERM");
  await waitFor(() => daemon.ups() === 4, PATIENCE);
  assert.equal(daemon.downs.at(-1), "tailscaled ended with exit code 0: tailscaled got signal terminated; shutting down");

  const environment = readFileSync(`/proc/${pidOf(stateDir)}/environ`, "utf8").split("\0");
  assert.ok(environment.includes(`HOME=${stateDir}`));
  const files = readdirSync(`/proc/${pidOf(stateDir)}/fd`);
  assert.ok(files.includes("3"), "the pipe that ends it with the gateway");
  await daemon.stop();
  assert.deepEqual(readdirSync(stateDir).toSorted(), ["tailscaled.log.conf", "tailscaled.state"]);
  assert.deepEqual([daemon.downs.length, daemon.trouble], [3, "tailscaled is stopped"]);
  assert.ok(daemon.lines.some(({ level, msg }) => level === "debug" && msg.startsWith("tailscaled: Program starting")));
});

test("a state that cannot be read is never replaced by an empty one", async (t) => {
  if (skipWithout(t, missing)) return;
  const stateDir = join(dir, "corrupt");
  mkdirSync(stateDir, { mode: 0o700 });
  writeFileSync(join(stateDir, "tailscaled.state"), '{"_machinekey": "cHJp');
  const daemon = start(t, stateDir);
  await waitFor(() => daemon.downs.length >= 2, PATIENCE);
  assert.match(
    daemon.trouble,
    /^tailscaled cannot read the state of the node, '.*tailscaled\.state': .*unexpected end of JSON input: restore the file, or remove it/,
  );
  assert.equal(readFileSync(join(stateDir, "tailscaled.state"), "utf8"), '{"_machinekey": "cHJp');
  rmSync(join(stateDir, "tailscaled.state"));
  await waitFor(() => daemon.trouble === "", PATIENCE);
});

test("it ends with a gateway that is killed, but not by Ctrl-C on its terminal", async (t) => {
  if (skipWithout(t, missing)) return;
  const stateDir = join(dir, "killed");
  const other = await startOther(t, { stateDir }, /UP/);
  const pid = pidOf(stateDir);
  t.after(() => isAlive(pid) && process.kill(pid, "SIGKILL"));
  assert.doesNotMatch(readFileSync(`/proc/${pid}/environ`, "utf8") + readFileSync(`/proc/${pid}/cmdline`, "utf8"), /tskey/);
  process.kill(-(other.process.pid ?? 0), "SIGINT");
  const daemon = start(t, stateDir);
  await waitFor(() => daemon.downs.length >= 2, PATIENCE);
  assert.match(daemon.trouble, new RegExp(`^Another gateway \\(process ${other.process.pid} on `));
  assert.deepEqual([isAlive(pid), other.output().includes("DOWN")], [true, false]);

  // Nobody is there who would end what was left behind.
  await daemon.stop();
  other.process.kill("SIGKILL");
  await waitFor(() => !isAlive(pid), PATIENCE);
  const next = start(t, stateDir);
  await waitFor(() => next.ups() === 1, PATIENCE);
  assert.equal(
    next.lines.some(({ event }) => event === "tailscaled_orphan"),
    false,
  );
});

test("one that hung when its gateway was killed is ended and replaced", async (t) => {
  if (skipWithout(t, missing)) return;
  const stateDir = join(dir, "hung");
  const other = await startOther(t, { stateDir }, /UP/);
  const pid = pidOf(stateDir);
  process.kill(pid, "SIGSTOP");
  t.after(() => isAlive(pid) && process.kill(pid, "SIGKILL"));
  // Until then it could still see its gateway go.
  await waitFor(() => readFileSync(`/proc/${pid}/stat`, "utf8").includes(") T "), PATIENCE);
  other.process.kill("SIGKILL");
  const daemon = start(t, stateDir);
  await waitFor(() => daemon.ups() === 1, PATIENCE);
  assert.equal(isAlive(pid), false);
  assert.equal(daemon.lines.find(({ event }) => event === "tailscaled_orphan")?.["pid"], pid);
});

test("a gateway in another container that shares the volume is seen, and its end too", async (t) => {
  const under = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
  if (skipWithout(t, missing ?? whyNot(...under))) return;
  const stateDir = join(dir, "volume");
  const other = await startOther(t, { stateDir, under }, /UP/);
  const daemon = start(t, stateDir);
  await waitFor(() => daemon.downs.length >= 2, PATIENCE);
  assert.match(daemon.trouble, /^Another gateway \(process 1 on /);
  assert.equal(other.output().includes("DOWN"), false);
  other.process.kill("SIGKILL");
  await waitFor(() => daemon.ups() === 1, PATIENCE);
});

test("a read-only volume, and one of another user, are named with what to do", async (t) => {
  const under = ["unshare", "--mount"];
  if (skipWithout(t, missing ?? whyNot(...under))) return;
  const readOnly = mkdtempSync(join(dir, "read-only-"));
  const mount = ["sh", "-c", `mount -t tmpfs -o ro none '${readOnly}' && exec "$@"`, "sh"];
  await startOther(
    t,
    { stateDir: join(readOnly, "tailscale"), under: [...under, ...mount] },
    /DOWN .*'.*': read-only file system: mount a writable volume there, or set 'tailscale\.state_dir'/,
  );

  chmodSync(dir, 0o755);
  const [usable, copy] = [mkdtempSync(join(dir, "usable-")), join(dir, "tailscaled")];
  chownSync(usable, 65_532, 65_532);
  copyFileSync(program, copy);
  const stateDir = mkdtempSync(join(dir, "root-"));
  const denied = await startOther(t, { stateDir, uid: 65_532, program: copy }, /DOWN/);
  assert.match(
    denied.output(),
    /DOWN .*'.*': permission denied: mount a writable volume there that belongs to the gateway's user, or set 'tailscale\.state_dir'/,
  );
  const other = await startOther(t, { stateDir: join(usable, "tailscale"), uid: 65_532, program: copy }, /UP/);
  other.process.kill("SIGTERM");
  await waitFor(() => other.process.exitCode === 0, PATIENCE);
});

test("a kernel interface, in a network of its own", async (t) => {
  const under = ["unshare", "--net"];
  if (skipWithout(t, missing ?? whyNot(...under))) return;
  if (skipWithout(t, existsSync("/dev/net/tun") ? null : "'/dev/net/tun' is missing")) return;
  const stateDir = join(dir, "tun");
  const other = await startOther(t, { stateDir, tun: true, under }, /UP/);
  const interfaces = readFileSync(`/proc/${pidOf(stateDir)}/net/dev`, "utf8");
  assert.match(interfaces, /tailscale0:/);
  other.process.kill("SIGTERM");
  await waitFor(() => other.process.exitCode === 0, PATIENCE);
});
