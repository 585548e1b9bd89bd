import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { connect, Socket } from "node:net";
import { test } from "node:test";
import { startTcpEcho } from "../../test/components/echo.ts";
import { openRequest } from "../../test/components/http-client.ts";
import { startOrigin } from "../../test/components/origin.ts";
import { ALICE, BOT, EVE, match, openTailnetListeners, type Story } from "../../test/components/tailnet-listeners.ts";
import { waitFor } from "../../test/components/wait.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import { TailnetPeers, type TailnetListener } from "./tailnet-peers.ts";
import { openLog } from "../telemetry/log.ts";

const FAST = { recheckMs: 20 };
const UPGRADE = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/** Sends the words and resolves when an answer has begun. */
async function open(port: number, words = "hello"): Promise<{ socket: Socket; ended: () => boolean }> {
  const socket = connect(port, "127.0.0.1").on("error", () => {});
  let ended = false;
  socket.on("end", () => (ended = true)).on("close", () => (ended = true));
  socket.write(words);
  await once(socket, "data");
  socket.resume();
  return { socket, ended: () => ended };
}

/** An origin whose event streams and WebSockets do not end by themselves. */
function startEndless(): ReturnType<typeof startOrigin> {
  return startOrigin(
    (_req, res) => void res.writeHead(200, { "content-type": "text/event-stream" }).write("data: 1\n\n"),
    (_req, socket) => void socket.write(SWITCH),
  );
}

test("a node that is gone, expired or another one now is cut: TCP, event streams, WebSockets and idle HTTP; others go on", async () => {
  await using echo = await startTcpEcho();
  await using origin = await startEndless();
  const story: Story = { tcp: { target: echo.port }, http: { target: origin.url } };
  await using gateway = await openTailnetListeners(story, FAST);
  for (const now of [null, { ...ALICE, id: "another" }]) {
    gateway.tailnet.now.clear();
    gateway.tailnet.caller = BOT;
    const bystander = await open(gateway.tcpPort);
    gateway.tailnet.caller = ALICE;
    const idle = connect(gateway.httpPort, "127.0.0.1").on("error", () => {});
    let idleEnded = false;
    idle.on("close", () => (idleEnded = true)).resume();
    const theirs = [await open(gateway.tcpPort), await open(gateway.httpPort, UPGRADE)];
    const { response } = await openRequest(gateway.httpPort, "/events");
    response.on("error", () => {}).resume();
    await waitFor(() => gateway.listeners.tailnetClients().reduce((sum, { connections }) => sum + connections, 0) === 5);
    gateway.tailnet.now.set(ALICE.address, now);
    await waitFor(() => theirs.every(({ ended }) => ended()) && response.closed && idleEnded);
    assert.deepEqual(
      gateway.listeners.tailnetClients().map(({ node, listener }) => `${listener} ${node}`),
      ["live bot"],
    );
    assert.equal(bystander.ended(), false);
    bystander.socket.destroy();
    await waitFor(() => gateway.listeners.tailnetClients().length === 0);
  }
  const cut = gateway.accessLog.filter(({ reason }) => reason === "denied");
  assert.deepEqual(
    cut.map(({ identity, client }) => [identity, client]),
    Array.from({ length: 2 }, () => ["tailnet:alice@example.com", "100.64.0.1"]),
  );
});

test("changed tags are judged anew: TCP goes on where it is still admitted, HTTP comes again", async () => {
  await using echo = await startTcpEcho();
  await using origin = await startEndless();
  const plan = { allowTailnet: match({ tags: ["tag:bots"] }) };
  await using gateway = await openTailnetListeners({ tcp: { target: echo.port, plan }, http: { target: origin.url } }, FAST);
  gateway.tailnet.caller = BOT;
  const [tcp, ws] = [await open(gateway.tcpPort), await open(gateway.httpPort, UPGRADE)];
  gateway.tailnet.now.set(BOT.address, { ...BOT, tags: ["tag:bots"] });
  await waitFor(() => ws.ended());
  await waitFor(() => gateway.listeners.tailnetClients()[0]?.tags.join(",") === "tag:bots");
  assert.equal(tcp.ended(), false);
  const other = await open(gateway.tcpPort);
  gateway.tailnet.now.set(BOT.address, { ...BOT, tags: ["tag:other"] });
  await waitFor(() => tcp.ended() && other.ended());
});

test("a reload judges by what is known of a node now, not by what it was when its connection came", async () => {
  await using echo = await startTcpEcho();
  await using gateway = await openTailnetListeners({ tcp: { target: echo.port } }, FAST);
  gateway.tailnet.caller = BOT;
  const client = await open(gateway.tcpPort);
  gateway.tailnet.now.set(BOT.address, { ...BOT, tags: ["tag:bots"] });
  await waitFor(() => gateway.listeners.tailnetClients()[0]?.tags.join(",") === "tag:bots");
  assert.equal(client.ended(), false);
  await gateway.reload({ tcp: { target: echo.port, plan: { allowTailnet: match({ tags: ["tag:ci"] }) } } });
  await waitFor(() => client.ended());
});

