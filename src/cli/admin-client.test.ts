import assert from "node:assert/strict";
import { copyFileSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { startTestAdmin } from "../../test/components/admin.ts";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";
import type { ActionResult, ReloadResult } from "../admin/status.ts";

/** An admin interface that counts what it is told to do. */
async function setUp(t: TestContext) {
  let reloads = 0;
  const act = (): Promise<ActionResult> => {
    reloads += 1;
    return Promise.resolve({ ok: true, message: "Done" });
  };
  const reload = (): Promise<ReloadResult> => {
    reloads += 1;
    return Promise.resolve({ outcome: "changed", warnings: [], text: "" });
  };
  const { dir, file, socket } = await startTestAdmin(t, { reload, renew: act, logout: act });
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
  const other = join(dir, "other.yaml");
  copyFileSync(file, other);
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
