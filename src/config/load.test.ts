import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { cp, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type TestContext, test } from "node:test";
import { buildPlan } from "../plan/build.ts";
import { formatProblems, formatWarnings } from "./format-problems.ts";
import { type LoadedConfig, loadConfig } from "./load.ts";

const HASH = "6ca13d52ca70c883e0f0bb101e425a89e8624de51db2d2392593af6a84118090";
const MINIMAL = "version: 1\nlisteners:\n  web: { protocol: http, listen: 127.0.0.1:8080 }\n";
const FILES = join(import.meta.dirname, "../../test/config/files");

async function directory(t: TestContext): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), "sidegate-load-"));
  t.after(() => rm(path, { recursive: true }));
  return path;
}

function problems(loaded: LoadedConfig): string {
  assert.ok(!loaded.ok, "there are no problems");
  return formatProblems(loaded.problems, loaded.source);
}

function digest(loaded: LoadedConfig): string {
  assert.ok(loaded.ok, loaded.ok ? "" : formatProblems(loaded.problems, loaded.source));
  return loaded.digest;
}

test("what is not a readable text of at most 1 MiB is one problem", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  assert.equal(
    problems(await loadConfig(file, {})),
    `${file}: Cannot read the configuration: no such file or directory; 'sidegate init' writes one; in a container mount its directory at /etc/sidegate\n`,
  );
  await writeFile(join(dir, "other.yml"), MINIMAL);
  assert.match(problems(await loadConfig(join(dir, "other.yaml"), {})), /no such file or directory; there is '.*\/other\.yml': name that one, or rename it\n$/);
  assert.equal(problems(await loadConfig(dir, {})), `${dir}: Cannot read the configuration: it is a directory\n`);
  assert.match(problems(await loadConfig("/dev/zero", {})), /it is not a regular file/);
  await writeFile(file, `${MINIMAL}#${"x".repeat(1024 * 1024)}`);
  assert.equal(problems(await loadConfig(file, {})), `${file}: Cannot read the configuration: it is larger than 1 MiB\n`);
  await writeFile(file, MINIMAL + "#".repeat(1024 * 1024 - MINIMAL.length));
  digest(await loadConfig(file, {}));
  const failed = await loadConfig(join(dir, "none.yaml"), {});
  assert.deepEqual(failed.paths, [join(dir, "none.yaml")]);
});

test("a file that may not be read is told with the user who tried", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  await writeFile(file, MINIMAL, { mode: 0o000 });
  const uid = process.geteuid?.();
  // Root may read everything.
  if (uid === 0) process.seteuid?.(65_532);
  try {
    assert.equal(
      problems(await loadConfig(file, {})),
      `${file}: Cannot read the configuration: permission denied (it is read as uid ${uid === 0 ? 65_532 : uid})\n`,
    );
  } finally {
    if (uid === 0) process.seteuid?.(0);
  }
});

test("the digest changes with what is said and with the files, and with nothing else", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  await cp(FILES, join(dir, "files"), { recursive: true });
  const text = `version: 1
listeners: { web: { protocol: http, listen: 127.0.0.1:8443, tls: { cert_file: files/mcp.crt, key_file: files/mcp.key } } }
upstreams: { app: { targets: ["http://127.0.0.1:1"], authorization_file: files/authorization } }
routes: [{ upstream: app, auth: none, set_headers: { X-A: "\${A}" } }]
`;
  await writeFile(file, text);
  const first = await loadConfig(file, { A: "1" });
  const before = digest(first);
  assert.deepEqual(new Set(first.paths), new Set([file, join(dir, "files/mcp.crt"), join(dir, "files/mcp.key"), join(dir, "files/authorization")]));
  await writeFile(file, `# a comment\n${text}`);
  assert.equal(digest(await loadConfig(file, { A: "1" })), before);
  assert.notEqual(digest(await loadConfig(file, { A: "2" })), before);
  await writeFile(join(dir, "files/authorization"), "Bearer other");
  const other = digest(await loadConfig(file, { A: "1" }));
  assert.notEqual(other, before);
  await cp(join(FILES, "mcp-chain.crt"), join(dir, "files/mcp.crt"));
  assert.notEqual(digest(await loadConfig(file, { A: "1" })), other);
});

