// Every NAME.yaml here has the plan (NAME.plan.json), or the exact problems (NAME.problems.txt) that come of it,
// and the warnings (NAME.warnings.txt) if there are any. UPDATE_GOLDEN=1 writes them anew.
// Lines `# env NAME=value` of a file are its environment; CERTS is the directory of the certificates that certificates.ts makes. It is always NOW.
import assert from "node:assert/strict";
import { readFile, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, test } from "node:test";
import { formatProblems, formatWarnings } from "../../src/config/format-problems.ts";
import { loadConfig } from "../../src/config/load.ts";
import { AddressSet } from "../../src/lib/address.ts";
import { buildPlan } from "../../src/plan/build.ts";
import type { Plan } from "../../src/plan/model.ts";
import { NOW, makeCertificates } from "./certificates.ts";

const DIRECTORY = import.meta.dirname;
const ENDING = /\.(?:plan\.json|warnings\.txt|problems\.txt)$/;
const isUpdate = process.env["UPDATE_GOLDEN"] === "1";

function readEnv(text: string): Record<string, string> {
  return Object.fromEntries(Array.from(text.matchAll(/^# env ([A-Z_]+)=(.*)$/gm), ([, name = "", value = ""]) => [name, value]));
}

/** The plan as JSON: sets as lists, maps as objects, hashes as hexadecimal digits, PEM by its first line, secrets not at all. Keys of upstreams, protocols, issuers and servers are left out, as they are hashes. */
function renderPlan(plan: Plan): string {
  const render = (key: string, value: unknown): unknown => {
    if (["hmacKey", "apiToken"].includes(key) || (["secret", "authKey", "clientSecret"].includes(key) && value !== null)) return "(secret)";
    if (key === "protocol" && typeof value === "object") return { ...value, key: undefined };
    if (value instanceof Map) return Object.fromEntries(value);
    if (value instanceof Set) return [...value];
    if (value instanceof AddressSet) return value.networks;
    if (typeof value === "string" && value.startsWith("-----BEGIN")) return `(${value.split("\n")[0]?.replaceAll("-----", "")})`;
    return value;
  };
  const upstreams = new Map(Array.from(plan.upstreams, ([name, { key: _key, ...rest }]) => [name, rest]));
  const withoutKey = <T extends { readonly key: string }>({ key: _key, ...rest }: T): Omit<T, "key"> => rest;
  const issuers = plan.issuers.map(withoutKey);
  const authorizationServers = plan.authorizationServers.map(withoutKey);
  const tokens = plan.tokens.map((token) => ({ ...token, sha256: token.sha256.toString("hex") }));
  return `${JSON.stringify({ ...plan, tokens, issuers, authorizationServers, upstreams }, render, 2)}\n`;
}

/** The texts of the golden files, by the end of their names; null for those that must not be there. */
async function outcome(file: string, certs: string): Promise<Record<string, string | null>> {
  const path = join(DIRECTORY, file);
  const loaded = await loadConfig(path, { CERTS: certs, ...readEnv(await readFile(path, "latin1")) }, NOW.getTime());
  const plain = (text: string): string => text.replaceAll(path, file).replaceAll(DIRECTORY, "/config").replaceAll(certs, "/certs");
  const warnings = loaded.warnings.length === 0 ? null : plain(formatWarnings(loaded.warnings, loaded.source));
  if (!loaded.ok) return { "plan.json": null, "warnings.txt": warnings, "problems.txt": plain(formatProblems(loaded.problems, loaded.source)) };
  return { "plan.json": plain(renderPlan(buildPlan(loaded.config, loaded.files))), "warnings.txt": warnings, "problems.txt": null };
}

const names = await readdir(DIRECTORY);
const cases = names.filter((name) => name.endsWith(".yaml"));

const made = await makeCertificates();
after(() => made[Symbol.asyncDispose]());

for (const file of cases) {
  test(`${file} gives its plan and its warnings, or its problems`, async () => {
    for (const [ending, text] of Object.entries(await outcome(file, made.directory))) {
      const golden = file.replace(/yaml$/, ending);
      if (isUpdate && text !== null) await writeFile(join(DIRECTORY, golden), text);
      if (isUpdate && text === null) await rm(join(DIRECTORY, golden), { force: true });
      assert.equal(text, await readFile(join(DIRECTORY, golden), "utf8").catch(() => null), golden);
    }
  });
}

test("every golden file belongs to a configuration", () => {
  const orphans = names.filter((name) => ENDING.test(name) && !cases.includes(name.replace(ENDING, ".yaml")));
  assert.deepEqual(orphans, []);
});

test("no problem and no warning tells a secret of its configuration", async () => {
  for (const name of names.filter((candidate) => candidate.endsWith(".txt")))
    assert.doesNotMatch(await readFile(join(DIRECTORY, name), "utf8"), /s3cre?3?t/, name);
});
