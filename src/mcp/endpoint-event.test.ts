import assert from "node:assert/strict";
import { test } from "node:test";
import { clientEndpoint, EndpointWatch, sessionIdsOf } from "./endpoint-event.ts";

function pass(stream: string, size: number): { text: string; seen: string[] } {
  const seen: string[] = [];
  const watch = new EndpointWatch((uri) => {
    seen.push(uri);
    return `/mcp${uri}`;
  });
  const bytes = Buffer.from(stream);
  let text = "";
  for (let i = 0; i < bytes.length; i += size) {
    const chunk = Buffer.from(bytes.subarray(i, i + size));
    const out = watch.push(chunk);
    text += out.toString("latin1");
    chunk.fill(0);
  }
  return { text: Buffer.from(text + watch.end().toString("latin1"), "latin1").toString(), seen };
}

const AFTER = 'event: message\ndata: {"a":1}\n\nevent: endpoint\ndata: /not-this-one\n\n';

test("#47 the endpoint event gets the prefix, however it is cut into pieces and whatever ends its lines", () => {
  for (const end of ["\n", "\r\n", "\r"])
    for (const size of [1, 2, 3, 7, 1000])
      for (const start of ["", "\ufeff", `: hello${end}${end}`, `id: 1${end}`, `data: first${end}${end}`])
        for (const lines of [
          ["event: endpoint", "data: /message?sessionId=ä1"],
          ["event:endpoint", "data:/message?sessionId=ä1"],
          ["data: /message?sessionId=ä1", "event: endpoint"],
          ["event: endpoint", "id: 4", "data: /message?sessionId=ä1", ": comment"],
        ]) {
          const stream = `${start}${lines.join(end)}${end}${end}${AFTER}`;
          const { text, seen } = pass(stream, size);
          assert.deepEqual(seen, ["/message?sessionId=ä1"], JSON.stringify(stream));
          assert.equal(text, stream.replace("/message", "/mcp/message"), JSON.stringify([stream, size]));
        }
});

test("#47 other streams pass byte by byte, and what is no endpoint waits for nothing", () => {
  for (const size of [1, 5, 1000]) {
    const stream = `event: message\ndata: /x\n\ndata: a\ndata: b\n\nevent: endpointx\ndata: /y\n\n${"data: more\n\n".repeat(9)}event: endpoint\ndata: /late\n\n`;
    const { text, seen } = pass(stream, size);
    assert.equal(text, stream);
    assert.deepEqual(seen, []);
    const long = `event: endpoint\ndata: /${"x".repeat(9_000)}\n\n`;
    assert.equal(pass(long, size).text, long);
    assert.equal(pass("data: /cut", size).text, "data: /cut");
  }
  const watch = new EndpointWatch((uri) => uri);
  assert.equal(watch.push(Buffer.from(": keepalive\n")).toString(), ": keepalive\n");
  assert.equal(watch.push(Buffer.from(": keepa")).toString(), ": keepa");
  assert.equal(watch.push(Buffer.from("live\n\nevent: message\nda")).toString(), "live\n\nevent: message\nda");
});

test("#47 the endpoint may be a path, a full URL of the upstream or relative", () => {
  const place = { base: "/mcp", path: "/sse", target: "/mcp/sse", origins: ["http://127.0.0.1:3001", "https://example.com"] };
  assert.equal(clientEndpoint("/message?a=1", place), "/mcp/message?a=1");
  assert.equal(clientEndpoint("http://127.0.0.1:3001/message?a=1", place), "/mcp/message?a=1");
  assert.equal(clientEndpoint("https://example.com/message", place), "/mcp/message");
  assert.equal(clientEndpoint("message?a=1", place), "message?a=1");
  assert.equal(clientEndpoint("?a=1", place), "?a=1");
  assert.equal(clientEndpoint("message", { ...place, path: "/", target: "/mcp" }), "/mcp/message");
  for (const other of ["https://other.example/message", "//other.example/message", "http://["]) assert.equal(clientEndpoint(other, place), other);
});

test("the ids of sessions are found by the names that servers give them", () => {
  assert.deepEqual(sessionIdsOf("/m?sessionId=a&session_id=b&SESSIONID=c&sid=d&other=e&session=%61#x"), ["a", "b", "c", "d", "a"]);
  assert.deepEqual(sessionIdsOf("/m"), []);
});

test("#40 a line without end, and an event that is another, wait for nothing and are not remembered", () => {
  for (const start of [": ", "event: message\ndata: 1\ndata: "]) {
    const watch = new EndpointWatch((uri) => `/mcp${uri}`);
    assert.equal(watch.push(Buffer.from(start)).toString(), start);
    const chunk = Buffer.alloc(8_000, 0x61);
    const begun = performance.now();
    for (let i = 0; i < 3_000; i += 1) assert.equal(watch.push(chunk).length, chunk.length);
    // Looking at all of the line again with each piece takes minutes.
    assert.ok(performance.now() - begun < 5_000, "24 MB of one line took longer than 5 s");
    const end = "\n\nevent: endpoint\ndata: /m\n\n";
    assert.equal(watch.push(Buffer.from(end)).toString(), end.replace("/m", "/mcp/m"));
  }
});