test("every file of auth is watched, its path is absolute, and a change of it is a change of the configuration", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  await cp(FILES, join(dir, "files"), { recursive: true });
  await writeFile(
    file,
    `version: 1
listeners: { web: { protocol: http, listen: 127.0.0.1:8443 } }
auth:
  login:
    github: { client_id: x, client_secret_file: files/github-secret, ca_file: files/ca.crt }
    password: { users_file: files/users }
  issuers: { corp: { issuer: https://login.example.com/, audience: x, ca_file: files/docs.crt } }
  clients:
    - { id: a, secret_file: files/client-secret }
    - { id: b, jwks_file: files/client.jwks.json }
routes: [{ host: a.example.com, upstream: "http://127.0.0.1:1", auth: [{ oauth: { allow: { users: [alice] } } }, { issuer: { name: corp } }] }]
`,
  );
  const loaded = await loadConfig(file, {});
  assert.ok(loaded.ok);
  const names = ["github-secret", "ca.crt", "users", "docs.crt", "client-secret", "client.jwks.json"];
  assert.deepEqual(new Set(loaded.paths), new Set([file, ...names.map((name) => join(dir, "files", name))]));
  const { issuers, login, clients } = loaded.config.auth;
  const paths = [login.github?.ca_file, login.password?.users_file, issuers["corp"]?.ca_file, clients[1]?.jwks_file];
  assert.deepEqual(
    paths,
    ["ca.crt", "users", "docs.crt", "client.jwks.json"].map((name) => join(dir, "files", name)),
  );
  assert.deepEqual([...loaded.files.keys()].toSorted(), paths.toSorted());
  let before = loaded.digest;
  for (const [name, content] of [
    ["users", "alice:$scrypt$ln=17,r=8,p=1$c2FsdHNhbHRzYWx0c2FsdA$kq4Wm1mQz2mW0n9m3cG1o0k1b2c3d4e5f6g7h8i9j0k:staff\n"],
    ["github-secret", "another"],
    ["client-secret", "x".repeat(32)],
  ] as const) {
    await writeFile(join(dir, "files", name), content);
    const after = digest(await loadConfig(file, {}));
    assert.notEqual(after, before, name);
    before = after;
  }
});

test("every file of TLS is watched, and its path is absolute in the configuration", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  await cp(FILES, join(dir, "files"), { recursive: true });
  await writeFile(join(dir, "files/token"), "abc");
  await writeFile(
    file,
    `version: 1
alerts: { webhook: { url_file: files/webhook-url, secret_file: files/token } }
listeners:
  web:
    protocol: http
    listen: 127.0.0.1:443
    tls:
      client_auth: require
      ca_file: files/ca.crt
      acme:
        ca_file: files/docs.crt
        domains: [a.example.com]
        dns: { provider: cloudflare, api_token_file: files/token-itself }
        eab: { kid: k, hmac_key_file: files/token-itself }
upstreams:
  app: { targets: ["https://127.0.0.1:1"], cert_file: files/mcp.crt, key_file: files/mcp.key, ca_file: files/mcp-chain.crt }
`,
  );
  const loaded = await loadConfig(file, {});
  assert.ok(loaded.ok, loaded.ok ? "" : formatProblems(loaded.problems, loaded.source));
  const at = (name: string): string => join(dir, "files", name);
  const texts = ["ca.crt", "docs.crt", "mcp.crt", "mcp.key", "mcp-chain.crt"].map(at);
  assert.deepEqual(new Set(loaded.paths), new Set([file, ...texts, ...["webhook-url", "token", "token-itself"].map(at)]));
  assert.deepEqual(new Set(loaded.files.keys()), new Set(texts));
  const { web } = loaded.config.listeners;
  assert.deepEqual([web?.tls?.ca_file, web?.tls?.acme?.ca_file], [at("ca.crt"), at("docs.crt")]);
  // The file of a secret is gone: it may move without any change.
  assert.deepEqual(loaded.config.alerts?.webhook, { __proto__: null, url: "https://hooks.example.net/services/T000/B000", secret: "abc" });
  const { app } = loaded.config.upstreams;
  assert.ok(typeof app === "object");
  assert.deepEqual([app.ca_file, app.cert_file, app.key_file], [at("mcp-chain.crt"), at("mcp.crt"), at("mcp.key")]);
  const before = loaded.digest;
  await cp(at("docs.crt"), at("ca.crt"));
  const after = digest(await loadConfig(file, {}));
  assert.notEqual(after, before);
  await writeFile(at("token-itself"), "another");
  assert.notEqual(digest(await loadConfig(file, {})), after);
});

