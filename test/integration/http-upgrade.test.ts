// Upgraded connections pass byte by byte: authorised before the 101, with backpressure, half-close and an end that both sides see.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { certificate, startHttpGateway, TOKEN, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin, startRawOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const UPGRADE =
  "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mcp\r\n";
const SWITCH = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: mcp\r\n\r\n";

async function withEcho(options: Partial<HttpGatewayOptions> = {}, onUpgrade?: (socket: Socket) => void) {
  let upgrades = 0;
  const sockets: Socket[] = [];
  const origin = await startOrigin(
    (_req, res) => void res.end("plain"),
    (req, socket, head) => {
      upgrades += 1;
      sockets.push(socket);
      assert.equal(req.headers["authorization"], undefined);
      assert.equal(req.headers["x-forwarded-for"], "127.0.0.1");
      socket.write(SWITCH);
      if (onUpgrade !== undefined) return onUpgrade(socket);
      socket.write(head);
      socket.pipe(socket);
    },
  );
  const gateway = await startHttpGateway({ targets: [origin.url], ...options });
  return {
    gateway,
    sockets,
    upgrades: () => upgrades,
    [Symbol.asyncDispose]: async () => {
      await waitFor(() => gateway.state.live.active === 0, { what: () => "the upgraded connections to end" });
      assert.equal(gateway.upstream.active, 0);
      await gateway[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
    },
  };
}

async function open(port: number, extra = "", first = ""): Promise<{ socket: Socket; text: () => string }> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  let text = "";
  socket.on("data", (chunk) => (text += chunk.toString("latin1")));
  socket.on("error", () => {});
  socket.on("end", () => socket.end());
  socket.write(`${UPGRADE}${extra}\r\n${first}`, "latin1");
  await waitFor(() => text.includes("\r\n\r\n"));
  return { socket, text: () => text };
}

test("bytes pass both ways after the 101, the first ones too, and the connection counts until its end", async () => {
  await using story = await withEcho();
  const { socket, text } = await open(story.gateway.port, "", "early");
  assert.match(text(), /^HTTP\/1\.1 101 /);
  assert.match(text(), /Sec-WebSocket-Protocol: mcp/);
  socket.write("\x00\xff late", "latin1");
  await waitFor(() => text().endsWith("early\x00\xff late"));
  assert.equal(story.gateway.state.live.active, 1);
  assert.equal(story.gateway.upstream.active, 1);
  socket.end();
  await once(socket, "close");
  await waitFor(() => story.gateway.accessLog.length === 1);
  const [line] = story.gateway.accessLog;
  assert.deepEqual([line?.["status"], line?.["bytes_in"], line?.["bytes_out"]], [101, 12, 12]);
});

test("without a token it is 401 before any 101, and the upstream hears nothing", async () => {
  await using story = await withEcho({ routes: [{ auth: [{ kind: "token", names: null, scopes: [] }] }] });
  const reply = await sendRaw(story.gateway.port, [`${UPGRADE}\r\n`, 50], 1);
  assert.deepEqual(reply.statuses, [401]);
  assert.equal(reply.closed, true);
  assert.equal(story.upgrades(), 0);
  const { socket, text } = await open(story.gateway.port, `Authorization: Bearer ${TOKEN}\r\n`);
  assert.match(text(), /^HTTP\/1\.1 101 /);
  socket.destroy();
});

test("an answer other than 101 passes as it is", async () => {
  await using origin = await startOrigin((_req, res) => void res.writeHead(426, { Upgrade: "other" }).end("no"));
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  const reply = await sendRaw(gateway.port, [`${UPGRADE}\r\n`], 1);
  assert.deepEqual(reply.statuses, [426]);
  assert.match(reply.text, /\r\nno\r\n/);
});

