// The house rules that a machine can check: who imports whom, file sizes, default exports, who touches the process.
import assert from "node:assert/strict";
import { globSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";

const ROOT = new URL("..", import.meta.url).pathname;
const HARD_LIMIT_LINES = 400;
const GENERATED = new Set(["src/config/types.ts", "src/config/validator.js"]);

// Imports go down this list, never up, and never sideways between places of one rung. A file at the top of src is a place of its own.
const RUNGS: readonly (readonly string[])[] = [
  ["main"],
  ["cli"],
  ["gateway"],
  ["listeners", "admin"],
  ["http", "tcp"],
  ["mcp"],
  ["authorization-server"],
  ["upstreams", "certificates", "identity", "tailscale"],
  ["state"],
  ["plan"],
  ["config"],
  ["telemetry"],
  ["lib"],
];

// Only the generated types of the configuration are below the plan; its loading is the business of the gateway and the commands.
const CONFIG_READERS = new Set(["gateway", "cli", "plan"]);

const files = globSync("src/**/*.{ts,js}", { cwd: ROOT });
const sources = files.filter((file) => !file.endsWith(".test.ts"));

function placeOf(file: string): string {
  const [, first = "", ...rest] = file.split("/");
  // gateway.ts and gateway-status.ts are one place.
  return rest.length === 0 ? first.replace(/(-\w+)?\.(ts|js)$/, "") : first;
}

function rungOf(place: string): number {
  return RUNGS.findIndex((rung) => rung.includes(place));
}

function importsOf(file: string): string[] {
  const text = readFileSync(join(ROOT, file), "utf8");
  const paths = [...text.matchAll(/^(?:import|export)\b[^;]*?from\s+"(\.[^"]+)"/gms), ...text.matchAll(/\bimport\("(\.[^"]+)"\)/g)].map(
    (match) => match[1] ?? "",
  );
  return paths.map((path) => normalize(join(dirname(file), path)));
}

test("imports go down the rungs", () => {
  const wrong: string[] = [];
  for (const file of sources.filter((name) => name !== "src/sidegate.js")) {
    const place = placeOf(file);
    assert.notEqual(rungOf(place), -1, `${file} is in no place that the architecture knows`);
    for (const target of importsOf(file)) {
      if (!target.startsWith("src/")) {
        // A command prints files that stand outside of src: they are read, not imported.
        wrong.push(`${file} -> ${target}`);
        continue;
      }
      const to = placeOf(target);
      if (to === place) continue;
      if (rungOf(to) <= rungOf(place)) wrong.push(`${file} -> ${target}`);
      if (to === "config" && (!CONFIG_READERS.has(place) || (place === "plan" && target !== "src/config/types.ts"))) wrong.push(`${file} -> ${target}`);
    }
  }
  assert.deepEqual(wrong, []);
});

test("imports have no cycles", () => {
  const done = new Set<string>();
  const visit = (file: string, path: string[]): void => {
    assert.ok(!path.includes(file), `Cycle: ${[...path, file].join(" -> ")}`);
    if (done.has(file)) return;
    for (const target of importsOf(file)) if (target.startsWith("src/")) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of sources) visit(file, []);
});

test("files are small, say what they own, and export by name", () => {
  const wrong: string[] = [];
  for (const file of sources) {
    const text = readFileSync(join(ROOT, file), "utf8");
    if (!GENERATED.has(file) && text.split("\n").length > HARD_LIMIT_LINES) wrong.push(`${file} is longer than ${HARD_LIMIT_LINES} lines`);
    if (!/^(#!.*\n)?(\/\/|\/\*)/.test(text)) wrong.push(`${file} does not begin with what it owns`);
    if (/^export default\b/m.test(text)) wrong.push(`${file} has a default export`);
    if (/^export\s+(\*|\{[^}]*\}\s+from)/m.test(text)) wrong.push(`${file} exports what another file owns`);
    if (/\/index\.ts$/.test(file)) wrong.push(`${file} is an index`);
  }
  assert.deepEqual(wrong, []);
});

test("only main.ts and the launcher touch the process", () => {
  const wrong = sources.filter(
    (file) =>
      !["src/main.ts", "src/sidegate.js"].includes(file) &&
      /(^|[^.\w])process\.(env|argv|exit|on|once|kill|stdout|stderr|stdin|cwd)\b/m.test(readFileSync(join(ROOT, file), "utf8")),
  );
  assert.deepEqual(wrong, []);
});

test("the top level is a closed list", () => {
  const known = new Set([
    "package.json",
    "package-lock.json",
    "tsconfig.json",
    "src",
    "schema",
    "examples",
    "Dockerfile",
    "compose",
    "test",
    "README.md",
    "CHANGELOG.md",
    "LICENSE",
    "node_modules",
  ]);
  const unknown = globSync("*", { cwd: ROOT }).filter((name) => !name.startsWith(".") && !known.has(name));
  assert.deepEqual(unknown, []);
});
