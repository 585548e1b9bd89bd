// Malicious requests over HTTP/2: what its framing allows and HTTP/1.1 behind it would misread.
import assert from "node:assert/strict";
import { connect, type ClientHttp2Session } from "node:http2";
import { connect as connectTls } from "node:tls";
import { after, afterEach, before, beforeEach, test } from "node:test";
import { certificate, startHttpGateway, TOKEN, type HttpGateway } from "../components/http-gateway.ts";
import { startRecordingOrigin, type RecordingOrigin } from "../components/origin.ts";
import { waitFor } from "../components/wait.ts";

let origin: RecordingOrigin;
let gateway: HttpGateway;
let session: ClientHttp2Session;

before(async () => {
  origin = await startRecordingOrigin();
  gateway = await startHttpGateway({
    targets: [origin.url],
    tls: true,
    routes: [
      { path: { kind: "prefix", path: "/open" }, auth: null },
      { path: { kind: "prefix", path: "/private" }, auth: [{ kind: "token", names: null, scopes: [] }] },
    ],
  });
});
after(async () => {
  await gateway[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
});
beforeEach(() => {
  origin.reset();
  session = connect(`https://localhost:${gateway.port}`, { ca: certificate().cert });
  session.on("error", () => {});
});
afterEach(() => session.destroy());

/** Sends header pairs as they are; the status, or "reset" when the stream or the session was refused. */
async function send(pairs: [string, string][], body?: string, trailers?: Record<string, string>): Promise<number | "reset"> {
  let outcome: number | "reset" | null = null;
  try {
    const flat = [":method", body === undefined ? "GET" : "POST", ":scheme", "https", ":authority", "a.example", ":path", "/open"];
    for (const [name, value] of pairs) {
      const index = flat.indexOf(name);
      if (name.startsWith(":") && index !== -1) flat[index + 1] = value;
      else flat.push(name, value);
    }
    const stream = session.request(flat, { endStream: body === undefined, waitForTrailers: trailers !== undefined });
    stream.on("response", (headers) => (outcome = Number(headers[":status"])));
    stream.on("error", () => (outcome ??= "reset"));
    stream.on("close", () => (outcome ??= "reset"));
    stream.on("wantTrailers", () => stream.sendTrailers(trailers ?? {}));
    stream.resume();
    if (body !== undefined) stream.end(body);
  } catch (error) {
    // A client library that refuses to send it leaves nothing to test.
    throw new Error("The client refuses to send this", { cause: error });
  }
  return waitFor(() => outcome, { what: () => "an answer" });
}

const targets = (): string[] => origin.requests.map(({ target }) => target);

test("a plain request passes, with :authority as its Host and cookie crumbs joined", async () => {
  assert.equal(
    await send([
      ["cookie", "a=1"],
      ["cookie", "b=2"],
    ]),
    200,
  );
  const headers = new Map(origin.requests[0]?.headers);
  assert.equal(headers.get("host"), "a.example");
  assert.equal(headers.get("cookie"), "a=1; b=2");
  assert.equal(headers.get("x-forwarded-proto"), "https");
});

for (const [name, pairs] of [
  ["Host that differs from :authority", [["host", "b.example"]]],
  ["path with a space", [[":path", "/open /x"]]],
  ["path with dot segments", [[":path", "/open/../private"]]],
  ["path without a slash", [[":path", "open"]]],
  ["absolute path form", [[":path", "https://a.example/open"]]],
  ["authority with userinfo", [[":authority", "u@a.example"]]],
  ["authority with a space", [[":authority", "a.example b"]]],
  ["header name in capitals", [["X-UPPER", "1"]]],
  ["Content-Length that is no number", [["content-length", "1x"]]],
] as [string, [string, string][]][]) {
  test(`${name} never reaches the upstream`, async () => {
    const outcome = await send(pairs);
    assert.ok(outcome === 400 || outcome === "reset" || (name === "header name in capitals" && outcome === 200), String(outcome));
    assert.deepEqual(targets(), outcome === 200 ? ["/open"] : []);
    assert.deepEqual(origin.malformed, []);
  });
}

test("a method that is no token is refused", async () => {
  const outcome = await send([[":method", "GET /private HTTP/1.1\r\nX: y"]]);
  assert.ok(outcome === 400 || outcome === "reset");
  assert.deepEqual(targets(), []);
});

test("a body shorter than its Content-Length is no request", async () => {
  assert.equal(await send([["content-length", "10"]], "hello"), "reset");
  assert.deepEqual(targets(), []);
});

test("a body longer than its Content-Length is no second request", async () => {
  assert.equal(await send([["content-length", "5"]], "helloGET /private HTTP/1.1\r\nHost: a\r\n\r\n"), "reset");
  assert.ok(targets().length <= 1 && !targets().includes("/private"));
  assert.deepEqual(origin.malformed, []);
});

test("a body with a request in it is a body", async () => {
  const smuggled = "0\r\n\r\nGET /private HTTP/1.1\r\nHost: a\r\n\r\n";
  assert.equal(await send([], smuggled), 200);
  assert.deepEqual(targets(), ["/open"]);
  assert.equal(origin.requests[0]?.body, smuggled);
});

test("trailers cannot forge", async () => {
  assert.equal(await send([], "hi", { "x-forwarded-for": "6.6.6.6", "x-checksum": "1" }), 200);
  assert.equal(origin.requests[0]?.trailers.toLowerCase(), "x-checksum: 1\r\n");
});

test("the token is asked for, and stays here", async () => {
  assert.equal(await send([[":path", "/private"]]), 401);
  assert.equal(
    await send([
      [":path", "/private"],
      ["authorization", `Bearer ${TOKEN}`],
    ]),
    200,
  );
  assert.ok(!JSON.stringify(origin.requests).includes(TOKEN));
});

test("CONNECT is refused", async () => {
  const stream = session.request({ ":method": "CONNECT", ":authority": "a.example:80" });
  let status = 0;
  stream.on("response", (headers) => (status = Number(headers[":status"])));
  stream.on("error", () => (status = -1));
  await waitFor(() => status !== 0);
  assert.ok(status === 405 || status === 501 || status === -1, String(status));
  assert.deepEqual(targets(), []);
});

/** A frame as RFC 9113, 4.1 has it. */
function frame(type: number, flags: number, streamId: number, payload: Buffer): Buffer {
  const head = Buffer.alloc(9);
  head.writeUIntBE(payload.length, 0, 3);
  head.writeUInt8(type, 3);
  head.writeUInt8(flags, 4);
  head.writeUInt32BE(streamId, 5);
  return Buffer.concat([head, payload]);
}

/** Literal fields without indexing and without Huffman coding (RFC 7541, 6.2.2): any bytes can be sent so. */
function literal(fields: readonly (readonly [string, string])[]): Buffer {
  const text = (value: string): Buffer => Buffer.concat([Buffer.from([value.length]), Buffer.from(value, "latin1")]);
  return Buffer.concat(fields.flatMap(([name, value]) => [Buffer.from([0]), text(name), text(value)]));
}

const PSEUDO = [
  [":method", "GET"],
  [":scheme", "https"],
  [":authority", "a.example"],
  [":path", "/open"],
] as const;

for (const [name, fields] of [
  ["CRLF in a value", [...PSEUDO, ["x-a", "b\r\nX-Real-IP: 6.6.6.6"]]],
  ["LF in a value", [...PSEUDO, ["x-a", "b\nX-Real-IP: 6.6.6.6"]]],
  ["NUL in a value", [...PSEUDO, ["x-a", "b\0c"]]],
  ["CRLF in a name", [...PSEUDO, ["x-a: b\r\nx-real-ip", "6.6.6.6"]]],
  ["a colon in a name", [...PSEUDO, ["x-a:", "b"]]],
  ["CRLF in the path", [...PSEUDO.slice(0, 3), [":path", "/open HTTP/1.1\r\nX-Real-IP: 6.6.6.6\r\n\r\nGET /private"]]],
  ["CRLF in the method", [[":method", "GET /private HTTP/1.1\r\nHost: a\r\n\r\nGET"], ...PSEUDO.slice(1)]],
  ["CRLF in the authority", [...PSEUDO.slice(0, 2), [":authority", "a.example\r\nX-Real-IP: 6.6.6.6"], [":path", "/open"]]],
  ["transfer-encoding", [...PSEUDO, ["transfer-encoding", "chunked"]]],
  ["connection", [...PSEUDO, ["connection", "x-forwarded-for"]]],
  ["upgrade", [...PSEUDO, ["upgrade", "websocket"]]],
  ["two paths", [...PSEUDO, [":path", "/private"]]],
  ["a pseudo-header behind the others", [...PSEUDO.slice(0, 3), ["x-a", "b"], [":path", "/open"]]],
  ["no path", PSEUDO.slice(0, 3)],
  ["an unknown pseudo-header", [...PSEUDO, [":protocol", "websocket"]]],
  ["two Content-Length", [...PSEUDO, ["content-length", "0"], ["content-length", "5"]]],
] as [string, [string, string][]][]) {
  test(`raw frames: ${name} is refused, or passes without its poison`, async () => {
    const socket = connectTls({ port: gateway.port, host: "127.0.0.1", servername: "localhost", ca: certificate().cert, ALPNProtocols: ["h2"] });
    let answered = false;
    socket.on("error", () => (answered = true));
    socket.on("close", () => (answered = true));
    let received = Buffer.alloc(0);
    socket.on("data", (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      // HEADERS, RST_STREAM or GOAWAY: the request was judged.
      while (received.length >= 9 && received.length >= 9 + received.readUIntBE(0, 3)) {
        if ([1, 3, 7].includes(received.readUInt8(3))) answered = true;
        received = received.subarray(9 + received.readUIntBE(0, 3));
      }
    });
    socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, Buffer.alloc(0)), frame(1, 0x5, 1, literal(fields))]));
    await waitFor(() => answered, { what: () => "an answer" });
    socket.destroy();
    assert.deepEqual(origin.malformed, []);
    assert.equal(origin.pending(), "");
    const seen = JSON.stringify(origin.requests);
    for (const poison of ["6.6.6.6", "/private", "upgrade", "protocol", "b\\u0000c"]) assert.ok(!seen.includes(poison), seen);
    for (const { headers } of origin.requests) assert.ok(headers.some(([key, value]) => key === "x-forwarded-for" && value === "127.0.0.1"));
  });
}

