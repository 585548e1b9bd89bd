// What a client and its upstream see of each other through a TCP listener.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import type { Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { AddressSet } from "../../src/lib/address.ts";
import { waitFor } from "../components/wait.ts";
import { openClient, openPeer, openRelay, readAll } from "./tcp-relay.ts";

const MIB = 1024 * 1024;

test("bytes go both ways and one line says so", async () => {
  const peer = await openPeer((socket) => socket.pipe(socket));
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const port = socket.localPort;
  const answer = readAll(socket);
  socket.end("hello");
  assert.equal((await answer).toString(), "hello");
  const [line] = await relay.ended(1);
  assert.ok(line);
  assert.deepEqual(
    [line.listener, line.client, line.client_port, line.client_id, line.bytes_in, line.bytes_out, line.upstream, line.reason],
    ["live", "127.0.0.1", port, null, 5, 5, `tcp://${peer.address}`, "client_closed"],
  );
  assert.equal(Date.parse(line.start) + line.duration_ms >= Date.parse(line.time) - 1, true);
  assert.deepEqual([relay.stats.bytesIn, relay.stats.bytesOut, relay.stats.reasons.size], [5, 5, 0]);
  await relay.close();
  await peer.close();
});

test("a server that speaks first is heard by a client that says nothing", async () => {
  const peer = await openPeer((socket) => socket.end("welcome"));
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  assert.equal((await readAll(socket)).toString(), "welcome");
  socket.end();
  assert.equal((await relay.ended(1))[0]?.reason, "upstream_closed");
  await relay.close();
  await peer.close();
});

test("a client that ends before the upstream is connected is not forgotten", async () => {
  const peer = await openPeer((socket) => {
    socket.on("end", () => socket.end("goodbye"));
    socket.resume();
  });
  // The relay sees the client only after its FIN.
  const relay = await openRelay([peer.address], {}, (socket, serve) => {
    setTimeout(() => serve(socket), 50);
  });
  const { socket } = await openClient(relay);
  socket.end();
  assert.equal((await readAll(socket)).toString(), "goodbye");
  assert.equal((await relay.ended(1))[0]?.reason, "client_closed");
  await relay.close();
  await peer.close();
});

