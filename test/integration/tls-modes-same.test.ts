// Authentication sees the same request in every mode: the same requests go in by each way, and neither upstream nor client can tell them apart.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { connect, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom, openRequest, type RequestArgs } from "../components/http-client.ts";
import { bodyOf, startOrigin, type Origin } from "../components/origin.ts";
import { waitFor } from "../components/wait.ts";

const GOOD = "good-token-with-scope";
const WEAK = "weak-token-without-scope";
const CLIENT = "127.0.0.5";
const sha256 = (text: string): string => createHash("sha256").update(text).digest("hex");

type Seen = { readonly target: string; readonly headers: Record<string, unknown>; readonly body: string };
type Outcome = { readonly status: number; readonly headers: Record<string, unknown>; readonly body: string; readonly upstream: Seen[] };

let origin: Origin;
let gateway: Gateway;
let ca = "";
const upstream: Seen[] = [];
let events: ((text: string | null) => void) | null = null;

before(async () => {
  origin = await startOrigin(
    async (req, res) => {
      upstream.push({ target: `${req.method} ${req.url}`, headers: { ...req.headers }, body: await bodyOf(req) });
      if (req.url !== "/private/events") return void res.end("done");
      res.writeHead(200, { "Content-Type": "text/event-stream" });
      events = (text) => void (text === null ? res.end() : res.write(text));
      res.write("data: first\n\n");
    },
    (req, socket) => {
      upstream.push({ target: `${req.method} ${req.url}`, headers: { ...req.headers }, body: "" });
      socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
      socket.pipe(socket);
    },
  );
  gateway = await startGateway({
    yaml: `
trusted_proxies: ["127.0.0.1"]
auth:
  tokens:
    - { name: good, sha256: "${sha256(GOOD)}", scopes: [mcp] }
    - { name: weak, sha256: "${sha256(WEAK)}" }
listeners:
  disabled: { protocol: http, listen: "127.0.0.1:0", tls: { mode: disabled } }
  application: { protocol: http, listen: "127.0.0.1:0", tls: { mode: application, internal: true } }
  behind_proxy: { protocol: http, listen: "127.0.0.1:0", tls: { mode: behind_proxy } }
  auto: { protocol: http, listen: "127.0.0.1:0", tls: { mode: auto, internal: true } }
routes:
  - { name: open, path_prefix: /open, upstream: "${origin.url}", auth: none }
  - name: private
    path_prefix: /private
    upstream: "${origin.url}"
    auth: [{ token: { scopes: [mcp] } }]
    identity_headers: true
    cors: { origins: ["https://b.example"] }
`,
  });
  ca = await gateway.ca();
});

after(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await origin?.[Symbol.asyncDispose]();
});

type Way = { readonly name: string; readonly listener: string; readonly tls: boolean; readonly proxied: boolean; readonly scheme: "http" | "https" };
const WAYS: readonly Way[] = [
  { name: "application", listener: "application", tls: true, proxied: false, scheme: "https" },
  { name: "disabled", listener: "disabled", tls: false, proxied: false, scheme: "http" },
  { name: "behind_proxy", listener: "behind_proxy", tls: false, proxied: true, scheme: "https" },
  { name: "auto over TLS", listener: "auto", tls: true, proxied: false, scheme: "https" },
  { name: "auto over plain HTTP, from a proxy whose client used https", listener: "auto", tls: false, proxied: true, scheme: "https" },
  { name: "auto over TLS, from a proxy whose client used https", listener: "auto", tls: true, proxied: true, scheme: "https" },
];

/** As a proxy says it; directly, the client says the same of somebody else, which is not believed. */
function wordsOf({ proxied }: Way): Record<string, string> {
  return proxied
    ? { "x-forwarded-for": CLIENT, "x-forwarded-proto": "https", "x-forwarded-host": "a.example" }
    : { "x-forwarded-for": "6.6.6.6", "x-forwarded-proto": "ftp", "x-forwarded-host": "evil.example" };
}

const addressOf = (way: Way): string => (way.proxied ? "127.0.0.1" : CLIENT);

function argsOf(way: Way, { headers, ...rest }: RequestArgs): RequestArgs {
  const all = { host: "a.example", "x-forwarded-user": "root", ...wordsOf(way), ...(headers as Record<string, string> | undefined) };
  return { localAddress: addressOf(way), ...(way.tls ? { ca } : {}), ...rest, headers: all };
}

/** What may differ from one request to the next, or is the way's own, taken out after it was looked at. */
function plain(way: Way, outcome: Outcome): Outcome {
  const chain = way.proxied ? `${CLIENT}, 127.0.0.1` : CLIENT;
  for (const { headers } of outcome.upstream) {
    const { scheme } = way;
    assert.deepEqual(
      [headers["x-forwarded-for"], headers["x-forwarded-proto"], headers["x-forwarded-host"], headers["x-real-ip"]],
      [chain, scheme, "a.example", CLIENT],
    );
    assert.equal(headers["forwarded"], `for=${CLIENT};host="a.example";proto=${scheme}${way.proxied ? ", for=127.0.0.1" : ""}`);
    assert.equal(typeof headers["x-request-id"], "string");
    for (const name of ["x-forwarded-for", "x-forwarded-proto", "forwarded", "x-request-id"]) delete headers[name];
  }
  const { date: _, "x-request-id": id, ...headers } = outcome.headers;
  return { ...outcome, headers, body: typeof id === "string" ? outcome.body.replace(id, "ID") : outcome.body };
}

