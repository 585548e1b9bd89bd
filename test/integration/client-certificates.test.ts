// Mutual TLS with clients: who a certificate says they are, which routes it opens, and when it stops counting.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { connect as connectHttp2 } from "node:http2";
import { request, Agent } from "node:https";
import { after, before, test } from "node:test";
import { connect, type TLSSocket } from "node:tls";
import { startTcpEcho } from "../components/echo.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom, type RequestArgs } from "../components/http-client.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { createTestCa, type Pair } from "../components/pki.ts";
import { waitFor } from "../components/wait.ts";

const TOKEN = "a-token-that-is-named-like-a-certificate";
const TOKEN_SHA256 = createHash("sha256").update(TOKEN).digest("hex");

const servers = createTestCa("Server CA");
const clients = createTestCa("Client CA");
const others = createTestCa("Other CA");
const server = servers.issue("/CN=localhost", { san: "DNS:localhost,IP:127.0.0.1" });
const trader = clients.issue("/O=Acme/CN=trader", { san: "URI:spiffe://example.com/bot,email:Bot@Example.COM", usage: "clientAuth" });
const FILES = { "server.crt": server.cert, "server.key": server.key, "clients.crt": clients.cert, "others.crt": others.cert };

let origin: Origin;
/** Answers to /slow that wait to be sent. */
const held: (() => void)[] = [];
before(async () => {
  origin = await startOrigin(
    (req, res) => {
      const { "x-forwarded-user": user, "x-forwarded-user-source": source, "x-forwarded-scopes": scopes } = req.headers;
      const answer = () => res.end(JSON.stringify({ user, source, scopes }));
      if (req.url === "/slow") held.push(answer);
      else answer();
    },
    (_req, socket) => socket.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"),
  );
});
after(() => origin[Symbol.asyncDispose]());

/** @param auth of the route /x, as YAML */
function yaml(options: { auth?: string; clientAuth?: string | null; ca?: string; mode?: string; extra?: string } = {}): string {
  const { auth = "[{ client_certificate: {} }]", clientAuth = "request", ca = "clients.crt", mode = "application", extra = "" } = options;
  return `
auth:
  tokens: [{ name: trader, sha256: ${TOKEN_SHA256}, scopes: [] }]
trusted_proxies: [127.0.0.1]
listeners:
  web:
    protocol: http
    listen: 127.0.0.1:0
    tls: { mode: ${mode}, cert_file: server.crt, key_file: server.key${clientAuth === null ? "" : `, client_auth: ${clientAuth}, ca_file: ${ca}`} }
routes:
  - { path_prefix: /open, upstream: "${origin.url}", auth: none, identity_headers: true }
  - { path_prefix: /token, upstream: "${origin.url}", auth: [{ token: {} }], identity_headers: true }
  - { path_prefix: /, upstream: "${origin.url}", auth: ${auth}, identity_headers: true }
${extra}`;
}

const start = (options?: Parameters<typeof yaml>[0]): Promise<Gateway> => startGateway({ yaml: yaml(options), files: FILES });
const BEARER = { authorization: `Bearer ${TOKEN}` };

async function ask(gateway: Gateway, pair: Pair | null, args: RequestArgs = {}, path = "/x") {
  const answer = await fetchFrom(gateway.port("web"), path, { ca: servers.cert, ...pair, ...args });
  const json = JSON.parse(answer.body) as { user?: string; source?: string; scopes?: string; error?: { code: string; message: string } };
  return { ...answer, json };
}

async function askH2(gateway: Gateway, pair: Pair | null): Promise<number> {
  const session = connectHttp2(`https://localhost:${gateway.port("web")}`, { ca: servers.cert, ...pair });
  const stream = session.request({ ":path": "/x" }).resume();
  const [headers] = (await once(stream, "response")) as [{ ":status": number }];
  session.destroy();
  return headers[":status"];
}

