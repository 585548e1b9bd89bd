import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { SocketOwner } from "./socket-owner.ts";

test("a socket belongs to the process that holds it, and to nobody once it is closed", async (t) => {
  const accepted: Socket[] = [];
  const server = createServer((socket) => void accepted.push(socket.on("error", () => {}))).listen(0, "127.0.0.1");
  t.after(() => {
    for (const socket of accepted) socket.destroy();
    server.close();
  });
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const mine = connect(port, "127.0.0.1");
  const other = spawn(process.execPath, ["-e", `require("net").connect(${port}, "127.0.0.1")`], { stdio: "ignore" });
  t.after(() => other.kill("SIGKILL"));
  await waitFor(() => accepted.length === 2 && mine.localPort !== undefined);
  const [myPort, otherPort] = [mine.localPort ?? 0, accepted.find(({ remotePort }) => remotePort !== mine.localPort)?.remotePort ?? 0];
  const [self, child, nobody] = [process.pid, other.pid ?? 0, null].map((pid) => new SocketOwner(() => pid));
  const seen = await Promise.all([self, child, nobody].map((owner) => Promise.all([owner?.owns(myPort, port), owner?.owns(otherPort, port)])));
  assert.deepEqual(seen, [
    [true, false],
    [false, true],
    [null, null],
  ]);
  // The same port to another one is another connection.
  assert.equal(await self?.owns(myPort, port + 1), false);
  mine.destroy();
  await waitFor(async () => (await self?.owns(myPort, port)) === false);
});

test("where /proc does not tell, nothing is known", async () => {
  assert.equal(await new SocketOwner(() => 1, "/nonexistent").owns(1, 2), null);
  assert.equal(await new SocketOwner(() => 2 ** 30).owns(1, 2), null);
});

test("each answer is from a look that began after the question", async (t) => {
  const server = createServer().listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const owner = new SocketOwner(() => process.pid);
  for (let i = 0; i < 50; i += 1) {
    const early = owner.owns(1, port);
    const socket = connect(port, "127.0.0.1").on("error", () => {});
    await once(socket, "connect");
    assert.equal(await owner.owns(socket.localPort ?? 0, port), true);
    assert.equal(await early, false);
    socket.destroy();
  }
});
