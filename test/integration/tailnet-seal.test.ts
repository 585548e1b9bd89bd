// The seal through what happens to a gateway: its first seconds, kill -9 of tailscaled and of the gateway, edits; and without it.
import assert from "node:assert/strict";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Running } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { skipWithout } from "../components/require.ts";
import { startTailnetGateway, type TailnetGateway } from "../components/tailnet-gateway.ts";
import { keepKnocking, knock, startDecoys, startSpeaker, type Decoys, type Knocking } from "../components/tailnet-knock.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const PATIENCE = { timeoutMs: 60_000 };
const missing = missingTailnet();

let tailnet: TestTailnet;
let laptop: TailnetNode;
let service: Running;
let decoys: Decoys;
/** For all gateways of this file, one after another, so that they are one node. */
let dir: string;
let gateway: TailnetGateway;
let open: number;

const listener = (name: string, port: number): string => `  ${name}: { protocol: tcp, listen: "tailnet:${port}", upstream: "127.0.0.1:${service.port}" }\n`;

function start(wait: boolean): Promise<TailnetGateway> {
  return startTailnetGateway(tailnet, { wait, yaml: `state: { dir: "${join(dir, "state")}" }\nlisteners:\n${listener("open", open)}` });
}

/** As soon as the port is the service's, and after so many further knocks that found the node and heard nothing. */
async function answersAgain(knocking: Knocking, more = 20): Promise<void> {
  await waitFor(async () => (await knock(laptop, "gateway", open)).heard === "service", PATIENCE);
  const before = knocking.closed;
  await waitFor(() => knocking.closed >= before + more, PATIENCE);
}

before(async () => {
  if (missing !== null) return;
  [tailnet, service] = await Promise.all([startTailnet(), startSpeaker("service")]);
  open = await freePort();
  decoys = await startDecoys(40, [1, 2019, open - 1, open + 1]);
  dir = await mkdtemp(join(tmpdir(), "sidegate-sealed-"));
  laptop = await tailnet.node("laptop");
});
after(async () => {
  if (missing !== null) return;
  await gateway?.[Symbol.asyncDispose]();
  await Promise.all([tailnet?.[Symbol.asyncDispose](), service?.[Symbol.asyncDispose](), decoys?.[Symbol.asyncDispose]()]);
  await rm(dir, { recursive: true, force: true });
});

test("a fresh node answers on no other port from before it joins", async (t) => {
  if (skipWithout(t, missing)) return;
  // The test control gives addresses one after another.
  const next = laptop.address.replace(/\d+$/, (last) => String(Number(last) + 1));
  const knocking = keepKnocking(laptop, [next], decoys.ports);
  gateway = await start(true);
  assert.equal((await gateway.status()).tailnet.addresses[0], next);
  await answersAgain(knocking);
  knocking.stop();
  assert.deepEqual([...knocking.answers], []);
  const sealed = gateway.log.find(({ event }) => event === "tailnet_sealed");
  assert.equal(sealed?.msg, "65534 ports of the tailnet are refused");
});

test("kill -9 of tailscaled opens nothing, from the first moment that the node is back", async (t) => {
  if (skipWithout(t, missing)) return;
  const started = gateway.log.findLast(({ event }) => event === "tailscaled_started");
  const knocking = keepKnocking(laptop, ["gateway"], decoys.ports);
  await waitFor(() => knocking.closed > 0, PATIENCE);
  process.kill(Number(started?.["pid"]), "SIGKILL");
  await waitFor(() => gateway.log.some(({ event }) => event === "tailscaled_exited"), PATIENCE);
  await gateway.serving([open]);
  await answersAgain(knocking);
  knocking.stop();
  assert.deepEqual([...knocking.answers], []);
  assert.equal((await gateway.status()).tailnet.restarts, 1);
});

test("kill -9 of the gateway opens nothing, neither while it is gone nor when it is back", async (t) => {
  if (skipWithout(t, missing)) return;
  const knocking = keepKnocking(laptop, ["gateway"], decoys.ports);
  await waitFor(() => knocking.closed > 0, PATIENCE);
  const { child } = gateway;
  await gateway.stop("SIGKILL");
  assert.equal(child.signalCode, "SIGKILL");
  await gateway[Symbol.asyncDispose]();
  gateway = await start(true);
  await answersAgain(knocking);
  knocking.stop();
  assert.deepEqual([...knocking.answers], []);
  assert.equal((await tailnet.nodes()).length, 2);
});

test("a port that an edit closes is refused before another program can take it", async (t) => {
  if (skipWithout(t, missing)) return;
  const closing = await freePort();
  const head = `state: { dir: "${join(dir, "state")}" }\nlisteners:\n${listener("open", open)}`;
  await gateway.edit(head + listener("closing", closing));
  await gateway.serving([open, closing]);
  const knocking = keepKnocking(laptop, ["gateway"], [closing], 24);
  await waitFor(() => knocking.answers.has(`${closing}: service`), PATIENCE);
  const edited = gateway.edit(head);
  // The number is free for a moment or two before this succeeds.
  await using taken = await waitFor(() => startSpeaker("decoy", closing), PATIENCE);
  await edited;
  assert.equal(taken.port, closing);
  const before = knocking.closed;
  await waitFor(() => knocking.closed >= before + 100, PATIENCE);
  knocking.stop();
  assert.deepEqual([...knocking.answers], [`${closing}: service`]);
});

test("with 'seal: false' other services answer, at both addresses, until an edit seals them; a warning says so", async (t) => {
  if (skipWithout(t, missing)) return;
  const yaml = (seal: boolean): string =>
    `tailscale: { hostname: gateway, control_url: "${tailnet.controlUrl}", seal: ${seal} }\nstate: { dir: "${join(dir, "state")}" }\nlisteners:\n${listener("open", open)}`;
  const [decoy = 0] = decoys.ports;
  const { addresses } = (await gateway.status()).tailnet as { addresses: string[] };
  await gateway.edit(yaml(false));
  for (const address of addresses) await waitFor(async () => (await knock(laptop, address, decoy)).heard === "decoy", PATIENCE);
  const { seal, warnings } = (await gateway.status()).tailnet;
  assert.deepEqual([seal.enabled, seal.active, seal.refused], [false, false, 0]);
  assert.match(warnings.join(), /^The node is not sealed: the tailnet reaches every TCP port of this machine's localhost.*set 'tailscale\.seal: true'$/);
  assert.match((await gateway.admin("/ready")).body, /"status":"degraded".*The node is not sealed/);
  assert.ok(gateway.log.some(({ level, msg }) => level === "warn" && msg === warnings[0]));

  await gateway.edit(yaml(true));
  await gateway.serving([open]);
  for (const address of addresses) {
    assert.equal((await knock(laptop, address, open)).heard, "service");
    assert.equal((await knock(laptop, address, decoy)).end, "closed");
  }
});
