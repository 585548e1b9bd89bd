import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, readlinkSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { AccessLogs } from "./access-log.ts";
import { LineBuffer } from "./line-buffer.ts";
import type { LineSink } from "./line-sink.ts";
import { AccessLogError } from "./log-file.ts";
import { openLog } from "./log.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-access-log-"));
after(() => rmSync(root, { recursive: true, force: true }));
let next = 0;

function setUp(options: { maxBytes?: number; retentionMs?: number; now?: () => number } = {}) {
  const dir = join(root, String((next += 1)));
  const logged: string[] = [];
  const log = openLog({ level: "info", format: "json" }, { isTty: false, colors: false, write: (text) => void logged.push(text) });
  const settings = { kind: "files", dir, retentionMs: options.retentionMs ?? 0, maxBytes: options.maxBytes ?? 1_000_000 } as const;
  return { dir, logged, log, settings, logs: new AccessLogs(log, options.now), file: join(dir, "web.log") };
}

async function until(condition: () => boolean): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, "the condition never came true");
    await delay(5);
  }
}

test("lines are appended to <dir>/<listener>.log, which only the owner's group may read, and close writes the rest", async () => {
  const { logs, settings, file } = setUp();
  mkdirSync(settings.dir);
  writeFileSync(file, "before\n");
  const writer = logs.open(settings, "web");
  writer?.write("one");
  writer?.write("zwei ü");
  await logs.close();
  assert.equal(readFileSync(file, "utf8"), "before\none\nzwei ü\n");
  const fresh = setUp();
  fresh.logs.open(fresh.settings, "web");
  await fresh.logs.close();
  assert.equal(statSync(fresh.file).mode & 0o777, 0o640);
});

test("'off' has no writer", async () => {
  const { logs } = setUp();
  assert.equal(logs.open({ kind: "off" }, "web"), null);
  await logs.close();
});

test("equal settings give the same writer, and new ones count only after retain", async () => {
  const { logs, settings, dir } = setUp({ maxBytes: 1_000 });
  const first = logs.open(settings, "web");
  assert.equal(logs.open({ ...settings }, "web"), first);
  const small = logs.open({ ...settings, maxBytes: 10 }, "web");
  assert.notEqual(small, first);
  // The reload failed: what serves goes on with its own settings.
  first?.write("x".repeat(50));
  await until(() => readFileSync(join(dir, "web.log"), "utf8").length === 51);
  first?.write("y".repeat(50));
  await until(() => readFileSync(join(dir, "web.log"), "utf8").length === 102);
  assert.deepEqual(readdirSync(dir), ["web.log"]);
  const again = logs.open({ ...settings, maxBytes: 10 }, "web");
  logs.retain(new Set([again]));
  again?.write("z".repeat(50));
  await until(() => readdirSync(dir).length === 2);
  await logs.close();
});

test("a file that nobody uses any more is closed, and a late line still finds it", async () => {
  const { logs, settings, file, dir } = setUp();
  const writer = logs.open(settings, "web");
  writer?.write("one");
  logs.retain(new Set());
  await until(() => readFileSync(file, "utf8") === "one\n");
  await until(() => !openFiles().some((path) => path.startsWith(dir)));
  writer?.write("late");
  await until(() => readFileSync(file, "utf8") === "one\nlate\n");
  await until(() => !openFiles().some((path) => path.startsWith(dir)));
  await logs.close();
});

test("a file that reaches its size is rotated and no line is split or lost", async () => {
  const { logs, settings, dir } = setUp({ maxBytes: 100 });
  const writer = logs.open(settings, "web");
  for (let i = 0; i < 20; i += 1) {
    writer?.write(`line ${i} ${"x".repeat(20)}`);
    await delay(12);
  }
  await logs.close();
  const names = readdirSync(dir).toSorted();
  assert.ok(names.length > 3, names.join());
  for (const name of names) {
    assert.match(name, /^web(-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d\.\d{3}Z)?\.log$/);
    assert.ok(statSync(join(dir, name)).size <= 100);
  }
  const all = names.map((name) => readFileSync(join(dir, name), "utf8")).join("");
  assert.deepEqual(
    all
      .trimEnd()
      .split("\n")
      .map((line) => line.split(" ")[1]),
    Array.from({ length: 20 }, (_, i) => String(i)),
  );
});

