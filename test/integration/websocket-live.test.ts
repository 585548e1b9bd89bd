// WebSockets, of which MCP has a transport in the first SDK: authorised before the 101, carried as they are, and closed when their credential ends.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { WebSocket } from "undici";
import { checkLive } from "../../src/http/live-check.ts";
import { startGateway } from "../components/gateway.ts";
import { openRequest } from "../components/http-client.ts";
import { startHttpGateway, TOKEN, type HttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const ANY_TOKEN = { kind: "token", names: null, scopes: [] } as const;
const FAR = 3_600_000;

/** An unmasked frame, as servers send them. */
function frame(opcode: number, payload: Buffer | string, final = true): Buffer {
  const bytes = Buffer.from(payload);
  const head = Buffer.alloc(bytes.length > 65_535 ? 10 : bytes.length > 125 ? 4 : 2);
  head[0] = (final ? 0x80 : 0) | opcode;
  head[1] = head.length === 10 ? 127 : head.length === 4 ? 126 : bytes.length;
  if (head.length === 4) head.writeUInt16BE(bytes.length, 2);
  if (head.length === 10) head.writeBigUInt64BE(BigInt(bytes.length), 2);
  return Buffer.concat([head, bytes]);
}

type Frame = { readonly opcode: number; readonly payload: Buffer };

/** Takes whole frames of a client off the front of what has come. */
function takeFrames(bytes: Buffer): { frames: Frame[]; rest: Buffer } {
  const frames: Frame[] = [];
  let rest = bytes;
  for (;;) {
    const short = (rest[1] ?? 0) & 0x7f;
    const start = short === 127 ? 10 : short === 126 ? 4 : 2;
    if (rest.length < start + 4) return { frames, rest };
    const length = short === 127 ? Number(rest.readBigUInt64BE(2)) : short === 126 ? rest.readUInt16BE(2) : short;
    if (rest.length < start + 4 + length) return { frames, rest };
    const mask = rest.subarray(start, start + 4);
    const payload = Buffer.from(rest.subarray(start + 4, start + 4 + length)).map((byte, i) => byte ^ (mask[i % 4] ?? 0));
    frames.push({ opcode: (rest[0] ?? 0) & 0x0f, payload: Buffer.from(payload) });
    rest = rest.subarray(start + 4 + length);
  }
}

type Server = { readonly origin: Origin; readonly sockets: Socket[]; readonly frames: Frame[] } & AsyncDisposable;

/** A WebSocket server that chooses the subprotocol mcp; by default it sends every text and binary message back and answers a close with the same. */
async function startServer(onFrame: (socket: Socket, frame: Frame) => void = echo): Promise<Server> {
  const sockets: Socket[] = [];
  const frames: Frame[] = [];
  const origin = await startOrigin(
    (_req, res) => {
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      res.write("data: 1\n\n");
    },
    (req, socket, head) => {
      sockets.push(socket);
      const accept = createHash("sha1").update(`${req.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      const chosen = req.headers["sec-websocket-protocol"] === undefined ? "" : "Sec-WebSocket-Protocol: mcp\r\n";
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n${chosen}\r\n`);
      let pending = head;
      const take = (chunk: Buffer): void => {
        const { frames: whole, rest } = takeFrames(Buffer.concat([pending, chunk]));
        pending = rest;
        frames.push(...whole);
        for (const one of whole) onFrame(socket, one);
      };
      socket.on("data", take);
    },
  );
  return { origin, sockets, frames, [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose]() };
}

function echo(socket: Socket, { opcode, payload }: Frame): void {
  if (opcode <= 2 || opcode === 8) socket.write(frame(opcode, payload));
  if (opcode === 8) socket.end();
}

type Opened = { readonly client: WebSocket; readonly messages: (string | Buffer)[]; readonly closed: Promise<{ code: number; reason: string }> };

async function open(port: number, headers: Record<string, string> = { authorization: `Bearer ${TOKEN}` }): Promise<Opened> {
  const client = new WebSocket(`ws://127.0.0.1:${port}/ws`, { protocols: ["mcp"], headers });
  client.binaryType = "arraybuffer";
  const messages: (string | Buffer)[] = [];
  client.addEventListener("message", ({ data }) => messages.push(typeof data === "string" ? data : Buffer.from(data as ArrayBuffer)));
  const closed = new Promise<{ code: number; reason: string }>((resolve) => {
    client.addEventListener("close", ({ code, reason }) => resolve({ code, reason }));
  });
  await new Promise<void>((resolve, reject) => {
    client.addEventListener("open", () => resolve());
    client.addEventListener("error", () => reject(new Error("The WebSocket was refused")));
  });
  return { client, messages, closed };
}

const begin = (server: Server, options: Partial<HttpGatewayOptions> = {}): Promise<HttpGateway> =>
  startHttpGateway({ targets: [server.origin.url], routes: [{ auth: [ANY_TOKEN], mcp: { sessionBinding: true } }], ...options });

test("#51 the subprotocol mcp, texts, binary, long and fragmented messages pass, and the close code of either side", async () => {
  await using server = await startServer();
  await using gateway = await begin(server);
  const { client, messages, closed } = await open(gateway.port);
  assert.equal(client.protocol, "mcp");
  const sent = ["hello", "ä", Buffer.from([0, 255, 1]), Buffer.alloc(70_000, 7), "x".repeat(300)];
  for (const message of sent) client.send(message);
  await waitFor(() => messages.length === sent.length);
  assert.deepEqual(messages, sent);
  server.sockets[0]?.write(Buffer.concat([frame(1, "one ", false), frame(9, "ping"), frame(0, "message")]));
  await waitFor(() => messages.at(-1) === "one message");
  await waitFor(() => server.frames.some(({ opcode, payload }) => opcode === 10 && payload.toString() === "ping"));
  client.close(4_001, "enough");
  assert.deepEqual(await closed, { code: 4_001, reason: "enough" });
  assert.equal(server.frames.at(-1)?.payload.readUInt16BE(0), 4_001);

  const other = await open(gateway.port);
  await waitFor(() => server.sockets.length === 2);
  server.sockets[1]?.write(frame(8, Buffer.concat([Buffer.from([0x0f, 0xaa]), Buffer.from("going")])));
  assert.deepEqual(await other.closed, { code: 4_010, reason: "going" });
});

test("#51 a reader that stands still slows the writer down", async () => {
  let written = 0;
  await using server = await startServer((socket) => {
    const piece = frame(2, Buffer.alloc(65_000));
    const more = (): void => {
      while (written < 200_000_000) {
        written += piece.length;
        if (!socket.write(piece)) return void socket.once("drain", more);
      }
    };
    more();
  });
  await using gateway = await begin(server);
  const socket = connect({ port: gateway.port, host: "127.0.0.1" });
  socket.on("error", () => {});
  socket.write(upgrade(`Authorization: Bearer ${TOKEN}\r\n`));
  await once(socket, "data");
  socket.pause();
  socket.write(Buffer.from([0x81, 0x80, 0, 0, 0, 0]));
  let last = -1;
  // Until it stands still for a while.
  await waitFor(
    async () => {
      const before = last;
      last = written;
      await new Promise((resolve) => void setTimeout(resolve, 250));
      return written > 0 && written === last && before === last;
    },
    { timeoutMs: 20_000 },
  );
  assert.ok(written < 50_000_000, `${written} bytes`);
  socket.destroy();
});

function upgrade(more = ""): string {
  return `GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mcp\r\n${more}\r\n`;
}

test("#2 #51 without a token it is 401 before any 101, and a page of a stranger gets 403", async () => {
  await using server = await startServer();
  await using gateway = await begin(server, { routes: [{ auth: [ANY_TOKEN], mcp: { sessionBinding: true }, origins: new Set(["https://ours.example"]) }] });
  const token = `Authorization: Bearer ${TOKEN}\r\n`;
  for (const [head, status] of [
    ["", 401],
    ["Authorization: Bearer wrong\r\n", 401],
    [`${token}Origin: https://stranger.example\r\n`, 403],
    [`${token}Origin: null\r\n`, 403],
  ] as const) {
    const reply = await sendRaw(gateway.port, [upgrade(head)], 1);
    assert.deepEqual(reply.statuses, [status], head);
    if (status === 401) assert.match(reply.text, /WWW-Authenticate: Bearer/);
  }
  assert.equal(server.sockets.length, 0);
  const { client, closed } = await open(gateway.port, { authorization: `Bearer ${TOKEN}`, origin: "https://ours.example" });
  client.close();
  await closed;
});

/** A route that takes tokens of an issuer; the one that it knows ends at that time. */
function expiring(expiresAtMs: () => number): Partial<HttpGatewayOptions> {
  const identity = { source: "issuer:test", name: "somebody", scopes: [] } as const;
  return {
    routes: [{ auth: [{ kind: "issuer", issuer: "test", scopes: [], allow: null }] }],
    issuers: {
      test: {
        find: () =>
          expiresAtMs() <= Date.now()
            ? { kind: "invalid" }
            : { kind: "identity", by: "issuer", identity, person: null, issuer: "test", resource: null, expiresAtMs: expiresAtMs() },
      },
    },
  };
}

test("#19 a WebSocket whose token expires is closed with 4401 at that moment, and its upstream within a second", async () => {
  await using server = await startServer();
  const endsAt = Date.now() + 1_000;
  await using gateway = await begin(
    server,
    expiring(() => endsAt),
  );
  const { client, messages, closed } = await open(gateway.port, { authorization: "Bearer issued" });
  client.send("still in time");
  await waitFor(() => messages.length === 1);
  assert.equal((await closed).code, 4_401);
  const closedAt = Date.now();
  assert.ok(closedAt >= endsAt && closedAt < endsAt + 1_500, `${closedAt - endsAt} ms after the end`);
  await waitFor(() => gateway.state.live.active === 0);
  assert.ok(Date.now() < endsAt + 2_500);
  await waitFor(() => server.sockets[0]?.readableEnded);
  assert.match(String(gateway.accessLog[0]?.["error"]), /ERR_CREDENTIAL_ENDED/);
});

test("#19 the farewell comes between two frames, and not at all in the middle of one that does not end", async () => {
  await using server = await startServer(() => {});
  let endsAt = Date.now() + FAR;
  await using gateway = await begin(
    server,
    expiring(() => endsAt),
  );
  const bytesOf = async (): Promise<{ socket: Socket; bytes: () => Buffer; ended: Promise<unknown> }> => {
    const socket = connect({ port: gateway.port, host: "127.0.0.1" });
    socket.on("error", () => {});
    let all = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => (all = Buffer.concat([all, chunk])));
    socket.write(upgrade("Authorization: Bearer x\r\n"));
    await waitFor(() => all.includes("\r\n\r\n"));
    return { socket, bytes: () => all.subarray(all.indexOf("\r\n\r\n") + 4), ended: once(socket, "close") };
  };
  const first = await bytesOf();
  const second = await bytesOf();
  await waitFor(() => server.sockets.length === 2);
  const long = frame(2, Buffer.alloc(200, 0x88));
  for (const socket of server.sockets) socket.write(long.subarray(0, 100));
  await waitFor(() => first.bytes().length === 100 && second.bytes().length === 100);
  endsAt = 0;
  await checkLive(performance.now() + FAR);
  server.sockets[0]?.write(Buffer.concat([long.subarray(100), frame(1, "after the end")]));
  await Promise.all([first.ended, second.ended]);
  const told = first.bytes();
  assert.deepEqual(told.subarray(0, long.length), long);
  assert.deepEqual([told[long.length], told.readUInt16BE(long.length + 2)], [0x88, 4_401]);
  assert.ok(!told.includes("after the end"));
  assert.equal(second.bytes().length, 100);
});

