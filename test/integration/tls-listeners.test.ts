// TLS on the sockets of a running gateway: what decides between TLS and plain, what clients that get none are told, and whose sessions go on.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Duplex } from "node:stream";
import { test } from "node:test";
import { connect as connectTls, type ConnectionOptions, type TLSSocket } from "node:tls";
import { startTcpEcho } from "../components/echo.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom } from "../components/http-client.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { createTestCa } from "../components/pki.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const HTTPS_CLIENT = "Host: localhost\r\nX-Forwarded-Proto: https\r\n";

function web(origin: Origin, tls: string, more = ""): string {
  return `trusted_proxies: [127.0.0.1]
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: ${tls}${more} }
routes:
  - upstream: ${origin.url}
    auth: none
`;
}

async function echo(): Promise<Origin> {
  return startOrigin(async (req, res) => {
    let body = "";
    for await (const chunk of req) body += String(chunk);
    res.end(`${req.method} ${req.url} ${body}`);
  });
}

async function active(gateway: Gateway): Promise<number> {
  const { body } = await gateway.admin("/metrics");
  return Number(/^sidegate_connections_active\{listener="web"\} (\d+)$/m.exec(body)?.[1]);
}

test("mode auto serves TLS and plain HTTP on one port, whole and in pieces", async () => {
  await using origin = await echo();
  await using gateway = await startGateway({ yaml: web(origin, "{ mode: auto, internal: true }") });
  const port = gateway.port("web");
  const ca = await gateway.ca();
  assert.equal((await fetchFrom(port, "/a", { ca, method: "POST", body: "x".repeat(100_000) })).body, `POST /a ${"x".repeat(100_000)}`);
  assert.equal((await fetchFrom(port, "/b", { headers: { "x-forwarded-proto": "https" } })).body, "GET /b ");

  const session = connectHttp2(`https://localhost:${port}`, { ca });
  const stream = session.request({ ":path": "/h2" });
  let text = "";
  for await (const chunk of stream.setEncoding("utf8")) text += chunk as string;
  session.close();
  assert.equal(text, "GET /h2 ");

  // Pipelined, so that the peeked bytes hold more than a request; then byte by byte at first; then with a body that comes later.
  const get = (path: string): string => `GET ${path} HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`;
  const pipelined = await sendRaw(port, [`${get("/1")}${get("/2")}${get("/3")}`], 3);
  assert.deepEqual(pipelined.text.match(/GET \/\d/g), ["GET /1", "GET /2", "GET /3"]);
  const pieces = await sendRaw(port, ["G", 20, "E", 20, "T", 20, get("/4").slice(3)], 1);
  assert.match(pieces.text, /GET \/4/);
  const body = "y".repeat(300_000);
  const later = await sendRaw(
    port,
    [`POST /5 HTTP/1.1\r\n${HTTPS_CLIENT}Content-Length: ${body.length}\r\n\r\n`, 20, body.slice(0, 70_000), 20, body.slice(70_000)],
    1,
  );
  assert.ok(later.text.includes(`POST /5 ${body}`));
  // Prior knowledge of HTTP/2 is no more welcome than on a listener without TLS.
  assert.deepEqual((await sendRaw(port, ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"], 1)).statuses, [400]);
  await waitFor(async () => (await active(gateway)) === 0);
});

test("a client that says nothing counts, is closed after the handshake timeout, and leaves nothing behind when it goes earlier", async () => {
  await using origin = await echo();
  await using gateway = await startGateway({ yaml: web(origin, "{ mode: auto, internal: true }", ", max_connections: 3, timeouts: { handshake: 1s }") });
  const port = gateway.port("web");
  const open = async (): Promise<Socket> => {
    const socket = connect({ port, host: "127.0.0.1" })
      .on("error", () => {})
      .resume();
    await once(socket, "connect");
    return socket;
  };
  const [silent, ended, reset] = [await open(), await open(), await open()];
  const startedAt = performance.now();
  await waitFor(async () => (await active(gateway)) === 3);
  const refused = await open();
  await once(refused, "close");
  ended.end();
  reset.resetAndDestroy();
  await once(ended, "close");
  await waitFor(async () => (await active(gateway)) === 1);
  await once(silent, "close");
  assert.ok(performance.now() - startedAt > 900);
  await waitFor(async () => (await active(gateway)) === 0);
  assert.equal((await fetchFrom(port, "/", { ca: await gateway.ca() })).status, 200);
});

test("a reload takes a listener from one mode to another without closing its port or connections; plain ones get one more answer where TLS alone is spoken now", async () => {
  await using origin = await echo();
  await using gateway = await startGateway({ yaml: web(origin, "{ mode: disabled }") });
  const port = gateway.port("web");
  const plain = connect({ port, host: "127.0.0.1" });
  let heard = "";
  plain.on("data", (chunk) => (heard += chunk.toString()));
  const ask = async (path: string): Promise<void> => {
    plain.write(`GET ${path} HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`);
    await waitFor(() => heard.includes(`GET ${path} `), { what: () => `an answer to ${path}: ${heard}` });
  };
  await ask("/disabled");
  await gateway.edit(web(origin, "{ mode: auto, internal: true }"));
  const ca = await gateway.ca();
  assert.equal((await fetchFrom(port, "/", { ca })).status, 200);
  await ask("/auto");
  await gateway.edit(web(origin, "{ mode: application, internal: true }"));
  assert.equal((await fetchFrom(port, "/", { ca })).status, 200);
  assert.match((await sendRaw(port, [`GET / HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`], 1)).text, /^HTTP\/1\.1 400 .*This port takes HTTPS/s);
  await ask("/application");
  assert.match(heard, /Connection: close/);
  await waitFor(() => plain.closed);
  await gateway.edit(web(origin, "{ mode: behind_proxy }"));
  assert.equal((await fetchFrom(port, "/b", { headers: { "x-forwarded-proto": "https" } })).status, 200);
});

test("who connected before a reload meets the mode of now with the first bytes", async () => {
  await using origin = await echo();
  await using gateway = await startGateway({ yaml: web(origin, "{ mode: auto, internal: true }") });
  const port = gateway.port("web");
  const open = async (): Promise<{ socket: Socket; heard: () => string }> => {
    let heard = "";
    const socket = connect({ port, host: "127.0.0.1" }).on("data", (chunk) => (heard += chunk.toString()));
    await once(socket, "connect");
    return { socket, heard: () => heard };
  };
  const ask = async ({ socket, heard }: Awaited<ReturnType<typeof open>>): Promise<string> => {
    socket.write(`GET / HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`);
    await waitFor(() => heard().includes("\r\n\r\n"));
    socket.destroy();
    return heard();
  };
  const before = await open();
  await waitFor(async () => (await active(gateway)) === 1);
  await gateway.edit(web(origin, "{ mode: application, internal: true }"));
  assert.match(await ask(before), /^HTTP\/1\.1 400 .*This port takes HTTPS/s);
  const after = await open();
  await waitFor(async () => (await active(gateway)) === 1);
  await gateway.edit(web(origin, "{ mode: disabled }"));
  assert.match(await ask(after), /^HTTP\/1\.1 200 /);
});

test("a reload to 'require' serves no connection of plain HTTP any more, kept or fresh", async () => {
  await using origin = await echo();
  const clients = createTestCa();
  await using gateway = await startGateway({ yaml: web(origin, "{ mode: disabled }"), files: { "clients.pem": clients.cert } });
  const sockets = [0, 1].map(() => connect({ port: gateway.port("web"), host: "127.0.0.1" }));
  const heard = ["", ""];
  for (const [i, socket] of sockets.entries()) socket.on("data", (chunk) => (heard[i] += chunk.toString()));
  sockets[0]?.write(`GET /1 HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`);
  await waitFor(async () => heard[0]?.includes("GET /1 ") === true && (await active(gateway)) === 2);
  await gateway.edit(web(origin, "{ internal: true, client_auth: require, ca_file: clients.pem }"));
  for (const socket of sockets) socket.write(`GET /2 HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`);
  await waitFor(() => sockets.every(({ closed }) => closed));
  const [kept, fresh] = heard.map((text) => text.match(/HTTP\/1\.1 \d+|ERR_\w+/g));
  assert.deepEqual(
    [kept, fresh],
    [
      ["HTTP/1.1 200", "HTTP/1.1 421", "ERR_HTTPS"],
      ["HTTP/1.1 421", "ERR_HTTPS"],
    ],
  );
});

test("a handshake timeout of weeks is one, and no timer that fires at once", async () => {
  await using origin = await echo();
  await using gateway = await startGateway({ yaml: web(origin, "{ mode: auto, internal: true }", ", timeouts: { handshake: 30d }") });
  const piece = `GET / HTTP/1.1\r\n${HTTPS_CLIENT}\r\n`;
  assert.deepEqual((await sendRaw(gateway.port("web"), [200, piece], 1)).statuses, [200]);
  assert.equal((await fetchFrom(gateway.port("web"), "/", { ca: await gateway.ca() })).status, 200);
});

/** A client's side of a TLS handshake, stopped before its second flight, which `release` sends. */
async function stopInHandshake(port: number, options: ConnectionOptions): Promise<{ secure: TLSSocket; release: () => void }> {
  const raw = connect({ port, host: "127.0.0.1" });
  const flights: (() => void)[] = [];
  let writes = 0;
  const between = new Duplex({
    read: () => {},
    write: (chunk: Buffer, _encoding, done) => {
      const send = (): void => void raw.write(chunk, () => done());
      writes += 1;
      if (writes === 2) flights.push(send);
      else send();
    },
    destroy: (error, done) => {
      raw.destroy();
      done(error);
    },
  });
  raw.on("data", (chunk) => between.push(chunk)).on("close", () => between.destroy());
  const secure = connectTls({ ...options, socket: between, servername: "localhost" });
  secure.on("error", () => {});
  await waitFor(() => flights.length === 1);
  return { secure, release: () => flights[0]?.() };
}

type Greeting = { readonly reused: boolean; readonly session: Buffer | undefined; readonly text: string };

/** Shakes hands, says hello, and waits for what comes back. @throws when the gateway ends the connection without a word */
function greet(port: number, hello: string, options: ConnectionOptions): Promise<Greeting> {
  const { promise, resolve, reject } = Promise.withResolvers<Greeting>();
  let session: Buffer | undefined;
  const socket = connectTls({ port, host: "127.0.0.1", servername: "localhost", ...options }, () => socket.write(hello));
  socket.on("session", (each) => (session = each));
  socket.once("data", (chunk) => {
    resolve({ reused: socket.isSessionReused(), session, text: chunk.toString() });
    socket.destroy();
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("closed")));
  return promise;
}

const withSession = ({ session }: Greeting): ConnectionOptions => (session === undefined ? {} : { session });

test("TLS sessions go on after a restart of the gateway, with TLS 1.2 and 1.3", async () => {
  await using origin = await echo();
  const state = await mkdtemp(join(tmpdir(), "sidegate-state-"));
  const yaml = `state: { dir: ${state} }\n${web(origin, "{ internal: true }")}`;
  const ask = (gateway: Gateway, ca: string, options: ConnectionOptions): Promise<Greeting> =>
    greet(gateway.port("web"), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", { ca, ...options });
  try {
    const before = new Map<"TLSv1.2" | "TLSv1.3", Greeting>();
    {
      await using gateway = await startGateway({ yaml });
      const ca = await readFile(join(state, "internal-ca", "ca.crt"), "utf8");
      for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) before.set(maxVersion, await ask(gateway, ca, { maxVersion }));
      await waitFor(() => readFile(join(state, "tls", "ticket-keys.json")));
    }
    await using gateway = await startGateway({ yaml });
    const ca = await readFile(join(state, "internal-ca", "ca.crt"), "utf8");
    for (const [maxVersion, greeting] of before) {
      assert.equal(greeting.reused, false);
      const after = await ask(gateway, ca, { maxVersion, ...withSession(greeting) });
      assert.deepEqual([after.reused, after.text.slice(0, 15)], [true, "HTTP/1.1 200 OK"], maxVersion);
    }
  } finally {
    await rm(state, { recursive: true, force: true });
  }
});

test("who has no certificate of the CA gets into neither an HTTP nor a TCP listener, and after a reload nor does who had one of the CA before", async () => {
  await using origin = await echo();
  await using target = await startTcpEcho();
  const [oldCa, newCa] = [createTestCa("Old"), createTestCa("New")];
  const yaml = (caFile: string): string => `listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true, client_auth: require, ca_file: ${caFile} } }
  raw: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${target.port}", tls: { internal: true, client_auth: require, ca_file: ${caFile} } }
routes:
  - upstream: ${origin.url}
    auth: none
`;
  await using gateway = await startGateway({ yaml: yaml("old.pem"), files: { "old.pem": oldCa.cert, "new.pem": newCa.cert } });
  const ca = await gateway.ca();
  const clients = { old: oldCa.issue("/CN=old"), new: newCa.issue("/CN=new"), none: {} };
  const admitted = async (options: Record<string, ConnectionOptions>): Promise<string[]> => {
    const names: string[] = [];
    for (const [name, each] of Object.entries(options)) {
      for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
        for (const listener of ["web", "raw"]) {
          const greeting = greet(gateway.port(listener), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", { ca, maxVersion, ...each });
          await greeting.then(
            () => names.push(`${name} ${listener}`),
            () => {},
          );
        }
      }
    }
    return names.filter((name, index) => names.indexOf(name) === index);
  };
  assert.deepEqual(await admitted(clients), ["old web", "old raw"]);
  const session = withSession(await greet(gateway.port("web"), "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", { ca, ...clients.old }));
  await gateway.edit(yaml("new.pem"));
  assert.deepEqual(await admitted({ ...clients, "old session": { ...clients.old, ...session }, "session alone": session }), ["new web", "new raw"]);
  const failures = gateway.log.filter(({ msg, reason }) => msg === "TLS handshake failed" && reason === "client_certificate");
  assert.ok(failures.length >= 20, String(failures.length));
  const metrics = (await gateway.admin("/metrics")).body;
  for (const listener of ["web", "raw"]) {
    assert.match(metrics, new RegExp(`^sidegate_tls_handshake_failures_total\\{listener="${listener}",reason="client_certificate"\\} [1-9]`, "m"));
    assert.match(
      metrics,
      new RegExp(`^sidegate_tls_handshakes_total\\{listener="${listener}",version="TLSv1.3",cipher="TLS_[A-Z0-9_]+",resumed="false"\\} [1-9]`, "m"),
    );
  }
});

test("a certificate whose CA is taken away during the handshake opens nothing, over HTTP and TCP", async () => {
  await using origin = await echo();
  await using target = await startTcpEcho();
  const [oldCa, newCa] = [createTestCa("Old"), createTestCa("New")];
  const yaml = (tls: string): string => `listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: ${tls} }
  raw: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${target.port}", tls: ${tls} }
routes:
  - upstream: ${origin.url}
    auth: none
`;
  const mutual = (caFile: string): string => `{ internal: true, client_auth: require, ca_file: ${caFile} }`;
  await using gateway = await startGateway({ yaml: yaml(mutual("old.pem")), files: { "old.pem": oldCa.cert, "new.pem": newCa.cert } });
  const ca = await gateway.ca();
  const client = { ca, ...oldCa.issue("/CN=old") };
  const finish = async (name: string, next: string): Promise<string> => {
    const { secure, release } = await stopInHandshake(gateway.port(name), client);
    await gateway.edit(yaml(next));
    let heard = "";
    secure.on("data", (chunk) => (heard += chunk.toString()));
    release();
    secure.write("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
    await waitFor(() => secure.closed || heard !== "");
    secure.destroy();
    return heard.slice(0, 12);
  };
  assert.equal(await finish("raw", mutual("new.pem")), "");
  await waitFor(() => gateway.accessLog.some(({ listener, reason }) => listener === "raw" && reason === "denied"), {
    what: () => JSON.stringify(gateway.accessLog),
  });
  await gateway.edit(yaml(mutual("old.pem")));
  assert.equal(await finish("web", mutual("new.pem")), "HTTP/1.1 421");
  await gateway.edit(yaml(mutual("old.pem")));
  assert.equal(await finish("raw", "{ internal: true }"), "GET / HTTP/1", "rules that ask for nothing take whoever comes");
});
