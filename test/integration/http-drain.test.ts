// The gateway as a process: HTTP/2 at SIGTERM, and edits while requests are under way.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { connect, type ClientHttp2Session } from "node:http2";
import { request } from "node:http";
import { connect as connectTcp } from "node:net";
import { platform } from "node:os";
import { connect as connectTls } from "node:tls";
import { test } from "node:test";
import { startOrigin } from "../components/echo.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom } from "../components/http-client.ts";
import { waitFor } from "../components/wait.ts";

const listeners = (extra = ""): string => `drain_timeout: 10s\nlisteners:\n  web: { protocol: http, listen: "127.0.0.1:0"${extra} }\n`;
const INTERNAL = ", tls: { mode: application, internal: true }";
const route = (port: number): string => `  - { path_prefix: /, upstream: "http://127.0.0.1:${port}", auth: none }\n`;

async function openSession(gateway: Gateway): Promise<{ session: ClientHttp2Session; goneAway: () => boolean }> {
  const session = connect(`https://localhost:${gateway.port("web")}`, { ca: await gateway.ca() });
  let goneAway = false;
  session.on("goaway", () => (goneAway = true));
  session.on("error", () => {});
  return { session, goneAway: () => goneAway };
}

function get(session: ClientHttp2Session, path: string): { body: () => string; ended: () => boolean; resetCode: () => number | undefined } {
  const stream = session.request({ ":path": path });
  let body = "";
  let ended = false;
  stream.on("data", (chunk: Buffer) => (body += String(chunk)));
  stream.on("end", () => (ended = true));
  stream.on("error", () => {});
  return { body: () => body, ended: () => ended, resetCode: () => stream.rstCode };
}

test("at SIGTERM an HTTP/2 client is told to go away, its streams end whole, and the process exits at once after them", async () => {
  const answers: (() => void)[] = [];
  const large = "x".repeat(3_000_000);
  await using origin = await startOrigin((_, response) => {
    response.write("first ");
    answers.push(() => response.end(large));
  });
  await using gateway = await startGateway({ yaml: `${listeners(INTERNAL)}routes:\n${route(origin.port)}` });
  const { session, goneAway } = await openSession(gateway);
  const idle = await openSession(gateway);
  const streams = [get(session, "/a"), get(session, "/b")];
  await waitFor(() => streams.every(({ body }) => body() === "first "));
  await waitFor(() => !idle.session.connecting);
  let exited = false;
  const stopped = gateway.stop("SIGTERM").finally(() => (exited = true));
  await waitFor(() => goneAway() && idle.session.closed, { what: () => "GOAWAY on both connections" });
  assert.equal(exited, false);
  const startedAt = performance.now();
  for (const answer of answers) answer();
  assert.equal(await stopped, 0);
  assert.ok(performance.now() - startedAt < 3_000, `took ${performance.now() - startedAt} ms`);
  await waitFor(() => streams.every(({ ended }) => ended()));
  for (const { body, resetCode } of streams) assert.deepEqual([body().length, resetCode()], [large.length + 6, 0]);
});

test("at SIGTERM an idle HTTP/2 connection does not hold the process up", async () => {
  await using origin = await startOrigin();
  await using gateway = await startGateway({ yaml: `${listeners(INTERNAL)}routes:\n${route(origin.port)}` });
  const { session } = await openSession(gateway);
  const stream = get(session, "/a");
  await waitFor(() => stream.ended());
  const startedAt = performance.now();
  assert.equal(await gateway.stop("SIGTERM"), 0);
  assert.ok(performance.now() - startedAt < 3_000, `took ${performance.now() - startedAt} ms`);
  await waitFor(() => session.destroyed);
});

test("an upstream that an edit removes ends the request that is under way, body and answer, then its connections are closed", async () => {
  let connections = 0;
  await using origin = await startOrigin((incoming, response) => {
    connections += 1;
    incoming.socket.once("close", () => (connections -= 1));
    response.write("begun ");
    let size = 0;
    incoming.on("data", (chunk: Buffer) => (size += chunk.length));
    incoming.on("end", () => response.end(`got ${size}`));
  });
  await using other = await startOrigin((_, response) => void response.end("other"));
  await using gateway = await startGateway({ yaml: `${listeners()}routes:\n${route(origin.port)}` });
  let answer = "";
  let ended = false;
  const upload = request(
    { host: "127.0.0.1", port: gateway.port("web"), path: "/a", method: "POST", agent: false, headers: { "content-length": "2000" } },
    (response) => {
      response.on("data", (chunk: Buffer) => (answer += String(chunk)));
      response.on("end", () => (ended = true));
    },
  );
  upload.write(Buffer.alloc(1_000));
  await waitFor(() => answer === "begun ");
  await gateway.edit(`${listeners()}routes:\n${route(other.port)}`);
  assert.equal((await fetchFrom(gateway.port("web"), "/a")).body, "other");
  upload.end(Buffer.alloc(1_000));
  await waitFor(() => ended);
  assert.equal(answer, "begun got 2000");
  // Its own keep-alive would last longer than this.
  await waitFor(() => connections === 0, { timeoutMs: 2_000, what: () => "the connection to the removed upstream to be closed" });
});

