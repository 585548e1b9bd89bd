// Load for TCP relays: a peer to put behind one, and the measurements to make through it. Everything is loopback and bounded in time.
import { once } from "node:events";
import { readdirSync, readFileSync } from "node:fs";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";

export type TcpMeasure = {
  /** Round trips, connections, or bytes, a second of wall time. */
  readonly perSecond: number;
  /** Microseconds of the relay's CPU time (user and system, its children too) for each; for bulk for each MiB. */
  readonly cpuMicros: number;
};

export type TcpPeer = { readonly port: number; close(): Promise<void> };

const BULK_CHUNK = Buffer.alloc(256 * 1024, 0x61);
const ECHO = 0x65;
const SEND = 0x73;
const MESSAGE = Buffer.alloc(64, ECHO);
const MIB = 1024 * 1024;

/** Answers what begins with "e" by the same bytes; "s" asks for bytes without end. */
export async function openTcpPeer(): Promise<TcpPeer> {
  const sockets = new Set<Socket>();
  const server = createServer({ noDelay: true, highWaterMark: 16 * 1024 }, (socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    socket.on("data", (chunk: Buffer) => {
      if (chunk[0] !== SEND) {
        socket.write(chunk);
        return;
      }
      const fill = (): void => {
        while (socket.write(BULK_CHUNK));
      };
      socket.on("drain", fill);
      fill();
    });
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog: 1024 });
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** 64 bytes there and back, again and again on each of `connections`. */
export async function measureEcho(port: number, connections: number, durationMs: number, pids: readonly number[]): Promise<TcpMeasure> {
  let trips = 0;
  const sockets = await Promise.all(
    Array.from({ length: connections }, () => {
      let got = 0;
      const socket = open(port, (bytes) => {
        got += bytes;
        if (got < MESSAGE.length) return;
        got = 0;
        trips += 1;
        socket.write(MESSAGE);
      });
      return opened(socket);
    }),
  );
  for (const socket of sockets) socket.write(MESSAGE);
  return await measured(() => trips, 1, durationMs, pids, sockets);
}

/** Bytes from the peer to the client, as fast as they come, on each of `connections`. */
export async function measureBulk(port: number, connections: number, durationMs: number, pids: readonly number[]): Promise<TcpMeasure> {
  let received = 0;
  const sockets = await Promise.all(Array.from({ length: connections }, () => opened(open(port, (bytes) => (received += bytes)))));
  for (const socket of sockets) socket.write(Buffer.of(SEND));
  return await measured(() => received, MIB, durationMs, pids, sockets);
}

/** Connect, one message there and back, close; always `concurrency` at once. Linux reuses loopback ports in TIME_WAIT after a second, so they do not run out. */
export async function measureConnects(port: number, concurrency: number, durationMs: number, pids: readonly number[]): Promise<TcpMeasure> {
  let done = 0;
  let going = true;
  function another(): void {
    if (!going) return;
    let got = 0;
    const socket = open(port, (bytes) => {
      got += bytes;
      if (got < MESSAGE.length) return;
      done += 1;
      socket.end();
    });
    socket.once("close", another);
    socket.write(MESSAGE);
  }
  for (let i = 0; i < concurrency; i += 1) another();
  const result = await measured(() => done, 1, durationMs, pids, []);
  going = false;
  return result;
}

/** Seconds of CPU time of processes and their children, living and reaped. */
export function cpuSeconds(pids: readonly number[]): number {
  let seconds = 0;
  for (const pid of pids) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, "latin1");
      // proc(5): fields 16 and 17, in ticks of 10 ms, are those of reaped children; counted after the name in parentheses.
      const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
      seconds += (Number(fields[13]) + Number(fields[14])) / 100;
      for (const thread of readdirSync(`/proc/${pid}/task`)) {
        // A process that lives shortly would vanish in ticks; schedstat has nanoseconds.
        seconds += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, "latin1").split(" ", 1)[0]) / 1e9;
        const children = readFileSync(`/proc/${pid}/task/${thread}/children`, "latin1").trim();
        if (children !== "") seconds += cpuSeconds(children.split(" ").map(Number));
      }
    } catch {
      // It ended in between; its parent has its time when it is reaped.
    }
  }
  return seconds;
}

function open(port: number, onBytes: (count: number) => void): Socket {
  const socket = connect({
    port,
    host: "127.0.0.1",
    noDelay: true,
    onread: {
      buffer: SINK,
      callback: (count) => {
        onBytes(count);
        return true;
      },
    },
  });
  socket.on("error", () => {});
  return socket;
}

// What comes is only counted.
const SINK = Buffer.allocUnsafeSlow(256 * 1024);

async function opened(socket: Socket): Promise<Socket> {
  await once(socket, "connect");
  return socket;
}

async function measured(count: () => number, unit: number, durationMs: number, pids: readonly number[], sockets: readonly Socket[]): Promise<TcpMeasure> {
  await wait(Math.min(300, durationMs / 4));
  const [countBefore, cpuBefore, timeBefore] = [count(), cpuSeconds(pids), performance.now()];
  await wait(durationMs);
  const amount = count() - countBefore;
  const seconds = (performance.now() - timeBefore) / 1_000;
  const cpu = cpuSeconds(pids) - cpuBefore;
  for (const socket of sockets) socket.destroy();
  return { perSecond: amount / seconds, cpuMicros: (cpu * 1e6) / Math.max(1, amount / unit) };
}

function wait(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