test("any certificate of ca_file admits, over HTTP/1.1, HTTP/2 and in upgrades; no header and no other CA does", async () => {
  await using gateway = await start();
  const admitted = await ask(gateway, trader);
  assert.deepEqual([admitted.status, admitted.json], [200, { user: "trader", source: "client_certificate", scopes: "" }]);
  assert.equal(await askH2(gateway, trader), 200);
  const upgrade = { headers: { connection: "upgrade", upgrade: "echo" } };
  const upgraded = request({ port: gateway.port("web"), path: "/x", agent: false, servername: "localhost", ca: servers.cert, ...trader, ...upgrade });
  const switched = once(upgraded, "upgrade");
  upgraded.end();
  ((await switched) as [unknown, TLSSocket])[1].destroy();

  const none = await ask(gateway, null);
  assert.deepEqual([none.status, none.json.error?.code, none.headers["www-authenticate"]], [403, "ERR_NO_CLIENT_CERTIFICATE", undefined]);
  assert.equal(await askH2(gateway, null), 403);
  assert.equal((await ask(gateway, null, upgrade)).status, 403);
  const strangers = [
    others.issue("/O=Acme/CN=trader"),
    clients.issue("/CN=trader", { usage: "serverAuth" }),
    clients.issue("/CN=trader", { notAfter: new Date(Date.now() - 5_000) }),
  ];
  for (const stranger of strangers) assert.deepEqual([(await ask(gateway, stranger)).status, await askH2(gateway, stranger)], [403, 403]);
  const forged = {
    "x-forwarded-user": "trader",
    "x-forwarded-user-source": "client_certificate",
    "x-forwarded-client-cert": "Subject=CN=trader",
    "x-ssl-client-verify": "SUCCESS",
  };
  assert.equal((await ask(gateway, null, { headers: forged })).status, 403);
  assert.equal((await ask(gateway, null, { headers: BEARER })).status, 403);
  assert.deepEqual((await ask(gateway, null, { headers: forged }, "/open")).json, {});
  await waitFor(() => gateway.accessLog.length === 15);
  assert.deepEqual(
    gateway.accessLog.filter(({ status }) => status === 200 || status === 101).map(({ identity }) => identity),
    [...Array.from({ length: 3 }, () => "client_certificate:trader"), undefined],
  );
});

test("subjects and sans say which certificates admit, and what matched is the name", async () => {
  await using gateway = await start({
    auth: '[{ client_certificate: { subjects: [trader, "CN=Bot\\\\, \\\\C3\\\\BC,O=Acme"], sans: [Bot@EXAMPLE.com, "spiffe://example.com/2", "2001:db8::1", 10.0.0.1, Host.example] } }]',
  });
  for (const [subject, san, name] of [
    ["/O=Other/CN=trader", undefined, "trader"],
    ["/O=Acme/CN=Bot, ü", undefined, "CN=Bot\\, \\C3\\BC,O=Acme"],
    ["/CN=x", "URI:spiffe://example.com/1,URI:spiffe://example.com/2", "spiffe://example.com/2"],
    ["/CN=x", "email:Bot@Example.Com", "Bot@example.com"],
    ["/CN=x", "IP:2001:db8:0:0::1", "2001:db8::1"],
    ["/CN=x", "DNS:HOST.example", "host.example"],
    ["/CN=Trader", undefined, null],
    ["/CN=trader/CN=x", undefined, null],
    ["/O=trader", undefined, null],
    ["/CN=CN=Bot\\\\, \\\\C3\\\\BC,O=Acme", undefined, null],
    ["/CN=x", "email:bot@example.com", null],
    ["/CN=x", "URI:spiffe://example.com/2/", null],
    ["/CN=x", "DNS:trader", null],
    ["/CN=host.example", "URI:urn:DNS:host.example", null],
    ["/CN=x", "DNS:10.0.0.1", null],
  ] as const) {
    const { status, json } = await ask(gateway, clients.issue(subject, san === undefined ? {} : { san }));
    assert.deepEqual([status, json.user ?? json.error?.code], name === null ? [403, "ERR_CLIENT_CERTIFICATE"] : [200, name], `${subject} ${san}`);
  }
});

test("the status says which certificates a route admits", async () => {
  await using gateway = await start({ auth: '[{ client_certificate: {} }, { client_certificate: { subjects: ["CN=a b,O=c", x], sans: [Y.example] } }]' });
  const { routes } = (await gateway.status()) as { routes: { path: string; auth: string[] }[] };
  assert.deepEqual(routes.at(-1)?.auth, ["client_certificate any", "client_certificate 'CN=a b,O=c' x y.example"]);
});

