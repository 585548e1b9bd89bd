import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { Agent } from "node:http";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { startOrigin, startTcpEcho } from "../../test/components/echo.ts";
import { fetchFrom, type RequestArgs } from "../../test/components/http-client.ts";
import { certificate } from "../../test/components/http-gateway.ts";
import { ALICE, BOT, EVE, FakeTailnet, match, NAMESAKE, openTailnetListeners, type TailnetListeners } from "../../test/components/tailnet-listeners.ts";
import { waitFor } from "../../test/components/wait.ts";
import { AddressSet } from "../lib/address.ts";

type Client = { readonly socket: Socket; readonly text: () => string; readonly ended: () => boolean };

function watch(socket: Socket): Client {
  let text = "";
  let ended = false;
  socket.on("data", (chunk) => (text += chunk.toString()));
  socket.on("error", () => {});
  socket.on("end", () => (ended = true)).on("close", () => (ended = true));
  return { socket, text: () => text, ended: () => ended };
}

/** Says something at once, as a client that wants to be read before it is known. */
async function dial(port: number, words = "hello"): Promise<Client> {
  const client = watch(connect(port, "127.0.0.1"));
  await once(client.socket, "connect");
  client.socket.write(words);
  return client;
}

async function fate(client: Client): Promise<"served" | "refused"> {
  await waitFor(() => client.ended() || client.text() !== "");
  client.socket.destroy();
  return client.text() === "" ? "refused" : "served";
}

const reasons = (story: TailnetListeners): unknown[] => story.accessLog.map(({ reason }) => reason);
const ADMITTED = { allowTailnet: match({ users: ["alice@example.com"], tags: ["tag:bots"], nodes: ["phone"] }) };

test("a user, a tag and a node are admitted; strangers, namesakes of other tailnets and local processes are not", async () => {
  await using echo = await startTcpEcho();
  await using story = await openTailnetListeners({ tcp: { target: echo.port, plan: ADMITTED } });
  const outcomes: string[] = [];
  for (const caller of [ALICE, BOT, EVE, NAMESAKE, { ...EVE, shortName: "phone2", name: "phone2.tail1.ts.net" }, null]) {
    story.tailnet.caller = caller;
    outcomes.push(await fate(await dial(story.tcpPort)));
    await waitFor(() => story.accessLog.length === outcomes.length);
  }
  assert.deepEqual(outcomes, ["served", "served", "served", "refused", "refused", "refused"]);
  const shown = story.accessLog.map(({ client, identity, node, reason }) => [client, identity, node, reason]);
  assert.deepEqual(shown.slice(1, 2), [["100.64.0.3", "tailnet:tag:bots,tag:ci", "bot", "client_closed"]]);
  assert.deepEqual(shown.slice(3), [
    ["100.99.0.1", "tailnet:mallory@example.org", "laptop.tail2.ts.net", "denied"],
    ["100.64.0.2", "tailnet:eve@example.com", "phone2", "denied"],
    ["127.0.0.1", null, undefined, "not_on_tailnet"],
  ]);
  assert.deepEqual(
    story.tailnet.asked.map(({ address }) => address),
    Array(6).fill("127.0.0.1"),
  );
  const stats = story.metrics.connections("live");
  await waitFor(() => stats.active === 0);
  assert.deepEqual([stats.accepted, stats.refused], [6, 3]);
  assert.equal(story.metrics.tcpListener("live").reasons.get("not_on_tailnet"), 1);
});

test("addresses and limits are those of the node, never of the loopback that its connection comes over", async () => {
  await using echo = await startTcpEcho();
  const ofLoopback = new AddressSet(["127.0.0.0/8"]);
  await using story = await openTailnetListeners({ tcp: { target: echo.port, plan: { allow: ofLoopback } } });
  assert.equal(await fate(await dial(story.tcpPort)), "refused");
  await story.reload({ tcp: { target: echo.port, plan: { deny: ofLoopback, allow: new AddressSet(["100.64.0.0/10"]) } } });
  assert.equal(await fate(await dial(story.tcpPort)), "served");
  await story.reload({ tcp: { target: echo.port, plan: { maxConnectionsPerClient: 1 } } });
  await waitFor(() => story.accessLog.length === 2);
  const first = await dial(story.tcpPort);
  await waitFor(() => first.text() === "hello");
  assert.equal(await fate(await dial(story.tcpPort)), "refused");
  story.tailnet.caller = EVE;
  assert.equal(await fate(await dial(story.tcpPort)), "served");
  first.socket.destroy();
});