test("a half-closed side still gets the rest", async () => {
  await using story = await withEcho({}, (socket) => {
    socket.on("end", () => {
      socket.write("last words");
      socket.end();
    });
    socket.resume();
  });
  const { socket, text } = await open(story.gateway.port);
  socket.end();
  await once(socket, "close");
  assert.ok(text().endsWith("last words"), text());
});

test("a client that goes away ends the upstream's side, and the other way round", async () => {
  await using story = await withEcho();
  const first = await open(story.gateway.port);
  await waitFor(() => story.sockets.length === 1);
  first.socket.resetAndDestroy();
  await waitFor(() => story.sockets[0]?.destroyed);
  const second = await open(story.gateway.port);
  await waitFor(() => story.sockets.length === 2);
  story.sockets[1]?.resetAndDestroy();
  await once(second.socket, "close");
});

test("a silent connection is closed after timeouts.idle", async () => {
  await using story = await withEcho({ upstream: { timeouts: { idleMs: 200 } } });
  const { socket } = await open(story.gateway.port);
  await once(socket, "close");
  await waitFor(() => story.gateway.accessLog.length === 1);
  assert.match(String(story.gateway.accessLog[0]?.["error"]), /ERR_IDLE/);
});

test("a reader that stands still slows the writer down", async () => {
  let written = 0;
  await using story = await withEcho({}, (socket) => {
    const piece = Buffer.alloc(65_536);
    const more = (): void => {
      while (!socket.destroyed && written < 64 << 20) {
        written += piece.length;
        if (!socket.write(piece)) return void socket.once("drain", more);
      }
    };
    more();
  });
  const socket = connect(story.gateway.port, "127.0.0.1");
  socket.on("error", () => {});
  socket.write(`${UPGRADE}\r\n`);
  await once(socket, "readable");
  let before = -1;
  await waitFor(() => {
    const still = before === written;
    before = written;
    return still && written > 0;
  });
  assert.ok(written < 32 << 20, `${written >> 20} MiB went ahead`);
  socket.destroy();
});

test("offers that are no business of an upstream are declined: h2c, and an upgrade with a body", async () => {
  await using story = await withEcho();
  const offers = [
    "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 2\r\n\r\nhi",
  ];
  for (const offer of offers) {
    const reply = await sendRaw(story.gateway.port, [offer], 1);
    assert.deepEqual(reply.statuses, [200]);
    assert.match(reply.text, /plain$/);
  }
  assert.equal(story.upgrades(), 0);
});

test("a client whose upgrade was refused cannot keep its connection open", async () => {
  await using story = await withEcho({ routes: [{ auth: [{ kind: "token", names: null, scopes: [] }] }] });
  const socket = connect({ port: story.gateway.port, host: "127.0.0.1", allowHalfOpen: true });
  let text = "";
  socket.on("data", (chunk) => (text += String(chunk)));
  socket.on("error", () => {});
  socket.write(`${UPGRADE}\r\n`);
  await waitFor(() => text.includes("request_id"));
  await waitFor(() => story.gateway.sockets.size === 0, { what: () => "the gateway to let go of the socket" });
  socket.destroy();
});

test("a TLS client that ends is not waited for when the upstream goes on", async () => {
  const ends: Socket[] = [];
  await using origin = await startRawOrigin((socket) => {
    // It never answers a FIN with its own.
    socket.allowHalfOpen = true;
    socket.once("data", () => socket.write(SWITCH));
    socket.once("end", () => ends.push(socket));
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], tls: true });
  const socket = connectTls({ port: gateway.port, host: "127.0.0.1", servername: "localhost", ca: certificate().cert, ALPNProtocols: ["http/1.1"] });
  let text = "";
  socket.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  socket.on("error", () => {});
  socket.write(`${UPGRADE}\r\n`);
  await waitFor(() => text.includes("\r\n\r\n"));
  socket.end();
  await waitFor(() => gateway.state.live.active === 0 && gateway.upstream.active === 0, { what: () => "the relay to end" });
  assert.equal(ends.length, 1);
});
