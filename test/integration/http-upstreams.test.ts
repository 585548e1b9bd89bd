// Every kind of target: https with verification, unix sockets, and h2c with streams, trailers and reconnects.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { ServerHttp2Session } from "node:http2";
import { once } from "node:events";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { fetchFrom } from "../components/http-client.ts";
import { openExchange, textOf } from "../components/http-exchange.ts";
import { certificate, startHttpGateway } from "../components/http-gateway.ts";
import { startH2cOrigin, startHttpsOrigin, startRawOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

test("an https target is verified against ca_file, and its connection is kept", async () => {
  await using origin = await startHttpsOrigin(certificate(), (req, res) => void res.end(`${req.method} ${req.url}`));
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    upstream: { tls: { ca: certificate().cert, serverName: null, certificate: null, verify: true } },
  });
  for (let i = 0; i < 3; i += 1) assert.equal((await fetchFrom(gateway.port, "/a")).body, "GET /a");
  assert.equal(origin.connections(), 1);
});

test("a certificate that no CA vouches for is 502", async () => {
  await using origin = await startHttpsOrigin(certificate(), (_req, res) => void res.end("never"));
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  assert.equal((await fetchFrom(gateway.port, "/")).status, 502);
  assert.match(String(gateway.accessLog[0]?.["error"]), /TLS handshake failed.*self-signed/);
});

test("a certificate for another name is 502", async () => {
  await using origin = await startHttpsOrigin(certificate(), (_req, res) => void res.end("never"));
  await using gateway = await startHttpGateway({
    targets: [`https://127.0.0.2:${origin.port}`],
    upstream: { tls: { ca: certificate().cert, serverName: null, certificate: null, verify: true } },
  });
  assert.equal((await fetchFrom(gateway.port, "/")).status, 502);
});

test("a unix socket serves as a target", async () => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-unix-"));
  const server = createServer((req, res) => void res.end(req.headers.host)).listen(join(dir, "s"));
  await once(server, "listening");
  await using gateway = await startHttpGateway({ targets: [`unix:${join(dir, "s")}`] });
  assert.equal((await fetchFrom(gateway.port, "/", { headers: { host: "a.example" } })).body, "a.example");
  server.close();
  server.closeAllConnections();
  rmSync(dir, { recursive: true });
});

test("an h2c target gets many streams on one connection, bodies, trailers and the Host", async () => {
  await using origin = await startH2cOrigin(async (req, res) => {
    let body = "";
    for await (const chunk of req) body += String(chunk);
    res.setHeader("x-authority", req.authority);
    res.write(`${req.method} ${req.url} ${body}`);
    res.addTrailers({ "x-sum": "1" });
    res.end();
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], tls: true });
  const answers = await Promise.all(
    Array.from({ length: 50 }, async (_, i) => {
      const exchange = openExchange(gateway.port, "h2", `/${i}`, { method: "POST", body: true, headers: { te: "trailers", host: "a.example" } });
      exchange.send.end("hello");
      const { headers, body } = await exchange.head;
      assert.equal(headers["x-authority"], "a.example");
      const text = await textOf(body);
      assert.equal(exchange.trailers()["x-sum"], "1");
      return text;
    }),
  );
  assert.deepEqual(
    answers,
    Array.from({ length: 50 }, (_, i) => `POST /${i} hello`),
  );
  assert.equal(origin.connections(), 1);
});

test("an h2c target may say GOAWAY: requests under way end, new ones go over a new connection", async () => {
  const sessions = new Set<ServerHttp2Session>();
  await using origin = await startH2cOrigin((req, res) => {
    if (req.stream.session !== undefined) sessions.add(req.stream.session as ServerHttp2Session);
    if (req.url === "/slow") setTimeout(() => res.end("slow"), 200);
    else res.end("fast");
  });
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  const slow = fetchFrom(gateway.port, "/slow");
  await waitFor(() => sessions.size === 1);
  for (const session of sessions) session.close();
  await waitFor(async () => (await fetchFrom(gateway.port, "/")).body === "fast" && sessions.size === 2);
  assert.equal((await slow).body, "slow");
});

test("an h2c stream that is reset in the middle breaks the response off", async () => {
  await using origin = await startH2cOrigin((_req, res) => {
    res.write("half");
    setTimeout(() => res.stream.close(2), 20);
  });
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  await assert.rejects(fetchFrom(gateway.port, "/"));
});

test("a client that goes away resets the stream of an h2c target", async () => {
  let closed = false;
  await using origin = await startH2cOrigin((_req, res) => {
    res.write(": hi\n\n");
    res.stream.on("close", () => (closed = true));
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], tls: true });
  const exchange = openExchange(gateway.port, "http/1.1", "/");
  await exchange.head;
  exchange.abort();
  await waitFor(() => closed, { timeoutMs: 1_000 });
});

test("headers and trailers that Node.js would not put into HTTP/2 pass to an h2c target, and harm nobody", async () => {
  const seen: string[][] = [];
  await using origin = await startH2cOrigin(async (req, res) => {
    for await (const chunk of req) void chunk;
    seen.push(req.rawHeaders.filter((_text, i, all) => /^(user-agent|content-type)$/.test(all[i - (i % 2)] ?? "")).concat(req.rawTrailers));
    res.end("ok");
  });
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  // The first one comes before there is a session, the others after.
  for (const [extra, body, expected] of [
    ["User-Agent: a\r\nUser-Agent: b\r\n", "\r\n", ["user-agent", "a", "user-agent", "b"]],
    ["Content-Type: a\r\nContent-Type: b\r\n", "\r\n", ["content-type", "a", "content-type", "b"]],
    ["Transfer-Encoding: chunked\r\n", "\r\n0\r\nconstructor: 1\r\n\r\n", ["constructor", "1"]],
    ["Transfer-Encoding: chunked\r\n", "\r\n0\r\nContent-Type: a\r\nContent-Type: b\r\n\r\n", ["content-type", "a", "content-type", "b"]],
  ] as const) {
    const { statuses } = await sendRaw(gateway.port, [`POST / HTTP/1.1\r\nHost: a\r\n${extra}${body}`], 1);
    assert.deepEqual(statuses, [200]);
    assert.deepEqual(seen.pop(), expected);
  }
  await waitFor(() => gateway.state.live.active === 0 && gateway.upstream.active === 0);
});

test("headers and trailers that Node.js would not put into HTTP/2 pass to an HTTP/2 client, and harm nobody", async () => {
  await using origin = await startRawOrigin((socket) =>
    socket.on("data", () =>
      socket.write(
        "HTTP/1.1 200 OK\r\nContent-Type: a\r\nContent-Type: b\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nconstructor: 1\r\nETag: a\r\nETag: b\r\n\r\n",
      ),
    ),
  );
  await using gateway = await startHttpGateway({ targets: [origin.url], tls: true });
  const exchange = openExchange(gateway.port, "h2", "/", { headers: { te: "trailers" } });
  const { status, body } = await exchange.head;
  assert.equal(status, 200);
  assert.equal(await textOf(body), "ok");
  assert.equal(exchange.trailers()["constructor"], "1");
  await waitFor(() => gateway.state.live.active === 0);
});