test("a large upload passes whole through edits", async () => {
  const total = 64 << 20;
  let received = 0;
  await using origin = await startOrigin((incoming, response) => {
    incoming.on("data", (chunk: Buffer) => (received += chunk.length));
    incoming.on("end", () => response.end(`got ${received}`));
  });
  await using gateway = await startGateway({ yaml: `${listeners()}routes:\n${route(origin.port)}` });
  let answer = "";
  const upload = request(
    { host: "127.0.0.1", port: gateway.port("web"), path: "/a", method: "PUT", agent: false, headers: { "content-length": String(total) } },
    (response) => {
      response.on("data", (chunk: Buffer) => (answer += String(chunk)));
    },
  );
  const piece = Buffer.alloc(1 << 20);
  for (let sent = 0; sent < total; sent += piece.length) {
    if (sent % (16 << 20) === 0) {
      // Another name each time: the upstream of the upload is closed and made anew.
      await gateway.edit(
        `upstreams:\n  up${sent}: { targets: ["http://127.0.0.1:${origin.port}"], timeouts: { connect: ${sent / (1 << 20) + 1}s } }\n${listeners()}routes:\n  - { path_prefix: /, upstream: up${sent}, auth: none }\n`,
      );
    }
    if (!upload.write(piece)) await new Promise((resolve) => upload.once("drain", resolve));
  }
  upload.end();
  await waitFor(() => answer !== "");
  assert.equal(answer, `got ${total}`);
});

test("an HTTP/2 connection without requests is closed after timeouts.idle, whatever it sends and whether it reads or not; one with a silent stream is not", async () => {
  await using origin = await startOrigin((_, response) => void response.write("silent"));
  await using gateway = await startGateway({ yaml: `${listeners(`${INTERNAL}, timeouts: { idle: 500ms, write: 1s }`)}routes:\n${route(origin.port)}` });
  const ca = await gateway.ca();
  const { session } = await openSession(gateway);
  const stream = get(session, "/");
  await waitFor(() => stream.body() === "silent");
  const preface = Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", "latin1");
  const ping = Buffer.from("\0\0\x08\x06\0\0\0\0\0pingpong", "latin1");
  const halfHead = Buffer.from("\0\0\x01\x01\0\0\0\0\x01\x82", "latin1");
  const clients = ["", "preface", "half a head", "pings"].map((what) => {
    const socket = connectTls({ port: gateway.port("web"), host: "127.0.0.1", servername: "localhost", ca, ALPNProtocols: ["h2"] });
    socket.on("error", () => {});
    // It reads nothing, and so learns neither of GOAWAY nor of the end.
    socket.pause();
    if (what !== "") socket.write(preface);
    if (what === "half a head") socket.write(halfHead);
    if (what === "pings") setInterval(() => socket.writable && socket.write(ping), 100).unref();
    return socket;
  });
  const open = async (): Promise<number> => Number(/sidegate_connections_active\{[^}]*\} (\d+)/.exec((await gateway.admin("/metrics")).body)?.[1]);
  await waitFor(async () => (await open()) === 5, { what: () => "five connections" });
  await waitFor(async () => (await open()) === 1, { what: () => "four of them to be closed" });
  assert.deepEqual([stream.ended(), session.destroyed], [false, false]);
  session.destroy();
  for (const socket of clients) socket.destroy();
});

test("a client that vanishes without a word is found out by keepalive probes", { skip: platform() === "linux" ? false : "reads /proc" }, async () => {
  await using origin = await startOrigin();
  await using gateway = await startGateway({ yaml: `${listeners()}routes:\n${route(origin.port)}` });
  const hex = (port: number): string => port.toString(16).toUpperCase().padStart(4, "0");
  const socket = connectTcp(gateway.port("web"), "127.0.0.1");
  socket.write("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
  await waitFor(() => socket.bytesRead > 0);
  socket.pause();
  const line = new RegExp(`^.*:${hex(gateway.port("web"))} \\S+:${hex(socket.localPort ?? 0)} 01 \\S+ 02:`, "m");
  await waitFor(() => line.test(readFileSync("/proc/net/tcp", "utf8")), { what: () => "a keepalive timer on the gateway's socket" });
  socket.destroy();
});
