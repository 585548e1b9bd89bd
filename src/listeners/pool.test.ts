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

/** A port that is free on several addresses of loopback. */
async function freeEverywhere(): Promise<number> {
  const server = await listenOn(0, "0.0.0.0");
  const { port } = server.address() as AddressInfo;
  await close(server);
  return port;
}

test("what comes to the port of a listener that left the tailnet is closed until that is sealed, which is before anybody serves", async () => {
  const port = await freeEverywhere();
  const pool = new SocketPool();
  (await pool.prepare([{ name: "live", address: { kind: "tailnet", port } }], ["127.0.0.1"])).commit();
  pool.get(`tailnet:${port}`)?.serve((accepted) => accepted.destroy());
  const prepared = await pool.prepare([{ name: "live", address: { kind: "tcp", host: "127.0.0.1", port } }]);
  const early = connect(port, "127.0.0.1").on("error", () => {});
  await once(early, "connect");
  await once(early.resume(), "close");
  let served = 0;
  prepared.sockets.get(`127.0.0.1:${port}`)?.serve((accepted) => {
    served += 1;
    accepted.destroy();
  });
  prepared.commit();
  assert.equal(served, 0);
  await once(connect(port, "127.0.0.1").resume(), "close");
  assert.equal(served, 1);
  pool.close();
});

/** Whether somebody accepts there. */
async function answers(host: string, port: number): Promise<boolean> {
  const socket = connect(port, host);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

test("a port of the tailnet is bound on each of its hosts and nowhere else, and is not down for one that is not there", async () => {
  const port = await freeEverywhere();
  const wanted = [{ name: "live", address: { kind: "tailnet", port } }] as const;
  const pool = new SocketPool();
  // 192.0.2.1 (RFC 5737) is no address of this machine.
  (await pool.prepare(wanted, ["127.0.0.1", "127.0.0.2", "192.0.2.1"])).commit();
  const socket = pool.get(`tailnet:${port}`);
  assert.deepEqual([socket?.boundAddress, socket?.down], [`tailnet:${port}`, ""]);
  assert.deepEqual(await Promise.all(["127.0.0.1", "127.0.0.2", "127.0.0.3"].map((host) => answers(host, port))), [true, true, false]);
  pool.close();
  assert.equal(await answers("127.0.0.2", port), false);
});

test("a taken port of the tailnet is an error that names it, with nothing left open; a tailnet that is not there yet is none", async () => {
  const port = await freeEverywhere();
  const thief = await listenOn(port, "127.0.0.2");
  const wanted = [{ name: "live", address: { kind: "tailnet", port } }] as const;
  const pool = new SocketPool();
  await assert.rejects(pool.prepare(wanted, ["127.0.0.1", "127.0.0.2"]), (error: Error) => {
    const what = `Cannot listen on tailnet:${port} (127.0.0.2:${port}) for listener 'live': address already in use`;
    assert.equal(error.message, `${what}; another program of this machine or container has that port`);
    return error instanceof ListenError;
  });
  assert.equal(await answers("127.0.0.1", port), false);

  for (const hosts of [[], ["192.0.2.1"]]) {
    (await pool.prepare(wanted, hosts)).commit();
    assert.equal(pool.get(`tailnet:${port}`)?.down, "waiting for the tailnet");
  }
  await close(thief);
  assert.equal((await pool.moveTailnet(["127.0.0.2"])).size, 0);
  assert.equal(pool.get(`tailnet:${port}`)?.down, "");
  assert.equal(await answers("127.0.0.2", port), true);
  pool.close();
});

test("a tailnet that moves takes its ports along: the new place first, and the old one goes on while there is no new one", async () => {
  const [port, otherPort] = [await freeEverywhere(), await freeEverywhere()];
  const pool = new SocketPool();
  const wanted = [
    { name: "live", address: { kind: "tailnet", port } },
    { name: "web", address: { kind: "tcp", host: "127.0.0.1", port: otherPort } },
  ] as const;
  (await pool.prepare(wanted, ["127.0.0.1"])).commit();
  const socket = pool.get(`tailnet:${port}`);
  const other = pool.get(`127.0.0.1:${otherPort}`);
  let served = 0;
  socket?.serve((accepted) => {
    served += 1;
    accepted.destroy();
  });
  const open = async (): Promise<string> => {
    const hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"];
    const are = await Promise.all(hosts.map((host) => answers(host, port)));
    return hosts.filter((_host, index) => are[index]).join(" ");
  };

  const thief = await listenOn(port, "127.0.0.3");
  assert.equal((await pool.moveTailnet([])).size, 0);
  const failures = await pool.moveTailnet(["127.0.0.3"]);
  assert.deepEqual([...failures.keys()], [`tailnet:${port}`]);
  assert.equal(socket?.down, "");
  await close(thief);
  assert.equal(await open(), "127.0.0.1");

  const [, again] = await Promise.all([pool.moveTailnet(["127.0.0.2", "127.0.0.3"]), pool.moveTailnet(["127.0.0.2", "127.0.0.3"])]);
  assert.equal(again.size, 0);
  assert.equal(await open(), "127.0.0.2 127.0.0.3");
  assert.equal(served, 3);
  assert.equal(pool.get(`127.0.0.1:${otherPort}`), other);
  assert.equal(await answers("127.0.0.1", otherPort), true);

  // Closed while it is about to be bound: nothing is left open.
  const moving = pool.moveTailnet(["127.0.0.1"]);
  pool.close();
  await moving;
  assert.equal(await open(), "");
});