test("#19 what lasts is asked again: a token that is not known any more ends WebSockets and event streams, one without a way in gets 4403", async () => {
  await using server = await startServer();
  await using gateway = await begin(server);
  const socket = await open(gateway.port);
  const stream = await openRequest(gateway.port, "/mcp", { headers: { authorization: `Bearer ${TOKEN}` } });
  let error: unknown = null;
  stream.response.on("error", (cause: unknown) => (error = cause));
  stream.response.resume();
  // What is young is left alone; what is still right goes on.
  await checkLive(performance.now() + 1_000);
  await checkLive(performance.now() + FAR);
  socket.client.send("there");
  await waitFor(() => socket.messages.length === 1);
  gateway.state.live.current = { ...gateway.state, tokens: [] };
  await checkLive(performance.now() + FAR);
  assert.equal((await socket.closed).code, 4_401);
  await waitFor(() => error !== null, { what: () => "the stream to be cut" });
  assert.equal(stream.response.complete, false);
  await waitFor(() => gateway.accessLog.length === 2);
  for (const line of gateway.accessLog) assert.match(String(line["error"]), /ERR_CREDENTIAL_ENDED: The credential is not valid any more/);

  gateway.state.live.current = null;
  const other = await open(gateway.port);
  gateway.state.live.current = { ...gateway.state, routes: { ...gateway.state.routes, find: () => null } };
  await checkLive(performance.now() + FAR);
  assert.equal((await other.closed).code, 4_403);
});

