// What the health checks say of each way in which an upstream can be ill.
import assert from "node:assert/strict";
import { createServer as createHttpServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";
import { once } from "node:events";
import { connect, type AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import type { HealthPlan, MaintenanceWindow } from "../../src/plan/model.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { startHealth } from "../../src/upstreams/health.ts";
import { Upstream } from "../../src/upstreams/upstream.ts";
import { startIbGateway, type IbGateway } from "../components/ib-gateway.ts";
import { waitFor } from "../components/wait.ts";
import { openPeer, tcpUpstreamPlan } from "./tcp-relay.ts";

type IbKind = "tcp" | "ib_api" | "ib_session";

let gateway: IbGateway;

before(async () => {
  gateway = await startIbGateway({ TICK_MS: "50" });
});
after(async () => {
  await gateway.close();
});

function ibHealth(kind: IbKind, more: { failures?: number; maintenance?: MaintenanceWindow } = {}): HealthPlan {
  return { kind, intervalMs: 40, timeoutMs: 300, failures: more.failures ?? 2, clientId: 99, maintenance: more.maintenance ?? null };
}

function watch(target: string, health: HealthPlan, more: Parameters<typeof tcpUpstreamPlan>[1] = {}) {
  const log: { level: string; msg: string }[] = [];
  const upstream = new Upstream(tcpUpstreamPlan([target], { health, ...more }));
  const checks = startHealth(
    upstream,
    openLog({ level: "info", format: "json" }, { isTty: false, colors: false, write: (text) => log.push(JSON.parse(text)) }),
  );
  const first = upstream.targets[0];
  assert.ok(first);
  return { target: first, log, close: () => checks.close() };
}

test("each illness of IB Gateway has its own words, and each check sees as much as it says", async () => {
  const at = `127.0.0.1:${gateway.livePort}`;
  const cases: [Parameters<IbGateway["mode"]>[0], IbKind, string][] = [
    ["normal", "tcp", ""],
    ["normal", "ib_api", ""],
    ["normal", "ib_session", ""],
    ["refuse", "tcp", `connection refused at ${at}`],
    ["refuse", "ib_api", `connection refused at ${at}: IB Gateway is not started, or listens on another port`],
    ["refuse", "ib_session", `connection refused at ${at}: IB Gateway is not started, or listens on another port`],
    ["hang", "tcp", ""],
    [
      "hang",
      "ib_api",
      `connected to ${at}, but the handshake was not answered within 300ms: a dialog is open in IB Gateway, or another product is behind the port`,
    ],
    [
      "hang",
      "ib_session",
      `connected to ${at}, but the handshake was not answered within 300ms: a dialog is open in IB Gateway, or another product is behind the port`,
    ],
    ["close", "tcp", ""],
    ["close", "ib_api", `IB Gateway at ${at} closed the connection at once: it is shutting down, or does not trust the address that the gateway connects from`],
    ["other", "ib_api", `what answers at ${at} does not speak the IB API: another product is behind the port`],
    ["silent", "ib_api", ""],
    ["silent", "ib_session", `IB Gateway at ${at} answered the handshake, but its API was not ready within 300ms: it is not logged in, or a dialog is open`],
    ["lost", "ib_api", ""],
    [
      "lost",
      "ib_session",
      `IB Gateway at ${at} has lost its connection to Interactive Brokers (1100: Connectivity between IB and Trader Workstation has been lost.)`,
    ],
  ];
  for (const [mode, kind, reason] of cases) {
    await gateway.mode(mode);
    const { target, close } = watch(at, ibHealth(kind));
    await waitFor(() => target.health !== "unknown", { what: () => `a verdict of ${kind} on ${mode}` });
    assert.deepEqual([mode, kind, target.health, target.reason], [mode, kind, reason === "" ? "healthy" : "unhealthy", reason]);
    close();
  }
  await gateway.mode("normal");
});

test("a session check frees its client id each time, and says so when another holds it", async () => {
  const at = `127.0.0.1:${gateway.livePort}`;
  const before = (await gateway.status()).connections;
  const one = watch(at, ibHealth("ib_session", { failures: 1 }));
  await waitFor(() => one.target.health === "healthy", { what: () => "a healthy gateway" });
  let now = await gateway.status();
  while (now.connections < before + 6) now = await gateway.status();
  assert.equal(one.target.health, "healthy");
  assert.deepEqual(one.log, []);
  one.close();
  const holder = connect(gateway.livePort, "127.0.0.1");
  holder.write(Buffer.from("API\0\0\0\0\x09v157..178\0\0\0\x0971\x002\x0099\0\0", "latin1"));
  holder.on("error", () => {});
  holder.resume();
  while (!(await gateway.status()).live.clients.includes(99));
  const two = watch(at, ibHealth("ib_session"));
  await waitFor(() => two.target.health === "unhealthy", { what: () => "an unhealthy gateway" });
  assert.equal(two.target.reason, `client id 99 is in use at ${at}: give the health check one that nobody else takes`);
  two.close();
  holder.destroy();
});

test("a change is logged once, and it takes the failures that the file asks for", async () => {
  const { target, log, close } = watch(`127.0.0.1:${gateway.livePort}`, ibHealth("ib_api", { failures: 3 }));
  await waitFor(() => target.health === "healthy", { what: () => "a healthy target" });
  const before = (await gateway.status()).connections;
  await gateway.mode("close");
  await waitFor(() => target.health === "unhealthy", { what: () => "an unhealthy target" });
  assert.ok((await gateway.status()).connections >= before + 3);
  await new Promise((resolve) => setTimeout(resolve, 200));
  await gateway.mode("normal");
  await waitFor(() => target.health === "healthy", { what: () => "a recovered target" });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(
    log.map(({ level, msg }) => `${level} ${msg.slice(0, 31)}`),
    ["warn Upstream 'ib' is unhealthy: IB ", "info Upstream 'ib' is healthy again"],
  );
  close();
});

test("in its restart window an upstream that is away is degraded", async () => {
  const gone = await openPeer(() => {});
  await gone.close();
  const always = { text: "00:00-23:59 UTC", fromMinute: 0, toMinute: 1_440, timeZone: "UTC" };
  const { target, log, close } = watch(gone.address, ibHealth("tcp", { failures: 1, maintenance: always }));
  await waitFor(() => target.health !== "unknown", { what: () => "a verdict" });
  assert.deepEqual([target.health, target.reason], ["degraded", `maintenance until 24:00 UTC: connection refused at ${gone.address}`]);
  assert.equal(log.length, 1);
  close();
});

test("checks never overlap, and closing cuts one that is under way", async () => {
  const starts: number[] = [];
  let ended = 0;
  const peer = await openPeer((socket) => {
    starts.push(performance.now());
    socket.on("end", () => {
      ended += 1;
      socket.end();
    });
    socket.resume();
  });
  const { target, close } = watch(peer.address, { kind: "ib_api", intervalMs: 10, timeoutMs: 150, failures: 1, clientId: 0, maintenance: null });
  await waitFor(() => target.health === "unhealthy" && starts.length === 3, { what: () => "three checks" });
  close();
  // The third one is cut long before its time is up.
  await waitFor(() => ended === 3, { what: () => "the end of the last check", timeoutMs: 100 });
  for (let i = 1; i < starts.length; i += 1) assert.ok((starts[i] ?? 0) - (starts[i - 1] ?? 0) >= 140, "a check began while another was under way");
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(starts.length, 3);
  await peer.close();
});

test("an HTTP target is healthy when its path answers with 2xx, over HTTP/1.1 and h2c", async () => {
  let status = 200;
  const seen: string[] = [];
  const server = createHttpServer((request, response) => {
    seen.push(`${request.url} ${request.headers.authorization}`);
    response.statusCode = status;
    response.end();
  });
  const server2 = createHttp2Server((request, response) => {
    seen.push(`h2 ${request.url}`);
    response.statusCode = status;
    response.end();
  });
  for (const each of [server, server2]) {
    each.listen(0, "127.0.0.1");
    await once(each, "listening");
  }
  const health: HealthPlan = { kind: "http", path: "/health", intervalMs: 30, timeoutMs: 300, failures: 2 };
  const at = (each: typeof server | typeof server2): string => `127.0.0.1:${(each.address() as AddressInfo).port}`;
  const plan = (each: typeof server | typeof server2, scheme: "http" | "h2c") =>
    watch(at(each), health, { scheme, authorization: "Bearer x", targets: tcpUpstreamPlan([at(each)]).targets.map((target) => ({ ...target, scheme })) });
  const one = plan(server, "http");
  const two = plan(server2, "h2c");
  for (const { target } of [one, two]) await waitFor(() => target.health === "healthy", { what: () => "healthy targets" });
  assert.ok(seen.includes("/health Bearer x") && seen.includes("h2 /health"));
  status = 503;
  for (const { target } of [one, two]) await waitFor(() => target.health === "unhealthy", { what: () => "unhealthy targets" });
  assert.equal(one.target.reason, `GET /health was answered with status 503 at ${at(server)}`);
  assert.equal(two.target.reason, `GET /health was answered with status 503 at ${at(server2)}`);
  one.close();
  two.close();
  const address = at(server);
  server.closeAllConnections();
  server.close();
  server2.close();
  await once(server, "close");
  const three = watch(address, health, {
    scheme: "http",
    targets: tcpUpstreamPlan([address]).targets.map((target) => ({ ...target, scheme: "http" as const })),
  });
  await waitFor(() => three.target.health === "unhealthy", { what: () => "an unhealthy target" });
  assert.equal(three.target.reason, `GET /health: connection refused at ${address}`);
  three.close();
});
