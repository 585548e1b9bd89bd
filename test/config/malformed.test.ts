// Whatever stands in the file, the loader says what is wrong with it and never throws; what it takes makes a plan.
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parse, stringify } from "yaml";
import { loadConfig } from "../../src/config/load.ts";
import { buildPlan } from "../../src/plan/build.ts";

type Place = readonly (string | number)[];

const VALUES: readonly unknown[] = [null, "x", {}, [{}], undefined];

/** The places of all values below the top. */
function places(value: unknown, path: Place = []): Place[] {
  if (typeof value !== "object" || value === null) return [path];
  const below = Object.entries(value).flatMap(([key, child]) => places(child, [...path, Array.isArray(value) ? Number(key) : key]));
  return path.length === 0 ? below : [path, ...below];
}

/** A copy in which another value stands at the place; undefined takes the place away. */
function changed(root: unknown, path: Place, value: unknown): unknown {
  const copy = structuredClone(root);
  let holder = copy as Record<string | number, unknown>;
  for (const step of path.slice(0, -1)) holder = holder[step] as Record<string | number, unknown>;
  const last = path.at(-1) ?? "";
  if (value !== undefined) holder[last] = value;
  else if (Array.isArray(holder)) holder.splice(Number(last), 1);
  else delete holder[last];
  return copy;
}

test("each value of a file with all of OAuth may be of any kind: what is wrong is told, what is taken makes a plan", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-malformed-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  await cp(join(import.meta.dirname, "files"), join(dir, "files"), { recursive: true });
  const base: unknown = parse(await readFile(join(import.meta.dirname, "auth-everything.yaml"), "utf8"));
  const file = join(dir, "sidegate.yaml");
  let valid = 0;
  for (const path of places(base).filter(([top]) => ["auth", "listeners", "routes"].includes(String(top)))) {
    for (const value of VALUES) {
      await writeFile(file, stringify(changed(base, path, value)));
      const what = `${path.join(".")} = ${JSON.stringify(value)}`;
      const loaded = await loadConfig(file, { GITHUB_CLIENT_ID: "x" }).catch((error: unknown) => assert.fail(`${what}: ${String(error)}`));
      if (!loaded.ok) assert.ok(loaded.problems.length > 0, what);
      else assert.doesNotThrow(() => buildPlan(loaded.config, loaded.files), what);
      if (loaded.ok) valid += 1;
    }
  }
  // Most changes are wrong, and some are not: both ways are looked at.
  assert.ok(valid > 50, String(valid));
});
