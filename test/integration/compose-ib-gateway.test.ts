// compose/ib-gateway as it is shipped: ib_async on the published ports, and what HEALTHCHECK says of an ill IB Gateway.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { healthOf, missingDocker, startCompose, type ComposeProject } from "../components/docker.ts";
import { ibClientMissing, startIbClient } from "../components/ib-client.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const HEALTH_TIMEOUT_MS = 30_000;

let missing: string | null = null;
let project: ComposeProject;
/** config/sidegate.yaml, whose health checks only ask more often. */
let yaml = "";

before(async () => {
  missing = await missingDocker();
  if (missing !== null) return;
  project = await startCompose("ib-gateway");
  const shipped = await readFile(join(project.dir, "config", "sidegate.yaml"), "utf8");
  yaml = shipped.replaceAll("health: ib_api", "health: { check: ib_api, interval: 500ms, timeout: 300ms }");
  assert.equal(yaml.split("interval").length, 3, "config/sidegate.yaml has no health checks of both accounts");
});
after(async () => {
  if (missing === null) await project[Symbol.asyncDispose]();
});

/** Makes the stand-in ill or well. */
async function control(mode: "hang" | "normal"): Promise<void> {
  const script = `fetch("http://127.0.0.1:4900/${mode}", { method: "POST" }).then(({ status }) => process.exit(status === 200 ? 0 : 1))`;
  await project.compose("exec", "-T", "ib-gateway", "node", "--eval", script);
}

/** Waits for HEALTHCHECK's judgement and gives the line that it ends with. */
async function waitForHealth(wanted: "healthy" | "unhealthy", pattern: RegExp): Promise<void> {
  const id = await project.id("sidegate");
  let last = "";
  await waitFor(
    async () => {
      const { Status, Log } = await healthOf(id);
      last = `${Status}: ${Log.at(-1)?.Output}`;
      return Status === wanted && pattern.test(Log.at(-1)?.Output ?? "");
    },
    { timeoutMs: HEALTH_TIMEOUT_MS, what: () => `HEALTHCHECK to say '${wanted}' and ${pattern}; it says ${last}` },
  );
}

test("ib_async reaches the live and the paper account, and its sessions live through edits", async (t) => {
  if (skipWithout(t, missing ?? ibClientMissing())) return;
  const [live, paper] = await Promise.all([
    startIbClient("127.0.0.1", await project.port("network", 4003), 11),
    startIbClient("127.0.0.1", await project.port("network", 4004), 12),
  ]);
  t.after(() => Promise.all([live.close(), paper.close()]));
  assert.deepEqual(live.greeting, { connected: true, accounts: ["U1234567"], server: 178 });
  assert.deepEqual(paper.greeting, { connected: true, accounts: ["DU1234567"], server: 178 });

  for (const limit of [3, 2]) {
    const edits = (await project.logs("sidegate")).split('"event":"reloaded"').length;
    await project.save(yaml.replaceAll("expect: ib_api", `expect: ib_api\n    max_connections: ${limit}`));
    await waitFor(async () => (await project.logs("sidegate")).split('"event":"reloaded"').length > edits, {
      timeoutMs: 2_000,
      what: () => "the edit to serve",
    });
  }
  for (const client of [live, paper]) {
    assert.deepEqual((await client.ask("positions")).answer, [
      ["AAPL", 100],
      ["SPY", 10],
    ]);
    assert.match(String((await client.ask("time")).answer), /^20\d\d-/);
    assert.deepEqual(await client.ask("disconnect"), { disconnected: true });
  }
  for (const [listener, clientId] of [
    ["live", 11],
    ["paper", 12],
  ] as const)
    await waitFor(async () => new RegExp(`"listener":"${listener}".*"client_id":${clientId}\\b`).test(await project.logs("sidegate")), {
      what: () => `the line of ${listener} in the access log`,
    });
});

test("HEALTHCHECK says of a hung IB Gateway that a dialog is open, and is content when it answers again", async (t) => {
  if (skipWithout(t, missing)) return;
  await project.save(yaml);
  await waitForHealth("healthy", /^ready\n/);
  t.after(() => control("normal"));
  await control("hang");
  await waitForHealth(
    "unhealthy",
    /^unready: .*'127\.0\.0\.1:4001': connected to 127\.0\.0\.1:4001, but .*a dialog is open in IB Gateway.*; .*127\.0\.0\.1:4002/,
  );
  await control("normal");
  await waitForHealth("healthy", /^ready\n/);
});

test("HEALTHCHECK says of a killed IB Gateway that it is not started, and clients are served as soon as it is", async (t) => {
  if (skipWithout(t, missing ?? ibClientMissing())) return;
  await project.save(yaml);
  await waitForHealth("healthy", /^ready\n/);
  await project.compose("kill", "ib-gateway");
  await waitForHealth("unhealthy", /^unready: .*connection refused at 127\.0\.0\.1:4001: IB Gateway is not started/);
  await project.compose("start", "ib-gateway");
  await waitForHealth("healthy", /^ready\n/);
  const client = await startIbClient("127.0.0.1", await project.port("network", 4003), 13);
  t.after(() => client.close());
  assert.deepEqual(client.greeting.accounts, ["U1234567"]);
});
