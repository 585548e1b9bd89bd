import assert from "node:assert/strict";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { formatProblems, formatWarnings } from "./format-problems.ts";
import type { Env } from "./interpolate.ts";
import { type LoadedConfig, loadConfig } from "./load.ts";
import type { Tailscale } from "./types.ts";

const LISTENER = "listeners: { live: { protocol: tcp, listen: tailnet:4003, upstream: 127.0.0.1:4001 } }\n";

async function load(t: TestContext, env: Env, section = "", files: Readonly<Record<string, string>> = {}): Promise<LoadedConfig> {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-tailnet-"));
  t.after(() => rm(dir, { recursive: true }));
  for (const [name, text] of Object.entries(files)) await writeFile(join(dir, name), text);
  await writeFile(join(dir, "sidegate.yaml"), `version: 1\n${section}${LISTENER}`);
  return loadConfig(join(dir, "sidegate.yaml"), env);
}

async function section(t: TestContext, env: Env, text = "", files: Readonly<Record<string, string>> = {}): Promise<Tailscale> {
  const loaded = await load(t, env, text, files);
  assert.ok(loaded.ok, loaded.ok ? "" : formatProblems(loaded.problems, loaded.source));
  assert.ok(loaded.config.tailscale !== undefined);
  return loaded.config.tailscale;
}

test("the newer name of a variable comes before the older one, both before a flag, and an empty one is none", async (t) => {
  const keys = { TS_AUTHKEY: "a1", TS_AUTH_KEY: "a2", TAILSCALE_AUTHKEY: "a3", TS_EXTRA_ARGS: "--auth-key=a4" };
  assert.equal((await section(t, keys)).auth_key, "a1");
  assert.equal((await section(t, { ...keys, TS_AUTHKEY: "" })).auth_key, "a2");
  assert.equal((await section(t, { ...keys, TS_AUTHKEY: " \n", TS_AUTH_KEY: "" })).auth_key, "a3");
  assert.equal((await section(t, { ...keys, TS_AUTHKEY: "", TS_AUTH_KEY: "", TAILSCALE_AUTHKEY: undefined })).auth_key, "a4");
  assert.equal((await section(t, {})).auth_key, undefined);
  assert.equal((await section(t, { TS_EXTRA_ARGS: "--hostname=a --hostname b --hostname=" })).hostname, "b");
});

test("what the file says stays, whatever the environment says", async (t) => {
  const env = { TS_AUTHKEY: "env", TS_HOSTNAME: "env", TAILSCALE_TAGS: "tag:env", TS_EXTRA_ARGS: "--accept-dns --accept-routes", TS_STATE_DIR: "/env" };
  const written = await section(t, env, "tailscale: { auth_key_file: key, hostname: own, tags: [tag:own], accept_dns: false, state_dir: /own }\n", {
    key: "file\n",
  });
  assert.deepEqual(
    [written.auth_key, written.hostname, written.tags, written.accept_dns, written.state_dir, written.extra_args],
    ["file", "own", ["tag:own"], false, "/own", ["--accept-routes=true"]],
  );
});

test("a key of the file that is an empty variable is none", async (t) => {
  const text = `tailscale: { auth_key: "\${KEY:-}" }\n`;
  assert.equal((await section(t, { KEY: "" }, text)).auth_key, undefined);
  assert.equal((await section(t, { KEY: "own", TS_AUTHKEY: "env" }, text)).auth_key, "own");
  assert.equal((await section(t, { TS_AUTHKEY: "env" }, text)).auth_key, "env");
  assert.equal((await section(t, {}, 'tailscale: { auth_key: "${KEY:-}", auth_key_file: key }\n', { key: "file" })).auth_key, "file");
  const empty = await load(t, { TS_AUTHKEY: "env" }, 'tailscale: { auth_key: "" }\n');
  assert.ok(!empty.ok);
  assert.match(formatProblems(empty.problems, empty.source), /An auth key is not empty; without 'auth_key'/);
});

test("arguments are split as a shell does", async (t) => {
  const routes = async (text: string): Promise<string[]> => (await section(t, { TS_EXTRA_ARGS: text })).extra_args;
  assert.deepEqual(await routes("  --accept-routes\t--operator='tra'\"der\" \n"), ["--accept-routes=true", "--operator=trader"]);
  assert.deepEqual(await routes(String.raw`"--operator=tra\der" --advertise-routes=10.0.0.0/24\,10.1.0.0/24`.replace(String.raw`\d`, "d")), [
    "--operator=trader",
    "--advertise-routes=10.0.0.0/24,10.1.0.0/24",
  ]);
  assert.deepEqual(await routes("--exit-node ''"), ["--exit-node="]);
  for (const text of ["--operator='x", '--operator="x', `--operator="x'`]) {
    const loaded = await load(t, { TS_EXTRA_ARGS: text });
    assert.ok(!loaded.ok);
    assert.match(formatProblems(loaded.problems, loaded.source), /'TS_EXTRA_ARGS' has a quote that is never closed/, text);
  }
});