test("nothing is read while tailscaled is asked, and a tailscaled that hangs or fails admits nobody", async () => {
  await using echo = await startTcpEcho();
  await using story = await openTailnetListeners({ tcp: { target: echo.port } }, { askMs: 200 });
  const release = story.tailnet.hold();
  const late = await dial(story.tcpPort);
  assert.equal(await fate(late), "refused");
  release();
  await waitFor(() => story.accessLog.length === 1);
  assert.deepEqual(reasons(story), ["not_on_tailnet: no answer from tailscaled"]);
  story.tailnet.held = Promise.reject(new Error("no such file"));
  story.tailnet.held.catch(() => {});
  assert.equal(await fate(await dial(story.tcpPort)), "refused");
  story.tailnet.held = Promise.resolve();
  assert.equal(await fate(await dial(story.tcpPort)), "served");
  // One line for the first, and no more in the same minute.
  assert.equal(story.log.filter(({ level }) => level === "warn").length, 1);
});

test("more than a socket's buffer waits in the system and arrives whole, in order", async () => {
  await using echo = await startTcpEcho();
  await using story = await openTailnetListeners({ tcp: { target: echo.port } });
  const release = story.tailnet.hold();
  const words = "0123456789".repeat(100_000);
  const client = await dial(story.tcpPort, words);
  await waitFor(() => story.tailnet.asked.length === 1);
  release();
  await waitFor(() => client.text().length === words.length);
  assert.ok(client.text() === words);
  client.socket.destroy();
});

test("a client that goes away, a reload and a drain while it is asked about", async () => {
  await using echo = await startTcpEcho();
  const tcp = { target: echo.port };
  await using origin = await startOrigin();
  const http = { target: `http://127.0.0.1:${origin.port}` };
  await using story = await openTailnetListeners({ tcp, http });
  const held = async (count: number, port = story.tcpPort, words?: string): Promise<{ release: () => void; client: Client }> => {
    const release = story.tailnet.hold();
    const before = story.tailnet.asked.length;
    const [client] = await Promise.all(Array.from({ length: count }, () => dial(port, words)));
    assert.ok(client);
    await waitFor(() => story.tailnet.asked.length === before + count);
    return { release, client };
  };

  const gone = await held(1);
  gone.client.socket.resetAndDestroy();
  await once(gone.client.socket, "close");
  gone.release();
  await waitFor(() => story.accessLog.length === 1);
  await waitFor(() => story.metrics.connections("live").active === 0 && story.listeners.tailnetClients().length === 0);

  // Its permission is taken away meanwhile: the plan of now decides.
  const denied = await held(1);
  await story.reload({ tcp: { ...tcp, plan: { allowTailnet: match({ users: ["eve@example.com"] }) } }, http });
  denied.release();
  assert.equal(await fate(denied.client), "refused");
  await waitFor(() => reasons(story).at(-1) === "denied");

  const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  const drained = [await held(1), await held(1, story.httpPort, request)];
  await story.listeners.close(0);
  for (const { release, client } of drained) {
    await waitFor(() => client.ended());
    release();
    // The answer comes, and changes nothing.
    await new Promise(setImmediate);
    assert.equal(client.text(), "");
  }
  assert.equal(origin.requests.length, 0);
  assert.deepEqual(story.listeners.tailnetClients(), []);
  for (const name of ["live", "web"]) assert.equal(story.metrics.connections(name).active, 0);
});

test("of two connections from the same local port one is not tailscaled's: the later one is refused, and the earlier one, too, while it waits", async () => {
  await using echo = await startTcpEcho();
  await using origin = await startOrigin();
  const http = { target: `http://127.0.0.1:${origin.port}`, routes: [{ auth: null }] };
  await using story = await openTailnetListeners({ tcp: { target: echo.port }, http });
  const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  const dialFrom = async (port: number, localPort: number, words: string): Promise<Client> => {
    const client = watch(connect({ port, host: "127.0.0.1", localAddress: "127.0.0.1", localPort }));
    client.socket.write(words);
    await once(client.socket, "connect");
    return client;
  };
  const known = await dialFrom(story.tcpPort, 0, "hello");
  await waitFor(() => known.text() === "hello");
  const forged = await dialFrom(story.httpPort, known.socket.localPort ?? 0, request);
  assert.equal(await fate(forged), "refused");
  assert.equal(known.ended(), false);
  known.socket.destroy();

  const release = story.tailnet.hold();
  const waits = await dialFrom(story.httpPort, 0, request);
  await waitFor(() => story.tailnet.asked.length === 2);
  const other = await dialFrom(story.tcpPort, waits.socket.localPort ?? 0, "hello");
  assert.equal(await fate(other), "refused");
  release();
  assert.equal(await fate(waits), "refused");
  assert.equal(origin.requests.length, 0);
  // A port is free again when its connection has ended.
  assert.equal(await fate(await dialFrom(story.httpPort, other.socket.localPort ?? 0, request)), "served");
});

