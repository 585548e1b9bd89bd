// The state among processes, through crashes, and on a full disk.
import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { openSqliteStore } from "../../src/state/sqlite.ts";
import { StateError } from "../../src/state/state-error.ts";
import type { StateStore } from "../../src/state/store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { waitFor } from "../components/wait.ts";

const PROCESS = new URL("../components/state-process.ts", import.meta.url).pathname;
const LOG = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });

function newDir(t: TestContext): string {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-state-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  return join(dir, "state");
}

/** `said`: its whole lines so far, which may have more after its end. */
function startProcess(t: TestContext, ...args: string[]) {
  const child = spawn(process.execPath, [PROCESS, ...args], { stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => void child.kill("SIGKILL"));
  const said: string[] = [];
  createInterface({ input: child.stdout }).on("line", (line) => void said.push(line));
  const ended = once(child, "close").then(([code]) => code as number | null);
  return { child, said, ended };
}

test("of several processes on one new state exactly one adds a key and one takes it, and all have the same signing keys", async (t) => {
  const dir = newDir(t);
  const first = Array.from({ length: 4 }, () => startProcess(t, dir, "keys"));
  for (const { ended } of first) assert.equal(await ended, 0);
  const keys = first.map(({ said }) => said[1] ?? assert.fail("no keys"));
  assert.equal(new Set(keys).size, 1);
  assert.ok(keys[0]?.includes('"alg":"ES256"'));

  const count = 2_000;
  const store = await openSqliteStore(dir, LOG);
  for (let i = 0; i < count; i += 1) await store.set(`take:${i}`, "once", null);
  for (const action of ["add", "take"]) {
    const all = Array.from({ length: 3 }, () => startProcess(t, dir, action, String(count)));
    for (const { ended } of all) assert.equal(await ended, 0);
    const got = all.flatMap(({ said }) => said.slice(1).map(Number)).toSorted((a, b) => a - b);
    assert.deepEqual(
      got,
      Array.from({ length: count }, (_, i) => i),
      action,
    );
  }
  assert.deepEqual(await store.list("take:"), []);
  assert.equal((await store.list("add:")).length, count);
  await store.close();
});

test("a process that is killed while it writes leaves a state that opens and has all that was acknowledged", async (t) => {
  const dir = newDir(t);
  for (let round = 0; round < 6; round += 1) {
    const writers = [startProcess(t, dir, "write"), startProcess(t, dir, "write")];
    await waitFor(() => writers.every(({ said }) => said.length > 30 + round * 37), { timeoutMs: 30_000 });
    for (const { child } of writers) child.kill("SIGKILL");
    for (const { ended } of writers) await ended;
    const store = await openSqliteStore(dir, LOG);
    for (const { child, said } of writers) {
      const last = Number(said.at(-1));
      assert.ok(last > 0);
      for (let i = 0; i <= last; i += 1) {
        const value = await store.get(`written:${child.pid}:${i}`);
        // The last one's deletion may have been under way.
        if (i % 3 === 1 && i < last) assert.equal(value, null, String(i));
        else if (i % 3 !== 1) assert.equal(value, `value ${i} ${"x".repeat(i % 3_000)}`);
      }
    }
    await store.close();
  }
  assert.deepEqual(readdirSync(dir).toSorted(), ["state.db", "state.key"]);
});

test("on a full disk writing fails with a sentence and reading goes on, until there is room", async (t) => {
  const disk = mkdtempSync(join(tmpdir(), "sidegate-disk-"));
  try {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], { stdio: "ignore" });
  } catch {
    rmSync(disk, { recursive: true });
    t.skip("no file system can be mounted here");
    return;
  }
  const dir = join(disk, "state");
  let store: StateStore | null = null;
  t.after(async () => {
    await store?.close();
    execFileSync("umount", [disk]);
    rmSync(disk, { recursive: true });
  });
  store = await openSqliteStore(dir, LOG);
  await store.set("before", "there", null);
  const filler = join(disk, "filler");
  const fill = (): void => {
    for (let bytes = 1_048_576; bytes >= 1; bytes /= 2)
      try {
        writeFileSync(filler, Buffer.alloc(bytes), { flag: "a" });
      } catch {
        // Half of it may fit.
      }
  };
  fill();
  let refused: unknown = null;
  const kept: number[] = [];
  for (let i = 0; i < 100 && refused === null; i += 1)
    await store.set(`filling:${i}`, "x".repeat(3_000), null).then(
      () => kept.push(i),
      (error: unknown) => (refused = error),
    );
  assert.ok(refused instanceof StateError, String(refused));
  assert.equal(refused.message, `Cannot write the state file '${dir}/state.db': the disk is full; make room there`);
  assert.equal(await store.get("before"), "there");
  assert.equal((await store.list("filling:")).length, kept.length);
  await assert.rejects(store.add("another", "x".repeat(3_000), null), /the disk is full/);
  rmSync(filler);
  await store.set("after", "room", null);
  assert.equal(await store.get("after"), "room");
  assert.equal(await store.get("another"), null);

  fill();
  const elsewhere = join(disk, "other");
  await assert.rejects(openSqliteStore(elsewhere, LOG), (error) => {
    assert.ok(error instanceof StateError);
    assert.match(error.message, /^Cannot write the state file '.*': the disk is full; make room there$/);
    return true;
  });
});
