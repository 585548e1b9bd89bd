// The conformance suite of the protocol's authors against one server, directly and through a gateway: what passes directly passes through it.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startMcpFixture } from "../components/mcp-fixture.ts";

const PROGRAM = new URL("../../node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url).pathname;
// The revision's own scenarios; those of extensions run, too, and are only compared.
const FEWEST_CHECKS = { "2025-11-25": 80, "2026-07-28": 150 };
const TIMEOUT_MS = 180_000;

type Check = { readonly id: string; readonly name?: string; readonly status: string; readonly errorMessage?: string };

/** The outcome of each check, by scenario and name. */
async function conformance(url: string, revision: string): Promise<Map<string, string>> {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-conformance-"));
  try {
    const child = spawn(process.execPath, [PROGRAM, "server", "--url", url, "--requirements", revision, "-o", dir], {
      stdio: ["ignore", "pipe", "pipe"],
      timeout: TIMEOUT_MS,
    });
    let output = "";
    child.stdout.on("data", (chunk) => (output += String(chunk)));
    child.stderr.on("data", (chunk) => (output += String(chunk)));
    await once(child, "close");
    const outcomes = new Map<string, string>();
    for (const run of await readdir(dir)) {
      const scenario = run.replace(/-\d{4}-\d{2}-\d{2}T.*$/, "");
      const checks = JSON.parse(await readFile(join(dir, run, "checks.json"), "utf8")) as Check[];
      for (const { id, name, status } of checks) {
        let key = `${scenario} ${id} ${name ?? ""}`;
        while (outcomes.has(key)) key += "'";
        outcomes.set(key, status);
      }
    }
    assert.ok(outcomes.size > 0, `No scenario was run:\n${output}`);
    return outcomes;
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
}

for (const revision of ["2025-11-25", "2026-07-28"] as const) {
  test(`#39 #52 ${revision}: no check that passes directly fails through the gateway`, { timeout: 4 * TIMEOUT_MS }, async (t) => {
    await using server = await startMcpFixture();
    const direct = await conformance(server.url, revision);
    const passing = [...direct].filter(([, status]) => status === "SUCCESS").map(([key]) => key);
    assert.ok(passing.length >= FEWEST_CHECKS[revision], `Only ${passing.length} checks pass directly`);
    const way = `upstream: "http://127.0.0.1:${server.port}", auth: none`;
    // Its public URL, whose pages alone may call, has the port in it.
    const port = await freePort();
    await using _gateway = await startGateway({
      yaml: `listeners:
  web: { protocol: http, listen: "127.0.0.1:${port}" }
routes:
  - { path: /mcp, ${way} }
  - { path_prefix: /guarded, strip_prefix: /guarded, ${way}, public_url: "http://127.0.0.1:${port}/guarded/mcp", mcp: {} }
`,
    });
    for (const path of ["/mcp", "/guarded/mcp"]) {
      const through = await conformance(`http://127.0.0.1:${port}${path}`, revision);
      const worse = passing.filter((key) => through.get(key) !== "SUCCESS").map((key) => `${path}: ${key}: SUCCESS -> ${through.get(key) ?? "missing"}`);
      const better = [...through].filter(([key, status]) => status === "SUCCESS" && direct.get(key) !== "SUCCESS").map(([key]) => key);
      t.diagnostic(
        `${revision} ${path}: ${passing.length} checks pass directly, ${[...through.values()].filter((status) => status === "SUCCESS").length} through the gateway`,
      );
      if (better.length > 0) t.diagnostic(`pass only through the gateway: ${better.join("; ")}`);
      assert.deepEqual(worse, [], worse.join("\n"));
    }
  });
}