test("of 300 at once 256 wait for tailscaled and are served, and the others are refused at once", async () => {
  await using echo = await startTcpEcho();
  await using story = await openTailnetListeners({ tcp: { target: echo.port } }, { askMs: 60_000 });
  const release = story.tailnet.hold();
  const clients = await Promise.all(Array.from({ length: 300 }, () => dial(story.tcpPort)));
  await waitFor(() => clients.filter((client) => client.ended()).length === 44);
  assert.equal(story.tailnet.asked.length, 256);
  release();
  await waitFor(() => clients.filter((client) => client.text() === "hello").length === 256, { timeoutMs: 30_000 });
  assert.deepEqual(story.listeners.tailnetClients(), [
    { listener: "live", address: "100.64.0.1", node: "laptop", user: "alice@example.com", tags: [], connections: 256 },
  ]);
  const more = await Promise.all(Array.from({ length: 300 }, () => dial(story.tcpPort)));
  await waitFor(() => more.filter((client) => client.text() === "hello").length === 300, { timeoutMs: 30_000 });
  for (const { socket } of [...clients, ...more]) socket.destroy();
  await waitFor(() => story.listeners.tailnetClients().length === 0);
});

test("TLS begins after the client is known, and over TCP and HTTP the identity is there", async () => {
  await using echo = await startTcpEcho();
  await using origin = await startOrigin();
  await using story = await openTailnetListeners({
    tls: true,
    tcp: { target: echo.port, plan: ADMITTED },
    http: { target: `http://127.0.0.1:${origin.port}`, routes: [{ auth: [{ kind: "tailnet", match: match({}) }], identityHeaders: true }] },
  });
  const release = story.tailnet.hold();
  const options = { host: "127.0.0.1", servername: "localhost", ca: certificate().cert };
  const socket = connectTls({ ...options, port: story.tcpPort });
  const client = watch(socket);
  await waitFor(() => story.tailnet.asked.length === 1);
  release();
  await once(socket, "secureConnect");
  socket.write("hello");
  await waitFor(() => client.text() === "hello");
  socket.destroy();
  await waitFor(() => story.accessLog.length === 1);
  assert.deepEqual([story.accessLog[0]?.["client"], story.accessLog[0]?.["identity"]], ["100.64.0.1", "tailnet:alice@example.com"]);

  const session = connectHttp2(`https://localhost:${story.httpPort}`, { ca: certificate().cert });
  session.on("error", () => {});
  for (let round = 0; round < 2; round += 1) {
    const stream = session.request({ ":path": "/x" });
    let body = "";
    stream.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
    await once(stream, "end");
    const { headers } = JSON.parse(body) as { headers: Record<string, string> };
    assert.deepEqual(
      [headers["x-forwarded-user"], headers["x-forwarded-user-source"], headers["x-forwarded-user-node"], headers["x-forwarded-for"]],
      ["alice@example.com", "tailnet", "laptop", "100.64.0.1"],
    );
  }
  assert.equal(story.tailnet.asked.length, 2);
  session.destroy();

  story.tailnet.caller = null;
  const local = connectTls({ ...options, port: story.httpPort });
  await assert.rejects(once(local, "secureConnect"));
});

test("HTTP: 403 for whom 'allow' keeps out, nothing for who is not known, and one question for a connection that is kept alive", async () => {
  await using origin = await startOrigin();
  const http = { target: `http://127.0.0.1:${origin.port}`, plan: { allowTailnet: match({ users: ["alice@example.com"] }) }, routes: [{ auth: null }] };
  await using story = await openTailnetListeners({ http, trustedProxies: ["127.0.0.0/8"] });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const ask = (args: RequestArgs = {}) => fetchFrom(story.httpPort, "/x", { headers: { "x-forwarded-for": "6.6.6.6" }, ...args });
  for (let round = 0; round < 3; round += 1) {
    const { status, body } = await ask({ agent });
    const { headers } = JSON.parse(body) as { headers: Record<string, string> };
    // Whoever is trusted on loopback, a node of the tailnet is not.
    assert.deepEqual([status, headers["x-forwarded-for"], headers["x-forwarded-user"]], [200, "100.64.0.1", undefined]);
  }
  assert.equal(story.tailnet.asked.length, 1);
  story.tailnet.caller = EVE;
  const denied = await ask();
  assert.equal(denied.status, 403);
  assert.match(denied.body, /ERR_TAILNET/);
  story.tailnet.caller = null;
  await assert.rejects(ask());
  await waitFor(() => story.accessLog.length === 4);
  assert.deepEqual(
    story.accessLog.slice(2).map(({ client, identity, node, status }) => [client, identity, node, status]),
    [
      ["100.64.0.1", "tailnet:alice@example.com", "laptop", 200],
      ["100.64.0.2", "tailnet:eve@example.com", "phone", 403],
    ],
  );
  assert.equal(story.metrics.connections("web").refused, 1);
  // What was permitted on the connection counts no more after a reload.
  await story.reload({ http: { ...http, plan: { allowTailnet: match({ nodes: ["phone"] }) } } });
  assert.equal((await ask({ agent })).status, 403);
  agent.destroy();
});

