import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, Socket, type AddressInfo } from "node:net";
import { test } from "node:test";
import { Worker } from "node:worker_threads";
import type { DialAddress } from "../plan/model.ts";
import { DialError, dial, keepAliveDelayMs } from "./dial.ts";

function tried(address: DialAddress, timeoutMs = 5_000): Promise<Socket | DialError> {
  return new Promise((resolve) => dial(address, { timeoutMs, keepAliveMs: 30_000 }, resolve));
}

async function failure(address: DialAddress, timeoutMs?: number): Promise<DialError> {
  const result = await tried(address, timeoutMs);
  assert.ok(result instanceof DialError);
  return result;
}

test("a name is dialled over whichever family answers", async () => {
  const server = createServer((socket) => socket.end()).listen(0, "127.0.0.1");
  await once(server, "listening");
  const socket = await tried({ kind: "tcp", host: "localhost", port: (server.address() as AddressInfo).port });
  assert.ok(socket instanceof Socket);
  socket.destroy();
  server.close();
});

test("what went wrong is said in words, with the address", async () => {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  const refused = await failure({ kind: "tcp", host: "127.0.0.1", port });
  assert.deepEqual(
    [refused.code, refused.message, refused.reason],
    ["ERR_UPSTREAM_CONNECT", `Cannot connect: connection refused at 127.0.0.1:${port}`, `connection refused at 127.0.0.1:${port}`],
  );
  assert.equal((await failure({ kind: "tcp", host: "localhost", port })).reason, `connection refused at localhost:${port}`);
  assert.equal((await failure({ kind: "unix", path: "/nowhere/x.sock" })).reason, "no such file or directory at unix:/nowhere/x.sock");
});

test("a peer whose queue is full times out", async () => {
  // It listens with the shortest queue and never accepts, like a process that hangs.
  const worker = new Worker(
    `const { parentPort } = require("node:worker_threads");
     const server = require("node:net").createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 }, () => {
       parentPort.postMessage(server.address().port);
       setTimeout(() => Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10_000), 10);
     });`,
    { eval: true },
  );
  const [port] = (await once(worker, "message")) as [number];
  await new Promise((resolve) => setTimeout(resolve, 100));
  const fill = Array.from({ length: 4 }, () => connect(port, "127.0.0.1").on("error", () => {}));
  await new Promise((resolve) => setTimeout(resolve, 100));
  const { reason } = await failure({ kind: "tcp", host: "127.0.0.1", port }, 250);
  assert.equal(reason, `timed out after 250ms at 127.0.0.1:${port}`);
  for (const socket of fill) socket.destroy();
  await worker.terminate();
});

test("a cancelled attempt is never heard of again", async () => {
  let accepted = 0;
  const server = createServer((socket) => {
    accepted += 1;
    socket.destroy();
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const address: DialAddress = { kind: "tcp", host: "127.0.0.1", port: (server.address() as AddressInfo).port };
  const cancel = dial(address, { timeoutMs: 20, keepAliveMs: 0 }, () => assert.fail("it was cancelled"));
  cancel();
  const socket = await tried(address);
  assert.ok(socket instanceof Socket);
  await once(socket.resume(), "end");
  assert.ok(accepted >= 1);
  await new Promise((resolve) => setTimeout(resolve, 40));
  socket.destroy();
  server.close();
});

test("keepalive delays are what Linux takes", () => {
  assert.deepEqual([1, 30_000, 86_400_000].map(keepAliveDelayMs), [1_000, 30_000, 32_767_000]);
});
