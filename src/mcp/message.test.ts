import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeHeader, isRefusal, readMessages, refuseHead } from "./message.ts";

const MODERN = ["MCP-Protocol-Version", "2026-07-28"];
const META = { "io.modelcontextprotocol/protocolVersion": "2026-07-28" };
const call = (name: string, more: object = {}): string =>
  JSON.stringify({ jsonrpc: "2.0", id: 7, method: "tools/call", params: { name, _meta: META, ...more } });

function read(body: string, headers: string[]): { status: number; code: number; id: unknown } | "ok" {
  const found = readMessages(Buffer.from(body), headers);
  return isRefusal(found) ? { status: found.status, code: found.code, id: found.id } : "ok";
}

test("#48 the headers of a modern request must say what its body says", () => {
  const said = (method: string | null, name: string | null, version: string | null = "2026-07-28"): string[] => [
    ...(version === null ? [] : ["MCP-Protocol-Version", version]),
    ...(method === null ? [] : ["Mcp-Method", method]),
    ...(name === null ? [] : ["Mcp-Name", name]),
  ];
  const mismatch = { status: 400, code: -32_020, id: 7 };
  assert.equal(read(call("echo"), said("tools/call", "echo")), "ok");
  assert.equal(read(call("écho"), said("tools/call", `=?base64?${Buffer.from("écho").toString("base64")}?=`)), "ok");
  for (const headers of [
    said("tools/list", "echo"),
    said("Tools/Call", "echo"),
    said("tools/call", "Echo"),
    said("tools/call", null),
    said(null, "echo"),
    said("tools/call", "echo", null),
    said("tools/call", "echo", "2026-12-01"),
    said("tools/call", "echo", "2025-11-25"),
    said("tools/call", "=?base64?ZWNobw?="),
    said("tools/call", "=?base64?ZWNobx==?="),
  ])
    assert.deepEqual(read(call("echo"), headers), mismatch, headers.join());
  assert.deepEqual(read('{"jsonrpc":"2.0","id":7,"method":"resources/read","params":{"uri":"test://a"}}', said("resources/read", "test://b")), mismatch);
  // What names nothing needs no name; notifications and answers need nothing, but must not lie.
  assert.equal(read('{"jsonrpc":"2.0","id":7,"method":"tools/list","params":{}}', said("tools/list", null)), "ok");
  assert.equal(read('{"jsonrpc":"2.0","method":"notifications/cancelled"}', MODERN), "ok");
  assert.deepEqual(read('{"jsonrpc":"2.0","method":"notifications/cancelled"}', said("tools/call", null)), { ...mismatch, id: null });
  assert.deepEqual(read(`[${call("echo")},${call("other")}]`, said("tools/call", "echo")), { ...mismatch, id: null });
});

test("#48 a value in the sentinel is decoded as canonical base64 of UTF-8, and nothing else", () => {
  assert.equal(decodeHeader("plain"), "plain");
  assert.equal(decodeHeader("=?base64?w6k=?="), "é");
  for (const wrong of ["=?base64?w6k?=", "=?base64?/w==?=", "=?base64?w6k= ?="]) assert.equal(decodeHeader(wrong), null, wrong);
});

test("#49 before 2026-07-28, and without a version, the headers decide nothing", () => {
  const body = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"echo"}}';
  for (const version of [[], ["MCP-Protocol-Version", "2025-11-25"], ["MCP-Protocol-Version", "DRAFT-2026-v1"]])
    assert.equal(read(body, [...version, "Mcp-Method", "tools/list", "Mcp-Name", "other"]), "ok");
});

test("#55 duplicate keys, keys in disguise, and what is no message are refused", () => {
  for (const body of [
    '{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/list","m\\u0065thod":"tools/call"}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","Name":"b"}}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/list","Method":"tools/call"}',
    '{"jsonrpc":"2.0","id":1,"method":"tools/list","param\u017f":{}}',
    '[{"jsonrpc":"2.0","id":1,"method":"a"},{"jsonrpc":"2.0","id":1,"method":"a","method":"b"}]',
    '{"jsonrpc":"2.0","id":1,"METHOD":"tools/call"}',
    "[]",
    "3",
    '{"jsonrpc":"2.0","id":1,"method":7}',
  ]) {
    const found = read(body, []);
    assert.ok(found !== "ok" && found.status === 400 && found.code === -32_600, body);
  }
  for (const body of ["", "{", '{"a":1}x', "\ufeff{}"]) assert.deepEqual(read(body, []), { status: 400, code: -32_700, id: null }, body);
  assert.ok(isRefusal(readMessages(Buffer.from([0x22, 0xff, 0x22]), [])));
  assert.equal(
    read('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","arguments":{"b":[{"a":1},{"a":2}],"A":"\\"","a":"{\\"a\\":1}"}}}', []),
    "ok",
  );
});

test("a head that hides its body, or says a thing twice, is refused", () => {
  assert.equal(refuseHead(["Content-Type", "application/json"]), null);
  assert.equal(refuseHead(["content-type", 'Application/JSON; charset="UTF-8"', "Content-Encoding", "identity"]), null);
  assert.equal(refuseHead(["Content-Type", "application/json", "Content-Encoding", "gzip"])?.status, 400);
  for (const type of ["text/plain", "application/json-seq", "application/json; charset=utf-16"])
    assert.equal(refuseHead(["Content-Type", type])?.status, 415, type);
  assert.equal(refuseHead(["Content-Type", "application/json", "Mcp-Name", "a", "mcp-name", "b"])?.status, 400);
});

test("a message of brackets and commas alone costs little, and one of long texts or many numbers is well", () => {
  for (const text of ["[".repeat(4_000_000), `[${"{},".repeat(1_300_000)}{}]`, `${'{"a":'.repeat(600_000)}1${"}".repeat(600_000)}`]) {
    const read = readMessages(Buffer.from(text), []);
    assert.ok(isRefusal(read));
    assert.match(read.message, /too many parts/);
  }
  const params = { name: "put", arguments: { text: "[{,".repeat(1_000_000), numbers: Array.from({ length: 200_000 }, (_, i) => i) } };
  assert.equal(isRefusal(readMessages(Buffer.from(JSON.stringify({ jsonrpc: "2.0", id: 1, method: "tools/call", params })), [])), false);
});
