import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { fakePids, fakeTailscaled, isAlive, keptLog } from "../../test/components/fake-tailscaled.ts";
import { waitFor } from "../../test/components/wait.ts";
import { checkTun, findProgram, runTailscaled } from "./daemon-process.ts";
import type { Environment, Run } from "./daemon-process.ts";

const dir = mkdtempSync(join(tmpdir(), "sidegate-daemon-process-"));
after(() => rmSync(dir, { recursive: true, force: true }));

function start(body: string, { env = {}, tun = false }: { env?: Environment; tun?: boolean } = {}): { run: Run; stateDir: string } {
  const stateDir = mkdtempSync(join(dir, "state-"));
  const run = runTailscaled({ program: fakeTailscaled(dir, body), stateDir, socket: join(stateDir, "tailscaled.sock"), tun, env, log: keptLog().log });
  return { run, stateDir };
}

test("tailscaled gets settings of the gateway, no key, and no directory to write to but its own", async () => {
  const secrets = { TS_AUTHKEY: "s1", TS_AUTH_KEY: "s2", TAILSCALE_AUTHKEY: "s3", TS_CLIENT_SECRET: "s4", TS_ID_TOKEN: "s5", REDIS_URL: "redis://:s6@x" };
  const others = { TS_API_KEY: "s7", TS_OF_MY_OWN: "tskey-auth-s8", TS_HEADSCALE: "hskey-auth-s9" };
  const settings = { TS_NO_LOGS_NO_SUPPORT: "true", TS_DEBUG_FIREWALL_MODE: "nftables", HTTPS_PROXY: "http://proxy:3128", PATH: "/bin" };
  const { run, stateDir } = start(`fs.writeFileSync(stateDir + "/seen", JSON.stringify({ args: process.argv.slice(2), env: process.env })); process.exit(0)`, {
    env: { ...secrets, ...others, ...settings, HOME: "/root", TS_LOGS_DIR: "/elsewhere", TS_BE_CLI: "1", TS_PARENT_DEATH_FD: "7", TS_UNSET: undefined },
  });
  await run.ended;
  const { args, env } = JSON.parse(readFileSync(join(stateDir, "seen"), "utf8")) as { args: string[]; env: Record<string, string> };
  assert.deepEqual(args, [`--statedir=${stateDir}`, `--socket=${stateDir}/tailscaled.sock`, "--tun=userspace-networking", "--port=0"]);
  assert.deepEqual(env, {
    ...settings,
    HOME: stateDir,
    XDG_CACHE_HOME: stateDir,
    XDG_CONFIG_HOME: stateDir,
    XDG_DATA_HOME: stateDir,
    TS_LOGS_DIR: stateDir,
    TS_DISABLE_TAILDROP: "true",
    TS_PARENT_DEATH_FD: "3",
  });
});

test("the end tells why: exit code, signal, the line that matters, and the words for known deaths", async () => {
  const reason = (body: string): Promise<string> => start(body).run.ended;
  assert.equal(await reason(`line("no luck"); process.exit(3)`), "tailscaled ended with exit code 3: no luck");
  assert.equal(await reason(`process.kill(process.pid, "SIGABRT")`), "tailscaled ended with signal SIGABRT");
  assert.match(await reason(`process.kill(process.pid, "SIGKILL")`), /^tailscaled was killed \(SIGKILL\) by something other than the gateway/);
  assert.match(
    await reason(`line("safesocket.Listen: " + socket + ": address already in use"); process.exit(1)`),
    /: another tailscaled listens on '.*tailscaled\.sock'$/,
  );
  const tun = (error: string): string =>
    `line('getLocalBackend error: createEngine: tstun.New("tailscale0"): CreateTUN("tailscale0") failed; ${error}'); process.exit(1)`;
  assert.match(await reason(tun("device or resource busy")), /'tailscale0' is in use by another tailscaled/);
  assert.match(
    await reason(tun("operation not permitted")),
    /operation not permitted: a container needs 'devices: \[\/dev\/net\/tun\]', 'cap_add: \[NET_ADMIN\]'/,
  );
});

