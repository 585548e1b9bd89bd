// What a client and its upstream see of each other through a TCP listener.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openClient, openPeer, openRelay, readAll } from "./tcp-relay.ts";

test("bytes go both ways and one line says so", async () => {
  const peer = await openPeer((socket) => socket.pipe(socket));
  const relay = await openRelay([peer.address]);
  const { socket } = await openClient(relay);
  const answer = readAll(socket);
  socket.end("hello");
  assert.equal((await answer).toString(), "hello");
  const [line] = await relay.ended(1);
  assert.ok(line);
  assert.deepEqual([line.listener, line.client, line.bytes_in, line.bytes_out, line.upstream, line.reason], ["live", "127.0.0.1", 5, 5, `tcp://${peer.address}`, "client_closed"]);
  assert.equal(line.client_port, socket.localPort ?? line.client_port);
  await relay.close();
  await peer.close();
});