test("rotated files are deleted beyond their retention, other listeners' and strange files are not", async () => {
  let now = Date.parse("2026-11-21T09:30:00Z");
  const { logs, settings, dir } = setUp({ retentionMs: 3_600_000, now: () => now });
  mkdirSync(dir);
  const old = "web-2026-11-21T08-00-00.000Z.log";
  const young = "web-2026-11-21T09-00-00.000Z.log";
  const others = ["web-b-2026-11-21T08-00-00.000Z.log", "web-notes.log", "web.log.1"];
  for (const name of [old, young, ...others]) writeFileSync(join(dir, name), "x");
  const writer = logs.open(settings, "web");
  await until(() => !existsSync(join(dir, old)));
  assert.ok(existsSync(join(dir, young)));
  // A file that never fills up must not keep its first lines for ever.
  writer?.write("one");
  await until(() => readFileSync(join(dir, "web.log"), "utf8") === "one\n");
  now += 3_600_001;
  logs.maintain();
  await until(() => !existsSync(join(dir, young)) && existsSync(join(dir, "web-2026-11-21T10-30-00.001Z.log")));
  for (const name of others) assert.ok(existsSync(join(dir, name)), name);
  await logs.close();
});

test("rotations within one millisecond overwrite nothing", async () => {
  const { logs, settings, dir, file } = setUp({ maxBytes: 10, now: () => 1_000 });
  const writer = logs.open(settings, "web");
  for (const letter of "abc") {
    writer?.write(letter.repeat(9));
    await until(() => existsSync(file) && readFileSync(file, "utf8").startsWith(letter));
  }
  await logs.close();
  assert.deepEqual(readdirSync(dir).toSorted(), ["web-1970-01-01T00-00-01.000Z.log", "web-1970-01-01T00-00-01.001Z.log", "web.log"]);
});

test("a file that logrotate replaced by a new one is noticed", async () => {
  const { logs, settings, dir, file } = setUp();
  const writer = logs.open(settings, "web");
  writer?.write("one");
  await until(() => readFileSync(file, "utf8") === "one\n");
  renameSync(file, join(dir, "web.log.1"));
  writeFileSync(file, "");
  await until(() => {
    writer?.write("two");
    return statSync(file).size > 0;
  });
  await logs.close();
});

test("a file that was moved away is noticed and made again", async () => {
  const { logs, settings, dir, file } = setUp();
  const writer = logs.open(settings, "web");
  writer?.write("one");
  await until(() => readFileSync(file, "utf8") === "one\n");
  renameSync(file, join(dir, "web.log.1"));
  let i = 0;
  await until(() => {
    writer?.write(String((i += 1)));
    return existsSync(file);
  });
  await logs.close();
  const all = readFileSync(join(dir, "web.log.1"), "utf8") + readFileSync(file, "utf8");
  assert.deepEqual(all.trimEnd().split("\n"), ["one", ...Array.from({ length: i }, (_, n) => String(n + 1))]);
});

test("a directory that vanished is made again", async () => {
  const { logs, settings, dir, file } = setUp();
  const writer = logs.open(settings, "web");
  writer?.write("one");
  await until(() => readFileSync(file, "utf8") === "one\n");
  rmSync(dir, { recursive: true });
  await until(() => {
    writer?.write("two");
    return existsSync(file);
  });
  await logs.close();
});

test("a directory that cannot be had fails at once, naming the file and the reason", async () => {
  const { logs, settings } = setUp();
  writeFileSync(settings.dir, "a file");
  assert.throws(
    () => logs.open({ ...settings, dir: join(settings.dir, "logs") }, "web"),
    (error) =>
      error instanceof AccessLogError && /^Cannot write the access log '.*\/logs\/web\.log': a part of the path is not a directory$/.test(error.message),
  );
  await logs.close();
});