test("connections that are older than the reload which brought a listener to the tailnet prove nothing there", async () => {
  await using echo = await startTcpEcho();
  await using origin = await startOrigin();
  const listen = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
  const http = { target: `http://127.0.0.1:${origin.port}`, routes: [{ auth: null }] };
  const trustedProxies = ["127.0.0.0/8"];
  await using story = await openTailnetListeners({ tcp: { target: echo.port, plan: { listen } }, http: { ...http, plan: { listen } }, trustedProxies });
  const portOf = (name: string): number => Number(story.listeners.all.find(({ listener }) => listener.plan.name === name)?.address.split(":")[1]);
  const client = await dial(portOf("live"));
  await waitFor(() => client.text() === "hello");
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const webPort = portOf("web");
  assert.equal((await fetchFrom(webPort, "/", { agent })).status, 200);
  await story.reload({ tcp: { target: echo.port }, http, trustedProxies });
  await waitFor(() => client.ended());
  const { status, body } = await fetchFrom(webPort, "/", { agent, headers: { "x-forwarded-for": "100.64.0.1" } });
  assert.equal(status, 403);
  assert.match(body, /ERR_NOT_ON_TAILNET/);
  assert.equal(story.tailnet.asked.length, 0);
  agent.destroy();
});

test("a listener that leaves the tailnet takes nobody of it along, neither who is served nor who is still asked about", async () => {
  await using echo = await startTcpEcho();
  await using origin = await startOrigin();
  const http = { target: `http://127.0.0.1:${origin.port}`, routes: [{ auth: null }] };
  await using story = await openTailnetListeners({ tcp: { target: echo.port, plan: { allowTailnet: match({ users: ["alice@example.com"] }) } }, http });
  const alice = await dial(story.tcpPort);
  await waitFor(() => alice.text() === "hello");
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  assert.equal((await fetchFrom(story.httpPort, "/", { agent })).status, 200);
  story.tailnet.caller = EVE;
  const release = story.tailnet.hold();
  const eve = await dial(story.tcpPort);
  await waitFor(() => story.tailnet.asked.length === 3);
  const listen = { kind: "tcp", host: "127.0.0.1", port: 0 } as const;
  await story.reload({ tcp: { target: echo.port, plan: { listen } }, http: { ...http, plan: { listen } } });
  release();
  assert.equal(await fate(eve), "refused");
  await waitFor(() => alice.ended());
  assert.equal((await fetchFrom(story.httpPort, "/", { agent })).status, 403);
  agent.destroy();
});

test("a tailnet that is not there yet is waited for, and served as soon as it is, wherever it goes", async () => {
  await using echo = await startTcpEcho();
  const tailnet = new FakeTailnet();
  tailnet.hosts = [];
  await using story = await openTailnetListeners({ tcp: { target: echo.port } }, {}, tailnet);
  const shown = (): unknown => story.listeners.all.map(({ address, down }) => [address, down])[0];
  assert.deepEqual(shown(), [`tailnet:${story.tcpPort}`, "waiting for the tailnet"]);
  tailnet.hosts = ["127.0.0.1"];
  await story.listeners.tailnetMoved();
  assert.deepEqual(shown(), [`tailnet:${story.tcpPort}`, ""]);
  const first = await dial(story.tcpPort);
  await waitFor(() => first.text() === "hello");
  tailnet.hosts = ["127.0.0.2"];
  // As after a reload during which it moved.
  await story.reload({ tcp: { target: echo.port } });
  await waitFor(() =>
    dial(story.tcpPort).then(
      ({ socket }) => void socket.destroy(),
      () => true,
    ),
  );
  const second = watch(connect({ port: story.tcpPort, host: "127.0.0.2", localAddress: "127.0.0.2" }));
  second.socket.write("hello");
  await waitFor(() => second.text() === "hello");
  assert.equal(tailnet.asked.at(-1)?.address, "127.0.0.2");
  assert.equal(first.ended(), false);
  for (const { socket } of [first, second]) socket.destroy();
});
