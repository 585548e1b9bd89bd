// The package that npm publishes, run from under node_modules, where Node.js itself strips no types.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readdir, readFile, realpath, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { promisify } from "node:util";
import { runSidegate } from "../components/command.ts";

const REPOSITORY = new URL("../..", import.meta.url).pathname;
const execute = promisify(execFile);
let dir = "";
let launcher = "";
let files: string[] = [];

// What the registry would install beside the package is linked from the checkout.
before(async () => {
  dir = await realpath(await mkdtemp(join(tmpdir(), "sidegate-package-")));
  const modules = join(dir, "node_modules");
  await mkdir(modules);
  const { stdout } = await execute("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", dir], { cwd: REPOSITORY });
  const [packed] = Object.values(JSON.parse(stdout) as Record<string, { filename: string; files: { path: string }[] }>);
  assert.ok(packed !== undefined, stdout);
  files = packed.files.map(({ path }) => path);
  await execute("tar", ["--extract", "--file", join(dir, packed.filename), "--directory", dir]);
  await rename(join(dir, "package"), join(modules, "sidegate"));
  for (const name of await readdir(join(REPOSITORY, "node_modules"))) {
    if (!name.startsWith(".") && name !== "sidegate") await symlink(join(REPOSITORY, "node_modules", name), join(modules, name));
  }
  const { bin } = JSON.parse(await readFile(join(modules, "sidegate", "package.json"), "utf8")) as { bin: { sidegate: string } };
  launcher = join(modules, "sidegate", bin.sidegate);
});
after(() => rm(dir, { recursive: true, force: true }));

test("the package holds what it needs and no tests", () => {
  for (const file of ["package.json", "LICENSE", "README.md", "src/sidegate.js", "src/main.ts", "schema/config.schema.json", "examples/mcp/sidegate.yaml"])
    assert.ok(files.includes(file), file);
  assert.deepEqual(
    files.filter((file) => file.includes(".test.") || file.startsWith("test/") || file.startsWith(".")),
    [],
  );
});

test("commands work from under node_modules, without a warning", async () => {
  const version = await runSidegate(["--version"], { cwd: dir, launcher });
  assert.match(version.stdout, /^sidegate \d+\.\d+\.\d+\n$/);
  assert.deepEqual([version.code, version.stderr], [0, ""]);
  const init = await runSidegate(["init", "ib-gateway"], { cwd: dir, launcher });
  assert.deepEqual([init.code, init.stderr], [0, ""]);
  const check = await runSidegate(["check", "sidegate.yaml"], { cwd: dir, launcher });
  assert.deepEqual(check, { code: 0, stdout: "sidegate.yaml is valid: 2 listeners, 0 routes, 2 upstreams\n", stderr: "" });
});
