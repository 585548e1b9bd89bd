import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";

const FILES = join(import.meta.dirname, "../../test/config/files");
const dir = mkdtempSync(join(tmpdir(), "sidegate-check-"));
after(() => rmSync(dir, { recursive: true, force: true }));

function check(...args: string[]): Promise<CommandRun> {
  return runInProcess(["check", ...args], dir);
}

test("warnings are told with their places, and the file is valid all the same", async () => {
  writeFileSync(
    join(dir, "sidegate.yaml"),
    `version: 1
tls: { cert_file: ${FILES}/docs.crt, key_file: ${FILES}/docs.key }
listeners: { web: { protocol: http, listen: ":8443" } }
upstreams: { app: { targets: [http://127.0.0.1:3000], authorization: Bearer s3cret } }
routes:
  - { host: docs.example.com, upstream: app, auth: none }
  - { host: mcp.example.com, upstream: app, auth: none, set_headers: { X-Key: s3cret } }
`,
  );
  const text = await check("sidegate.yaml");
  assert.deepEqual([text.code, text.stdout], [0, "sidegate.yaml is valid: 1 listener, 2 routes, 1 upstream\n"]);
  assert.match(text.stderr, /sidegate\.yaml:7:13: warning: Host 'mcp\.example\.com' is in no certificate of listener 'web'[^\n]*\n[^]*\^{15}\n$/);
  assert.doesNotMatch(text.stderr, /s3cret|host: docs\.example\.com: warning/);
  const json = await check("sidegate.yaml", "--format", "json");
  assert.deepEqual([json.code, json.stderr], [0, ""]);
  const { valid, warnings } = JSON.parse(json.stdout) as { valid: boolean; warnings: { line: number; path: string; message: string }[] };
  assert.deepEqual([valid, warnings.map(({ line, path }) => [line, path])], [true, [[7, "routes[1].host"]]]);
});

test("beside problems warnings are told, too, but not of the same place", async () => {
  writeFileSync(
    join(dir, "both.yaml"),
    `version: 1
listeners: { web: { protocol: http, listen: ":8443", tls: { mode: application, internal: true } } }
upstreams: { app: { targets: [https://127.0.0.1:3000], insecure_skip_verify: true, ca_file: ${FILES}/ca.crt } }
routes:
  - { host: a.example.com, upstream: ap, auth: none }
  - { public_url: "http://localhost:8443", upstream: app, auth: none }
`,
  );
  const text = await check("both.yaml");
  assert.deepEqual([text.code, text.stdout], [64, ""]);
  const heads = text.stderr.split("\n").filter((line) => line.includes("both.yaml:"));
  assert.deepEqual(
    heads.map((line) => line.replace(/^.*both\.yaml:(\d+):\d+: (\S+ \S+ \S+).*$/, "$1 $2")),
    ["3 'insecure_skip_verify' takes any", "5 Unknown upstream 'ap';", "6 warning: Clients would"],
  );
  assert.match(text.stderr, /\^\n\n[^\n]*both\.yaml:6:19: warning: /);
  assert.doesNotMatch(text.stderr, /warning: Whoever/);
  const json = await check("both.yaml", "--format", "json");
  const { valid, warnings } = JSON.parse(json.stdout) as { valid: boolean; warnings: { path: string }[] };
  assert.deepEqual([valid, warnings.map(({ path }) => path)], [false, ["routes[1].public_url"]]);
});
