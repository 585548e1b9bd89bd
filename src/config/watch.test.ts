import assert from "node:assert/strict";
import { link, mkdir, mkdtemp, open, readFile, rename, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { explainFileMount } from "./file-mount.ts";
import { type WatchOptions, watchConfig } from "./watch.ts";

type Watched = {
  readonly directory: string;
  readonly file: string;
  readonly seen: string[];
  readonly next: () => Promise<string>;
  readonly replace: (paths: string[]) => void;
};

/** Watches `sidegate.yaml` (and `others`) in a new directory; `next` waits for the next look and gives the text that the file has then. Without polling unless asked for. */
async function start(t: TestContext, options: { others?: string[]; pollMs?: number; prepare?: (directory: string) => Promise<void> } = {}): Promise<Watched> {
  const directory = await mkdtemp(join(tmpdir(), "sidegate-watch-"));
  const file = join(directory, "sidegate.yaml");
  await (options.prepare?.(directory) ?? writeFile(file, "one"));
  const seen: string[] = [];
  let looks = 0;
  let taken = 0;
  const watchOptions: WatchOptions = {
    paths: [file, ...(options.others ?? []).map((name) => join(directory, name))],
    pollMs: options.pollMs ?? 60_000,
    quietMs: 20,
    maxWaitMs: 500,
    onChange: () => {
      looks += 1;
      void readFile(file, "utf8").then(
        (text) => seen.push(text),
        () => seen.push("(missing)"),
      );
    },
    onWarning: (message) => seen.push(message),
  };
  const watch = watchConfig(watchOptions);
  t.after(async () => {
    watch.close();
    await rm(directory, { recursive: true, force: true });
  });
  const next = async (): Promise<string> => {
    await until(
      () => looks > taken && seen.length >= looks,
      () => `no look; seen: ${seen.join(", ")}`,
    );
    taken = looks;
    return seen.at(-1) ?? "";
  };
  // The look that follows every start.
  await next();
  return { directory, file, seen, next, replace: watch.replace };
}

async function until(condition: () => boolean, reason: () => string): Promise<void> {
  const deadline = performance.now() + 5_000;
  while (!condition()) {
    assert.ok(performance.now() < deadline, reason());
    await delay(5);
  }
}

test("a save by rename is seen, each time", async (t) => {
  const { directory, file, next } = await start(t);
  for (const text of ["two", "three", "four"]) {
    await writeFile(join(directory, ".sidegate.yaml.swp"), text);
    await rename(join(directory, ".sidegate.yaml.swp"), file);
    assert.equal(await next(), text);
  }
});

test("a save in place is seen, also with equal content", async (t) => {
  const { file, next } = await start(t);
  await writeFile(file, "two");
  assert.equal(await next(), "two");
  await writeFile(file, "two");
  assert.equal(await next(), "two");
});

test("a save in pieces is looked at once it is complete", async (t) => {
  const { file, seen, next } = await start(t);
  const handle = await open(file, "w");
  for (const piece of ["a", "b", "c", "d", "e"]) {
    await handle.write(piece);
    await delay(5);
  }
  await handle.close();
  assert.equal(await next(), "abcde");
  assert.ok(!seen.includes("a"), `looked too early: ${seen.join(", ")}`);
});

test("a half-written save that is completed much later is looked at again", async (t) => {
  const { file, next } = await start(t);
  await writeFile(file, "half");
  assert.equal(await next(), "half");
  await writeFile(file, "half and half");
  assert.equal(await next(), "half and half");
});

test("a Kubernetes swap of ..data is seen", async (t) => {
  const write = async (root: string, version: string): Promise<void> => {
    await mkdir(join(root, `..${version}`));
    await writeFile(join(root, `..${version}`, "sidegate.yaml"), version);
    await symlink(`..${version}`, join(root, "..data_tmp"));
    await rename(join(root, "..data_tmp"), join(root, "..data"));
  };
  const { directory, next } = await start(t, {
    prepare: async (root) => {
      await write(root, "v1");
      await symlink("..data/sidegate.yaml", join(root, "sidegate.yaml"));
    },
  });
  await write(directory, "v2");
  assert.equal(await next(), "v2");
  await rm(join(directory, "..v1"), { recursive: true });
  await write(directory, "v3");
  assert.equal(await next(), "v3");
});

test("a change of the file behind a link is seen", async (t) => {
  const { directory, next } = await start(t, {
    prepare: async (root) => {
      await mkdir(join(root, "elsewhere"));
      await writeFile(join(root, "elsewhere", "real.yaml"), "one");
      await symlink("elsewhere/real.yaml", join(root, "sidegate.yaml"));
    },
  });
  await writeFile(join(directory, "elsewhere", "new"), "two");
  await rename(join(directory, "elsewhere", "new"), join(directory, "elsewhere", "real.yaml"));
  assert.equal(await next(), "two");
});

test("a deleted file is seen, and so is its return", async (t) => {
  const { file, next } = await start(t);
  await rm(file);
  assert.equal(await next(), "(missing)");
  await writeFile(file, "back");
  assert.equal(await next(), "back");
});

test("a deleted directory is seen, and so is its return", async (t) => {
  const { directory, file, next } = await start(t);
  await rm(directory, { recursive: true });
  assert.equal(await next(), "(missing)");
  await mkdir(directory);
  await writeFile(file, "back");
  let text = await next();
  if (text === "(missing)") text = await next();
  assert.equal(text, "back");
  await writeFile(file, "again");
  assert.equal(await next(), "again");
});

test("a changed secret or certificate is seen, one that did not exist too", async (t) => {
  const { directory, next, seen } = await start(t, { others: ["certs/tls.crt", "secret"] });
  await writeFile(join(directory, "secret"), "s3cret");
  await next();
  await mkdir(join(directory, "certs"));
  await next();
  await writeFile(join(directory, "certs", "tls.crt"), "pem");
  await next();
  assert.deepEqual(new Set(seen), new Set(["one"]));
});

test("files that nobody named make no look", async (t) => {
  const { directory, seen, file, next } = await start(t);
  const before = seen.length;
  await writeFile(join(directory, "access.log"), "line");
  await delay(150);
  assert.equal(seen.length, before);
  await writeFile(file, "two");
  assert.equal(await next(), "two");
});

test("other paths can be watched instead", async (t) => {
  const { directory, file, next, replace, seen } = await start(t);
  const other = join(directory, "other");
  replace([other]);
  await next();
  const before = seen.length;
  await writeFile(file, "nobody looks");
  await delay(150);
  assert.equal(seen.length, before);
  await writeFile(other, "x");
  assert.equal(await next(), "nobody looks");
});

test("polling sees what no event tells: a directory whose parent is moved away", async (t) => {
  const { directory, next } = await start(t, {
    pollMs: 50,
    prepare: async (root) => {
      await mkdir(join(root, "a", "b"), { recursive: true });
      await writeFile(join(root, "a", "b", "real"), "one");
      await symlink("a/b/real", join(root, "sidegate.yaml"));
    },
  });
  await mkdir(join(directory, "c", "b"), { recursive: true });
  await writeFile(join(directory, "c", "b", "real"), "two");
  await rename(join(directory, "a"), join(directory, "old"));
  await rename(join(directory, "c"), join(directory, "a"));
  let text = await next();
  if (text === "(missing)") text = await next();
  assert.equal(text, "two");
  await writeFile(join(directory, "a", "b", "real"), "three");
  assert.equal(await next(), "three");
});

test("nothing is looked at after the end", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "sidegate-watch-"));
  t.after(() => rm(directory, { recursive: true }));
  let looks = 0;
  const watch = watchConfig({ paths: [join(directory, "x")], pollMs: 10, quietMs: 5, onChange: () => (looks += 1), onWarning: () => {} });
  await until(
    () => looks === 1,
    () => "no first look",
  );
  watch.close();
  await writeFile(join(directory, "x"), "y");
  await delay(100);
  assert.equal(looks, 1);
});

