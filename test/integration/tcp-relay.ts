// A TCP listener in this process, for the stories of tcp-*.test.ts that need no reload: real sockets, real metrics, the access log in memory.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { formatAddress, parseDialAddress } from "../../src/lib/address.ts";
import type { TcpListenerPlan, UpstreamPlan } from "../../src/plan/model.ts";
import { createTcpLive, type TcpLive, type TcpState } from "../../src/tcp/connection.ts";
import { handleConnection } from "../../src/tcp/handle.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { Metrics, type TcpListenerStats } from "../../src/telemetry/metrics.ts";
import { Upstream } from "../../src/upstreams/upstream.ts";
import { waitFor } from "../components/wait.ts";

export type AccessLine = {
  time: string;
  listener: string;
  client: string;
  client_port: number;
  client_id: number | null;
  start: string;
  duration_ms: number;
  bytes_in: number;
  bytes_out: number;
  upstream: string | null;
  reason: string;
};

export type Relay = {
  readonly port: number;
  readonly host: string;
  readonly live: TcpLive;
  readonly stats: TcpListenerStats;
  readonly upstream: Upstream;
  /** Access log, oldest first. */
  readonly lines: AccessLine[];
  /** The gateway's own log, one JSON text a line. */
  readonly log: string[];
  /** Another plan for connections from now on. */
  replan(plan: Partial<TcpListenerPlan>): void;
  /** Waits for so many access log lines and gives them. */
  ended(count: number): Promise<AccessLine[]>;
  close(): Promise<void>;
};

/** The plan of an upstream with TCP or unix targets, as `host:port` or `unix:/path`. */
export function tcpUpstreamPlan(targets: readonly string[], more: Partial<UpstreamPlan> = {}): UpstreamPlan {
  return {
    name: "ib",
    key: "ib",
    scheme: "tcp",
    targets: targets.map((text) => {
      const address = parseDialAddress(text);
      assert.ok(address, text);
      return { url: address.kind === "unix" ? formatAddress(address) : `tcp://${formatAddress(address)}`, scheme: "tcp", address };
    }),
    tls: { ca: null, serverName: null, certificate: null, verify: true },
    authorization: null,
    maxConnections: 0,
    health: null,
    ejection: { failures: 3, durationMs: 10_000 },
    timeouts: { connectMs: 5_000, responseHeadersMs: 0, readMs: 0, writeMs: 0, idleMs: 0, keepAliveMs: 4_000 },
    ...more,
  };
}

export const TCP_PLAN: TcpListenerPlan = {
  protocol: "tcp",
  name: "live",
  listen: { kind: "tcp", host: "127.0.0.1", port: 0 },
  tls: { mode: "disabled" },
  allow: null,
  allowTailnet: null,
  deny: null,
  maxConnections: 0,
  maxConnectionsPerClient: 0,
  connectionRate: null,
  accessLog: { kind: "off" },
  upstream: "ib",
  expect: null,
  keepAliveMs: 30_000,
  timeouts: { connectMs: 5_000, idleMs: 0, expectMs: 10_000 },
};

/** @param accept what takes accepted sockets to the relay; by default at once, as a listener without TLS does */
export async function openRelay(
  targets: readonly string[],
  plan: Partial<TcpListenerPlan> = {},
  accept: (socket: Socket, serve: (socket: Socket) => void) => void = (socket, serve) => serve(socket),
): Promise<Relay> {
  const lines: AccessLine[] = [];
  const log: string[] = [];
  const live = createTcpLive();
  const metrics = new Metrics();
  const stats = metrics.tcpListener("live");
  const upstream = new Upstream(tcpUpstreamPlan(targets));
  let state: TcpState = {
    plan: { ...TCP_PLAN, ...plan },
    upstream,
    live,
    stats,
    accessLog: { write: (line) => lines.push(JSON.parse(line) as AccessLine) },
    log: openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => log.push(text) }),
  };
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => accept(socket, (served) => handleConnection(state, served)));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    host: "127.0.0.1",
    live,
    stats,
    upstream,
    lines,
    log,
    replan: (more) => {
      state = { ...state, plan: { ...state.plan, ...more } };
    },
    ended: async (count) => {
      await waitFor(() => lines.length >= count, { what: () => `${count} access log lines, there are ${lines.length}` });
      return lines;
    },
    close: async () => {
      for (const connection of live.connections) connection.close("drained");
      await closeServer(server);
      metrics.close();
      assert.equal(live.connections.size, 0);
      assert.equal(live.perClient.size, 0);
      assert.equal(stats.active, 0);
      for (const target of upstream.targets) assert.equal(target.active, 0);
    },
  };
}

/** A TCP server on loopback. `sockets` are those open now. */
export async function openPeer(
  onSocket: (socket: Socket) => void,
  path?: string,
): Promise<{ port: number; address: string; sockets: Set<Socket>; accepted: () => number; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  let accepted = 0;
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    accepted += 1;
    sockets.add(socket);
    socket.on("error", () => {});
    socket.on("close", () => sockets.delete(socket));
    onSocket(socket);
  });
  if (path === undefined) server.listen(0, "127.0.0.1");
  else server.listen(path);
  await once(server, "listening");
  const port = path === undefined ? (server.address() as AddressInfo).port : 0;
  return {
    port,
    address: path === undefined ? `127.0.0.1:${port}` : `unix:${path}`,
    sockets,
    accepted: () => accepted,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await closeServer(server);
    },
  };
}

async function closeServer(server: Server): Promise<void> {
  const closed = once(server, "close");
  server.close();
  await closed;
}

/** A connected client socket; errors are kept in `errors` instead of being thrown. */
export async function openClient(relay: { host: string; port: number }): Promise<{ socket: Socket; errors: string[] }> {
  const socket = connect({ host: relay.host, port: relay.port, allowHalfOpen: true, noDelay: true });
  const errors: string[] = [];
  socket.on("error", (error: NodeJS.ErrnoException) => errors.push(error.code ?? error.message));
  await waitFor(() => !socket.connecting, { what: () => "a connected client" });
  return { socket, errors };
}

/** All bytes until the end of the stream; rejects when it is reset. */
export function readAll(socket: Socket): Promise<Buffer> {
  const { promise, resolve, reject } = Promise.withResolvers<Buffer>();
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  // A stream without a byte ends although nobody reads it.
  if (socket.readableEnded) resolve(Buffer.alloc(0));
  socket.on("end", () => resolve(Buffer.concat(chunks)));
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("Closed without an end")));
  return promise;
}
