import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { FileLock } from "./file-lock.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-lock-"));
after(() => rmSync(root, { recursive: true, force: true }));

/** Left by a process that is gone. */
function leaveStale(path: string): string {
  mkdirSync(path, { recursive: true });
  const file = join(path, "elsewhere-7-0123456789abcdef");
  writeFileSync(file, "");
  // In the future: its clock does not count.
  utimesSync(file, new Date(Date.now() + 3_600_000), new Date(Date.now() + 3_600_000));
  return file;
}

test("one holder at a time, named after host and process; nothing is left of it", async () => {
  const path = join(root, "deep", "one");
  const [first, second] = [new FileLock(path, { pid: 11 }), new FileLock(path, { pid: 12 })];
  assert.equal(await first.tryTake(), true);
  assert.equal(await second.tryTake(), false);
  assert.equal(await first.tryTake(), false);
  assert.match(
    readdirSync(path).join(" "),
    new RegExp(
      `^${hostname()
        .replaceAll(/[^\w.-]/g, "_")
        .slice(0, 64)}-11-[0-9a-f]{16}$`,
    ),
  );
  await second.release();
  assert.equal(await second.tryTake(), false);
  await first.release();
  assert.equal(await second.tryTake(), true);
  await second.release();
  assert.deepEqual(readdirSync(join(root, "deep")), []);
});

test("of many that try at the same time one has it", async () => {
  const path = join(root, "race");
  for (let round = 0; round < 10; round += 1) {
    const locks = Array.from({ length: 8 }, () => new FileLock(path, { pid: 1 }));
    const taken = await Promise.all(locks.map((lock) => lock.tryTake()));
    assert.equal(taken.filter(Boolean).length, 1);
    for (const lock of locks) await lock.release();
  }
});

test("a holder that keeps it fresh keeps it, however long it takes", async () => {
  const path = join(root, "fresh");
  const [holder, other] = [new FileLock(path, { pid: 1, touchMs: 10 }), new FileLock(path, { pid: 2, staleMs: 300 })];
  assert.equal(await holder.tryTake(), true);
  const until = performance.now() + 700;
  await waitFor(
    async () => {
      assert.equal(await other.tryTake(), false);
      return performance.now() > until;
    },
    { abortOnError: true },
  );
  assert.equal(holder.held, true);
  await holder.release();
});

test("a lock whose holder is gone is taken over by one of many, once its time stamp stood still", async () => {
  for (let round = 0; round < 5; round += 1) {
    const path = join(root, "stale");
    leaveStale(path);
    const locks = Array.from({ length: 8 }, () => new FileLock(path, { pid: 1, touchMs: 10, staleMs: 50 }));
    const first = await Promise.all(locks.map((lock) => lock.tryTake()));
    assert.deepEqual(new Set(first), new Set([false]));
    const seenAt = performance.now();
    let taken = 0;
    await waitFor(
      async () => {
        taken += (await Promise.all(locks.map((lock) => lock.tryTake()))).filter(Boolean).length;
        return taken > 0;
      },
      { abortOnError: true },
    );
    assert.ok(performance.now() - seenAt >= 45);
    assert.equal(taken, 1);
    assert.equal((await Promise.all(locks.map((lock) => lock.tryTake()))).filter(Boolean).length, 0);
    for (const lock of locks) await lock.release();
  }
});

test("a holder that stood still for too long learns that it lost it, and does not take it from the next one", async () => {
  const path = join(root, "lost");
  const holder = new FileLock(path, { pid: 1, touchMs: 300 });
  assert.equal(await holder.tryTake(), true);
  const other = new FileLock(path, { pid: 2, staleMs: 20 });
  await waitFor(() => other.tryTake());
  await waitFor(() => !holder.held);
  await holder.release();
  assert.equal(readdirSync(path).length, 1);
  assert.equal(await new FileLock(path, { pid: 3 }).tryTake(), false);
  await other.release();
});

test("a holder that lost it without knowing does not take it from the next one", async () => {
  const path = join(root, "unknowing");
  const [holder, other] = [new FileLock(path, { pid: 1 }), new FileLock(path, { pid: 2, touchMs: 10, staleMs: 20 })];
  assert.equal(await holder.tryTake(), true);
  await waitFor(() => other.tryTake());
  assert.equal(holder.held, true);
  await holder.release();
  assert.match(readdirSync(path).join(" "), /-2-[0-9a-f]{16}$/);
  await other.release();
});

test("a place that takes no lock is an error", async () => {
  const file = join(root, "file");
  writeFileSync(file, "");
  await assert.rejects(new FileLock(join(file, "lock"), { pid: 1 }).tryTake(), { code: "ENOTDIR" });
});
