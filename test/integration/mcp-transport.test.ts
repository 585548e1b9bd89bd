// What MCP asks of the way between client and server: streams at once and to their true ends, and answers as the server gave them.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { fetchFrom, openRequest } from "../components/http-client.ts";
import { startHttpGateway } from "../components/http-gateway.ts";
import { startMcpFixture } from "../components/mcp-fixture.ts";
import { bodyOf, startOrigin, startRawOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const MCP = { mcp: { sessionBinding: true } };
const CALL = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}';
const JSON_TYPE = { "content-type": "application/json", accept: "application/json, text/event-stream" };

for (const tls of [false, true])
  test(`#40 ${tls ? "https" : "http"}: the first event comes before the upstream has ended, also to a client that takes gzip`, async () => {
    let begin = (): void => {};
    let finish = (): void => {};
    await using origin = await startOrigin((_req, res) => {
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      res.flushHeaders();
      begin = () => void res.write("data: 1\n\n");
      finish = () => void res.end("data: 2\n\n");
    });
    await using gateway = await startHttpGateway({ targets: [origin.url], routes: [MCP], tls });
    const { response } = await openRequest(gateway.port, "/mcp", {
      method: "POST",
      body: CALL,
      headers: { ...JSON_TYPE, "accept-encoding": "gzip, br" },
      ...(tls ? { ca: "", rejectUnauthorized: false } : {}),
    });
    let text = "";
    response.on("data", (chunk) => (text += String(chunk)));
    // The head came before any event.
    begin();
    await waitFor(() => text === "data: 1\n\n");
    assert.equal(response.headers["content-encoding"], undefined);
    assert.equal(response.headers["x-accel-buffering"], "no");
    finish();
    await waitFor(() => response.complete && text === "data: 1\n\ndata: 2\n\n");
  });

for (const when of ["before the answer", "in its stream"] as const)
  test(`#41 a client that goes away ${when} is gone for the upstream within a second`, async () => {
    let goneAt = 0;
    let asked = false;
    await using origin = await startOrigin(async (req, res) => {
      await bodyOf(req);
      if (when === "in its stream") {
        res.writeHead(200, { "Content-Type": "text/event-stream" });
        res.write("data: 1\n\n");
      }
      asked = true;
      res.on("close", () => (goneAt = performance.now()));
    });
    await using gateway = await startHttpGateway({ targets: [origin.url], routes: [MCP] });
    const abort = new AbortController();
    const call = fetchFrom(gateway.port, "/mcp", { method: "POST", body: CALL, headers: JSON_TYPE, signal: abort.signal });
    call.catch(() => {});
    await waitFor(() => asked);
    const abortedAt = performance.now();
    abort.abort();
    await waitFor(() => goneAt > 0);
    assert.ok(goneAt - abortedAt < 1_000, `${goneAt - abortedAt} ms`);
  });

test("#42 the end of an upstream's stream is the client's, and one that breaks off is told as broken", async () => {
  await using origin = await startRawOrigin((socket) => {
    socket.on("data", (chunk) => {
      const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n";
      socket.write(head);
      if (String(chunk).includes("/ends")) socket.write("0\r\n\r\n");
      else if (String(chunk).includes("/breaks")) socket.end("9\r\nda");
      else setImmediate(() => socket.resetAndDestroy());
    });
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], routes: [{ ...MCP, stripPrefix: "/" }] });
  const answer = await fetchFrom(gateway.port, "/ends");
  assert.equal(answer.body, "data: 1\n\n");
  for (const path of ["/breaks", "/resets"]) {
    await assert.rejects(fetchFrom(gateway.port, path), /aborted|ECONNRESET/, path);
    const raw = await sendRaw(gateway.port, [`GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`], 1);
    assert.ok(raw.closed && !raw.text.endsWith("0\r\n\r\n"), raw.text);
  }
});

