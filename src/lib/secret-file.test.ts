import assert from "node:assert/strict";
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, symlinkSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { draftOf, makeSecretFile, removeOldDrafts, writeSecretFile } from "./secret-file.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-secret-"));
after(() => rmSync(root, { recursive: true, force: true }));

test("a file is for its owner alone, and so are the directories made for it; another write takes its place", async () => {
  const path = join(root, "a", "b", "secret.json");
  await writeSecretFile(path, "one");
  await writeSecretFile(path, "two");
  assert.equal(readFileSync(path, "utf8"), "two");
  assert.equal(statSync(path).mode & 0o777, 0o600);
  for (const directory of [dirname(path), dirname(dirname(path))]) assert.equal(statSync(directory).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(dirname(path)), ["secret.json"]);
});

test("what cannot be written leaves the old one and no draft", async () => {
  const path = join(root, "kept");
  mkdirSync(join(path, "in the way"), { recursive: true });
  await assert.rejects(writeSecretFile(path, "new"), { syscall: "rename" });
  assert.ok(existsSync(join(path, "in the way")));
  assert.deepEqual(
    readdirSync(root).filter((name) => name.startsWith("kept.")),
    [],
  );
});

test("what hinders a directory from being made is told as it is", { timeout: 5_000 }, async (t) => {
  symlinkSync(join(root, "nowhere"), join(root, "dangling"));
  await assert.rejects(writeSecretFile(join(root, "dangling", "a", "secret.json"), ""), { syscall: "mkdir" });
  if (!existsSync("/proc/self")) return t.skip("there is no /proc");
  // Nobody can make a directory there, which Node.js tries for ever.
  await assert.rejects(writeSecretFile("/proc/sidegate/state/secret.json", ""), { syscall: "mkdir", path: "/proc/sidegate" });
});

test("of several that make a file at once one does, and no draft is left", async () => {
  const path = join(root, "new", "secret.json");
  const texts = Array.from({ length: 8 }, (_, i) => `text ${i}`);
  const made = await Promise.all(texts.map((text) => makeSecretFile(path, text)));
  assert.deepEqual(
    texts.filter((_, i) => made[i]),
    [readFileSync(path, "utf8")],
  );
  assert.deepEqual(readdirSync(dirname(path)), ["secret.json"]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal(await makeSecretFile(path, "late"), false);
  await assert.rejects(makeSecretFile(join(path, "below a file"), ""), { code: "ENOTDIR" });
});

test("drafts of an hour ago are removed, and nothing else", async () => {
  const directory = join(root, "drafts");
  mkdirSync(directory);
  const [old, young, lock, other] = [
    draftOf(join(directory, "x.json")),
    draftOf(join(directory, "x.json")),
    draftOf(join(directory, "lock")),
    "a-0123456789ab",
  ];
  for (const file of [old, young, join(directory, "x.json"), join(directory, other)]) writeFileSync(file, "");
  mkdirSync(lock);
  writeFileSync(join(lock, "holder"), "");
  const hourAgo = new Date(Date.now() - 3_601_000);
  for (const path of [old, lock, join(directory, "x.json"), join(directory, other)]) utimesSync(path, hourAgo, hourAgo);
  await removeOldDrafts(directory);
  assert.deepEqual(readdirSync(directory).toSorted(), [other, "x.json", young.slice(directory.length + 1)].toSorted());
  await removeOldDrafts(join(root, "missing"));
});
