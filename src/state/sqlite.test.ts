import assert from "node:assert/strict";
import { chmodSync, copyFileSync, existsSync, mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { type TestContext, test } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { openLog } from "../telemetry/log.ts";
import { openSqliteStore, type SqliteOptions } from "./sqlite.ts";
import { StateError } from "./state-error.ts";
import type { StateStore } from "./store.ts";

function setUp(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-state-"));
  const open: StateStore[] = [];
  t.after(async () => {
    await Promise.all(open.map((store) => store.close()));
    rmSync(dir, { recursive: true, force: true });
  });
  const logged: string[] = [];
  const log = openLog({ level: "info", format: "json" }, { isTty: false, colors: false, write: (text) => void logged.push(text) });
  let now = Date.UTC(2026, 10, 21);
  const openStore = async (options: SqliteOptions = {}): Promise<StateStore> => {
    const store = await openSqliteStore(join(dir, "state"), log, { now: () => now, ...options });
    open.push(store);
    return store;
  };
  const file = join(dir, "state", "state.db");
  const pass = (ms: number): void => void (now += ms);
  return { dir, file, keyFile: join(dir, "state", "state.key"), logged, openStore, pass };
}

/** What another program does to the file. */
function tamper(file: string, ...statements: string[]): void {
  const database = new DatabaseSync(file);
  for (const statement of statements) database.exec(statement);
  database.close();
}

async function refusal(opening: Promise<unknown>): Promise<string> {
  const error: unknown = await opening.then(
    () => assert.fail("opened"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof StateError, String(error));
  assert.equal(error.code, "ERR_STATE");
  return error.message;
}

test("what was set is there, for other opens and after a restart, until it is set anew, taken or deleted", async (t) => {
  const { openStore } = setUp(t);
  const store = await openStore();
  assert.equal(await store.get("a"), null);
  await store.set("a", "one", null);
  await store.set("b:1", "ünïcode 🔑\0", 60_000);
  await store.set("empty", "", null);
  const other = await openStore();
  assert.equal(await other.get("a"), "one");
  await other.set("a", "two", null);
  assert.equal(await store.get("a"), "two");
  assert.equal(await store.get("empty"), "");
  await store.close();
  await other.close();
  const again = await openStore();
  assert.equal(await again.get("b:1"), "ünïcode 🔑\0");
  assert.equal(await again.take("b:1"), "ünïcode 🔑\0");
  assert.equal(await again.take("b:1"), null);
  assert.equal(await again.delete("a"), true);
  assert.equal(await again.delete("a"), false);
  assert.equal(await again.get("a"), null);
});

test("'add' sets what is not there or over, and nothing else", async (t) => {
  const { openStore, pass } = setUp(t);
  const store = await openStore();
  assert.equal(await store.add("jti", "first", 1_000), true);
  assert.equal(await store.add("jti", "second", null), false);
  assert.equal(await store.get("jti"), "first");
  pass(1_000);
  assert.equal(await store.add("jti", "third", null), true);
  pass(10 ** 12);
  assert.equal(await store.add("jti", "fourth", null), false);
  assert.equal(await store.get("jti"), "third");
});

test("a value whose time is over is gone for every method at that very millisecond", async (t) => {
  const { openStore, pass } = setUp(t);
  const store = await openStore();
  for (const key of ["get", "take", "delete"]) await store.set(key, "x", 1_000);
  await store.set("longer", "x", 1_000);
  await store.set("longer", "x", 2_000);
  await store.set("none", "x", 0);
  assert.equal(await store.get("none"), null);
  pass(999);
  assert.equal((await store.list("")).length, 4);
  pass(1);
  assert.equal(await store.get("get"), null);
  assert.equal(await store.take("take"), null);
  assert.equal(await store.delete("delete"), false);
  assert.deepEqual(await store.list(""), [{ key: "longer", value: "x" }]);
});

test("a list has the keys with the prefix in their order, and no wildcards", async (t) => {
  const { openStore } = setUp(t);
  const store = await openStore();
  for (const key of ["g:b", "g:a", "g:", "g", "h:a", "f:a", "G:a", "g_:a", "g%:a", "g:~"]) await store.set(key, `v ${key}`, null);
  assert.deepEqual(
    (await store.list("g:")).map(({ key }) => key),
    ["g:", "g:a", "g:b", "g:~"],
  );
  assert.deepEqual(await store.list("g%"), [{ key: "g%:a", value: "v g%:a" }]);
  assert.deepEqual(await store.list("x"), []);
});

test("a key that cannot be one is never there, and is not set", async (t) => {
  const { openStore } = setUp(t);
  const store = await openStore();
  for (const key of ["", "é", "a\0b", "x".repeat(201)]) {
    assert.equal(await store.get(key), null);
    assert.equal(await store.take(key), null);
    await assert.rejects(store.set(key, "x", null), StateError);
    await assert.rejects(store.add(key, "x", null), StateError);
  }
});

test("what is over leaves the file, in batches", async (t) => {
  const { openStore, pass, file } = setUp(t);
  const store = await openStore();
  for (let i = 0; i < 1_201; i += 1) await store.set(`old:${i}`, "x", 1_000);
  await store.set("new", "x", 5_000);
  pass(1_000);
  await store.close();
  const again = await openStore();
  const database = new DatabaseSync(file, { readOnly: true });
  t.after(() => database.close());
  await waitFor(() => database.prepare("SELECT count(*) AS n FROM entries").get()?.["n"] === 1);
  assert.equal(await again.get("new"), "x");
});

test("no value is in clear in any file, and the files are their owner's alone", async (t) => {
  const { dir, openStore } = setUp(t);
  const store = await openStore();
  const secret = "sgt_very-secret-token-value";
  await store.set("grant:1", secret, null);
  await store.add("grant:2", secret, 1_000);
  const look = (): void => {
    for (const name of readdirSync(join(dir, "state"))) {
      const path = join(dir, "state", name);
      assert.equal(statSync(path).mode & 0o777, 0o600, name);
      for (const encoding of ["utf8", "base64", "hex"] as const) {
        const text = Buffer.from(secret).toString(encoding).replace(/=+$/, "");
        assert.ok(!readFileSync(path, "latin1").includes(text), name);
      }
    }
  };
  assert.deepEqual(readdirSync(join(dir, "state")).toSorted(), ["state.db", "state.db-shm", "state.db-wal", "state.key"]);
  assert.equal(statSync(join(dir, "state")).mode & 0o777, 0o700);
  look();
  await store.close();
  assert.deepEqual(readdirSync(join(dir, "state")).toSorted(), ["state.db", "state.key"]);
  look();
});

test("a row that was changed, moved to another key, or given another end counts as missing, which is logged once", async (t) => {
  const { openStore, file, logged } = setUp(t);
  const store = await openStore();
  for (const key of ["moved-from", "changed", "later", "longer", "fine"]) await store.set(key, `value of ${key}`, 60_000);
  tamper(
    file,
    "INSERT INTO entries SELECT 'moved-to', value, expires_at FROM entries WHERE key = 'moved-from'",
    "UPDATE entries SET value = CAST(substr(value, 1, length(value) - 1) || x'00' AS BLOB) WHERE key = 'changed'",
    "UPDATE entries SET value = CAST(x'02' || substr(value, 2) AS BLOB) WHERE key = 'later'",
    "UPDATE entries SET expires_at = expires_at + 1 WHERE key = 'longer'",
    "INSERT INTO entries VALUES ('short', x'01', NULL), ('other-format', CAST(x'02' || zeroblob(40) AS BLOB), NULL), ('empty', x'', NULL)",
  );
  for (const key of ["moved-to", "changed", "later", "longer", "short", "other-format", "empty"]) assert.equal(await store.get(key), null, key);
  assert.deepEqual(
    (await store.list("")).map(({ key }) => key),
    ["fine", "moved-from"],
  );
  assert.equal(await store.take("short"), null);
  assert.equal(logged.filter((line) => line.includes("state_unreadable")).length, 1);
  // Missing for 'add' as well.
  assert.equal(await store.add("changed", "anew", null), true);
  assert.equal(await store.get("changed"), "anew");
  assert.equal(await store.add("changed", "once more", null), false);
});

test("with a wrong key, without the key, or with one that is none, the state is refused and nothing is changed", async (t) => {
  const { openStore, file, keyFile } = setUp(t);
  const store = await openStore();
  await store.set("a", "1", null);
  await store.close();
  const key = readFileSync(keyFile, "utf8");
  const before = readFileSync(file);

  rmSync(keyFile);
  assert.match(await refusal(openStore()), /^The key '.*state\.key' is missing, and the state file '.*state\.db' cannot be read without it; bring it back /);
  assert.equal(existsSync(keyFile), false);
  writeFileSync(keyFile, `${Buffer.alloc(32, 7).toString("base64url")}\n`);
  assert.match(
    await refusal(openStore()),
    /^The key in 'state\.key' is not that of the state file '.*state\.db'; bring the right one back .*move the state file away/,
  );
  for (const text of ["", "short", `${key.trim()}AA`, key.replace("\n", "!")]) {
    writeFileSync(keyFile, text);
    const message = await refusal(openStore());
    assert.match(message, /state\.key' holds no key \(32 bytes in base64url\)/);
    assert.ok(text === "" || !message.includes(text.trim()));
  }
  assert.ok(readFileSync(file).equals(before));

  writeFileSync(keyFile, key);
  assert.equal(await (await openStore()).get("a"), "1");
});

test("a damaged file, an empty one, another program's and that of a newer version are refused, named, and left as they are", async (t) => {
  const { openStore, file } = setUp(t);
  const store = await openStore();
  for (let i = 0; i < 500; i += 1) await store.set(`key:${i}`, "x".repeat(200), null);
  await store.close();
  const good = readFileSync(file);
  const middle = Buffer.from(good);
  middle.fill(0xa5, 4096 * 5, 4096 * 9);
  const damages: Record<string, Buffer> = {
    "no database": Buffer.from("this is no database ".repeat(1_000)),
    "damaged pages": middle,
    "cut off": good.subarray(0, good.length / 2),
    empty: Buffer.alloc(0),
  };
  for (const [what, bytes] of Object.entries(damages)) {
    writeFileSync(file, bytes);
    assert.match(
      await refusal(openStore()),
      /^The state file '.*state\.db' is damaged; bring it back from a backup, or move it away together with '.*-wal' and '.*-shm': without it the gateway begins anew/,
      what,
    );
    assert.equal(readFileSync(file).length, bytes.length);
  }
  writeFileSync(file, good);
  tamper(file, "PRAGMA user_version = 2");
  assert.match(await refusal(openStore()), /was written by a newer Sidegate \(format 2, this one knows 1\); run that one, or move the file away/);
  rmSync(file);
  tamper(file, "CREATE TABLE bookmarks (id INTEGER)");
  assert.match(await refusal(openStore()), /state\.db' is another program's database; let 'state\.dir' name another directory$/);
  writeFileSync(file, good);
  assert.equal((await (await openStore()).list("key:")).length, 500);
});

test("a state file that was moved away is begun anew and told, unless its log was forgotten there", async (t) => {
  const { dir, openStore, file, logged } = setUp(t);
  const store = await openStore();
  await store.set("a", "1", null);
  copyFileSync(`${file}-wal`, join(dir, "wal"));
  await store.close();
  assert.equal(logged.filter((line) => line.includes("state_created")).length, 1);
  renameSync(file, join(dir, "away"));
  copyFileSync(join(dir, "wal"), `${file}-wal`);
  assert.match(await refusal(openStore()), /state\.db' is missing, but '.*state\.db-wal' is there: bring the file back, or move that one away, too/);
  assert.equal(existsSync(file), false);
  rmSync(`${file}-wal`);
  assert.equal(await (await openStore()).get("a"), null);
  assert.equal(logged.filter((line) => line.includes("state_created")).length, 2);
});

test("a directory that cannot be written, and a path through a file, are said with what to do", async (t) => {
  const { dir, openStore, file } = setUp(t);
  const store = await openStore();
  await store.close();
  const uid = process.geteuid?.();
  chmodSync(dir, 0o755);
  chmodSync(join(dir, "state"), 0o555);
  // Root may write everywhere.
  if (uid === 0) process.seteuid?.(65_532);
  try {
    const message = await refusal(openStore());
    assert.match(
      message,
      /^Cannot use the state file '.*': permission denied; the gateway's user must be able to read and write there, or 'state\.dir' name another directory$/,
    );
  } finally {
    if (uid === 0) process.seteuid?.(0);
    chmodSync(join(dir, "state"), 0o700);
  }
  const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
  assert.match(await refusal(openSqliteStore(join(file, "below"), log)), /^Cannot use the state file '.*': a part of the path is not a directory; /);
});

test("a file that another process keeps locked is waited for, while the gateway goes on", async (t) => {
  const { openStore, file } = setUp(t);
  const store = await openStore();
  const other = new DatabaseSync(file);
  t.after(() => other.close());
  other.exec("BEGIN IMMEDIATE");
  let ticks = 0;
  const ticker = setInterval(() => (ticks += 1), 5);
  t.after(() => clearInterval(ticker));
  let done = false;
  const writing = store.set("a", "1", null).then(() => (done = true));
  // Readers do not wait.
  assert.equal(await store.get("a"), null);
  await waitFor(() => ticks > 10);
  assert.equal(done, false);
  // Closing waits for what is under way.
  const closing = store.close();
  other.exec("COMMIT");
  await writing;
  await closing;
  assert.equal(await (await openStore()).get("a"), "1");
  await assert.rejects(store.get("a"), /^StateError: The state file '.*' is closed$/);
});

test("stores that open at once in one process share one key and one file", async (t) => {
  const { openStore, logged } = setUp(t);
  const stores = await Promise.all(Array.from({ length: 8 }, () => openStore()));
  await Promise.all(stores.map((store, i) => store.set(`from:${i}`, String(i), null)));
  for (const store of stores) assert.equal((await store.list("from:")).length, stores.length);
  assert.equal(logged.filter((line) => line.includes("state_created")).length, 1);
});