/** Opens a session by hand, with a window of `window` bytes for each stream, and GETs of /open on the streams 1, 3, 5... */
function rawSession(port: number, window: number, streams: number, extra: [string, string][] = []): { types: () => number[]; close: () => void } {
  const socket = connectTls({ port, host: "127.0.0.1", servername: "localhost", ca: certificate().cert, ALPNProtocols: ["h2"] });
  let received = Buffer.alloc(0);
  const types: number[] = [];
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => {
    received = Buffer.concat([received, chunk]);
    while (received.length >= 9 && received.length >= 9 + received.readUIntBE(0, 3)) {
      types.push(received.readUInt8(3));
      received = received.subarray(9 + received.readUIntBE(0, 3));
    }
  });
  const settings = Buffer.alloc(6);
  settings.writeUInt16BE(4, 0);
  settings.writeUInt32BE(window, 2);
  const requests = Array.from({ length: streams }, (_, i) => frame(1, 0x5, 1 + 2 * i, literal([...PSEUDO, ...extra])));
  socket.write(Buffer.concat([Buffer.from("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), frame(4, 0, 0, settings), ...requests]));
  return { types: () => types, close: () => socket.destroy() };
}

test("streams whose window stays shut are reset after timeouts.write", async () => {
  await using shut = await startHttpGateway({ targets: [origin.url], tls: true, listener: { timeouts: { writeMs: 200 } } });
  const client = rawSession(shut.port, 0, 5);
  await waitFor(() => client.types().filter((type) => type === 1).length === 5, { what: () => "five heads" });
  await waitFor(() => client.types().filter((type) => type === 3).length === 5, { what: () => "five resets" });
  await waitFor(() => shut.state.live.active === 0);
  assert.ok(shut.accessLog.every(({ error, aborted }) => aborted === true && String(error).startsWith("ERR_CLIENT_WRITE_TIMEOUT")));
  client.close();
});

test("more header bytes than max_header_size are 431 over HTTP/2 too", async () => {
  const fields = Array.from({ length: 5 }, (_, i): [string, string] => [`x-${i}`, "v".repeat(4_000)]);
  assert.equal(await send(fields), 431);
  assert.deepEqual(targets(), []);
  assert.equal(await send(fields.slice(0, 3)), 200);
});

test("streams that are reset at once leave nothing behind, and too many of them end the session", async () => {
  await using storm = await startHttpGateway({ targets: [origin.url], tls: true });
  const client = connect(`https://localhost:${storm.port}`, { ca: certificate().cert });
  let goneAway = false;
  client.on("error", () => (goneAway = true));
  client.on("goaway", () => (goneAway = true));
  client.on("close", () => (goneAway = true));
  await waitFor(() => {
    for (let i = 0; i < 100 && !client.destroyed && !client.closed; i += 1) {
      const stream = client.request({ ":path": "/open" });
      stream.on("error", () => {});
      stream.close(8);
    }
    return goneAway;
  });
  await waitFor(() => storm.state.live.active === 0 && storm.upstream.active === 0, { what: () => "every request to end" });
  client.destroy();
});
