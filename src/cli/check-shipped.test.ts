import assert from "node:assert/strict";
import { globSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { parse, stringify } from "yaml";
import { hashPassword } from "../lib/password-file.ts";
import { createTestCa } from "../../test/components/pki.ts";
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

const CONFIGURATIONS = globSync("{compose,examples}/**/*.yaml", { cwd: ROOT, exclude: ["**/compose.yaml", "**/traefik.yaml"] });
const GUIDES = ["README.md", "examples/ib-gateway/README.md"];
// Files that only the reader has.
writeFileSync(join(dir, "users"), `alice:${await hashPassword("a password")}:ops\n`);
writeFileSync(join(dir, "secret"), "tskey-auth-x");
const { cert, key } = createTestCa().issue("/CN=mcp.example.com", { san: "DNS:mcp.example.com" });
writeFileSync(join(dir, "tls.crt"), cert);
writeFileSync(join(dir, "tls.key"), key);

function read(file: string): string {
  return readFileSync(join(ROOT, file), "utf8");
}

async function assertValid(text: string, what: string, { warnings = false } = {}): Promise<void> {
  const readers = text.replaceAll(/(_file: )(?:\/run\/secrets\/[\w-]+|\.\.\.)/g, "$1secret");
  writeFileSync(join(dir, "sidegate.yaml"), readers);
  const { code, stderr } = await runInProcess(["check", "sidegate.yaml"], dir, { env: ENV });
  assert.equal(code, 0, `${what}:\n${stderr}\n${readers}`);
  if (!warnings) assert.equal(stderr, "", what);
}

/** YAML blocks of a guide: whole configurations, and parts of one. */
function blocksOf(guide: string): { readonly whole: string[]; readonly parts: string[] } {
  const blocks = [...read(guide).matchAll(/^```yaml\n([^]*?)^```$/gm)].map((match) => match[1] ?? "");
  return { whole: blocks.filter((block) => block.startsWith("version: 1\n")), parts: blocks.filter((block) => !block.startsWith("version: 1\n")) };
}

// What a setting in a comment asks for beside it.
const TOGETHER = [
  ["acme: {", "host: "],
  ["cert_file: ", "key_file: "],
  ["key_file: ", "cert_file: "],
] as const;

// What they ask for is in no comment: a listener on the tailnet, a login.
const ELSEWHERE = ["tailnet: true", "auth: [{ session: "];

/** The text with each of the settings that it has in a comment, as `# key: value`, or as the bracket of `key: value # or {...}`. */
function* withOptions(text: string): Generator<{ readonly option: string; readonly text: string }> {
  const lines = text.split("\n");
  for (const [i, line] of lines.entries()) {
    const [, indent = "", setting] = /^( *)# ((?:- )?[a-z_]+: .+)$/.exec(line) ?? [];
    const [, before = "", other] = /^( *(?:- )?[a-z_]+: ).* # (?:.*\W)?or:? ([{[].*[}\]])/.exec(line) ?? [];
    const now = setting === undefined ? (other === undefined ? null : `${before}${other}`) : `${indent}${setting}`;
    if (now === null || ELSEWHERE.some((one) => now.trim().startsWith(one))) continue;
    const needed = TOGETHER.find(([one]) => now.trim().startsWith(one))?.[1] ?? null;
    const rest = lines.with(i, now).join("\n");
    yield { option: now.trim(), text: needed === null ? rest : rest.replace(`# ${needed}`, needed) };
  }
}

test("every YAML file that is shipped for Sidegate is looked at", () => {
  for (const part of ["compose/mcp-oauth/config/sidegate.yaml", "examples/login/github.yaml", "examples/mcp-oauth/sidegate.yaml"])
    assert.ok(CONFIGURATIONS.includes(part), part);
});

for (const file of CONFIGURATIONS) test(`${file} is valid`, () => assertValid(read(file), file));

test("what other proxies are told of forward auth fits the file that they are for", () => {
  const { auth, routes } = parse(read("examples/login/forward-auth.yaml")) as {
    auth: { server: { host: string } };
    routes: { host: string }[];
  };
  for (const file of ["nginx.conf", "traefik.yaml", "Caddyfile"]) {
    const text = read(`examples/login/${file}`);
    for (const part of [auth.server.host, ...routes.map(({ host }) => host), "/verify", "/.sidegate/"]) assert.ok(text.includes(part), `${file}: ${part}`);
  }
});

for (const guide of GUIDES)
  test(`every whole configuration in ${guide} is valid`, async () => {
    const { whole } = blocksOf(guide);
    assert.ok(whole.length > 0);
    for (const block of whole) await assertValid(block, guide);
  });

test("every part of a configuration in the guides is valid in a whole one", async () => {
  const [base] = blocksOf("examples/ib-gateway/README.md").whole;
  const { tailscale, listeners } = parse(base ?? "") as { tailscale: object; listeners: { live: object } };
  const web = "listeners: { https: { protocol: http, listen: ':443' } }\nroutes: [{ host: a.example.com, upstream: 'http://127.0.0.1:1', auth: none }]\n";
  let checked = 0;
  for (const part of GUIDES.flatMap((guide) => blocksOf(guide).parts)) {
    const [[name, value]] = Object.entries(parse(part) as object) as [[string, object]];
    // A service of a compose file.
    if (name === "sidegate" || name === "ib-gateway") continue;
    const json = (rest: object): string => stringify({ version: 1, ...rest });
    const text =
      name === "tls"
        ? `version: 1\n${web}${part}`
        : name === "tailscale"
          ? json({ listeners, tailscale: value })
          : name === "live"
            ? json({ tailscale, listeners: { live: value } })
            : json({ tailscale, listeners: { live: { ...listeners.live, [name]: value } } });
    await assertValid(text, part, { warnings: true });
    checked += 1;
  }
  assert.equal(checked, 5);
});

test("every setting that stands in a comment of a configuration is valid when it is taken", async () => {
  const texts = [...CONFIGURATIONS.map((file) => read(file)), ...GUIDES.flatMap((guide) => blocksOf(guide).whole)];
  let checked = 0;
  for (const { option, text } of texts.flatMap((one) => [...withOptions(one)])) {
    await assertValid(text, option, { warnings: true });
    checked += 1;
  }
  assert.ok(checked > 10, `only ${checked}`);
});

test("the starter for IB Gateway is valid with its lines for a tailnet, too", async () => {
  const starter = read("examples/ib-gateway/sidegate.yaml");
  const allow = /On a tailnet by name: (allow: .*)\n/.exec(starter)?.[1] ?? "";
  const onTailnet = starter
    .replace(/^# tailscale:\n(?:# {3}.*\n)+/m, (block) => block.replaceAll(/^# /gm, ""))
    .replaceAll(/listen: ":(\d+)"/g, "listen: tailnet:$1")
    .replaceAll(/allow: \["\$\{IB_CLIENTS.*/g, allow);
  assert.deepEqual(onTailnet.match(/^ *(?:tailscale:|allow: \{.*|listen: .*tailnet:\d+)/gm)?.length, 5, onTailnet);
  await assertValid(onTailnet, "examples/ib-gateway/sidegate.yaml on a tailnet");
});

type Service = Record<string, unknown> & { volumes?: string[]; environment?: string[]; healthcheck?: { start_period?: string } };

for (const file of globSync("compose/*/compose.yaml", { cwd: ROOT }))
  test(`${file} takes every right away, and .env.example beside it names what must be told`, () => {
    const text = read(file);
    const { services, volumes } = parse(text, { merge: true }) as { services: Record<string, Service>; volumes: object };
    for (const [name, service] of Object.entries(services)) {
      for (const key of ["privileged", "cap_add", "devices", "pid", "ipc"]) assert.ok(!(key in service), `${name} has ${key}`);
      assert.deepEqual([service["read_only"], service["cap_drop"], service["security_opt"]], [true, ["ALL"], ["no-new-privileges:true"]], name);
      if (name !== "network") assert.deepEqual([service["network_mode"], "ports" in service], ["service:network", false], name);
    }
    assert.deepEqual(services["sidegate"]?.volumes, ["./config:/etc/sidegate:ro", "state:/var/lib/sidegate"]);
    assert.ok("state" in volumes);
    for (const [, name = ""] of text.matchAll(/\$\{(\w+):\?/g)) assert.match(read(join(dirname(file), ".env.example")), new RegExp(`^${name}=$`, "m"));
  });

test("compose/mcp-oauth lets the example server answer for its own hosts unless .env names others", () => {
  const { services } = parse(read("compose/mcp-oauth/compose.yaml"), { merge: true }) as { services: { mcp: Service } };
  assert.deepEqual(services.mcp.environment, ["ALLOWED_HOSTS"], "handed on where it is set, without another default");
  const hosts = /\["ALLOWED_HOSTS"\] \?\? "(.+?)"/.exec(read("examples/mcp-server/server.ts"))?.[1] ?? assert.fail("no default");
  assert.ok(read("compose/mcp-oauth/.env.example").includes(`\n# ALLOWED_HOSTS=${hosts}\n`), hosts);
});

test("compose/ib-gateway-tailscale opens no port, and waits until its node has joined", () => {
  const text = read("compose/ib-gateway-tailscale/compose.yaml");
  const { services } = parse(text, { merge: true }) as { services: Record<"sidegate" | "ib-gateway" | "network", Service> };
  assert.deepEqual(Object.keys(services), ["sidegate", "ib-gateway", "network"]);
  for (const [name, service] of Object.entries(services)) for (const key of ["ports", "expose"]) assert.ok(!(key in service), `${name} has ${key}`);
  // The key is handed on and stands nowhere.
  assert.ok(services.sidegate.environment?.includes("TS_AUTHKEY"));
  // A container that turns unhealthy makes 'up --wait' fail: joining gets its default timeout of 60 s.
  assert.ok(Number.parseInt(services.sidegate.healthcheck?.start_period ?? "", 10) > 60);
});
