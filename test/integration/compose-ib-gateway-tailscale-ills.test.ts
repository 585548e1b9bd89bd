// compose/ib-gateway-tailscale where something is amiss or other than shipped: what HEALTHCHECK says, and a kernel interface.
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { docker, healthOf } from "../components/docker.ts";
import { skipWithout } from "../components/require.ts";
import { missingTailnetCompose, startTailnetCompose, type TailnetCompose } from "../components/tailnet-compose.ts";
import { waitFor } from "../components/wait.ts";

const TIMEOUT_MS = 60_000;

let missing: string | null = null;
let story: TailnetCompose;

before(async () => {
  missing = await missingTailnetCompose();
  if (missing === null) story = await startTailnetCompose();
});
after(async () => {
  if (missing === null) await story?.[Symbol.asyncDispose]();
});

test("HEALTHCHECK names a state volume that is read-only, and the URL to log in at", async (t) => {
  if (skipWithout(t, missing)) return;
  const { tailnet, project, restartWith, waitForHealth } = story;
  await restartWith({ volumes: ["state:/var/lib/sidegate:ro"] });
  await waitForHealth(/^unready: .*'\/var\/lib\/sidegate\/tailscale'.*read-only file system.*mount a writable volume/);

  await tailnet.require({ auth: true });
  await restartWith({ environment: { ...tailnet.env, TS_AUTHKEY: "" } }, "--volumes");
  const said = await waitForHealth(/^unready: .*http:\S+\/auth\//);
  await waitFor(async () => (await healthOf(await project.id("sidegate"))).Status === "unhealthy", {
    timeoutMs: TIMEOUT_MS,
    what: () => "the container to be unhealthy",
  });
  await tailnet.approve(/http:\S+\/auth\/\w+/.exec(said)?.[0] ?? "");
  await waitForHealth(/^ready\n/);
});

test("with a kernel interface the node's own addresses are listened on, and a process in the container is refused there", async (t) => {
  if (skipWithout(t, missing ?? (existsSync("/dev/net/tun") ? null : "There is no /dev/net/tun"))) return;
  const { tailnet, project, restartWith, waitForHealth, hail, hailInside } = story;
  const file = join(project.dir, "config", "sidegate.yaml");
  await tailnet.require({ auth: false });
  // Of the two nodes of the story before, one would keep the name.
  const yaml = (await readFile(file, "utf8")).replace("hostname: ib-gateway", "hostname: tun-gateway\n  tun: true");
  await project.save(yaml);
  await restartWith({ user: "0:0", cap_add: ["NET_ADMIN", "DAC_OVERRIDE"], devices: ["/dev/net/tun"] }, "--volumes");
  await waitForHealth(/^ready\n/);
  const address = (await tailnet.find("tun-gateway"))?.Addresses[0] ?? "";

  assert.match(await hail(4003, "tun-gateway"), /^\0\0\0/);
  assert.match(await project.logs("sidegate"), /"listener":"live","client":"100\.[^]*"node":"laptop"/);
  for (const port of [4001, 2019]) await assert.rejects(hail(port, "tun-gateway"), `port ${port} answers`);
  assert.equal(await hailInside(address, 4003), "closed\n");
  assert.equal(await hailInside("127.0.0.1", 4003), "closed\n");
  await project.compose("stop", "sidegate");
  assert.equal((await docker(["inspect", "--format", "{{.State.ExitCode}}", await project.id("sidegate")])).trim(), "0");
});
