import assert from "node:assert/strict";
import { chmodSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";
import { TAILNET } from "../../test/components/tailnet-status.ts";
import { waitFor } from "../../test/components/wait.ts";
import { startTestAdmin } from "../../test/components/admin.ts";
import type { ActionResult, GatewayStatus } from "../admin/status.ts";
import type { Io } from "./io.ts";
import { formatTailnet } from "./tailnet-text.ts";

type Tailnet = NonNullable<GatewayStatus["tailnet"]>;

const NOW = new Date("2026-11-21T10:00:00.000Z");
const LAPTOP = { listener: "live", address: "100.64.0.2", node: "laptop.tail1234.ts.net", user: "alice@example.com", tags: [], connections: 2 };
const BOT = { listener: "paper", address: "100.64.0.3", node: "bot\u001b[2J\nx", user: null, tags: ["tag:bots", "tag:x"], connections: 1 };
const FINE: Tailnet = { ...TAILNET, clients: [LAPTOP, BOT] };

async function setUp(t: TestContext, tailnet: Tailnet | null, logout: () => Promise<ActionResult> = () => assert.fail("asked")) {
  const { dir, file, status } = await startTestAdmin(t, {
    status: (own) => ({ tailnet: tailnet && { ...tailnet, socket: join(own, "tailscaled.sock") } }),
    logout,
  });
  writeFileSync(join(dir, "tailscaled.sock"), "");
  const run = (args: string[], io: Partial<Io> = {}): Promise<CommandRun> =>
    runInProcess(["tailnet", ...args], dir, { env: { SIDEGATE_CONFIG: file, PATH: join(dir, "bin") }, ...io });
  /** Puts a program 'tailscale' on the PATH. */
  const installTailscale = (script: string): void => {
    mkdirSync(join(dir, "bin"));
    writeFileSync(join(dir, "bin", "tailscale"), `#!/bin/sh\n${script}\n`);
    chmodSync(join(dir, "bin", "tailscale"), 0o755);
  };
  return { dir, run, status, installTailscale };
}

test("a node that fares well is a block of what is to be known, with who is connected, and no control character of a peer", () => {
  assert.equal(
    formatTailnet(FINE, NOW, false),
    `TAILNET  ib-gateway.tail1234.ts.net
  state      running
  addresses  100.64.0.1 fd7a:115c:a1e0::1
  tailnet    example.com
  tags       tag:trading
  key        does not expire
  seal       65533 ports refused; open: 4003 4004
  tailscaled userspace, 1.102.5, /state/tailscale/tailscaled.sock

LISTENER  NODE                    USER/TAGS          ADDRESS     CONNECTIONS
live      laptop.tail1234.ts.net  alice@example.com  100.64.0.2  2
paper     bot x                   tag:bots tag:x     100.64.0.3  1
`,
  );
});

test("what is wrong comes first: the reason, the URL of the login, warnings; what is not known yet is left out", () => {
  const waiting: Tailnet = {
    ...TAILNET,
    state: "needs_login",
    reason: "The auth key\u001b[31m is used up",
    serving: false,
    warnings: ["State is not on a volume"],
    login_url: "https://login.example/a/1",
    name: "",
    tailnet: "",
    addresses: [],
    tags: [],
    version: "",
    restarts: 2,
    seal: { enabled: true, active: false, open: [4003], refused: 0, foreign: [443], error: "Port 443 is served by another program" },
    clients: [],
  };
  assert.equal(
    formatTailnet(waiting, NOW, false),
    `TAILNET  ib-gateway
  state      needs a login
  reason     The auth key is used up
  log in at  https://login.example/a/1
  warning    State is not on a volume
  seal       not set; open: 4003; of other programs: 443; Port 443 is served by another program
  tailscaled userspace, started again 2 times, /state/tailscale/tailscaled.sock
`,
  );
  assert.match(formatTailnet({ ...waiting, hostname: null }, NOW, false), /^TAILNET {2}no name yet\n/);
});

test("a node of a user has a key that ends, and one without a seal says what that means", () => {
  const user = { ...FINE, tags: [], user: "alice@example.com", key_expires_at: "2026-11-24T10:00:00.000Z", restarts: 1 };
  const text = formatTailnet({ ...user, seal: { ...FINE.seal, enabled: false, active: false, refused: 0 } }, NOW, false);
  assert.match(text, /\n {2}user {7}alice@example\.com\n {2}key {8}expires in 3d, 2026-11-24 10:00 UTC\n/);
  assert.match(text, /\n {2}seal {7}off: the tailnet reaches what else listens here; open: 4003 4004\n/);
  assert.match(text, /, started again once, /);
  assert.match(formatTailnet({ ...user, key_expires_at: "2026-11-20T10:00:00.000Z" }, NOW, false), /key {8}expired 1d ago, 2026-11-20/);
  assert.match(formatTailnet({ ...user, serving: false }, NOW, false), /state {6}running, not serving\n/);
});

test("'tailnet' shows it, with or without the word and the file, as text or JSON", async (t) => {
  const { run, status } = await setUp(t, FINE);
  for (const args of [[], ["status"], ["sidegate.yaml"], ["status", "./sidegate.yaml"]])
    assert.match((await run(args)).stdout, /^TAILNET {2}ib-gateway\.tail1234\.ts\.net\n/, args.join(" "));
  assert.deepEqual(JSON.parse((await run(["--json"])).stdout), status.tailnet);
});

test("a gateway that is on no tailnet says so", async (t) => {
  const { run } = await setUp(t, null);
  const nothing = "Nothing is on the tailnet: the file has no listener on 'tailnet:PORT'\n";
  assert.deepEqual(await run([]), { code: 0, stdout: nothing, stderr: "" });
  assert.equal((await run(["status", "--json"])).stdout, "null\n");
  for (const word of ["netcheck", "logout"]) assert.deepEqual(await run([word]), { code: 1, stdout: "", stderr: nothing });
});

test("'tailnet logout' says what came of it, without a control character", async (t) => {
  const results: ActionResult[] = [
    { ok: true, message: "The node is logged out\u001b[2J" },
    { ok: false, message: "tailscaled does not answer" },
    { ok: false, message: "no" },
  ];
  const { run } = await setUp(t, FINE, () => Promise.resolve(results.shift() ?? assert.fail("asked")));
  assert.deepEqual(await run(["logout"]), { code: 0, stdout: "The node is logged out\n", stderr: "" });
  assert.deepEqual(await run(["logout", "sidegate.yaml"]), { code: 1, stdout: "", stderr: "tailscaled does not answer\n" });
  const json = await run(["logout", "--json"]);
  assert.deepEqual([json.code, JSON.parse(json.stdout)], [1, { ok: false, message: "no" }]);
});

test("'tailnet netcheck' runs Tailscale's own with the gateway's tailscaled, and passes on what it prints and how it ends", async (t) => {
  const { dir, run, installTailscale } = await setUp(t, FINE);
  installTailscale('echo "Report: $*"; echo "warned" >&2; [ "$3" = "" ]');
  assert.deepEqual(await run(["netcheck"]), { code: 0, stdout: `Report: --socket=${dir}/tailscaled.sock netcheck\n`, stderr: "warned\n" });
  const json = await run(["netcheck", "--json"]);
  assert.deepEqual([json.code, json.stdout], [1, `Report: --socket=${dir}/tailscaled.sock netcheck --format=json\n`]);
});

test("an interrupt ends a netcheck that hangs", async (t) => {
  const { run, installTailscale } = await setUp(t, FINE);
  installTailscale("echo begun; exec /bin/sleep 30");
  const stop = new AbortController();
  let stdout = "";
  const ended = run(["netcheck"], { stopped: stop.signal, stdout: (text) => void (stdout += text) });
  await waitFor(() => stdout === "begun\n");
  stop.abort();
  assert.equal((await ended).code, 1);
});

test("'tailnet netcheck' says what is missing: the program, or the socket, without which another tailnet would be judged", async (t) => {
  const { dir, run, installTailscale } = await setUp(t, FINE);
  assert.deepEqual(await run(["netcheck"]), {
    code: 1,
    stdout: "",
    stderr: "Cannot run 'tailscale': it is not in PATH; it comes with Tailscale, beside tailscaled\n",
  });
  installTailscale("echo judged");
  const socket = join(dir, "tailscaled.sock");
  rmSync(socket);
  assert.deepEqual(await run(["netcheck"]), {
    code: 1,
    stdout: "",
    stderr: `Cannot use tailscaled's socket '${socket}': no such file or directory; run this command where the gateway runs, as its user\n`,
  });
});
