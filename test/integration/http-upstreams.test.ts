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
import { startH2cOrigin, startHttpsOrigin } from "../components/origin.ts";
import { waitFor } from "../components/wait.ts";

test("an https target is verified against ca_file, and its connection is kept", async () => {
  await using origin = await startHttpsOrigin(certificate(), (req, res) => void res.end(`${req.method} ${req.url}`));
  await using gateway = await startHttpGateway({ targets: [origin.url], upstream: { ca: certificate().cert } });
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
  await using gateway = await startHttpGateway({ targets: [`https://127.0.0.2:${origin.port}`], upstream: { ca: certificate().cert } });
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
