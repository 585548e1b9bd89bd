import assert from "node:assert/strict";
import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";
import { NO_AUTH } from "../../test/components/no-auth.ts";
import { startAdmin } from "../admin/admin.ts";
import type { GatewayStatus } from "../admin/status.ts";
import { openLog } from "../telemetry/log.ts";

/** An admin interface on a socket in a directory of its own, whose gateway serves `sidegate.yaml` there. */
async function setUp(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-admin-client-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const file = join(dir, "sidegate.yaml");
  const socket = join(dir, "admin.sock");
  const status: GatewayStatus = {
    version: "1.0.0",
    pid: 1,
    started_at: "2026-11-21T09:00:00.000Z",
    uptime_seconds: 1,
    stopping: false,
    config: { file, digest: "abc", loaded_at: "2026-11-21T09:00:00.000Z", refused: null },
    listeners: [],
    draining_listeners: 0,
    state: { dir: "/state", error: "" },
    routes: [],
    upstreams: [],
    certificates: [],
    tailnet: null,
    authorization_servers: [],
  };
  let reloads = 0;
  const admin = await startAdmin({
    address: { kind: "unix", path: socket },
    status: () => status,
    metrics: { text: () => Promise.resolve("") },
    reload: () => {
      reloads += 1;
      return Promise.resolve({ outcome: "changed" });
    },
    renew: () => {
      reloads += 1;
      return Promise.resolve({ ok: true, message: "Renewed" });
    },
    logout: () => {
      reloads += 1;
      return Promise.resolve({ ok: true, message: "Logged out" });
    },
    auth: NO_AUTH,
    log: openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} }),
  });
  t.after(() => admin.close());
  const run = (args: string[], env: Record<string, string> = {}): Promise<CommandRun> => runInProcess(args, dir, { env });
  return { dir, file, socket, run, reloads: () => reloads };
}

test("a file that is no YAML for the moment still tells where the admin interface listens", async (t) => {
  const { file, socket, run } = await setUp(t);
  const bad = "\nlisteners: { web: [\n";
  const places = [
    `admin: { listen: "unix:${socket}" }`,
    `admin: { listen: unix:${socket} } # here`,
    `version: 1\nroutes: []\n# admin: { listen: 127.0.0.1:1 }\nadmin:\r\n  # listen: 127.0.0.1:1\n\n  listen: 'unix:${socket}' # there`,
    `admin:\n\tlisten: unix:\${SOCKET}`,
    `listeners:\n  admin: { listen: 127.0.0.1:1 }\nadmin:\n  listen: unix:${socket}\nother:\n  listen: 127.0.0.1:1`,
  ];
  for (const place of places) {
    writeFileSync(file, place + bad);
    assert.deepEqual(await run(["health", "sidegate.yaml"], { SOCKET: socket }), { code: 0, stdout: "ready\n", stderr: "" }, place);
  }
});

test("the gateway of another file is neither shown nor reloaded", async (t) => {
  const { dir, file, socket, run, reloads } = await setUp(t);
  const admin = `admin: { listen: "unix:${socket}" }\n`;
  const other = join(dir, "other.yaml");
  writeFileSync(file, admin);
  writeFileSync(other, admin);
  for (const command of ["health", "status", "reload", "certs", "tailnet"]) {
    const expected = { code: 1, stdout: "", stderr: `The gateway on unix:${socket} serves '${file}', not '${other}'\n` };
    assert.deepEqual(await run([command, "other.yaml"]), expected);
    assert.deepEqual(await run([command], { SIDEGATE_CONFIG: other }), expected);
  }
  for (const words of [["renew", "a.example"], ["trust"]]) assert.equal((await run(["certs", ...words, "other.yaml"])).code, 1);
  assert.equal((await run(["tailnet", "logout", "other.yaml"])).code, 1);
  for (const words of [["grants"], ["clients"], ["revoke", "--all"]])
    assert.match((await run(["auth", ...words, "other.yaml"])).stderr, /not '.*other\.yaml'\n$/);
  assert.equal(reloads(), 0);
  // Another name of the same file.
  symlinkSync("sidegate.yaml", join(dir, "link.yaml"));
  assert.deepEqual(await run(["reload", "link.yaml"]), { code: 0, stdout: "Reloaded\n", stderr: "" });
  assert.equal(reloads(), 1);
});

test("that the file does not exist is said when no gateway answers", async (t) => {
  const { dir, run } = await setUp(t);
  for (const command of ["health", "status", "reload"]) {
    const { code, stdout, stderr } = await run([command, "nosuch.yaml"]);
    assert.deepEqual([code, stdout], [1, ""]);
    // Some other gateway may run on this machine.
    assert.ok(
      stderr.startsWith(`'${dir}/nosuch.yaml' does not exist, and no gateway answers on 127.0.0.1:2019 (`) || stderr.endsWith(`, not '${dir}/nosuch.yaml'\n`),
      stderr,
    );
  }
});