test("a full disk is said once, costs bounded memory, counts what is lost, and is over when there is room again", async (t) => {
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { log, logged } = setUp();
  let full = true;
  let tries = 0;
  const written: string[] = [];
  const sink: LineSink = {
    write: (bytes) => {
      tries += 1;
      if (full) return Promise.reject(Object.assign(new Error("ENOSPC"), { code: "ENOSPC" }));
      // Half of it, as a nearly full disk takes.
      const part = bytes.subarray(0, Math.max(1, Math.floor(bytes.length / 2)));
      written.push(part.toString());
      return Promise.resolve(part.length);
    },
    close: () => Promise.resolve(),
  };
  const loss = { dropped: 0 };
  const buffer = new LineBuffer(sink, "Cannot write the access log 'x'", loss, log);
  const line = "x".repeat(1_023);
  for (let i = 0; i < 10_000; i += 1) buffer.write(line);
  assert.ok(loss.dropped > 1_000 && loss.dropped < 2_000, String(loss.dropped));
  const beforeFailure = loss.dropped;
  for (let i = 0; i < 3; i += 1) {
    t.mock.timers.tick(1_000);
    await settle();
  }
  assert.ok(tries >= 3 && tries <= 5, String(tries));
  for (let i = 0; i < 20_000; i += 1) buffer.write(line);
  const lost = loss.dropped - beforeFailure;
  assert.ok(lost > 0);
  full = false;
  t.mock.timers.tick(1_000);
  await settle();
  assert.equal(written.join(""), `${line}\n`.repeat(30_000 - loss.dropped));
  assert.deepEqual(
    logged.map((text) => JSON.parse(text) as { level: string; msg: string; lines_lost?: number }).map(({ level, msg, lines_lost }) => [level, msg, lines_lost]),
    [
      ["error", "Cannot write the access log 'x': no space left on the device", undefined],
      ["info", "The access log is written again", lost],
    ],
  );
});

test("closing gives up what cannot be written, and counts it", async () => {
  const { log } = setUp();
  const loss = { dropped: 0 };
  const buffer = new LineBuffer({ write: () => Promise.reject(new Error("gone")), close: () => Promise.resolve() }, "Cannot write", loss, log);
  buffer.write("one");
  buffer.write("two");
  await buffer.retire();
  assert.equal(loss.dropped, 2);
});

test("many lines make one write", async () => {
  const { log } = setUp();
  let writes = 0;
  const sink: LineSink = {
    write: (bytes) => {
      writes += 1;
      return Promise.resolve(bytes.length);
    },
    close: () => Promise.resolve(),
  };
  const buffer = new LineBuffer(sink, "Cannot write", { dropped: 0 }, log);
  for (let i = 0; i < 100; i += 1) buffer.write("line");
  await buffer.retire();
  assert.equal(writes, 1);
});

test("a file that cannot be rotated goes on growing, and that is said once", async () => {
  const { logs, settings, dir, logged } = setUp({ maxBytes: 10 });
  // With the time added the name becomes too long.
  const name = "n".repeat(240);
  const writer = logs.open(settings, name);
  const file = join(dir, `${name}.log`);
  for (let length = 21; length < 21 * 4; length += 21) {
    writer?.write("x".repeat(20));
    await until(() => statSync(file).size === length);
  }
  await logs.close();
  assert.equal(logged.length, 1, logged.join(""));
  assert.match(logged[0] ?? "", /"warn".*Cannot rotate the access log .*: name too long/);
});

// Enough turns for a chain of promises of any sensible length.
async function settle(): Promise<void> {
  for (let i = 0; i < 100; i += 1) await Promise.resolve();
}

function openFiles(): string[] {
  return readdirSync("/proc/self/fd").flatMap((fd) => {
    try {
      return [readlinkSync(`/proc/self/fd/${fd}`)];
    } catch {
      return [];
    }
  });
}