test("#19 an edit that takes a token away ends its WebSocket and its event stream within 20 s", { timeout: 60_000 }, async () => {
  await using server = await startServer();
  const sha256 = (token: string): string => createHash("sha256").update(token).digest("hex");
  const yaml = (tokens: string[]): string => `listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
auth:
  tokens: [${tokens.map((name) => `{ name: ${name}, sha256: ${sha256(`sgt_${name}`)} }`).join(", ")}]
routes:
  - { upstream: "${server.origin.url}", auth: [{ token: {} }] }
`;
  await using gateway = await startGateway({ yaml: yaml(["stays", "goes"]) });
  const port = gateway.port("web");
  const [stays, goes] = await Promise.all(["stays", "goes"].map((name) => open(port, { authorization: `Bearer sgt_${name}` })));
  const { response } = await openRequest(port, "/mcp", { headers: { authorization: "Bearer sgt_goes" } });
  let broken = false;
  response.on("error", () => (broken = true));
  response.resume();
  await gateway.edit(yaml(["stays"]));
  const editedAt = performance.now();
  assert.equal((await goes?.closed)?.code, 4_401);
  await waitFor(() => broken, { timeoutMs: 21_000 });
  assert.ok(performance.now() - editedAt < 21_000);
  stays?.client.send("here");
  await waitFor(() => stays?.messages.length === 1);
  stays?.client.close();
  await stays?.closed;
});