test("a name that would break a header or the log reaches both escaped", async () => {
  await using gateway = await start();
  assert.equal((await ask(gateway, clients.issue('/CN=a"Ċ\r\nX-Admin: 1'))).json.user, 'a\\"\\C4\\8A\\0D\\0AX-Admin: 1');
  await waitFor(() => gateway.accessLog.length === 1);
  assert.equal(gateway.accessLog[0]?.["identity"], 'client_certificate:a\\"\\C4\\8A\\0D\\0AX-Admin: 1');
});

test("a token and a certificate of one name are two identities, and either way admits", async () => {
  await using gateway = await start({ auth: "[{ token: { names: [trader] } }, { client_certificate: { subjects: [trader] } }]" });
  const source = async (...args: Parameters<typeof ask>) => (await ask(...args)).json.source;
  assert.equal(await source(gateway, null, { headers: BEARER }), "token");
  assert.equal(await source(gateway, trader), "client_certificate");
  assert.equal(await source(gateway, trader, { headers: { authorization: "Bearer wrong" } }), "client_certificate");
  const none = await ask(gateway, null);
  assert.deepEqual([none.status, none.headers["www-authenticate"]], [401, "Bearer"]);
  assert.equal((await ask(gateway, clients.issue("/CN=x"))).status, 401);
  assert.equal((await ask(gateway, trader, {}, "/token")).status, 401, "a certificate is no token");
  await waitFor(() => gateway.accessLog.length === 6);
  const identities = gateway.accessLog.map(({ identity, status }) => [status, identity]);
  assert.deepEqual(identities, [
    [200, "token:trader"],
    [200, "client_certificate:trader"],
    [200, "client_certificate:trader"],
    [401, undefined],
    [401, "client_certificate:x"],
    [401, "client_certificate:trader"],
  ]);
});

test("in mode auto the plain side has no certificates, and 'require' asks all who speak TLS", async () => {
  await using gateway = await start({ mode: "auto", clientAuth: "require" });
  assert.equal((await ask(gateway, trader)).status, 200);
  await assert.rejects(ask(gateway, null, {}, "/open"));
  const plain = await fetchFrom(gateway.port("web"), "/x", { headers: { "x-forwarded-proto": "https", "x-forwarded-for": "6.6.6.6" } });
  assert.equal(plain.status, 403, "a trusted proxy that says https brings no certificate");
});

test("a reload that changes who signs certificates cuts off those that were shown before", async () => {
  await using gateway = await start();
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const session = connectHttp2(`https://localhost:${gateway.port("web")}`, { ca: servers.cert, ...trader });
  session.on("error", () => {});
  const h2 = (path: string) => once(session.request({ ":path": path }).resume(), "response") as Promise<[{ ":status": number }]>;
  assert.equal((await h2("/x"))[0][":status"], 200);
  assert.equal((await ask(gateway, trader, { agent })).status, 200);
  // Busy ones stay open through the reload: their next requests must not profit from it.
  const socket = connect({ port: gateway.port("web"), host: "127.0.0.1", servername: "localhost", ca: servers.cert, ...trader });
  let text = "";
  socket.on("data", (chunk) => (text += String(chunk))).on("error", () => {});
  socket.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
  await once(socket, "secureConnect");
  const slow = h2("/slow");
  await waitFor(() => held.length === 2);
  await gateway.edit(yaml({ ca: "others.crt" }));
  const closed = once(socket, "close");
  for (const answer of held.splice(0)) answer();
  socket.write("GET /x HTTP/1.1\r\nHost: a\r\n\r\n");
  assert.equal((await slow)[0][":status"], 200, "what is under way ends well");
  await closed;
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+|ERR_\w+|Connection: close/g), ["HTTP/1.1 200", "HTTP/1.1 421", "Connection: close", "ERR_CLIENT_CERTIFICATE"]);
  await waitFor(() => session.destroyed);
  assert.equal((await ask(gateway, trader, { agent })).status, 403);
  assert.equal((await ask(gateway, others.issue("/CN=new"), {})).json.user, "new");
  agent.destroy();
});

