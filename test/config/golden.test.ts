// Every NAME.yaml here has the plan (NAME.plan.json) or the exact problems (NAME.problems.txt) that come of it. UPDATE_GOLDEN=1 writes them anew.
// Lines `# env NAME=value` of a file are its environment.
import assert from "node:assert/strict";
import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { formatProblems } from "../../src/config/format-problems.ts";
import { loadConfig } from "../../src/config/load.ts";
import { AddressSet } from "../../src/lib/address.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan } from "../../src/plan/model.ts";

const DIRECTORY = import.meta.dirname;
const isUpdate = process.env["UPDATE_GOLDEN"] === "1";

function readEnv(text: string): Record<string, string> {
  return Object.fromEntries(Array.from(text.matchAll(/^# env ([A-Z_]+)=(.*)$/gm), ([, name = "", value = ""]) => [name, value]));
}

/** The plan as JSON: sets as lists, maps as objects, hashes as hexadecimal digits, PEM by its first line. Keys of upstreams are left out, as they are hashes. */
function renderPlan(plan: Plan): string {
  const render = (_key: string, value: unknown): unknown => {
    if (value instanceof Map) return Object.fromEntries(value);
    if (value instanceof Set) return [...value];
    if (value instanceof AddressSet) return value.networks;
    if (typeof value === "string" && value.startsWith("-----BEGIN")) return `(${value.split("\n")[0]?.replaceAll("-----", "")})`;
    return value;
  };
  const upstreams = new Map(Array.from(plan.upstreams, ([name, { key: _key, ...rest }]) => [name, rest]));
  const tokens = plan.tokens.map((token) => ({ ...token, sha256: token.sha256.toString("hex") }));
  return `${JSON.stringify({ ...plan, tokens, upstreams }, render, 2)}\n`;
}

async function outcome(file: string): Promise<{ readonly golden: string; readonly text: string }> {
  const path = join(DIRECTORY, file);
  const name = file.replace(/\.yaml$/, "");
  const loaded = await loadConfig(path, readEnv(await readFile(path, "latin1")));
  const plain = (text: string): string => text.replaceAll(path, file).replaceAll(DIRECTORY, "/config");
  if (!loaded.ok) return { golden: `${name}.problems.txt`, text: plain(formatProblems(loaded.problems, loaded.source)) };
  return { golden: `${name}.plan.json`, text: plain(renderPlan(buildPlan(loaded.config, loaded.files))) };
}

const names = await readdir(DIRECTORY);
const cases = names.filter((name) => name.endsWith(".yaml"));

for (const file of cases) {
  test(`${file} gives its plan or its problems`, async () => {
    const { golden, text } = await outcome(file);
    const other = golden.endsWith(".json") ? golden.replace(/plan\.json$/, "problems.txt") : golden.replace(/problems\.txt$/, "plan.json");
    if (isUpdate) {
      await writeFile(join(DIRECTORY, golden), text);
      await rm(join(DIRECTORY, other), { force: true });
    }
    assert.equal(text, await readFile(join(DIRECTORY, golden), "utf8").catch(() => "(there is no golden file)"));
    assert.ok(isUpdate || !names.includes(other), `${other} is there too`);
  });
}

test("every golden file belongs to a configuration", () => {
  const orphans = names.filter((name) => /\.(?:plan\.json|problems\.txt)$/.test(name) && !cases.includes(name.replace(/\.(?:plan\.json|problems\.txt)$/, ".yaml")));
  assert.deepEqual(orphans, []);
});