test("open TCP connections are cut by a reload that does not admit their node", async () => {
  await using echo = await startTcpEcho();
  await using gateway = await openTailnetListeners({ tcp: { target: echo.port } });
  const alice = await open(gateway.tcpPort);
  gateway.tailnet.caller = EVE;
  const eve = await open(gateway.tcpPort);
  await gateway.reload({ tcp: { target: echo.port, plan: { allowTailnet: match({ users: ["alice@example.com"] }) } } });
  await waitFor(() => eve.ended());
  assert.equal(alice.ended(), false);
  alice.socket.destroy();
});

test("without an answer connections live for a while and no longer, also when the questions hang", async () => {
  await using echo = await startTcpEcho();
  const tcp = { target: echo.port };
  await using patient = await openTailnetListeners({ tcp }, { ...FAST, silenceMs: 3_600_000 });
  const kept = await open(patient.tcpPort);
  patient.tailnet.now.set(ALICE.address, undefined);
  for (const held of [false, true]) {
    await using gateway = await openTailnetListeners({ tcp }, { ...FAST, silenceMs: 1_500, askMs: held ? 3_600_000 : 1_000 });
    const client = await open(gateway.tcpPort);
    await waitFor(() => gateway.listeners.tailnetClients().length === 1);
    if (held) gateway.tailnet.hold();
    else gateway.tailnet.now.set(ALICE.address, undefined);
    await waitFor(() => client.ended());
    await waitFor(() => gateway.accessLog[0]?.["reason"] === "denied");
  }
  assert.equal(kept.ended(), false);
  kept.socket.destroy();
});

test("connections of a removed listener that drains are watched to their end", async () => {
  await using echo = await startTcpEcho();
  const tcp = { target: echo.port };
  await using gateway = await openTailnetListeners({ tcp }, FAST);
  const client = await open(gateway.tcpPort);
  const closed = gateway.listeners.close(3_600_000);
  assert.equal(gateway.listeners.tailnetClients().length, 1);
  assert.equal(client.ended(), false);
  gateway.tailnet.now.set(ALICE.address, null);
  await closed;
  assert.equal(client.ended(), true);
});

test("who is connected is told for 1,000 devices at most, and thousands of nodes are asked about a few at a time", async () => {
  let [underWay, most, asked] = [0, 0, 0];
  const access = {
    hosts: [],
    proves: false,
    whois: () => Promise.resolve(null),
    node: async (): Promise<TailnetPeer | null> => {
      most = Math.max(most, (underWay += 1));
      await new Promise(setImmediate);
      underWay -= 1;
      asked += 1;
      return null;
    },
  };
  const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
  const peers = new TailnetPeers(access, log, FAST);
  const lost = new Set<Socket>();
  const listener: TailnetListener = {
    plan: { name: "live" },
    onKnown: () => {},
    onRefused: () => {},
    onPeerChanged: (sockets) => {
      for (const socket of sockets) lost.add(socket.destroy());
    },
  };
  for (let i = 0; i < 2_000; i += 1) {
    peers.add(new Socket(), { ...ALICE, id: String(i), address: `100.64.${i >> 8}.${i & 255}` }, listener);
  }
  assert.equal(peers.clients().length, 1_000);
  await waitFor(() => lost.size === 2_000);
  assert.ok(most <= 16 && asked >= 2_000, `${most} at once`);
  assert.equal(peers.clients().length, 0);
});

test("whoever comes from where a connection was closed is doubtful: until tailscaled has forgotten it, or a while after it ended it itself", async (t) => {
  let known: TailnetPeer | null = ALICE;
  let looks = 0;
  const access = {
    hosts: [],
    proves: false,
    whois: () => {
      looks += 1;
      return Promise.resolve(known);
    },
    node: () => Promise.resolve(null),
  };
  const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
  const peers = new TailnetPeers(access, log, FAST);
  /** A connection that comes and is closed. */
  const pass = (port: number, readableEnded = false): string => {
    const socket = Object.assign(new EventEmitter(), { readableEnded }) as unknown as Socket;
    const claim = peers.claim(socket, "127.0.0.1", port);
    socket.emit("close");
    return claim;
  };
  assert.deepEqual([pass(5_000), pass(5_000), pass(5_001, true), pass(5_001, true)], ["fresh", "doubtful", "fresh", "doubtful"]);
  await waitFor(() => looks >= 2);
  assert.equal(pass(5_000), "doubtful");
  known = null;
  await waitFor(() => pass(5_000) === "fresh");
  // With a kernel interface a port says nothing.
  const socket = new EventEmitter() as unknown as Socket;
  for (let i = 0; i < 2; i += 1) assert.equal(peers.claim(socket, "100.64.0.1", 5_000), "fresh");

  t.mock.timers.enable({ apis: ["setInterval"] });
  const now = t.mock.method(performance, "now", () => 1_000);
  assert.deepEqual([pass(5_002, true), pass(5_002, true)], ["fresh", "doubtful"]);
  now.mock.mockImplementation(() => 6_000);
  assert.equal(pass(5_002, true), "fresh");
});