test("a certificate that expires while the gateway runs is a warning, and no other configuration", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  await cp(FILES, join(dir, "files"), { recursive: true });
  await writeFile(file, `${MINIMAL.trimEnd().replace(/ }$/, "")}, tls: { cert_file: files/mcp.crt, key_file: files/mcp.key } }\n`);
  const [now, later] = [await loadConfig(file, {}, Date.parse("2100-01-01")), await loadConfig(file, {}, Date.parse("2200-01-01"))];
  assert.ok(now.ok && later.ok);
  assert.deepEqual([now.warnings.length, now.source, later.warnings.length], [0, "", 1]);
  assert.equal(later.digest, now.digest);
  assert.match(formatWarnings(later.warnings, later.source), /^.*:3:\d+: warning: File '.*mcp\.crt' holds a certificate that expired on 2126-[^]*\^/);
});

test("files that cannot be read are watched all the same, also when the YAML is bad", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  await writeFile(file, `${MINIMAL}frob: 1\ntls: { cert_file: tls.crt, key_file: ../tls.key }\n`);
  const loaded = await loadConfig(file, {});
  assert.deepEqual(new Set(loaded.paths), new Set([file, join(dir, "tls.crt"), join(dir, "../tls.key")]));
  assert.match(problems(loaded), /Unknown key 'frob'[\s\S]*Cannot read .*tls\.crt[\s\S]*Cannot read .*tls\.key/);
});

test("an upstream keeps its key while nothing of it changes", async (t) => {
  const dir = await directory(t);
  const file = join(dir, "sidegate.yaml");
  const key = async (entry: string, more = ""): Promise<string | undefined> => {
    await writeFile(file, `${MINIMAL}upstreams: { app: { targets: ["http://127.0.0.1:1"], ${entry} } }\nroutes: [{ upstream: app, auth: none }${more}]\n`);
    const loaded = await loadConfig(file, {});
    assert.ok(loaded.ok, loaded.ok ? "" : formatProblems(loaded.problems, loaded.source));
    return buildPlan(loaded.config, loaded.files).upstreams.get("app")?.key;
  };
  const first = await key("authorization: Bearer one");
  assert.equal(await key("authorization: Bearer one", ", { path: /x, upstream: app, auth: none }"), first);
  assert.notEqual(await key("authorization: Bearer two"), first);
  assert.ok(first !== undefined && !first.includes("one"));
});

test("1000 routes and 100 certificates load", async (t) => {
  const dir = await directory(t);
  await mkdir(join(dir, "certs"));
  const count = Array.from({ length: 100 }, (_, i) => i);
  await Promise.all(
    count.flatMap((i) => [cp(join(FILES, "mcp-chain.crt"), join(dir, `certs/${i}.crt`)), cp(join(FILES, "mcp.key"), join(dir, `certs/${i}.key`))]),
  );
  const certificates = count.map((i) => `        - { cert_file: certs/${i}.crt, key_file: certs/${i}.key }\n`).join("");
  const routes = Array.from(
    { length: 1000 },
    (_, i) => `  - { host: h${i}.example.com, path_prefix: /p${i}, upstream: u${i % 50}, auth: [token: { names: [ci] }] }\n`,
  ).join("");
  const upstreams = Array.from({ length: 50 }, (_, i) => `  u${i}: http://127.0.0.1:${3000 + i}\n`).join("");
  const file = join(dir, "sidegate.yaml");
  await writeFile(
    file,
    `version: 1\nlisteners:\n  web:\n    protocol: http\n    listen: ":8443"\n    tls:\n      certificates:\n${certificates}auth: { tokens: [{ name: ci, sha256: "${HASH}" }] }\nupstreams:\n${upstreams}routes:\n${routes}`,
  );
  const loaded = await loadConfig(file, {});
  digest(loaded);
  assert.ok(loaded.ok);
  const plan = buildPlan(loaded.config, loaded.files);
  assert.equal(plan.routes.length, 1000);
});

test("a pipe instead of a file is a problem, and nothing waits for its writer", async (t) => {
  const dir = await directory(t);
  execFileSync("mkfifo", [join(dir, "pipe")]);
  await writeFile(join(dir, "sidegate.yaml"), `${MINIMAL}auth: { tokens: [{ name: ci, sha256_file: pipe }] }\n`);
  const loaded = await Promise.race([loadConfig(join(dir, "sidegate.yaml"), {}), delay(2_000, null, { ref: false })]);
  assert.ok(loaded !== null, "it waits");
  assert.match(problems(loaded), /Cannot read '.*pipe': it is not a regular file/);
});
