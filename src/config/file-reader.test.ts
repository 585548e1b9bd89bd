import assert from "node:assert/strict";
import { copyFile, mkdir, mkdtemp, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { loadConfig } from "./load.ts";
import { readText } from "./read.ts";
import { stampOf } from "./stamp.ts";

const HASHES = ["a", "b", "c"].map((digit) => digit.repeat(64));

async function prepare(t: TestContext): Promise<{ file: string; secret: string; hash: () => Promise<string | undefined> }> {
  const directory = await mkdtemp(join(tmpdir(), "sidegate-reader-"));
  t.after(() => rm(directory, { recursive: true }));
  const [file, secret] = [join(directory, "sidegate.yaml"), join(directory, "hash")];
  await writeFile(
    file,
    `version: 1
listeners: { web: { protocol: http, listen: "127.0.0.1:0" } }
auth: { tokens: [{ name: "\${WHO:-ann}", sha256_file: hash }] }
routes: [{ upstream: "http://127.0.0.1:9", auth: none }]
`,
  );
  await writeFile(secret, HASHES[0] ?? "");
  // A time that can be given again to the nanosecond.
  await utimes(secret, 1e9, 1e9);
  const hash = async (): Promise<string | undefined> => {
    const loaded = await loadConfig(file, {});
    assert.ok(loaded.ok, JSON.stringify(loaded));
    return loaded.config.auth.tokens[0]?.sha256;
  };
  return { file, secret, hash };
}

test("a file that is written again in the same moment, of the same size and with its old time, is read again", async (t) => {
  const { secret, hash } = await prepare(t);
  const { atime, mtime } = await stat(secret);
  for (const text of HASHES) {
    await writeFile(secret, text);
    await utimes(secret, atime, mtime);
    assert.equal(await hash(), text);
  }
});

test("a file at rest is read once, and again after a change of whatever kind", async (t) => {
  const { secret, hash } = await prepare(t);
  const { atime, mtime } = await stat(secret);
  assert.equal(await hash(), HASHES[0]);
  const young = await readText(secret);
  assert.ok(young.ok && young.stamp === null, "a file that has just been written has no stamp yet");
  await delay(2_600);
  assert.equal(await hash(), HASHES[0]);
  const old = await readText(secret);
  assert.ok(old.ok && old.stamp === (await stampOf(secret)));
  const lastRead = (await stat(secret, { bigint: true })).ino;
  await writeFile(secret, HASHES[1] ?? "");
  await utimes(secret, atime, mtime);
  assert.equal(await hash(), HASHES[1]);
  await writeFile(`${secret}.new`, HASHES[2] ?? "");
  await utimes(`${secret}.new`, atime, mtime);
  await rename(`${secret}.new`, secret);
  assert.notEqual((await stat(secret, { bigint: true })).ino, lastRead);
  assert.equal(await hash(), HASHES[2]);
  await rm(secret);
  const gone = await loadConfig(join(secret, "..", "sidegate.yaml"), {});
  assert.ok(!gone.ok && gone.problems[0]?.message.startsWith("Cannot read"));
});

test("a file that is missing is told by its whole path, in whatever directory the configuration lies", async (t) => {
  const { file } = await prepare(t);
  const deep = join(dirname(file), ...Array.from({ length: 10 }, () => "directory-of-somebody"));
  await mkdir(deep, { recursive: true });
  const moved = join(deep, "sidegate.yaml");
  await copyFile(file, moved);
  const loaded = await loadConfig(moved, {});
  assert.ok(!loaded.ok);
  const messages = loaded.problems.map(({ message }) => message).filter((message) => message.startsWith("Cannot read"));
  assert.ok(messages.length > 0);
  for (const message of messages) assert.match(message, new RegExp(`^Cannot read '${deep}/[^/'.]+': no such file or directory$`));
});

test("a load leaves nothing in what the next one of the same text begins with", async (t) => {
  const { file, hash } = await prepare(t);
  assert.equal(await hash(), HASHES[0]);
  const [one, two] = [await loadConfig(file, {}), await loadConfig(file, {})];
  assert.deepEqual(two, one);
  const other = await loadConfig(file, { WHO: "bea" });
  assert.ok(other.ok && other.config.auth.tokens[0]?.name === "bea");
});
