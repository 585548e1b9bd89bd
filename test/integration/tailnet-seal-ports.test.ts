// The seal: every TCP port of the gateway's node is tried from the tailnet while other services listen on the same machine.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, test } from "node:test";
import { freePort } from "../components/free-port.ts";
import { findProgram, skipWithout } from "../components/require.ts";
import { startTailnetGateway, type TailnetGateway } from "../components/tailnet-gateway.ts";
import { knock, knockAtAll, startDecoys, startSpeaker, type Decoys } from "../components/tailnet-knock.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";

const LAST_PORT = 65_535;
const DECOYS = 200;
const SCAN_MS = 40_000;
const missing = missingTailnet();
const stack = new AsyncDisposableStack();

let tailnet: TestTailnet;
let laptop: TailnetNode;
let gateway: TailnetGateway;
let decoys: Decoys;
let addresses: string[];
let open: number[];

before(async () => {
  if (missing !== null) return;
  tailnet = stack.use(await startTailnet());
  const service = stack.use(await startSpeaker("service"));
  open = [await freePort(), await freePort()].toSorted((a, b) => a - b);
  const beside = open.flatMap((port) => [port - 1, port + 1]);
  decoys = stack.use(await startDecoys(DECOYS, [1, 80, 443, 2019, 4001, LAST_PORT, ...beside]));
  // 130,000 lines of debugging are not what this is about.
  const env = { SIDEGATE_LOG_LEVEL: "info" };
  [laptop, gateway] = await Promise.all([
    tailnet.node("laptop"),
    startTailnetGateway(tailnet, {
      env,
      yaml: `listeners:
  first: { protocol: tcp, listen: "tailnet:${open[0]}", upstream: "127.0.0.1:${service.port}" }
  second: { protocol: tcp, listen: "tailnet:${open[1]}", upstream: "127.0.0.1:${service.port}" }
  local: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${service.port}" }
`,
    }),
  ]);
  stack.use(gateway);
  addresses = (await gateway.status()).tailnet.addresses;
});
after(() => stack.disposeAsync());

function peerApiPort(socket: string): number {
  const status = execFileSync(findProgram("tailscale") ?? "tailscale", [`--socket=${socket}`, "status", "--json", "--peers=false"], { encoding: "utf8" });
  const { Self } = JSON.parse(status) as { Self: { PeerAPIURL: string[] } };
  return Number(new URL(Self.PeerAPIURL[0] ?? "").port);
}

test("of all 65,535 ports of the node only the declared ones answer the tailnet", { timeout: 85_000 }, async (t) => {
  if (skipWithout(t, missing)) return;
  const [address = ""] = addresses;
  const { seal, socket } = (await gateway.status()).tailnet;
  assert.deepEqual([seal.active, seal.open, seal.refused], [true, open, LAST_PORT - open.length]);
  // What listens comes first: on a machine that is too busy for all ports, time ends the round early.
  const ports = new Set([...open, ...decoys.ports, ...Array.from({ length: LAST_PORT }, (_, i) => i + 1)]);
  const found = await knockAtAll(laptop, address, ports, AbortSignal.timeout(SCAN_MS));
  t.diagnostic(`${found.tried} ports were tried`);
  // tailscaled's own interface for peers, which leads to no service: it cannot be switched off, takes HTTP and waits for a request.
  const own = peerApiPort(socket);
  const expected = [...open.map((port) => [port, "service"]), ...(found.answers.has(own) ? [[own, ""]] : [])];
  assert.deepEqual(
    [...found.answers].map(([port, { heard }]) => [port, heard]),
    expected.toSorted(([a], [b]) => Number(a) - Number(b)),
  );
  // A port that could not be dialled was not tried.
  assert.equal(found.closed, found.tried - expected.length);
  assert.ok(found.tried > open.length + decoys.ports.length, `only ${found.tried} ports were tried`);
});

test("the other services do not answer at the node's IPv6 address either, nor do the gateway's own other ports", async (t) => {
  if (skipWithout(t, missing)) return;
  const [, address = ""] = addresses;
  assert.match(address, /^fd7a:/);
  for (const port of open) assert.equal((await knock(laptop, address, port)).heard, "service");
  const found = await knockAtAll(laptop, address, [...decoys.ports, gateway.port("local")]);
  assert.deepEqual([[...found.answers], found.closed], [[], decoys.ports.length + 1]);
});
