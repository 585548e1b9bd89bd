// Interactive Brokers' API through a TCP listener: the real client on one side, the stand-in on the other.
import assert from "node:assert/strict";
import { connect } from "node:net";
import { after, before, test } from "node:test";
import { ibClientMissing, startIbClient } from "../components/ib-client.ts";
import { startIbGateway, type IbGateway } from "../components/ib-gateway.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";
import { openClient, openRelay, readAll, type Relay } from "./tcp-relay.ts";

let gateway: IbGateway;
let relay: Relay;

before(async () => {
  gateway = await startIbGateway({ TICK_MS: "50" });
});
after(async () => {
  await gateway.close();
});

async function withRelay(plan: Parameters<typeof openRelay>[1], story: () => Promise<void>): Promise<void> {
  relay = await openRelay([`127.0.0.1:${gateway.livePort}`], plan);
  try {
    await story();
  } finally {
    await relay.close();
    await gateway.mode("normal");
  }
}

test("ib_async connects, asks and leaves, and its client id is in the access log", async (t) => {
  if (skipWithout(t, ibClientMissing())) return;
  await withRelay({ expect: "ib_api" }, async () => {
    const client = await startIbClient(relay.host, relay.port, 7);
    assert.deepEqual(client.greeting, { connected: true, accounts: ["U1234567"], server: 178 });
    assert.deepEqual((await client.ask("positions")).answer, [
      ["AAPL", 100],
      ["SPY", 10],
    ]);
    assert.equal(((await client.ask("summary")).answer as Record<string, string>)["NetLiquidation"], "100000.00");
    assert.match(String((await client.ask("time")).answer), /^20\d\d-/);
    assert.deepEqual(
      [...relay.live.connections].map((connection) => connection.ibClientId),
      [7],
    );
    assert.deepEqual(await client.ask("disconnect"), { disconnected: true });
    const [line] = await relay.ended(1);
    assert.deepEqual([line?.client_id, line?.reason], [7, "client_closed"]);
    assert.ok((line?.bytes_in ?? 0) > 50 && (line?.bytes_out ?? 0) > 200);
    await client.close();
  });
});

test("two clients are served at once, and a third with a used client id gets IB Gateway's own answer", async (t) => {
  if (skipWithout(t, ibClientMissing())) return;
  await withRelay({ expect: "ib_api" }, async () => {
    const [one, two] = await Promise.all([startIbClient(relay.host, relay.port, 1), startIbClient(relay.host, relay.port, 2)]);
    assert.deepEqual([one.greeting.connected, two.greeting.connected], [true, true]);
    assert.deepEqual(
      (await gateway.status()).live.clients.toSorted((a, b) => a - b),
      [1, 2],
    );
    const third = await startIbClient(relay.host, relay.port, 1, 2);
    assert.match(third.greeting.error ?? "", /ConnectionError|Timeout|Cancelled|already in use/);
    assert.match(String((await one.ask("time")).answer), /^20/);
    assert.match(String((await two.ask("time")).answer), /^20/);
    await Promise.all([one.ask("disconnect"), two.ask("disconnect")]);
    await relay.ended(3);
    await Promise.all([one.close(), two.close(), third.close()]);
  });
});

test("ib_async learns at once that IB Gateway went away, and is closed at once while it is not there", async (t) => {
  if (skipWithout(t, ibClientMissing())) return;
  await withRelay({ expect: "ib_api" }, async () => {
    const client = await startIbClient(relay.host, relay.port, 3);
    await gateway.drop();
    assert.equal((await client.next()).error, "disconnected");
    await gateway.mode("refuse");
    // ib_async itself waits for its whole timeout when it is closed before the handshake.
    const refused = await startIbClient(relay.host, relay.port, 3, 1);
    assert.match(refused.greeting.error ?? "", /Error/);
    const lines = await relay.ended(2);
    assert.equal(lines[0]?.reason, "upstream_closed");
    assert.equal(lines[1]?.reason, `connect_failed: connection refused at 127.0.0.1:${gateway.livePort}`);
    assert.ok((lines[1]?.duration_ms ?? 9_999) < 1_500);
    await Promise.all([client.close(), refused.close()]);
  });
});

test("a port scanner never reaches IB Gateway", () =>
  withRelay({ expect: "ib_api", timeouts: { connectMs: 2_000, idleMs: 0, expectMs: 200 } }, async () => {
    const before = await gateway.status();
    const probes: [Buffer | null, string][] = [
      [Buffer.from("GET / HTTP/1.1\r\nHost: x\r\n\r\n"), "unexpected_protocol: HTTP"],
      [Buffer.from("16030100c8010000c40303", "hex"), "unexpected_protocol: TLS"],
      [Buffer.from("SSH-2.0-x\r\n"), "unexpected_protocol: 0x5353482d322e302d"],
      [Buffer.from("API\0\xff\xff\xff\xff", "latin1"), "unexpected_protocol: 0x41504900ffffffff"],
      [Buffer.from("API\0\0\0\0\x04evil", "latin1"), "unexpected_protocol: 0x4150490000000004"],
      [Buffer.from("API\0\0\0", "latin1"), "expect_timeout"],
      [null, "expect_timeout"],
    ];
    for (const [bytes, reason] of probes) {
      const count = relay.lines.length;
      const { socket } = await openClient(relay);
      if (bytes !== null) socket.write(bytes);
      socket.resume();
      const lines = await relay.ended(count + 1);
      assert.equal(lines[count]?.reason, reason);
      socket.destroy();
    }
    // Connects and leaves without a byte.
    const { socket } = await openClient(relay);
    socket.end();
    assert.equal((await relay.ended(probes.length + 1)).at(-1)?.reason, "client_closed");
    const now = await gateway.status();
    assert.deepEqual([now.connections, now.bytes], [before.connections, before.bytes]);
    assert.equal(relay.stats.active, 0);
    socket.destroy();
  }));

test("a handshake in single bytes is taken as well, and nothing of it is lost", () =>
  withRelay({ expect: "ib_api" }, async () => {
    const { socket } = await openClient(relay);
    const answer = readAll(socket);
    for (const byte of Buffer.concat([Buffer.from("API\0\0\0\0\x09v157..176", "latin1"), Buffer.from("\0\0\0\x0971\x002\x0042\0\0", "latin1")])) {
      socket.write(Buffer.of(byte));
      await new Promise((resolve) => setImmediate(resolve));
    }
    await waitFor(() => [...relay.live.connections][0]?.ibClientId === 42, { what: () => "the client id" });
    await waitFor(() => ([...relay.live.connections][0]?.bytesOut ?? 0) > 80, { what: () => "the answer" });
    socket.end();
    assert.match((await answer).toString("latin1"), /^\0\0\0.176\0.*15\x001\0U1234567\0/s);
  }));

test("a client that speaks at once is not cut by a stand-in that hangs", () =>
  withRelay({ expect: "ib_api" }, async () => {
    await gateway.mode("hang");
    const socket = connect(relay.port, relay.host);
    socket.write("API\0\0\0\0\x09v157..176");
    await waitFor(() => [...relay.live.connections][0]?.bytesIn === 17, { what: () => "the relayed handshake" });
    socket.destroy();
    assert.equal((await relay.ended(1))[0]?.client_id, null);
  }));