test("#44 the headers of MCP pass both ways byte by byte, and those of one connection do not", async () => {
  const own = {
    "Mcp-Session-Id": "Ab-\x21~ c",
    "Last-Event-ID": "0001_a=b",
    "MCP-Protocol-Version": "2025-11-25",
    "Mcp-Method": "Tools/Call",
    "Mcp-Name": "=?base64?w6k=?=",
    "Mcp-Param-Some-Thing": "a, b;c",
    Accept: "application/json,  text/event-stream;q=0.9",
  };
  let seen: string[] = [];
  await using origin = await startOrigin((req, res) => {
    seen = req.rawHeaders;
    res.writeHead(200, { ...own, Connection: "X-Hop", "X-Hop": "1", "Keep-Alive": "timeout=9", "Proxy-Authenticate": "Basic" });
    res.end();
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], routes: [MCP] });
  const { response } = await openRequest(gateway.port, "/mcp", {
    headers: { ...own, Connection: "keep-alive, X-Mine", "X-Mine": "1", "Keep-Alive": "1", "Proxy-Connection": "x", TE: "deflate" },
  });
  response.resume();
  const pairs = (flat: readonly string[]): string[] => flat.flatMap((name, i) => (i % 2 === 0 ? [`${name}: ${flat[i + 1]}`] : []));
  for (const [name, value] of Object.entries(own)) {
    assert.ok(pairs(seen).includes(`${name}: ${value}`), `${name} to the upstream: ${seen.join(" | ")}`);
    assert.ok(pairs(response.rawHeaders).includes(`${name}: ${value}`), `${name} to the client`);
  }
  const names = (flat: readonly string[]): string[] => flat.filter((_text, i) => i % 2 === 0).map((name) => name.toLowerCase());
  for (const name of ["x-mine", "keep-alive", "proxy-connection", "te"]) assert.ok(!names(seen).includes(name), name);
  for (const name of ["x-hop", "proxy-authenticate"]) assert.ok(!names(response.rawHeaders).includes(name), name);
});

test("#45 202, 400, 404 and 405 pass with their bodies, and so does DELETE", async () => {
  const answers: Record<string, [number, string]> = {
    POST: [202, ""],
    GET: [405, '{"jsonrpc":"2.0","error":{"code":-32000,"message":"Method not allowed."},"id":null}'],
    DELETE: [404, '{"jsonrpc":"2.0","error":{"code":-32001,"message":"Session not found"},"id":null} '],
    PUT: [400, "Bad \xff Request: no such thing"],
  };
  await using origin = await startOrigin(async (req, res) => {
    await bodyOf(req);
    const [status, body] = answers[req.method ?? ""] ?? [500, ""];
    res.writeHead(status, status === 405 ? { Allow: "POST", "Content-Type": "application/json" } : {}).end(Buffer.from(body, "latin1"));
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], routes: [MCP] });
  for (const [method, [status, body]] of Object.entries(answers)) {
    const { response } = await openRequest(gateway.port, "/mcp", { method, headers: JSON_TYPE, ...(method === "POST" ? { body: CALL } : {}) });
    const chunks: Buffer[] = [];
    for await (const chunk of response) chunks.push(chunk as Buffer);
    assert.deepEqual([response.statusCode, Buffer.concat(chunks).toString("latin1")], [status, body], method);
    if (status === 405) assert.equal(response.headers.allow, "POST");
  }
});

test("#50 subscriptions/listen stays open: the acknowledgement comes first, changes at once, and a graceful close passes", async () => {
  const fixture = await startMcpFixture();
  await using gateway = await startHttpGateway({ targets: [`http://127.0.0.1:${fixture.port}`], routes: [MCP] });
  const meta = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientInfo": { name: "test", version: "1" },
    "io.modelcontextprotocol/clientCapabilities": {},
  };
  const send = (method: string, params: object, name?: string) =>
    openRequest(gateway.port, "/mcp", {
      method: "POST",
      body: JSON.stringify({ jsonrpc: "2.0", id: randomUUID(), method, params: { ...params, _meta: meta } }),
      headers: { ...JSON_TYPE, "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": method, ...(name === undefined ? {} : { "Mcp-Name": name }) },
    });
  const { response } = await send("subscriptions/listen", { notifications: { toolsListChanged: true } });
  let text = "";
  let broken = false;
  response.on("data", (chunk) => (text += String(chunk)));
  response.on("error", () => (broken = true));
  const methods = (): string[] => [...text.matchAll(/"method":"([^"]+)"/g)].map((match) => match[1] ?? "");
  await waitFor(() => methods().length > 0, { what: () => `an acknowledgement: ${response.statusCode} ${text}` });
  assert.deepEqual(methods(), ["notifications/subscriptions/acknowledged"]);
  const call = await send("tools/call", { name: "test_trigger_tool_change", arguments: {} }, "test_trigger_tool_change");
  call.response.resume();
  await waitFor(() => methods().includes("notifications/tools/list_changed"), { what: () => text });
  assert.equal(response.complete, false);
  await fixture.closeStreams();
  await waitFor(() => response.complete, { what: () => "the graceful end" });
  assert.equal(broken, false);
  await fixture[Symbol.asyncDispose]();
});