test("all that it started is gone when it has ended, also what holds its pipes", async () => {
  const { run, stateDir } = start(`
    const child = require("node:child_process").spawn(process.execPath, ["-e", "setTimeout(() => {}, 300000)"], { stdio: "inherit" });
    fs.appendFileSync(stateDir + "/pids", child.pid + "\\n"); setTimeout(() => process.exit(1), 100)`);
  await run.ended;
  const pids = fakePids(stateDir);
  assert.equal(pids.length, 2);
  await waitFor(() => !pids.some(isAlive), { what: () => "the end of all processes" });
});

test("the first reason to end it counts; a signal after the end does nothing", async () => {
  const { run, stateDir } = start(`process.on("SIGTERM", () => {}); fs.writeFileSync(stateDir + "/ready", "")`);
  await waitFor(() => readFileSync(join(stateDir, "ready")) !== null);
  run.end("first", "SIGTERM");
  run.end("second", "SIGKILL");
  assert.equal(await run.ended, "first");
  run.end("third", "SIGKILL");
  assert.equal(run.hasEnded, true);
});

test("a program that cannot be executed", async () => {
  const program = join(dir, "no-interpreter");
  writeFileSync(program, "#!/nonexistent/interpreter\n");
  chmodSync(program, 0o755);
  const run = runTailscaled({ program, stateDir: dir, socket: join(dir, "s"), tun: false, env: {}, log: keptLog().log });
  assert.equal(run.pid, null);
  assert.equal(await run.ended, `Cannot start '${program}': no such file or directory`);
  assert.equal(run.hasEnded, true);
});

test("the program is found in PATH, or the error says where it was looked for and what to do", async () => {
  const [first, second] = [join(dir, "bin1"), join(dir, "bin2")];
  for (const bin of [first, second]) mkdirSync(bin);
  mkdirSync(join(first, "tailscaled"));
  writeFileSync(join(second, "tailscaled"), "", { mode: 0o755 });
  assert.equal(await findProgram("tailscaled", { PATH: `${first}:${second}` }), join(second, "tailscaled"));
  assert.equal(await findProgram(join(second, "tailscaled"), {}), join(second, "tailscaled"));
  await assert.rejects(findProgram("tailscaled", { PATH: first }), {
    code: "tailscaled_not_started",
    message: `Cannot find tailscaled: no program 'tailscaled' in PATH '${first}': install Tailscale (Sidegate's image has it), or name a tailscaled that runs already in 'tailscale.socket'`,
  });
  await assert.rejects(findProgram(join(first, "tailscaled"), {}), /^DaemonError: Cannot find tailscaled: '.*' is no program that can be executed: /);
});

test("what a kernel interface needs is looked for before, and named", async () => {
  const status = (uid: number, capabilities: string): string => {
    const file = join(mkdtempSync(join(dir, "proc-")), "status");
    writeFileSync(file, `Name:\tnode\nUid:\t${uid}\t${uid}\t${uid}\t${uid}\nCapBnd:\t000001ffffffffff\nCapEff:\t${capabilities}\n`);
    return file;
  };
  const advice = `: a container needs 'devices: [/dev/net/tun]', 'cap_add: [NET_ADMIN]' and 'user: "0"'; or leave 'tun' out`;
  const message = (reason: string): { message: string } => ({ message: `Cannot make a network interface for 'tun: true': ${reason}${advice}` });
  await checkTun("/dev/null", status(0, "0000000000001000"));
  await assert.rejects(checkTun("/dev/null", status(0, "00000000a80425fb")), message("the capability NET_ADMIN is missing"));
  await assert.rejects(
    checkTun("/dev/null", status(65532, "0000000000000000")),
    message("the capability NET_ADMIN is missing, and the gateway runs as user 65532"),
  );
  await assert.rejects(checkTun(join(dir, "tun"), status(0, "1000")), message(`'${join(dir, "tun")}' is missing`));
  await assert.rejects(checkTun(dir, status(0, "1000")), message(`'${dir}' is no device`));
});