async function ask(way: Way, path: string, args: RequestArgs): Promise<Outcome> {
  const answer = await fetchFrom(gateway.port(way.listener), path, argsOf(way, args));
  return { ...answer, upstream: upstream.splice(0) };
}

/** An event stream: its second event is sent only once the first one has come. */
async function readEvents(way: Way): Promise<Outcome> {
  const { response } = await openRequest(gateway.port(way.listener), "/private/events", argsOf(way, { headers: { authorization: `Bearer ${GOOD}` } }));
  let body = "";
  response.setEncoding("utf8");
  response.on("data", (chunk: string) => (body += chunk));
  await waitFor(() => body === "data: first\n\n");
  events?.("data: second\n\n");
  events?.(null);
  await waitFor(() => response.complete);
  return { status: response.statusCode ?? 0, headers: response.headers, body, upstream: upstream.splice(0) };
}

/** Sends bytes with the request for a WebSocket, and gives all that comes back. */
async function upgrade(way: Way, token: string | null): Promise<Outcome> {
  const place = { port: gateway.port(way.listener), host: "127.0.0.1", localAddress: addressOf(way) };
  const socket: Socket = way.tls ? connectTls({ ...place, servername: "localhost", ca }) : connect(place);
  let text = "";
  socket.on("error", () => {});
  socket.on("data", (chunk) => (text += chunk.toString("latin1")));
  const headers = {
    host: "a.example",
    connection: "Upgrade",
    upgrade: "websocket",
    ...wordsOf(way),
    ...(token === null ? {} : { authorization: `Bearer ${token}` }),
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.write(`GET /private/ws HTTP/1.1\r\n${lines.join("")}\r\nover the socket`);
  await waitFor(() => text.endsWith("over the socket") || socket.destroyed, { what: () => `the end of: ${text}` });
  socket.destroy();
  const [head = "", body = ""] = text.split("\r\n\r\n");
  const [line = "", ...fields] = head.split("\r\n");
  const found = Object.fromEntries(fields.map((field) => [field.slice(0, field.indexOf(":")).toLowerCase(), field.slice(field.indexOf(":") + 2)]));
  return { status: Number(line.split(" ")[1]), headers: found, body, upstream: upstream.splice(0) };
}

const bearer = (token: string): RequestArgs => ({ headers: { authorization: `Bearer ${token}` } });
const preflight = { origin: "https://b.example", "access-control-request-method": "POST" };
const REQUESTS: [what: string, status: number, send: (way: Way) => Promise<Outcome>][] = [
  ["a request to an open route", 200, (way) => ask(way, "/open?q=1", {})],
  ["a request without a token", 401, (way) => ask(way, "/private", {})],
  ["a wrong token", 401, (way) => ask(way, "/private", bearer("wrong"))],
  ["a token without the scope", 403, (way) => ask(way, "/private", bearer(WEAK))],
  ["a good token", 200, (way) => ask(way, "/private/%7Ea?b=c", bearer(GOOD))],
  ["HEAD", 200, (way) => ask(way, "/private", { ...bearer(GOOD), method: "HEAD" })],
  ["POST with a length", 200, (way) => ask(way, "/private", { ...bearer(GOOD), method: "POST", body: "x".repeat(100_000) })],
  [
    "POST in chunks",
    200,
    (way) => ask(way, "/private", { headers: { authorization: `Bearer ${GOOD}`, "transfer-encoding": "chunked" }, method: "POST", body: "chunks" }),
  ],
  ["POST without a token", 401, (way) => ask(way, "/private", { method: "POST", body: "x".repeat(1_000) })],
  ["a preflight", 204, (way) => ask(way, "/private", { method: "OPTIONS", headers: preflight })],
  ["a path without a route", 404, (way) => ask(way, "/nowhere", bearer(GOOD))],
  ["an event stream", 200, readEvents],
  ["a WebSocket", 101, (way) => upgrade(way, GOOD)],
  ["a WebSocket without a token", 401, (way) => upgrade(way, null)],
];

for (const [what, status, send] of REQUESTS) {
  test(`${what} is the same in every mode`, async () => {
    let first: Outcome | null = null;
    for (const way of WAYS) {
      const outcome = plain(way, await send(way));
      assert.equal(outcome.status, status, way.name);
      assert.equal(outcome.upstream.length, status === 101 || status === 200 ? 1 : 0, way.name);
      if (outcome.upstream[0]?.target.includes("/private") === true) {
        const { headers } = outcome.upstream[0];
        assert.deepEqual([headers["x-forwarded-user"], headers["x-forwarded-scopes"], headers["authorization"]], ["good", "mcp", undefined], way.name);
      }
      first ??= outcome;
      assert.deepEqual(outcome, first, way.name);
    }
  });
}
