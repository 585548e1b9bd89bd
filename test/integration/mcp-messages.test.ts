// Messages on a route with `mcp`: what could mean one thing to the gateway and another to the upstream stays here; all else passes byte by byte.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { fetchFrom, type Answer } from "../components/http-client.ts";
import { startHttpGateway, type HttpGateway } from "../components/http-gateway.ts";
import { startRecordingOrigin, type RecordingOrigin } from "../components/origin.ts";

const MCP = { mcp: { sessionBinding: true } };
const CALL = '{ "jsonrpc":"2.0", "id":5,"method":"tools/call","params":{"name":"Grüße","arguments":{"a":1.0}} }\n';
const META = { _meta: { "io.modelcontextprotocol/protocolVersion": "2026-07-28" } };

type Story = { readonly gateway: HttpGateway; readonly origin: RecordingOrigin } & AsyncDisposable;

async function begin(route: object = MCP): Promise<Story> {
  const origin = await startRecordingOrigin();
  const gateway = await startHttpGateway({ targets: [origin.url], routes: [route] });
  return {
    gateway,
    origin,
    [Symbol.asyncDispose]: async () => {
      await gateway[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
    },
  };
}

const post = ({ gateway }: Story, body: string | Buffer, headers: Record<string, string> = {}): Promise<Answer> =>
  fetchFrom(gateway.port, "/mcp", { method: "POST", body, headers: { "content-type": "application/json", ...headers } });

/** Status and code of the refusal, which must not have reached the upstream. */
async function refused(story: Story, body: string | Buffer, headers: Record<string, string> = {}): Promise<[number, unknown]> {
  const answer = await post(story, body, headers);
  assert.equal(story.origin.requests.length, 0, "the upstream heard of it");
  assert.match(String(answer.headers["content-type"]), /^application\/json/);
  return [answer.status, (JSON.parse(answer.body) as { error: { code: unknown } }).error.code];
}

test("#48 a modern request passes with its bytes and headers when they agree, and unknown Mcp-Param headers with it", async () => {
  await using story = await begin();
  const body = JSON.stringify({ jsonrpc: "2.0", id: 5, method: "tools/call", params: { name: "Grüße", ...META } });
  const headers = {
    "MCP-Protocol-Version": "2026-07-28",
    "Mcp-Method": "tools/call",
    "Mcp-Name": `=?base64?${Buffer.from("Grüße").toString("base64")}?=`,
    "Mcp-Param-Region": "=?base64?w6k=?=",
    "Mcp-Param-X-Y": "not for us",
  };
  assert.equal((await post(story, body, headers)).status, 200);
  const [seen] = story.origin.requests;
  assert.equal(Buffer.from(seen?.body ?? "", "latin1").toString(), body);
  for (const [name, value] of Object.entries(headers))
    assert.deepEqual(
      seen?.headers.find(([key]) => key === name.toLowerCase()),
      [name.toLowerCase(), value],
    );
});

test("#48 a modern request whose headers say something else than its body is 400 with HeaderMismatch", async () => {
  await using story = await begin();
  const body = JSON.stringify({ jsonrpc: "2.0", id: 5, method: "tools/call", params: { name: "echo", ...META } });
  const version = { "MCP-Protocol-Version": "2026-07-28" };
  for (const headers of [
    { ...version, "Mcp-Method": "tools/list", "Mcp-Name": "echo" },
    { ...version, "Mcp-Method": "tools/call", "Mcp-Name": "other" },
    { ...version, "Mcp-Method": "tools/call", "Mcp-Name": "=?base64?b3RoZXI=?=" },
    { ...version, "Mcp-Method": "tools/call" },
    { ...version, "Mcp-Name": "echo" },
    { "Mcp-Method": "tools/call", "Mcp-Name": "echo" },
  ])
    assert.deepEqual(await refused(story, body, headers), [400, -32_020], JSON.stringify(headers));
});

test("#49 an older request is never judged by Mcp-Method and Mcp-Name, and its bytes pass as they came", async () => {
  await using story = await begin();
  for (const version of [{}, { "MCP-Protocol-Version": "2025-11-25" }, { "MCP-Protocol-Version": "2025-03-26" }])
    assert.equal((await post(story, CALL, { ...version, "Mcp-Method": "tools/list", "Mcp-Name": "other" })).status, 200);
  assert.equal(story.origin.requests.length, 3);
  for (const { body, headers } of story.origin.requests) {
    assert.equal(Buffer.from(body, "latin1").toString(), CALL);
    assert.deepEqual(
      headers.find(([name]) => name === "mcp-name"),
      ["mcp-name", "other"],
    );
  }
});

test("#55 duplicate keys, packed and foreign bodies never reach the upstream", async () => {
  await using story = await begin();
  assert.deepEqual(await refused(story, '{"jsonrpc":"2.0","id":1,"method":"tools/list","method":"tools/call"}'), [400, -32_600]);
  assert.deepEqual(
    await refused(story, '[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"a","n\\u0061me":"b"}}]'),
    [400, -32_600],
  );
  assert.deepEqual(await refused(story, gzipSync(CALL), { "content-encoding": "gzip" }), [400, -32_000]);
  assert.deepEqual(await refused(story, CALL, { "content-type": "text/plain" }), [415, -32_000]);
  assert.deepEqual(await refused(story, "{"), [400, -32_700]);
  const big = await post(story, `{"a":"${"x".repeat(4_194_304)}"}`);
  assert.deepEqual([big.status, story.origin.requests.length], [413, 0]);
  assert.match(String(story.gateway.accessLog.find(({ status }) => status === 415)?.["error"]), /^ERR_MCP: /);
});

test("a body without a length, one of nearly 4 MiB, and one asked for by 100-continue pass", async () => {
  await using story = await begin();
  const body = `{"jsonrpc":"2.0","method":"notifications/x","params":{"a":"${"x".repeat(4_000_000)}"}}`;
  assert.equal((await post(story, body, { "transfer-encoding": "chunked" })).status, 200);
  assert.equal((await post(story, CALL, { expect: "100-continue" })).status, 200);
  assert.deepEqual(
    story.origin.requests.map((request) => request.body.length),
    [body.length, Buffer.byteLength(CALL)],
  );
});

test("requests without a body, and routes without mcp, pass unread", async () => {
  await using story = await begin();
  for (const method of ["GET", "DELETE", "POST"])
    assert.equal((await fetchFrom(story.gateway.port, "/mcp", { method, headers: { "mcp-method": "x" } })).status, 200);
  await using open = await begin({});
  assert.equal((await post(open, "{", { "content-encoding": "gzip", "MCP-Protocol-Version": "2026-07-28" })).status, 200);
});

test("#48 over HTTP/2 a message is judged and carried like over HTTP/1.1", async () => {
  await using origin = await startRecordingOrigin();
  await using gateway = await startHttpGateway({ targets: [origin.url], routes: [MCP], tls: true });
  const session = connectHttp2(`https://localhost:${gateway.port}`, { rejectUnauthorized: false });
  const send = async (body: string): Promise<number> => {
    const stream = session.request({ ":method": "POST", ":path": "/mcp", "content-type": "application/json", "mcp-name": "x" });
    stream.end(body);
    const [head] = (await once(stream, "response")) as [{ ":status": number }];
    stream.resume();
    await once(stream, "close");
    return head[":status"];
  };
  assert.equal(await send('{"id":1,"id":2,"jsonrpc":"2.0","method":"ping"}'), 400);
  assert.equal(origin.requests.length, 0);
  assert.equal(await send(CALL), 200);
  assert.equal(Buffer.from(origin.requests[0]?.body ?? "", "latin1").toString(), CALL);
  session.close();
});
