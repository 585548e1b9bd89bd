import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server } from "node:net";
import { test } from "node:test";
import { setImmediate } from "node:timers/promises";
import { ListenError, SocketPool } from "./pool.ts";

async function listenOn(port: number, host: string): Promise<Server> {
  const server = createServer().listen(port, host);
  await once(server, "listening");
  return server;
}

function close(server: Server): Promise<void> {
  return new Promise((resolve) => server.close(() => resolve()));
}

test("a socket whose port is lost during a failed change says so, and is opened again by the next change", async () => {
  const free = await listenOn(0, "127.0.0.1");
  const { port } = free.address() as AddressInfo;
  await close(free);
  const taken = await listenOn(0, "127.0.0.1");
  const takenPort = (taken.address() as AddressInfo).port;
  const everywhere = { name: "web", address: { kind: "tcp", host: null, port } } as const;
  const pool = new SocketPool();
  (await pool.prepare([everywhere])).commit();
  const socket = pool.get(`*:${port}`);
  let served = 0;
  socket?.serve((accepted) => {
    served += 1;
    accepted.destroy();
  });

  // "*:port" becomes "127.0.0.1:port", which is prevented by the second listener; meanwhile another process takes the port elsewhere.
  const change = pool.prepare([
    { name: "web", address: { kind: "tcp", host: "127.0.0.1", port } },
    { name: "more", address: { kind: "tcp", host: "127.0.0.1", port: takenPort } },
  ]);
  const thief = await listenOn(port, "127.0.0.2");
  await assert.rejects(change, ListenError);
  assert.equal(socket?.down, "address already in use");

  await assert.rejects(pool.prepare([everywhere]), ListenError);
  await close(thief);
  (await pool.prepare([everywhere])).commit();
  assert.equal(socket?.down, "");
  await once(connect(port, "127.0.0.1"), "close");
  assert.equal(served, 1);
  pool.close();
  await close(taken);
});

test("a port moves between names of the same address", async () => {
  const free = await listenOn(0, "127.0.0.1");
  const { port } = free.address() as AddressInfo;
  await close(free);
  const pool = new SocketPool();
  for (const host of ["127.0.0.1", "localhost", "127.0.0.1"]) (await pool.prepare([{ name: "web", address: { kind: "tcp", host, port } }])).commit();
  pool.close();
});

test("connections that come before anybody serves wait for it, but for those that were reset meanwhile", async () => {
  const pool = new SocketPool();
  (await pool.prepare([{ name: "web", address: { kind: "tcp", host: "127.0.0.1", port: 0 } }])).commit();
  const socket = pool.get("web@127.0.0.1:0");
  const port = Number(socket?.boundAddress.split(":")[1]);
  const [gone, here] = [connect(port, "127.0.0.1"), connect(port, "127.0.0.1")];
  await Promise.all([once(gone, "connect"), once(here, "connect")]);
  gone.resetAndDestroy();
  // The system has told of the reset already; the event loop looks at each turn.
  for (let turn = 0; turn < 5; turn += 1) await setImmediate();
  const served: (number | undefined)[] = [];
  socket?.serve((accepted) => served.push(accepted.remotePort));
  assert.deepEqual(served, [here.localPort]);
  pool.close();
  here.destroy();
});
