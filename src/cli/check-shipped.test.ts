import assert from "node:assert/strict";
import { copyFileSync, globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { after, test } from "node:test";
import { parse } from "yaml";
import { hashPassword } from "../lib/password-file.ts";
import { runInProcess } from "../../test/components/run-command.ts";

const ROOT = join(import.meta.dirname, "../..");
const ENV = {
  MCP_TOKEN_SHA256: "0".repeat(64),
  CI_TOKEN_SHA256: "1".repeat(64),
  TS_AUTHKEY: "tskey-auth-x",
  TS_AUTHKEY_PAPER: "tskey-auth-y",
  GITHUB_CLIENT_ID: "x",
  GITHUB_CLIENT_SECRET: "x",
  GITHUB_USER: "octocat",
  OIDC_CLIENT_SECRET: "x",
  BATCH_SECRET: "x".repeat(64),
};
const dir = mkdtempSync(join(tmpdir(), "sidegate-shipped-"));
after(() => rmSync(dir, { recursive: true, force: true }));

async function assertValid(file: string, what: string): Promise<void> {
  const { code, stderr } = await runInProcess(["check", file], dir, { env: ENV });
  assert.equal(code, 0, `${what}:\n${stderr}`);
  assert.equal(stderr, "", what);
}

for (const file of globSync("compose/*/config/sidegate.yaml", { cwd: ROOT })) test(`${file} is valid`, () => assertValid(join(ROOT, file), file));

for (const file of globSync("examples/{login/*,*/sidegate}.yaml", { cwd: ROOT, exclude: ["**/traefik.yaml"] }))
  test(`${file} is valid`, async () => {
    const copy = join(dir, basename(file));
    copyFileSync(join(ROOT, file), copy);
    writeFileSync(join(dir, "users"), `alice:${await hashPassword("a password")}:ops\n`);
    await assertValid(copy, file);
  });

test("what other proxies are told of forward auth fits the file that they are for", () => {
  const { auth, routes } = parse(readFileSync(join(ROOT, "examples/login/forward-auth.yaml"), "utf8")) as {
    auth: { server: { host: string } };
    routes: { host: string }[];
  };
  for (const file of ["nginx.conf", "traefik.yaml", "Caddyfile"]) {
    const text = readFileSync(join(ROOT, "examples/login", file), "utf8");
    for (const part of [auth.server.host, ...routes.map(({ host }) => host), "/verify", "/.sidegate/"]) assert.ok(text.includes(part), `${file}: ${part}`);
  }
});

for (const file of ["README.md", "examples/ib-gateway/README.md"])
  test(`every whole configuration in ${file} is valid`, async () => {
    const blocks = [...readFileSync(join(ROOT, file), "utf8").matchAll(/^```yaml\n(version: 1\n[^]*?)^```$/gm)].map((match) => match[1] ?? "");
    assert.ok(blocks.length > 0);
    for (const block of blocks) {
      // Files that only the reader has.
      const text = block.replace(/, cert_file: tls\.crt, key_file: tls\.key|cert_file: tls\.crt, key_file: tls\.key/, "internal: true");
      writeFileSync(join(dir, "sidegate.yaml"), text);
      await assertValid("sidegate.yaml", `${file}:\n${block}`);
    }
  });

test("the starter for IB Gateway is valid with its lines for a tailnet, too", async () => {
  const starter = readFileSync(join(ROOT, "examples/ib-gateway/sidegate.yaml"), "utf8");
  const allow = /On a tailnet by name: (allow: .*)\n/.exec(starter)?.[1] ?? "";
  const onTailnet = starter
    .replace(/^# tailscale:\n(?:# {3}.*\n)+/m, (block) => block.replaceAll(/^# /gm, ""))
    .replaceAll(/listen: ":(\d+)"/g, "listen: tailnet:$1")
    .replaceAll(/allow: \["\$\{IB_CLIENTS.*/g, allow);
  assert.deepEqual(onTailnet.match(/^ *(?:tailscale:|allow: \{.*|listen: .*tailnet:\d+)/gm)?.length, 5, onTailnet);
  writeFileSync(join(dir, "starter.yaml"), onTailnet);
  await assertValid("starter.yaml", "examples/ib-gateway/sidegate.yaml on a tailnet");
});

test("compose/ib-gateway-tailscale opens no port, takes every right away, and keeps the identity of its node", () => {
  type Service = Record<string, unknown> & { volumes?: string[]; environment?: string[]; healthcheck?: { start_period?: string } };
  const text = readFileSync(join(ROOT, "compose/ib-gateway-tailscale/compose.yaml"), "utf8");
  const { services, volumes } = parse(text, { merge: true }) as { services: Record<"sidegate" | "ib-gateway" | "network", Service>; volumes: object };
  assert.deepEqual(Object.keys(services), ["sidegate", "ib-gateway", "network"]);
  for (const [name, service] of Object.entries(services)) {
    for (const key of ["ports", "expose", "privileged", "cap_add", "devices", "pid", "ipc"]) assert.ok(!(key in service), `${name} has ${key}`);
    assert.deepEqual([service["read_only"], service["cap_drop"], service["security_opt"]], [true, ["ALL"], ["no-new-privileges:true"]], name);
    if (name !== "network") assert.equal(service["network_mode"], "service:network");
  }
  assert.deepEqual(services.sidegate.volumes, ["./config:/etc/sidegate:ro", "state:/var/lib/sidegate"]);
  assert.ok("state" in volumes);
  // The key is handed on and stands nowhere.
  assert.ok(services.sidegate.environment?.includes("TS_AUTHKEY"));
  // A container that turns unhealthy makes 'up --wait' fail: joining gets its default timeout of 60 s.
  assert.ok(Number.parseInt(services.sidegate.healthcheck?.start_period ?? "", 10) > 60);
});
