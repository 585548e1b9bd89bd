// TCP listeners of the whole gateway: TLS before the relay, and sessions that outlive edits of the file.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { connect } from "node:net";
import { test } from "node:test";
import { connect as connectTls, type TLSSocket } from "node:tls";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { ibClientMissing, startIbClient } from "../components/ib-client.ts";
import { startIbGateway } from "../components/ib-gateway.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";
import { openPeer, readAll } from "./tcp-relay.ts";

const SIZE = 20 * 1024 * 1024;

async function openTls(gateway: Gateway, listener: string): Promise<TLSSocket> {
  const socket = connectTls({ host: "127.0.0.1", port: gateway.port(listener), ca: await gateway.ca(), servername: "localhost" });
  socket.allowHalfOpen = true;
  await once(socket, "secureConnect");
  return socket;
}

test("bytes under TLS arrive unchanged both ways, and the answer comes after the client's end", async () => {
  const digest = (bytes: Buffer): string => createHash("sha256").update(bytes).digest("hex");
  const peer = await openPeer((socket) => {
    void readAll(socket).then((bytes) => socket.end(Buffer.concat([Buffer.from(digest(bytes)), bytes])));
  });
  await using gateway = await startGateway({
    yaml: `listeners:\n  secure: { protocol: tcp, listen: "127.0.0.1:0", upstream: "${peer.address}", tls: { internal: true } }\n`,
  });
  const socket = await openTls(gateway, "secure");
  const bytes = randomBytes(SIZE);
  const answer = readAll(socket);
  for (let at = 0; at < SIZE; at += 70_001) if (!socket.write(bytes.subarray(at, at + 70_001))) await once(socket, "drain");
  socket.end();
  const received = await answer;
  assert.equal(received.toString("latin1", 0, 64), digest(bytes));
  assert.equal(digest(received.subarray(64)), digest(bytes));
  const line = await waitFor(() => gateway.accessLog[0]);
  assert.deepEqual([line["listener"], line["bytes_in"], line["bytes_out"], line["reason"]], ["secure", SIZE, SIZE + 64, "client_closed"]);
  await peer.close();
});

test("a client under TLS that goes without a word, and an upstream that resets, end the other side", async () => {
  const peer = await openPeer((socket) => socket.pipe(socket));
  await using gateway = await startGateway({
    yaml: `listeners:\n  secure: { protocol: tcp, listen: "127.0.0.1:0", upstream: "${peer.address}", tls: { internal: true } }\n`,
  });
  const one = await openTls(gateway, "secure");
  await waitFor(() => peer.sockets.size === 1);
  one.destroy();
  await waitFor(() => peer.sockets.size === 0, { what: () => "the end at the upstream" });
  const two = await openTls(gateway, "secure");
  two.on("error", () => {});
  two.on("end", () => two.end());
  two.resume();
  await waitFor(() => peer.sockets.size === 1);
  for (const socket of peer.sockets) socket.resetAndDestroy();
  await once(two, "close");
  assert.equal((await waitFor(() => gateway.accessLog[1]))["reason"], "upstream_reset");
  await peer.close();
});

test("an ib_async session lives through ten edits of other parts of the file and counts for the limit all along", async (t) => {
  if (skipWithout(t, ibClientMissing())) return;
  const ib = await startIbGateway({ TICK_MS: "100" });
  const yaml = (edit: number, perClient = 1): string => `
listeners:
  live: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${ib.livePort}", expect: ib_api, max_connections_per_client: ${perClient} }
  other${edit}: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${ib.paperPort}", keep_alive: ${edit + 1}s }
`;
  await using gateway = await startGateway({ yaml: yaml(0) });
  const client = await startIbClient("127.0.0.1", gateway.port("live"), 5);
  assert.equal(client.greeting.connected, true);
  for (let edit = 1; edit <= 10; edit += 1) {
    await gateway.edit(yaml(edit));
    assert.match(String((await client.ask("time")).answer), /^20/);
  }
  const second = await startIbClient("127.0.0.1", gateway.port("live"), 6, 1);
  assert.match(second.greeting.error ?? "", /Error/);
  assert.equal((await waitFor(() => gateway.accessLog[0]))["reason"], "too_many_connections_of_client");
  await gateway.edit(yaml(11, 2));
  const third = await startIbClient("127.0.0.1", gateway.port("live"), 6);
  assert.equal(third.greeting.connected, true);
  assert.equal((await ib.status()).live.clients.length, 2);
  assert.deepEqual(await client.ask("disconnect"), { disconnected: true });
  await waitFor(() => gateway.accessLog.some((line) => line["client_id"] === 5 && line["reason"] === "client_closed"));
  for (const each of [client, second, third, ib]) await each.close();
});

test("clients that do not get on with their TLS handshake count for the limits of the listener", async () => {
  const peer = await openPeer((socket) => socket.pipe(socket));
  await using gateway = await startGateway({
    yaml: `listeners:
  few: { protocol: tcp, listen: "127.0.0.1:0", upstream: "${peer.address}", tls: { internal: true }, max_connections: 2 }
  fewer: { protocol: tcp, listen: "127.0.0.1:0", upstream: "${peer.address}", tls: { internal: true }, max_connections_per_client: 1 }
  slow: { protocol: tcp, listen: "127.0.0.1:0", upstream: "${peer.address}", tls: { internal: true }, connection_rate: { connections: 3, per: 1h } }
`,
  });
  const reasons = (listener: string): unknown[] => gateway.accessLog.filter((line) => line["listener"] === listener).map((line) => line["reason"]);
  for (const [listener, allowed, reason] of [
    ["few", 2, "too_many_connections"],
    ["fewer", 1, "too_many_connections_of_client"],
    ["slow", 3, "rate_limited"],
  ] as const) {
    const silent = Array.from({ length: 6 }, () => connect(gateway.port(listener), "127.0.0.1").on("error", () => {}));
    await waitFor(() => reasons(listener).length === 6 - allowed);
    assert.deepEqual(new Set(reasons(listener)), new Set([reason]));
    for (const socket of silent) socket.destroy();
  }
  // Who goes makes room.
  await waitFor(async () => {
    const socket = connectTls({ host: "127.0.0.1", port: gateway.port("fewer"), ca: await gateway.ca(), servername: "localhost" });
    const isSecure = await new Promise((resolve) => socket.once("secureConnect", () => resolve(true)).once("error", () => resolve(false)));
    socket.destroy();
    return isSecure;
  });
  assert.match((await gateway.admin("/metrics")).body, /sidegate_connections_refused_total\{listener="few"\} 4/);
  await peer.close();
});
