import assert from "node:assert/strict";
import { test } from "node:test";
import { ChunkedReader } from "./http1-body.ts";
import { parseResponseHead, parseTrailers } from "./http1-head.ts";

/** Reads a chunked body in pieces of `size` bytes: the data, and where the body ended; or what is wrong. */
function read(text: string, size: number): { data: string; end: number; trailers: string[] | null } | string {
  const reader = new ChunkedReader();
  const bytes = Buffer.from(text, "latin1");
  let data = "";
  for (let at = 0; at < bytes.length; at += size) {
    const piece = bytes.subarray(at, at + size);
    const end = reader.read(piece, 0, piece.length, (from, to) => (data += piece.toString("latin1", from, to)));
    if (typeof end === "string") return end;
    if (end !== -1) return { data, end: at + end, trailers: reader.trailers };
  }
  return "incomplete";
}

test("a chunked body is the same in whatever pieces it comes", () => {
  const body = "5\r\nhello\r\n6;x=y\r\n world\r\n00a\r\n0123456789\r\n0\r\nX-A: b\r\nX-C: d\r\n\r\n";
  for (let size = 1; size <= body.length + 4; size += 1) {
    assert.deepEqual(read(`${body}NEXT`, size), { data: "hello world0123456789", end: body.length, trailers: ["X-A", "b", "X-C", "d"] }, `pieces of ${size}`);
  }
  assert.deepEqual(read("0\r\n\r\n", 2), { data: "", end: 5, trailers: [] });
});

test("a chunked body that is not one is refused, in whatever pieces it comes", () => {
  for (const body of [
    "x\r\n",
    "-1\r\nab",
    "0x1\r\na\r\n",
    "1\na\r\n",
    " 1\r\na\r\n",
    "1\r\nab\r\n",
    "1\r\na\n",
    "11111111111111\r\n",
    "\r\n",
    ";\r\n",
    `1;${"a".repeat(2_000)}\r\n`,
    "0\r\nbad line\r\n\r\n",
    "0\r\nX: a\nY: b\r\n\r\n",
    `0\r\n${"X: y\r\n".repeat(4_000)}\r\n`,
  ]) {
    for (const size of [1, 3, 100_000]) {
      const result = read(body, size);
      assert.ok(typeof result === "string" && result !== "incomplete", `${JSON.stringify(body.slice(0, 40))} in pieces of ${size}: ${JSON.stringify(result)}`);
    }
  }
});

test("a head tells framing and persistence, and leaves hop-by-hop headers behind", () => {
  const head = parseResponseHead(
    "HTTP/1.1 200 All right\r\nContent-Type: a/b\r\nConnection: close, X-Gone\r\nX-Gone: 1\r\nKeep-Alive: timeout=7, max=3\r\nProxy-Authenticate: x\r\nContent-Length: 3",
  );
  assert.deepEqual(head, {
    status: 200,
    reason: "All right",
    headers: ["Content-Type", "a/b", "Content-Length", "3"],
    contentLength: 3,
    chunked: false,
    persistent: false,
    keepAliveSeconds: 7,
    upgrade: null,
  });
  const persistent = (text: string): unknown => (parseResponseHead(text) as { persistent: boolean }).persistent;
  assert.equal(persistent("HTTP/1.1 200 OK"), true);
  assert.equal(persistent("HTTP/1.0 200 OK"), false);
  assert.equal(persistent("HTTP/1.0 200 OK\r\nConnection: Keep-Alive"), true);
  assert.equal(persistent("HTTP/1.1 200"), true);
});

test("a head that could be read in two ways is refused", () => {
  for (const lines of [
    "HTTP/1.1 2000 OK",
    "HTTP/1.1 20 OK",
    "HTTP/1.1 600 OK",
    "HTTP/2 200 OK",
    "http/1.1 200 OK",
    "HTTP/1.1  200 OK",
    "HTTP/1.1 200 OK\r\nX : y",
    "HTTP/1.1 200 OK\r\n X: y",
    "HTTP/1.1 200 OK\r\nX",
    "HTTP/1.1 200 OK\r\n: y",
    "HTTP/1.1 200 OK\r\nX: a\rb",
    "HTTP/1.1 200 OK\r\nX: a\nb",
    "HTTP/1.1 200 OK\r\nX: a\0b",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1",
    "HTTP/1.1 200 OK\r\nContent-Length: +1",
    "HTTP/1.1 200 OK\r\nContent-Length: 1, 1",
    "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
    "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked",
  ])
    assert.equal(typeof parseResponseHead(lines), "string", lines);
});

test("trailers lose what has a meaning in heads only", () => {
  assert.deepEqual(parseTrailers("X-Sum: 1\r\nContent-Length: 3\r\nSet-Cookie: a\r\nTransfer-Encoding: chunked\r\nAuthorization: x"), [
    "X-Sum",
    "1",
    "Set-Cookie",
    "a",
  ]);
  assert.equal(parseTrailers("X Sum: 1"), null);
});