test("a client that said its last word still gets the whole answer, and the other way round", async () => {
  const asked: Promise<Buffer>[] = [];
  const peer = await openPeer((socket) => {
    const question = readAll(socket);
    asked.push(question);
    // It answers after the client's FIN only, and in pieces.
    void question.then(async () => {
      for (let i = 0; i < 5; i += 1) {
        socket.write(`part ${i};`);
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      socket.end();
    });
  });
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const answer = readAll(socket);
  socket.end("question");
  assert.equal((await answer).toString(), "part 0;part 1;part 2;part 3;part 4;");
  assert.equal((await asked[0])?.toString(), "question");

  const heard: Promise<Buffer>[] = [];
  const mute = await openPeer((upstream) => {
    heard.push(readAll(upstream));
    upstream.end("bye");
  });
  const other = await openRelay([mute.address]);
  const client = await openClient(other);
  assert.equal((await readAll(client.socket)).toString(), "bye");
  client.socket.write("one more thing");
  await waitFor(() => [...other.live.connections][0]?.bytesIn === 14, { what: () => "bytes after the upstream's FIN" });
  client.socket.end();
  assert.equal((await heard[0])?.toString(), "one more thing");
  await other.ended(1);
  for (const each of [relay, other, peer, mute]) await each.close();
});

test("200 MB arrive unchanged each way at the same time", async () => {
  const size = 200 * MIB;
  const block = randomBytes(MIB + 7);
  const hashes: string[] = [];
  const peer = await openPeer((socket) => {
    void send(socket, block, size);
    void hashOf(socket).then((hash) => hashes.push(hash));
  });
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const [expected, received] = await Promise.all([send(socket, block, size), hashOf(socket)]);
  await waitFor(() => hashes.length === 1, { what: () => "the upstream's hash" });
  assert.equal(received, expected);
  assert.equal(hashes[0], expected);
  const [line] = await relay.ended(1);
  assert.deepEqual([line?.bytes_in, line?.bytes_out], [size, size]);
  await relay.close();
  await peer.close();
});

test("small and large pieces in a random order arrive unchanged when the reader stutters", async () => {
  const pieces = Array.from({ length: 400 }, (_, i) => randomBytes(i % 7 === 0 ? 300_000 : 1 + ((i * 7919) % 5_000)));
  const peer = await openPeer((socket) => {
    void (async () => {
      for (const piece of pieces) if (!socket.write(piece)) await once(socket, "drain");
      socket.end();
    })();
  });
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const hash = createHash("sha256");
  let stutter = 0;
  socket.on("data", (chunk: Buffer) => {
    hash.update(chunk);
    stutter += 1;
    if (stutter % 20 !== 0) return;
    socket.pause();
    setTimeout(() => socket.resume(), 3);
  });
  await once(socket, "end");
  assert.equal(hash.digest("hex"), createHash("sha256").update(Buffer.concat(pieces)).digest("hex"));
  socket.end();
  await relay.ended(1);
  await relay.close();
  await peer.close();
});

test("a reader that takes nothing holds back the sender, and no memory grows", async () => {
  let sent = 0;
  const block = Buffer.alloc(MIB);
  const peer = await openPeer((socket) => {
    const fill = (): void => {
      while (socket.write(block)) sent += block.length;
      sent += block.length;
    };
    socket.on("drain", fill);
    fill();
  });
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  await waitFor(() => sent > 0, { what: () => "the first bytes" });
  let last = -1;
  // Until a second goes by without a byte.
  while (last !== sent) {
    last = sent;
    await new Promise((resolve) => setTimeout(resolve, 1_000));
  }
  const connection = [...relay.live.connections][0];
  assert.ok(connection);
  assert.ok(connection.socket.writableLength < MIB, `${connection.socket.writableLength} bytes wait in the relay`);
  assert.ok(sent < 64 * MIB, `${sent} bytes were taken from the upstream`);
  const held = connection.bytesOut;
  // It goes on as soon as the reader does.
  socket.resume();
  await waitFor(() => connection.bytesOut > held + 8 * MIB, { what: () => "more bytes" });
  socket.destroy();
  await relay.ended(1);
  await relay.close();
  await peer.close();
});

test("a small piece that waits for the reader is not overwritten by those after it", async () => {
  const sent: Buffer[] = [];
  let going = true;
  const peer = await openPeer((socket) => {
    void (async () => {
      while (going && sent.length < 20_000) {
        const piece = Buffer.alloc(3_000, sent.length % 251);
        sent.push(piece);
        socket.write(piece);
        await new Promise((resolve) => setImmediate(resolve));
      }
      socket.end();
    })();
  });
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  // The kernel's buffers are full: from here on pieces wait in the relay itself.
  await waitFor(() => ([...relay.live.connections][0]?.socket.writableLength ?? 0) > 30_000, { what: () => "pieces that wait" });
  going = false;
  const received = await readAll(socket);
  assert.ok(received.equals(Buffer.concat(sent)), "bytes changed on the way");
  socket.end();
  await relay.ended(1);
  await relay.close();
  await peer.close();
});

test("an upstream that takes nothing holds back the client", async () => {
  const peer = await openPeer((socket) => socket.pause());
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const block = Buffer.alloc(MIB);
  let taken = 0;
  const fill = (): void => {
    while (taken < 256 * MIB && socket.write(block, () => (taken += block.length)));
  };
  socket.on("drain", fill);
  fill();
  let last = -1;
  while (last !== taken) {
    last = taken;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  assert.ok(taken < 64 * MIB, `${taken} bytes were taken from the client`);
  const held = [...relay.live.connections][0]?.bytesIn ?? 0;
  for (const upstream of peer.sockets) upstream.resume();
  await waitFor(() => ([...relay.live.connections][0]?.bytesIn ?? 0) > held + 8 * MIB, { what: () => "more bytes" });
  socket.resetAndDestroy();
  await relay.ended(1);
  await relay.close();
  await peer.close();
});

test("a reset of one side is a reset of the other, never a clean end", async () => {
  const upstreamErrors: string[] = [];
  const peer = await openPeer((socket) => {
    socket.on("error", (error: NodeJS.ErrnoException) => upstreamErrors.push(error.code ?? ""));
    socket.resume();
  });
  const relay = await openRelay([peer.address]);
  const one = await openClient(relay);
  one.socket.write("x");
  await waitFor(() => peer.sockets.size === 1, { what: () => "the upstream connection" });
  await waitFor(() => [...relay.live.connections][0]?.bytesIn === 1, { what: () => "the byte" });
  one.socket.resetAndDestroy();
  assert.equal((await relay.ended(1))[0]?.reason, "client_reset");
  await waitFor(() => upstreamErrors.length === 1, { what: () => "the reset at the upstream" });
  assert.deepEqual(upstreamErrors, ["ECONNRESET"]);

  const two = await openClient(relay);
  two.socket.resume();
  await waitFor(() => peer.sockets.size === 1, { what: () => "the second upstream connection" });
  for (const socket of peer.sockets) socket.resetAndDestroy();
  assert.equal((await relay.ended(2))[1]?.reason, "upstream_reset");
  await waitFor(() => two.errors.length === 1, { what: () => "the reset at the client" });
  assert.deepEqual(two.errors, ["ECONNRESET"]);
  await relay.close();
  await peer.close();
});

test("a client is closed cleanly when the upstream is away, although it has spoken", async () => {
  const gone = await openPeer(() => {});
  await gone.close();
  const relay = await openRelay([gone.address]);
  for (let i = 0; i < 2; i += 1) {
    const { socket, errors } = await openClient(relay);
    socket.write("API\0");
    assert.equal((await readAll(socket)).length, 0);
    assert.deepEqual(errors, []);
    socket.destroy();
  }
  const lines = await relay.ended(2);
  assert.equal(lines[0]?.reason, `connect_failed: connection refused at ${gone.address}`);
  assert.equal(relay.stats.reasons.get("connect_failed"), 2);
  // One outage, one warning.
  assert.equal(relay.log.filter((line) => line.includes("Cannot connect to upstream 'ib'")).length, 1);
  await relay.close();
});

test("the next target is tried when one is away, and one that recovered is used again", async () => {
  const gone = await openPeer(() => {});
  await gone.close();
  const peer = await openPeer((socket) => socket.end("here"));
  const relay = await openRelay([gone.address, peer.address]);
  for (let i = 0; i < 4; i += 1) {
    const { socket } = await openClient(relay);
    assert.equal((await readAll(socket)).toString(), "here");
    socket.end();
  }
  const lines = await relay.ended(4);
  assert.ok(lines.every((line) => line.upstream === `tcp://${peer.address}` && line.reason === "upstream_closed"));
  assert.ok((relay.upstream.targets[0]?.connectFailures ?? 0) > 0);
  await relay.close();
  await peer.close();
});

test("a unix socket is an upstream like any other", async () => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-tcp-"));
  const peer = await openPeer((socket) => socket.pipe(socket), join(dir, "peer.sock"));
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const answer = readAll(socket);
  socket.end("over a unix socket");
  assert.equal((await answer).toString(), "over a unix socket");
  assert.equal((await relay.ended(1))[0]?.upstream, peer.address);
  // A reset cannot be passed to a unix socket; the connection ends all the same.
  const two = await openClient(relay);
  await waitFor(() => peer.sockets.size === 1, { what: () => "the upstream connection" });
  two.socket.resetAndDestroy();
  await relay.ended(2);
  await waitFor(() => peer.sockets.size === 0, { what: () => "the end at the upstream" });
  await relay.close();
  await peer.close();
  rmSync(dir, { recursive: true });
});

test("an idle timeout beyond what a timer can wait for does not end a connection, nor look at it without pause", async () => {
  const peer = await openPeer((socket) => socket.pipe(socket));
  const warnings: Error[] = [];
  const onWarning = (warning: Error): number => warnings.push(warning);
  process.on("warning", onWarning);
  const relay = await openRelay([peer.address], { timeouts: { connectMs: 1_000, idleMs: 365 * 86_400_000, expectMs: 1_000 } });
  const { socket: client } = await openClient(relay);
  client.write("hello");
  assert.equal(String((await once(client, "data"))[0]), "hello");
  client.destroy();
  await relay.ended(1);
  process.off("warning", onWarning);
  assert.deepEqual(warnings, []);
  await relay.close();
  await peer.close();
});

test("a connection that is silent both ways ends after the idle timeout, one that is not stays", async () => {
  const peer = await openPeer((socket) => socket.pipe(socket));
  const relay = await openRelay([peer.address], { timeouts: { connectMs: 1_000, idleMs: 400, expectMs: 1_000 } });
  const quiet = await openClient(relay);
  const busy = await openClient(relay);
  quiet.socket.resume();
  busy.socket.resume();
  const timer = setInterval(() => busy.socket.write("."), 50);
  const [line] = await relay.ended(1);
  assert.equal(line?.reason, "idle_timeout");
  assert.ok(line.duration_ms >= 390 && line.duration_ms < 2_000, String(line.duration_ms));
  await new Promise((resolve) => setTimeout(resolve, 600));
  assert.equal(relay.live.connections.size, 1);
  clearInterval(timer);
  await relay.ended(2);
  await relay.close();
  await peer.close();
});

test("addresses that are denied, or not allowed, never reach the upstream", async () => {
  const peer = await openPeer((socket) => socket.end("in"));
  const relay = await openRelay([peer.address], { allow: new AddressSet(["10.0.0.0/8"]) });
  const refused = async (): Promise<void> => {
    const { socket } = await openClient(relay);
    assert.equal((await readAll(socket)).length, 0);
    socket.destroy();
  };
  await refused();
  relay.replan({ allow: new AddressSet(["127.0.0.0/8"]), deny: new AddressSet(["127.0.0.1"]) });
  await refused();
  relay.replan({ allow: null });
  await refused();
  assert.deepEqual(
    (await relay.ended(3)).map((line) => line.reason),
    ["denied", "denied", "denied"],
  );
  assert.equal(peer.accepted(), 0);
  assert.equal(relay.stats.reasons.get("denied"), 3);
  relay.replan({ allow: new AddressSet(["127.0.0.1"]), deny: null });
  const { socket } = await openClient(relay);
  assert.equal((await readAll(socket)).toString(), "in");
  socket.end();
  await relay.ended(4);
  await relay.close();
  await peer.close();
});

test("limits count what is open now, over a change of the plan too", async () => {
  const peer = await openPeer(listenOnly);
  const relay = await openRelay([peer.address], { maxConnectionsPerClient: 2 });
  const first = await openClient(relay);
  const second = await openClient(relay);
  await waitFor(() => relay.live.connections.size === 2, { what: () => "two connections" });
  await openClient(relay);
  assert.equal((await relay.ended(1))[0]?.reason, "too_many_connections_of_client");
  relay.replan({ maxConnectionsPerClient: 0, maxConnections: 2 });
  await openClient(relay);
  assert.equal((await relay.ended(2))[1]?.reason, "too_many_connections");
  first.socket.end();
  await relay.ended(3);
  const fifth = await openClient(relay);
  await waitFor(() => relay.live.connections.size === 2, { what: () => "a free place" });
  second.socket.destroy();
  fifth.socket.destroy();
  await relay.ended(5);
  assert.equal(relay.lines.length, 5);
  await relay.close();
  await peer.close();
});

test("a client that connects too often is refused until time has passed", async () => {
  const peer = await openPeer((socket) => socket.end());
  const relay = await openRelay([peer.address], { connectionRate: { connections: 3, perMs: 600 } });
  const come = async (): Promise<void> => {
    const { socket } = await openClient(relay);
    await readAll(socket);
    socket.end();
    await once(socket, "close");
  };
  for (let i = 0; i < 5; i += 1) await come();
  assert.deepEqual((await relay.ended(5)).map((line) => line.reason).filter((reason) => reason === "rate_limited").length, 2);
  await new Promise((resolve) => setTimeout(resolve, 300));
  await come();
  assert.equal((await relay.ended(6))[5]?.reason, "upstream_closed");
  await relay.close();
  await peer.close();
});

test("a connection that is closed from within ends on both sides, whatever it was doing", async () => {
  const peer = await openPeer(listenOnly);
  const relay = await openRelay([peer.address]);
  const open = await openClient(relay);
  open.socket.resume();
  await waitFor(() => peer.sockets.size === 1, { what: () => "the upstream connection" });
  relay.replan({ expect: "ib_api" });
  const waiting = await openClient(relay);
  waiting.socket.resume();
  await waitFor(() => relay.live.connections.size === 2, { what: () => "two connections" });
  for (const connection of relay.live.connections) connection.close("drained");
  assert.deepEqual(
    (await relay.ended(2)).map((line) => line.reason),
    ["drained", "drained"],
  );
  await waitFor(() => peer.sockets.size === 0 && open.socket.readableEnded && waiting.socket.readableEnded, { what: () => "closed sockets" });
  open.socket.destroy();
  waiting.socket.destroy();
  await relay.close();
  await peer.close();
});

/** Takes everything, says nothing, and goes when the other side does. */
function listenOnly(socket: Socket): void {
  socket.on("end", () => socket.end());
  socket.resume();
}

async function send(socket: Socket, block: Buffer, size: number): Promise<string> {
  const hash = createHash("sha256");
  for (let left = size; left > 0; left -= block.length) {
    const piece = left < block.length ? block.subarray(0, left) : block;
    hash.update(piece);
    if (!socket.write(piece)) await once(socket, "drain");
  }
  socket.end();
  return hash.digest("hex");
}

async function hashOf(socket: Socket): Promise<string> {
  const hash = createHash("sha256");
  socket.on("data", (chunk: Buffer) => hash.update(chunk));
  await once(socket, "end");
  return hash.digest("hex");
}