test("a file that is mounted by itself is found, with what to do", async (t) => {
  const directory = await mkdtemp(join(tmpdir(), "sidegate mount-"));
  t.after(() => rm(directory, { recursive: true }));
  const file = join(directory, "sidegate.yaml");
  const table = join(directory, "mountinfo");
  await writeFile(file, "");
  const row = (path: string): string => `36 35 98:0 /x ${path.replaceAll(" ", "\\040")} rw,noatime master:1 - ext4 /dev/root rw\n`;
  await writeFile(table, row("/") + row(directory));
  assert.equal(await explainFileMount(file, table), null);
  await writeFile(table, row("/") + row(file));
  assert.match((await explainFileMount(file, table)) ?? "", /mounted as a single file.*Mount its directory instead/);
  assert.equal(await explainFileMount(join(directory, "missing"), table), null);
});

/** A thousand files beside the configuration, which is more than are looked at together. */
async function startMany(t: TestContext): Promise<Watched & { readonly names: readonly string[] }> {
  const names = Array.from({ length: 1_000 }, (_, i) => `certs/${i}.crt`);
  const prepare = async (root: string): Promise<void> => {
    await mkdir(join(root, "certs"));
    await Promise.all(["sidegate.yaml", ...names].map((name) => writeFile(join(root, name), "one")));
  };
  return { ...(await start(t, { others: names, prepare })), names };
}

