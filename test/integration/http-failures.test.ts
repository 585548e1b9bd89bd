// What goes wrong behind the gateway is told apart: the client gets a status and a request id, the log names the cause.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { test } from "node:test";
import { fetchFrom } from "../components/http-client.ts";
import { startHttpGateway, type HttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { freePort } from "../components/free-port.ts";
import { startOrigin, startRawOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

async function logged(gateway: HttpGateway, count = 1): Promise<Record<string, unknown>> {
  await waitFor(() => gateway.accessLog.length >= count);
  return gateway.accessLog[count - 1] ?? {};
}

test("a refused connection is 502, with the request id for the client and the cause in the log", async () => {
  const port = await freePort();
  await using gateway = await startHttpGateway({ targets: [`http://127.0.0.1:${port}`] });
  const { status, headers, body } = await fetchFrom(gateway.port, "/");
  assert.equal(status, 502);
  const answer = JSON.parse(body) as { error: { code: string; message: string }; request_id: string };
  assert.equal(answer.error.code, "ERR_UPSTREAM_CONNECT");
  assert.ok(!body.includes(String(port)), "the client learns no address");
  assert.equal(headers["x-request-id"], answer.request_id);
  const line = await logged(gateway);
  assert.equal(line["request_id"], answer.request_id);
  assert.match(String(line["error"]), new RegExp(`ERR_UPSTREAM_CONNECT: Cannot connect to upstream 'up': connection refused at 127.0.0.1:${port}`));
  assert.equal((await fetchFrom(gateway.port, "/", { headers: { accept: "text/html" } })).headers["content-type"], "text/plain; charset=utf-8");
});

for (const [name, options, behave, status, cause] of [
  ["no response headers in time", { upstream: { timeouts: { responseHeadersMs: 150 } } }, () => {}, 504, /no response within 150ms/],
  ["a connection closed without a response", {}, (socket: Socket) => socket.destroy(), 502, /without a response/],
  ["a response that is no HTTP", {}, (socket: Socket) => socket.write("220 smtp.example ESMTP\r\n\r\n"), 502, /ERR_UPSTREAM_PROTOCOL.*bad status line/],
  [
    "two Content-Length",
    {},
    (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    502,
    /several Content-Length/,
  ],
  [
    "Content-Length beside Transfer-Encoding",
    {},
    (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    502,
    /conflicting framing/,
  ],
  [
    "an unknown Transfer-Encoding",
    {},
    (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"),
    502,
    /unknown Transfer-Encoding/,
  ],
  ["a folded header", {}, (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n"), 502, /bad header line/],
  ["a bare LF in the head", {}, (socket: Socket) => socket.write("HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: b\r\n\r\n"), 502, /control character/],
  ["a head without end", {}, (socket: Socket) => socket.write(`HTTP/1.1 200 OK\r\n${"X: y\r\n".repeat(20_000)}`), 502, /too long/],
  [
    "101 that nobody asked for",
    {},
    (socket: Socket) => socket.write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
    502,
    /101 without/,
  ],
  [
    "interim responses without end",
    { upstream: { timeouts: { responseHeadersMs: 2_000 } } },
    (socket: Socket) => socket.write("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n".repeat(1_000)),
    502,
    /too many interim responses/,
  ],
] as [string, Partial<HttpGatewayOptions>, (socket: Socket) => void, number, RegExp][]) {
  test(`${name} is ${status}`, async () => {
    await using origin = await startRawOrigin((socket) => void socket.once("data", () => behave(socket)));
    await using gateway = await startHttpGateway({ targets: [origin.url], ...options });
    assert.equal((await fetchFrom(gateway.port, "/")).status, status);
    assert.match(String((await logged(gateway))["error"]), cause);
    assert.equal(gateway.upstream.active, 0);
  });
}

test("a connection that is not made in time is 504", async () => {
  // A listener that accepts nothing more: its backlog is full.
  const full = createServer().listen({ port: 0, host: "127.0.0.1", backlog: 1 });
  await once(full, "listening");
  const { port } = full.address() as AddressInfo;
  await using gateway = await startHttpGateway({ targets: [`https://127.0.0.1:${port}`], upstream: { timeouts: { connectMs: 150 } } });
  // Without a TLS answer the handshake stands still, whatever the kernel does with the backlog.
  assert.equal((await fetchFrom(gateway.port, "/")).status, 504);
  assert.match(String((await logged(gateway))["error"]), /ERR_UPSTREAM_TIMEOUT/);
  full.close();
});

test("silence in the middle of a response ends it after timeouts.read", async () => {
  await using origin = await startOrigin((_req, res) => void res.write("half"));
  await using gateway = await startHttpGateway({ targets: [origin.url], upstream: { timeouts: { readMs: 150 } } });
  await assert.rejects(fetchFrom(gateway.port, "/"));
  assert.match(String((await logged(gateway))["error"]), /no piece of the response for 150ms/);
});

test("an upstream that takes nothing of the body ends the request after timeouts.write", async () => {
  await using origin = await startRawOrigin((socket) => void socket.pause());
  await using gateway = await startHttpGateway({ targets: [origin.url], upstream: { timeouts: { writeMs: 200 } } });
  const socket = connect(gateway.port, "127.0.0.1");
  let text = "";
  socket.on("data", (chunk) => (text += String(chunk)));
  socket.on("error", () => {});
  socket.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\n");
  const piece = Buffer.alloc(1 << 20);
  const more = (): void => {
    while (!socket.destroyed && socket.write(piece)) if (socket.bytesWritten > 100_000_000) return;
    socket.once("drain", more);
  };
  more();
  await waitFor(() => text.includes("504"));
  assert.match(String((await logged(gateway))["error"]), /took no byte of the request/);
  socket.destroy();
});

test("a client that takes nothing of the response is cut after timeouts.write", async () => {
  await using origin = await startOrigin((_req, res) => {
    const piece = Buffer.alloc(65_536);
    const more = (): void => {
      while (res.write(piece)) if (res.destroyed) return;
      res.once("drain", more);
    };
    more();
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], listener: { timeouts: { writeMs: 300 } } });
  const socket = connect(gateway.port, "127.0.0.1");
  socket.pause();
  socket.on("error", () => {});
  socket.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
  assert.match(String((await logged(gateway))["error"]), /ERR_CLIENT_WRITE_TIMEOUT/);
  await waitFor(() => origin.sockets.size === 0, { what: () => "the upstream's connection to end" });
  socket.destroy();
});

test("a connection that cannot be made is tried at the next target, and a target that fails is left out for a while", async () => {
  const dead = await freePort();
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  await using gateway = await startHttpGateway({
    targets: [`http://127.0.0.1:${dead}`, origin.url],
    upstream: { ejection: { failures: 2, durationMs: 60_000 } },
  });
  for (let i = 0; i < 10; i += 1) assert.equal((await fetchFrom(gateway.port, "/", { method: "POST", body: "x" })).status, 200);
  const [first] = gateway.upstream.upstream.targets;
  assert.ok((first?.ejectedUntil ?? 0) > performance.now());
  assert.equal(first?.connectFailures, 2, "it was asked no more once it was left out");
});

test("a request that an upstream began to work on is not sent again", async () => {
  let seen = 0;
  const behave = (socket: Socket): void => {
    socket.once("data", () => {
      seen += 1;
      socket.destroy();
    });
  };
  await using one = await startRawOrigin(behave);
  await using two = await startRawOrigin(behave);
  await using gateway = await startHttpGateway({ targets: [one.url, two.url] });
  assert.equal((await fetchFrom(gateway.port, "/", { method: "POST", body: "x" })).status, 502);
  assert.equal((await fetchFrom(gateway.port, "/")).status, 502);
  assert.equal(seen, 2);
});

test("a kept-alive connection that the upstream just closed is met with a new one, for requests without side effects", async () => {
  let requests = 0;
  await using origin = await startRawOrigin((socket) => {
    let first = true;
    socket.on("data", () => {
      requests += 1;
      if (first) socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      else socket.resetAndDestroy();
      first = false;
    });
  });
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  assert.equal((await fetchFrom(gateway.port, "/")).status, 200);
  assert.equal((await fetchFrom(gateway.port, "/")).status, 200);
  assert.equal(requests, 3);
  assert.equal((await fetchFrom(gateway.port, "/", { method: "POST", body: "x" })).status, 502);
  assert.equal(requests, 4);
});

test("bytes behind a response are not taken for the next one", async () => {
  let connections = 0;
  await using origin = await startRawOrigin((socket) => {
    connections += 1;
    socket.on("data", () => socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"));
  });
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  for (let i = 1; i <= 3; i += 1) {
    assert.equal((await fetchFrom(gateway.port, "/")).body, "ok");
    assert.equal(connections, i);
  }
});

test("max_connections holds further requests back until one is free", async () => {
  let most = 0;
  let now = 0;
  await using origin = await startOrigin((_req, res) => {
    now += 1;
    most = Math.max(most, now);
    setTimeout(() => {
      now -= 1;
      res.end("ok");
    }, 20);
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], upstream: { maxConnections: 2 } });
  const answers = await Promise.all(Array.from({ length: 10 }, () => fetchFrom(gateway.port, "/")));
  assert.ok(answers.every(({ status }) => status === 200));
  assert.equal(most, 2);
  assert.equal(origin.connections(), 2);
});

test("a draining listener ends the connections of its answers", async () => {
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  const request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  assert.equal((await sendRaw(gateway.port, [request], 1)).closed, false);
  gateway.state.drain.draining = true;
  const reply = await sendRaw(gateway.port, [request, 50], 1);
  assert.match(reply.text, /Connection: close/i);
  assert.equal(reply.closed, true);
});

test("an upstream that is closed lets its requests end, and takes no new ones", async () => {
  await using origin = await startOrigin((_req, res) => void setTimeout(() => res.end("ok"), 100));
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  const answer = fetchFrom(gateway.port, "/");
  await waitFor(() => gateway.upstream.active === 1);
  const closed = gateway.upstream.close(5_000);
  assert.equal((await answer).status, 200);
  await closed;
  await waitFor(() => origin.sockets.size === 0);
  assert.equal((await fetchFrom(gateway.port, "/")).status, 503);
});

test("an interim response has no length that a client could believe", async () => {
  await using origin = await startRawOrigin((socket) =>
    socket.once("data", () =>
      socket.write("HTTP/1.1 103 Early Hints\r\nContent-Length: 40\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
    ),
  );
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  const { text, statuses } = await sendRaw(gateway.port, ["GET / HTTP/1.1\r\nHost: a\r\n\r\n"], 2);
  assert.deepEqual(statuses, [103, 200]);
  assert.match(text, /^HTTP\/1.1 103 Early Hints\r\nlink: <\/x>\r\n\r\n/i);
});
