import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";

const dir = mkdtempSync(join(tmpdir(), "sidegate-cli-"));
after(() => rmSync(dir, { recursive: true, force: true }));

function run(args: string[], env: Record<string, string> = {}, cwd = dir): Promise<CommandRun> {
  return runInProcess(args, cwd, { env });
}

test("help lists every command, and every command has help that exits with 0", async () => {
  const { code, stdout } = await run([]);
  assert.equal(code, 0);
  assert.equal((await run(["--help"])).stdout, stdout);
  const names = [...stdout.matchAll(/^ {2}([\w-]+) {2}/gm)].map((match) => match[1] ?? "");
  assert.deepEqual(names, ["run", "check", "health", "status", "certs", "auth", "tailnet", "reload", "init", "token", "hash-password", "schema", "version"]);
  for (const name of names) {
    const help = await run([name, "--help"]);
    assert.equal(help.code, 0, name);
    assert.match(help.stdout, new RegExp(`^sidegate ${name}: .*\n\nUsage: sidegate ${name}`));
    assert.doesNotMatch(help.stdout, /\$\{| $/m);
    assert.match(help.stdout, /Exit codes: 0 fine, 1 failed, 2 wrong usage, 64 bad configuration, 69 /);
    assert.equal((await run(["help", name])).stdout, help.stdout);
  }
});

test("the help of 'health' says that a degraded gateway is healthy", async () => {
  const { stdout } = await run(["health", "--help"]);
  assert.match(
    stdout,
    /prints one line: ready, or degraded or unready with what is unwell\.\nExit code 0 when it is ready or degraded, .*; 1 when it is unready /,
  );
});

test("wrong usage exits with 2 and names what was probably meant", async () => {
  assert.deepEqual(await run(["chekc"]), { code: 2, stdout: "", stderr: "Unknown command 'chekc'. Did you mean 'check'?\nRun 'sidegate help'.\n" });
  assert.deepEqual(await run(["health", "--timeot", "1s"]), {
    code: 2,
    stdout: "",
    stderr: "Unknown option '--timeot'. Did you mean '--timeout'?\nRun 'sidegate health --help'.\n",
  });
  assert.match((await run(["check", "a", "b"])).stderr, /^Unexpected argument 'b'\n/);
  assert.match((await run(["check", "--format", "xml"])).stderr, /^Unknown format 'xml'/);
  assert.match((await run(["health", "--timeout", "soon"])).stderr, /^'soon' is not a duration/);
  assert.match((await run(["token", "old"])).stderr, /^Unknown word 'old'/);
  assert.match((await run(["token", "new", "--name", "a b"])).stderr, /^'a b' of --name /);
  assert.match((await run(["certs", "lst"])).stderr, /^Unknown word 'lst'. Did you mean 'list'\?/);
  assert.match((await run(["tailnet", "netchek"])).stderr, /^Unknown word 'netchek'. Did you mean 'netcheck'\?/);
  assert.match((await run(["tailnet", "status", "a.yaml", "b"])).stderr, /^Unexpected argument 'b'/);
  assert.match((await run(["certs", "renew"])).stderr, /^'certs renew' needs a name/);
  assert.match((await run(["certs", "list", "a.yaml", "b"])).stderr, /^Unexpected argument 'b'/);
  assert.match((await run(["init", "mpc"])).stderr, /^Unknown starter 'mpc'. Did you mean 'mcp'\?/);
  for (const name of ["__proto__", "constructor", "toString"]) assert.equal((await run([name])).code, 2);
});

test("'version' and '--version' print the version of the package", async () => {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  assert.equal((await run(["version"])).stdout, `sidegate ${version}\n`);
  assert.equal((await run(["--version"])).stdout, `sidegate ${version}\n`);
});

test("'schema' prints the schema as it is in the package", async () => {
  assert.equal((await run(["schema"])).stdout, readFileSync(new URL("../../schema/config.schema.json", import.meta.url), "utf8"));
});

test("'token new' prints a fresh token of 256 bits and the line with its hash", async () => {
  const { stdout } = await run(["token", "new", "--name", "ci", "--scope", "mcp", "--scope", "mcp:write"]);
  const token = /sgt_[A-Za-z0-9_-]{43}/.exec(stdout)?.[0] ?? "";
  const hash = createHash("sha256").update(token).digest("hex");
  assert.ok(stdout.includes(`  - { name: ci, sha256: "${hash}", scopes: [mcp, "mcp:write"] }\n`), stdout);
  assert.equal(stdout.split(token).length, 2);
  assert.notEqual((await run(["token", "new"])).stdout, (await run(["token", "new"])).stdout);
  const json = JSON.parse((await run(["token", "new", "--json"])).stdout) as { token: string; sha256: string; name: string; scopes: string[] };
  assert.equal(json.sha256, createHash("sha256").update(json.token).digest("hex"));
  assert.deepEqual([json.name, json.scopes], ["me", []]);
});

for (const kind of ["mcp", "mcp-oauth", "ib-gateway", "behind-proxy"]) {
  test(`'init ${kind}' writes a file that 'check' finds valid, with the schema beside it`, async () => {
    const file = `${kind}/sidegate.yaml`;
    const { code, stdout } = await run(["init", kind, "--output", file]);
    assert.equal(code, 0);
    assert.match(stdout, new RegExp(`^Wrote ${file}`));
    const text = readFileSync(join(dir, file), "utf8");
    assert.match(text, /^# yaml-language-server: \$schema=\.\/sidegate\.schema\.json\n/);
    assert.ok(existsSync(join(dir, kind, "sidegate.schema.json")));
    const checked = await run(["check", file], { MCP_TOKEN_SHA256: "0".repeat(64), GITHUB_CLIENT_ID: "x", GITHUB_CLIENT_SECRET: "x" });
    assert.equal(checked.stderr, "");
    assert.match(checked.stdout, /^sidegate\.yaml is valid: \d listeners?, \d routes?, \d upstreams?\n$/);
    // An editor's language server finds the schema of the example in the repository, too.
    const example = readFileSync(new URL(`../../examples/${kind}/sidegate.yaml`, import.meta.url), "utf8");
    assert.match(example, /^# yaml-language-server: \$schema=\.\.\/\.\.\/schema\/config\.schema\.json\n/);
    assert.equal((await run(["init", kind, "--output", "-"])).stdout, text);
  });
}

test("'init' overwrites nothing unless --force says so", async () => {
  const file = join(dir, "mine.yaml");
  writeFileSync(file, "mine");
  const { code, stderr } = await run(["init", "--output", "mine.yaml"]);
  assert.equal(code, 1);
  assert.equal(stderr, `'${file}' is already there; --force overwrites it\n`);
  assert.equal(readFileSync(file, "utf8"), "mine");
  assert.equal((await run(["init", "--output", "mine.yaml", "--force"])).code, 0);
  assert.notEqual(readFileSync(file, "utf8"), "mine");
  assert.match((await run(["init", "--output", "mine.yaml/x/y.yaml"])).stderr, /^Cannot write '.*\/mine\.yaml\/x\/y\.yaml': /);
});

test("'init' prints paths that work from where it ran, and says what to do where it may not write", async () => {
  const elsewhere = join(dir, "elsewhere");
  mkdirSync(join(dir, "here"));
  const { stdout } = await run(["init", "--output", join(elsewhere, "sidegate.yaml")], {}, join(dir, "here"));
  assert.ok(stdout.includes(`  sidegate run ${elsewhere}/sidegate.yaml\n`), stdout);
  assert.doesNotMatch(stdout, /\.\.\//);
  const locked = join(dir, "locked");
  mkdirSync(locked);
  chmodSync(locked, 0o555);
  chmodSync(dir, 0o755);
  const uid = process.geteuid?.();
  // Root may write everywhere.
  if (uid === 0) process.seteuid?.(65_532);
  try {
    const { code, stderr } = await run(["init", "ib-gateway"], {}, locked);
    assert.deepEqual([code, stderr], [1, `Cannot write '${locked}/sidegate.yaml': permission denied; 'sidegate init ib-gateway --output -' prints it\n`]);
  } finally {
    if (uid === 0) process.seteuid?.(0);
  }
});

test("'check' exits with 64 and tells all problems with their places, as text or JSON", async () => {
  writeFileSync(join(dir, "bad.yaml"), "version: 1\nlisteners:\n  web:\n    protocol: http\n    lisen: ':8080'\n");
  const text = await run(["check", "bad.yaml"]);
  assert.equal(text.code, 64);
  assert.equal(text.stdout, "");
  assert.match(text.stderr, /bad\.yaml:5:5: .*'lisen'.*'listen'/);
  const json = await run(["check", "--format", "json"], { SIDEGATE_CONFIG: "bad.yaml" });
  assert.equal(json.code, 64);
  const answer = JSON.parse(json.stdout) as { valid: boolean; file: string; problems: { line: number; message: string }[] };
  assert.deepEqual([answer.valid, answer.file, answer.problems.some(({ line }) => line === 5)], [false, join(dir, "bad.yaml"), true]);
  const missing = await run(["check", "nowhere.yaml"]);
  assert.equal(missing.code, 64);
  assert.match(missing.stderr, /nowhere\.yaml: Cannot read the configuration: no such file or directory/);
});

test("a gateway that is not there is said in one sentence, with the address that the file names", async () => {
  const socket = join(dir, "admin.sock");
  writeFileSync(join(dir, "admin.yaml"), "version: 1\nadmin: { listen: 'unix:${ADMIN_SOCKET}' }\n");
  for (const args of [
    ["health", "admin.yaml"],
    ["status", "admin.yaml"],
    ["reload", "admin.yaml"],
    ["certs", "admin.yaml"],
    ["certs", "renew", "a.example", "admin.yaml"],
    ["tailnet", "admin.yaml"],
    ["tailnet", "netcheck", "admin.yaml"],
    ["tailnet", "logout", "admin.yaml"],
    ["auth", "admin.yaml"],
    ["auth", "clients", "admin.yaml"],
    ["auth", "revoke", "--all", "admin.yaml"],
  ]) {
    const { code, stdout, stderr } = await run(args, { ADMIN_SOCKET: socket });
    assert.deepEqual([code, stdout, stderr], [1, "", `No gateway answers on unix:${socket} (no such file or directory); is it running?\n`]);
  }
});
