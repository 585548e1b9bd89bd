// Bodies pass unbuffered and whole, both ways and over both protocols; whoever goes away is noticed at the other end.
import assert from "node:assert/strict";
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { test } from "node:test";
import { openExchange, textOf, type Protocol } from "../components/http-exchange.ts";
import { startHttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { bodyOf, startOrigin, startRawOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

async function withOrigin(handler: (req: IncomingMessage, res: ServerResponse) => void | Promise<void>, options: Partial<HttpGatewayOptions> = {}) {
  const origin = await startOrigin(handler);
  const gateway = await startHttpGateway({ targets: [origin.url], tls: true, ...options });
  return {
    origin,
    gateway,
    [Symbol.asyncDispose]: async () => {
      await waitFor(() => gateway.state.live.active === 0, { what: () => `${gateway.state.live.active} requests to end` });
      assert.equal(gateway.upstream.active, 0);
      assert.deepEqual(gateway.errors, []);
      await gateway[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
    },
  };
}

for (const protocol of ["http/1.1", "h2"] as Protocol[]) {
  test(`${protocol}: the first event arrives before the upstream has ended, and nothing is held back`, async () => {
    const held = Promise.withResolvers<ServerResponse>();
    await using story = await withOrigin((_req, res) => {
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      res.flushHeaders();
      held.resolve(res);
    });
    const exchange = openExchange(story.gateway.port, protocol, "/", { headers: { "accept-encoding": "gzip" } });
    const { headers, body } = await exchange.head;
    assert.equal(headers["x-accel-buffering"], "no");
    assert.equal(headers["content-encoding"], undefined);
    const upstream = await held.promise;
    for (const event of ["data: 1\n\n", "data: 2\n\n"]) {
      upstream.write(event);
      const [chunk] = await once(body, "data");
      assert.equal(String(chunk), event);
    }
    upstream.end();
    await once(body, "end");
  });

  test(`${protocol}: a client that goes away is seen by the upstream within a second`, async () => {
    let closedAt = 0;
    await using story = await withOrigin((_req, res) => {
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      res.write(": hello\n\n");
      res.on("close", () => (closedAt = performance.now()));
    });
    const exchange = openExchange(story.gateway.port, protocol, "/");
    await exchange.head;
    const leftAt = performance.now();
    exchange.abort();
    await waitFor(() => closedAt > 0, { timeoutMs: 1_000 });
    assert.ok(closedAt - leftAt < 1_000);
    await waitFor(() => story.gateway.accessLog.length === 1);
    assert.equal(story.gateway.accessLog[0]?.["aborted"], true);
  });

  test(`${protocol}: a client that goes away before the response is seen by the upstream`, async () => {
    let begun = false;
    let closed = false;
    await using story = await withOrigin((req) => {
      begun = true;
      req.socket.on("close", () => (closed = true));
    });
    const exchange = openExchange(story.gateway.port, protocol, "/");
    await waitFor(() => begun);
    exchange.abort();
    await waitFor(() => closed, { timeoutMs: 1_000 });
    await waitFor(() => story.gateway.accessLog.length === 1);
    assert.equal(story.gateway.accessLog[0]?.["status"], 499);
  });

  test(`${protocol}: 100 MB go up to a slow upstream at flat memory`, async () => {
    const size = 100 * 1024 * 1024;
    let received = 0;
    await using story = await withOrigin((req, res) => {
      req.on("data", (chunk: Buffer) => {
        received += chunk.length;
        // Slower than the client, so that without backpressure everything would pile up.
        if (received % (1 << 20) < chunk.length) {
          req.pause();
          setTimeout(() => req.resume(), 15);
        }
      });
      req.on("end", () => res.end(String(received)));
    });
    const exchange = openExchange(story.gateway.port, protocol, "/", { method: "POST", headers: { "content-length": String(size) }, body: true });
    const piece = Buffer.alloc(65_536, 120);
    let peak = 0;
    const { rss: base } = process.memoryUsage();
    for (let sent = 0; sent < size; sent += piece.length) {
      if (!exchange.send.write(piece)) await once(exchange.send, "drain");
      if (sent % (1 << 20) === 0) peak = Math.max(peak, process.memoryUsage().rss - base);
    }
    exchange.send.end();
    const { body } = await exchange.head;
    assert.equal(await textOf(body), String(size));
    assert.ok(peak < 60 << 20, `memory grew by ${peak >> 20} MiB`);
    await waitFor(() => story.gateway.accessLog.length === 1);
    assert.equal(story.gateway.accessLog[0]?.["bytes_in"], size);
  });

  test(`${protocol}: a client that reads slowly slows the upstream down`, async () => {
    let sent = 0;
    const size = 64 << 20;
    await using story = await withOrigin((_req, res) => {
      const piece = Buffer.alloc(65_536, 120);
      const more = (): void => {
        while (sent < size) {
          sent += piece.length;
          if (!res.write(piece)) return void res.once("drain", more);
        }
        res.end();
      };
      more();
    });
    const { body } = await openExchange(story.gateway.port, protocol, "/").head;
    body.pause();
    let before = -1;
    await waitFor(() => {
      const still = sent === before;
      before = sent;
      return still && sent > 0;
    });
    assert.ok(sent < size / 2, `${sent >> 20} MiB went ahead of the client`);
    let received = 0;
    for await (const chunk of body) received += (chunk as Buffer).length;
    assert.equal(received, size);
  });

  test(`${protocol}: trailers pass both ways`, async () => {
    let seen: unknown;
    await using story = await withOrigin(async (req, res) => {
      await bodyOf(req);
      seen = req.trailers;
      res.writeHead(200, { Trailer: "x-sum" });
      res.write("body");
      res.addTrailers({ "x-sum": "42" });
      res.end();
    });
    const exchange = openExchange(story.gateway.port, protocol, "/", {
      method: "POST",
      headers: { te: "trailers", ...(protocol === "http/1.1" ? { trailer: "x-check" } : {}) },
      body: true,
    });
    if (protocol === "http/1.1") {
      const request = exchange.send as unknown as { addTrailers(fields: Record<string, string>): void };
      request.addTrailers({ "x-check": "7" });
      exchange.send.end("hello");
    } else {
      exchange.send.end("hello");
    }
    const { body } = await exchange.head;
    assert.equal(await textOf(body), "body");
    await waitFor(() => exchange.trailers()["x-sum"] === "42");
    if (protocol === "http/1.1") assert.deepEqual({ ...(seen as object) }, { "x-check": "7" });
  });

  for (const [name, bytes] of [
    ["with a length", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"],
    ["in chunks", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"],
    ["with a bad chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n"],
  ] as const) {
    test(`${protocol}: a response ${name} that breaks off is never taken for a whole one`, async () => {
      await using origin = await startRawOrigin((socket) => {
        socket.once("data", () => {
          socket.write(bytes, () => setTimeout(() => socket.destroy(), 20));
        });
      });
      await using gateway = await startHttpGateway({ targets: [origin.url], tls: true });
      // What came in one piece with its head may break off before the head was on its way.
      await assert.rejects(openExchange(gateway.port, protocol, "/").head.then(({ body }) => textOf(body)));
      await waitFor(() => gateway.accessLog.length === 1);
      assert.match(String(gateway.accessLog[0]?.["error"]), /^ERR_UPSTREAM_(CLOSED|PROTOCOL)/);
    });
  }

  test(`${protocol}: a body without a length ends with the upstream's connection`, async () => {
    await using origin = await startRawOrigin((socket) => {
      socket.once("data", () => socket.end("HTTP/1.0 200 OK\r\n\r\nall of it"));
    });
    await using gateway = await startHttpGateway({ targets: [origin.url], tls: true });
    const { body } = await openExchange(gateway.port, protocol, "/").head;
    assert.equal(await textOf(body), "all of it");
  });

  test(`${protocol}: HEAD, 204 and 304 have no body, and the connection to the upstream is kept`, async () => {
    await using story = await withOrigin((req, res) => {
      if (req.url === "/204") res.writeHead(204).end();
      else if (req.url === "/304") res.writeHead(304, { ETag: '"x"', "Content-Length": "5" }).end();
      else res.writeHead(200, { "Content-Length": "5" }).end("hello");
    });
    for (const [method, path, status, length] of [
      ["HEAD", "/", 200, "5"],
      ["GET", "/204", 204, undefined],
      ["GET", "/304", 304, "5"],
      ["GET", "/", 200, "5"],
    ] as const) {
      const exchange = openExchange(story.gateway.port, protocol, path, { method });
      const head = await exchange.head;
      assert.equal(head.status, status);
      assert.equal(head.headers["content-length"], length);
      assert.equal(await textOf(head.body), method === "GET" && path === "/" ? "hello" : "");
    }
    assert.equal(story.origin.connections(), 1);
  });

  test(`${protocol}: 103 passes on, 100 is our own affair`, async () => {
    await using story = await withOrigin((_req, res) => {
      res.writeContinue();
      res.writeEarlyHints({ link: "</a.css>; rel=preload; as=style" });
      res.end("ok");
    });
    const exchange = openExchange(story.gateway.port, protocol, "/");
    assert.equal((await exchange.head).status, 200);
    assert.deepEqual(
      exchange.informational.map(({ status }) => status),
      [103],
    );
    assert.match(String(exchange.informational[0]?.headers["link"]), /a\.css/);
    await textOf((await exchange.head).body);
  });

  test(`${protocol}: an answer that comes before the end of the upload reaches the client`, async () => {
    await using story = await withOrigin((_req, res) => {
      res.writeHead(413, { "Content-Length": "3" }).end("big");
    });
    const exchange = openExchange(story.gateway.port, protocol, "/", { method: "POST", body: true });
    exchange.send.on("error", () => {});
    exchange.send.write(Buffer.alloc(200_000));
    const { status, body } = await exchange.head;
    assert.equal(status, 413);
    assert.equal(await textOf(body), "big");
    exchange.send.end();
  });
}

test("100 Continue is sent after the request was admitted, and not before", async () => {
  let received = "";
  await using story = await withOrigin(
    async (req, res) => {
      received = await bodyOf(req);
      res.end(String(req.headers.expect));
    },
    {
      tls: false,
      routes: [{ path: { kind: "exact", path: "/open" } }, { path: { kind: "exact", path: "/private" }, auth: [{ kind: "token", names: null, scopes: [] }] }],
    },
  );
  const head = (path: string): string => `POST ${path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n`;
  const refused = await sendRaw(story.gateway.port, [head("/private")], 1);
  assert.deepEqual(refused.statuses, [401]);
  const admitted = await sendRaw(story.gateway.port, [head("/open"), 50, "hello"], 2);
  assert.deepEqual(admitted.statuses, [100, 200]);
  assert.match(admitted.text, /undefined/, "the upstream is not asked to continue");
  assert.equal(received, "hello");
  const strange = await sendRaw(story.gateway.port, ["GET /open HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n"], 1);
  assert.deepEqual(strange.statuses, [417]);
});

test("HTTP/1.0 clients get a body that ends with the connection", async () => {
  await using story = await withOrigin(
    (_req, res) => {
      res.write("a");
      res.end("b");
    },
    { tls: false },
  );
  const reply = await sendRaw(story.gateway.port, ["GET / HTTP/1.0\r\n\r\n"], 1);
  assert.match(reply.text, /\r\n\r\nab$/);
  assert.doesNotMatch(reply.text, /chunked/i);
});