test("of a thousand files each change is seen by its event", async (t) => {
  const { directory, file, names, next } = await startMany(t);
  for (const name of [names[0], names[500], names[999]]) {
    await writeFile(join(directory, "new"), "two");
    await rename(join(directory, "new"), join(directory, name ?? ""));
    await next();
  }
  await writeFile(file, "two");
  assert.equal(await next(), "two");
});

test("of a thousand files all are polled in turn", async (t) => {
  const names = Array.from({ length: 1_000 }, (_, i) => `${i}.crt`);
  const { directory, next } = await start(t, {
    pollMs: 50,
    others: names.map((name) => join("a", "certs", name)),
    prepare: async (root) => {
      for (const place of ["a", "b"]) await mkdir(join(root, place, "certs"), { recursive: true });
      await Promise.all(["sidegate.yaml", ...names.map((name) => join("a", "certs", name))].map((name) => writeFile(join(root, name), "one")));
      // The same files but for one: a rename of the directory around them changes no other stamp, and makes no event.
      for (const name of names) {
        if (name === "777.crt") await writeFile(join(root, "b", "certs", name), "two");
        else await link(join(root, "a", "certs", name), join(root, "b", "certs", name));
      }
    },
  });
  await rename(join(directory, "a"), join(directory, "old"));
  await rename(join(directory, "b"), join(directory, "a"));
  await next();
});

test("of a thousand files those that are written one after the other are looked at once the last is", async (t) => {
  const { directory, file, seen, next } = await startMany(t);
  for (const name of ["certs/1.crt", "certs/2.crt", "certs/3.crt", "certs/4.crt", "certs/5.crt"]) {
    await writeFile(join(directory, name), "two");
    await delay(5);
  }
  await writeFile(file, "two");
  assert.equal(await next(), "two");
  assert.ok(!seen.slice(1).includes("one"), `looked too early: ${seen.join(", ")}`);
});

test("what was replaced by other paths makes no look, and what stayed does", async (t) => {
  const { directory, file, names, next, replace, seen } = await startMany(t);
  replace([file, ...names.slice(1).map((name) => join(directory, name))]);
  await next();
  const before = seen.length;
  await writeFile(join(directory, names[0] ?? ""), "nobody looks");
  await delay(150);
  assert.equal(seen.length, before);
  await writeFile(join(directory, names[1] ?? ""), "two");
  await next();
});

test("a name that no file can have is no reason to end", async (t) => {
  const { file, next, replace } = await start(t, { others: ["a\0b"] });
  replace([file, `${file}\0`]);
  await writeFile(file, "two");
  assert.equal(await next(), "two");
});

test("a directory that is named like a draft is watched", async (t) => {
  const { directory, next } = await start(t, {
    others: ["certs~/tls.crt"],
    prepare: async (root) => {
      await mkdir(join(root, "certs~"));
      await writeFile(join(root, "certs~", "tls.crt"), "one");
    },
  });
  await writeFile(join(directory, "certs~", "tls.crt"), "two");
  await next();
});

test("after a poll found a change, the files beside those that changed are seen by their events again", async (t) => {
  const pollMs = 2_000;
  const names = Array.from({ length: 300 }, (_, i) => `x/${i}.crt`);
  const { directory, next } = await start(t, {
    pollMs,
    others: names,
    prepare: async (root) => {
      for (const place of ["x", "a/l", "b/l"]) await mkdir(join(root, place), { recursive: true });
      await Promise.all(["x/real", "other", ...names].map((name) => writeFile(join(root, name), name === "other" ? "two" : "one")));
      await symlink("a/l/link", join(root, "sidegate.yaml"));
      await symlink("../../x/real", join(root, "a/l/link"));
      await symlink("../../other", join(root, "b/l/link"));
    },
  });
  await rename(join(directory, "a"), join(directory, "old"));
  await rename(join(directory, "b"), join(directory, "a"));
  let text = await next();
  if (text !== "two") text = await next();
  assert.equal(text, "two");
  const since = performance.now();
  await writeFile(join(directory, names[299] ?? ""), "two");
  await next();
  assert.ok(performance.now() - since < pollMs * 0.75, "only a poll saw it");
});