test("a socket of the environment counts where nothing else speaks of a tailscaled of our own", async (t) => {
  const socket = { TS_SOCKET: "/tmp/tailscaled.sock" };
  assert.equal((await section(t, socket)).socket, "/tmp/tailscaled.sock");
  assert.equal((await section(t, socket, "tailscale: { seal: true, tun: false, tags: [] }\n")).socket, "/tmp/tailscaled.sock");
  for (const said of ["hostname: a", "auth_key: a", "tags: [tag:a]", "tun: true", "ephemeral: true", "state_dir: a", "control_url: https://a"])
    assert.equal((await section(t, socket, `tailscale: { ${said} }\n`)).socket, undefined, said);
  const both = await load(t, { ...socket, TS_AUTHKEY: "hush" });
  assert.ok(both.ok);
  assert.deepEqual([both.config.tailscale?.socket, both.config.tailscale?.auth_key], [undefined, "hush"]);
  assert.match(formatWarnings(both.warnings, both.source), /'TS_SOCKET' is not used: environment variable 'TS_AUTHKEY' speaks of/);
  const given = await section(t, { TS_AUTHKEY: "hush", TS_SOCKET: "/not/this" }, "tailscale: { socket: /run/t.sock }\n");
  assert.deepEqual([given.socket, given.auth_key], ["/run/t.sock", undefined]);
});

test("the digest knows what came of the environment, and nothing of what was not taken", async (t) => {
  const digest = async (env: Env): Promise<string> => {
    const loaded = await load(t, env, "tailscale: { hostname: a }\n");
    assert.ok(loaded.ok);
    return loaded.digest;
  };
  const before = await digest({});
  assert.notEqual(await digest({ TS_AUTHKEY: "a" }), before);
  assert.notEqual(await digest({ TS_EXTRA_ARGS: "--accept-routes" }), before);
  assert.equal(await digest({ TS_HOSTNAME: "b", TS_EXTRA_ARGS: "--hostname=c --reset", TS_AUTHKEY: "" }), before);
});

test("no key is told, wherever it stands", async (t) => {
  const told = async (env: Env, text = ""): Promise<string> => {
    const loaded = await load(t, env, text);
    return loaded.ok ? formatWarnings(loaded.warnings, loaded.source) : formatProblems(loaded.problems, loaded.source);
  };
  const key = "tskey-auth-kHush";
  for (const env of [
    { TS_AUTHKEY: `${key} Hush` },
    { TS_AUTHKEY: `"${key}"` },
    { TS_HOSTNAME: key },
    { TS_STATE_DIR: key },
    { TS_SOCKET: key },
    { TAILSCALE_TAGS: key },
    { TS_EXTRA_ARGS: `--login-server=${key}` },
    { TS_EXTRA_ARGS: `--frob=${key} ${key} --auth-key='${key} Hush'` },
    { TS_EXTRA_ARGS: `--timeout ${key}` },
  ]) {
    const text = await told(env);
    assert.notEqual(text, "", JSON.stringify(env));
    assert.doesNotMatch(text, /hush/i, JSON.stringify(env));
  }
  for (const text of [
    `hostname: ${key}`,
    `auth_key: two Hush`,
    `auth_key: [Hush]`,
    `authkey: Hush`,
    `extra_args: [--auth-key=Hush, --authkey, Hush, "--auth-key Hush", -auth-key=Hush]`,
    `extra_args: --auth-key=Hush`,
    `extra_args: [${key}, --operator=${key}, -${key}]`,
    `tags: [${key}]`,
    `socket: ${key}`,
    `state_dir: ${key}, tags: tag:${key}`,
    `control_url: https://${key}@a`,
  ]) {
    const found = await told({}, `tailscale: { ${text} }\n`);
    assert.notEqual(found, "", text);
    assert.doesNotMatch(found, /hush/i, text);
  }
});

test("a file that is wrong all over is no exception", async (t) => {
  const env = { TS_AUTHKEY: "a", TS_SOCKET: "/a", TS_EXTRA_ARGS: "--accept-routes" };
  for (const text of [
    "tailscale: null",
    "tailscale: []",
    "tailscale: yes",
    "tailscale: { tags: null, extra_args: {}, socket: 1 }",
    "tailscale: { hostname: [] }",
  ]) {
    const loaded = await load(t, env, `${text}\n`);
    assert.ok(!loaded.ok, text);
  }
  for (const text of [
    "trusted_proxies: null",
    "routes: [null, { auth: [null] }, { auth: null }, { auth: [{ tailnet: null }, { tailnet: { users: null } }] }, 1]",
    "tls: { tailscale: 1 }",
    "upstreams: { a: null, b: { targets: null }, c: [] }",
  ]) {
    const loaded = await load(t, env, `${text}\n`);
    assert.ok(!loaded.ok, text);
  }
});