test("a reload to 'require' serves nobody any more who showed nothing", async () => {
  await using gateway = await start({ clientAuth: null, auth: "none" });
  const socket = connect({ port: gateway.port("web"), host: "127.0.0.1", servername: "localhost", ca: servers.cert });
  let text = "";
  socket.on("data", (chunk) => (text += String(chunk))).on("error", () => {});
  const closed = once(socket, "close");
  socket.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n");
  await waitFor(() => held.length === 1);
  await gateway.edit(yaml({ clientAuth: "require", auth: "none" }));
  for (const answer of held.splice(0)) answer();
  socket.write("GET /open HTTP/1.1\r\nHost: a\r\n\r\n");
  await closed;
  assert.deepEqual(text.match(/HTTP\/1\.1 \d+|Connection: close/g), ["HTTP/1.1 200", "HTTP/1.1 421", "Connection: close"]);
  assert.equal((await ask(gateway, trader, {}, "/open")).json.user, undefined);
});

test("a certificate that expires while its connection stays open opens nothing any more", async () => {
  await using gateway = await start();
  const notAfter = new Date(Math.ceil(Date.now() / 1_000) * 1_000 + 1_000);
  const brief = clients.issue("/CN=brief", { notAfter });
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  const session = connectHttp2(`https://localhost:${gateway.port("web")}`, { ca: servers.cert, ...brief });
  const h2 = async () => ((await once(session.request({ ":path": "/x" }).resume(), "response")) as [{ ":status": number }])[0][":status"];
  assert.deepEqual([(await ask(gateway, brief, { agent })).status, await h2()], [200, 200]);
  await waitFor(() => Date.now() > notAfter.getTime() + 50);
  const { status, headers } = await ask(gateway, brief, { agent });
  assert.deepEqual([status, headers["connection"], await h2()], [421, "close", 421]);
  await waitFor(() => session.destroyed);
  assert.equal((await ask(gateway, brief, { agent })).status, 403);
  agent.destroy();
});

test("the access log of a TCP listener names the certificate", async () => {
  await using echo = await startTcpEcho();
  const tcp = `  bot:
    protocol: tcp
    listen: 127.0.0.1:0
    upstream: 127.0.0.1:${echo.port}
    tls: { mode: application, cert_file: server.crt, key_file: server.key, client_auth: request, ca_file: clients.crt }
`;
  await using gateway = await startGateway({ yaml: yaml().replace("routes:\n", `${tcp}routes:\n`), files: FILES });
  for (const pair of [trader, null]) {
    const socket = connect({ port: gateway.port("bot"), host: "127.0.0.1", servername: "localhost", ca: servers.cert, ...pair });
    socket.write("hi");
    await once(socket, "data");
    socket.end();
  }
  await waitFor(() => gateway.accessLog.length === 2);
  assert.deepEqual(new Set(gateway.accessLog.map(({ identity }) => identity)), new Set(["client_certificate:trader", null]));
});

test("a session of a TCP listener goes on when a CA is added, and ends when the one that vouched for it is taken away", async () => {
  await using echo = await startTcpEcho();
  const withBot = (ca: string): string =>
    yaml().replace(
      "routes:\n",
      `  bot:
    protocol: tcp
    listen: 127.0.0.1:0
    upstream: 127.0.0.1:${echo.port}
    tls: { mode: application, cert_file: server.crt, key_file: server.key, client_auth: require, ca_file: ${ca} }
routes:
`,
    );
  await using gateway = await startGateway({ yaml: withBot("clients.crt"), files: { ...FILES, "both.crt": others.cert + clients.cert } });
  const socket = connect({ port: gateway.port("bot"), host: "127.0.0.1", servername: "localhost", ca: servers.cert, ...trader });
  const echoes = async (text: string): Promise<string> => {
    socket.write(text);
    return String((await once(socket, "data"))[0]);
  };
  assert.equal(await echoes("one"), "one");
  await gateway.edit(withBot("both.crt"));
  assert.equal(await echoes("two"), "two");
  socket.on("error", () => {});
  await gateway.edit(withBot("others.crt"));
  await waitFor(() => socket.closed);
  await waitFor(() => JSON.stringify(gateway.accessLog).includes('"denied"'));
});
