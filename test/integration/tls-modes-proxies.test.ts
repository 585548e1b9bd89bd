// Real proxies before the gateway, in the modes behind_proxy and auto: who the client is, what it used, and what nobody can forge.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect as connectTls } from "node:tls";
import { FRONT_PROXIES, missingProxy, startFrontProxy, type FrontProxyKind } from "../components/front-proxy.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { certificate } from "../components/http-gateway.ts";
import { fetchFrom, type Answer, type RequestArgs } from "../components/http-client.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

// The clients of the proxies; the proxies themselves are 127.0.0.1.
const CLIENT = "127.0.0.5";
const STRANGER = "127.0.0.2";
const FORGED = {
  "x-forwarded-for": "6.6.6.6, 127.0.0.1",
  "x-forwarded-proto": "https",
  "x-forwarded-host": "evil.example",
  "x-real-ip": "6.6.6.6",
  forwarded: "for=6.6.6.6;proto=https;host=evil.example",
};

let origin: Origin;
let gateway: Gateway;
let dir = "";
let socketPath = "";
let caFile = "";

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "sidegate-modes-"));
  socketPath = join(dir, "web.sock");
  origin = await startOrigin(
    (req, res) => void res.end(JSON.stringify(req.headers)),
    (req, socket) => {
      // HAProxy looks at the key's answer (RFC 6455, 4.2.2).
      const accept = createHash("sha1").update(`${req.headers["sec-websocket-key"]}258EAFA5-E914-47DA-95CA-C5AB0DC85B11`).digest("base64");
      const head = `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ${accept}\r\n\r\n`;
      socket.write(`${head}proto=${String(req.headers["x-forwarded-proto"])}`);
      socket.pipe(socket);
    },
  );
  const tls = "hsts_enabled: true";
  gateway = await startGateway({
    yaml: `
trusted_proxies: ["127.0.0.1", "::1"]
listeners:
  behind: { protocol: http, listen: "127.0.0.1:0", tls: { mode: behind_proxy, ${tls} } }
  behind6: { protocol: http, listen: "[::1]:0", tls: { mode: behind_proxy, ${tls} } }
  narrow: { protocol: http, listen: "127.0.0.1:0", tls: { mode: behind_proxy }, max_connections: 1 }
  socket: { protocol: http, listen: "unix:${socketPath}", tls: { mode: behind_proxy, ${tls} } }
  auto: { protocol: http, listen: "127.0.0.1:0", tls: { mode: auto, internal: true, ${tls} } }
routes:
  - { name: all, upstream: "${origin.url}", auth: none }
`,
  });
  caFile = join(dir, "ca.pem");
  await writeFile(caFile, await gateway.ca());
});

after(async () => {
  await gateway?.[Symbol.asyncDispose]();
  await origin?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

type Seen = Record<string, string | undefined>;
const seenIn = (answer: Answer): Seen => {
  assert.equal(answer.status, 200, answer.body);
  return JSON.parse(answer.body) as Seen;
};
const pick = (seen: Seen): unknown[] => [seen["x-forwarded-for"], seen["x-real-ip"], seen["x-forwarded-proto"], seen["x-forwarded-host"], seen["host"]];
const overHttp: RequestArgs = { localAddress: CLIENT, headers: { host: "a.example" } };
const overHttps = (): RequestArgs => ({ ...overHttp, ca: certificate().cert });

/** Where a proxy can send what it took, by the name of the story. */
const PLACES: Record<string, () => { to: string; caFile?: string; peer: string }> = {
  "behind_proxy over TCP": () => ({ to: `127.0.0.1:${gateway.port("behind")}`, peer: ", 127.0.0.1" }),
  "behind_proxy over IPv6": () => ({ to: `[::1]:${gateway.port("behind6")}`, peer: ", ::1" }),
  "behind_proxy over a unix socket": () => ({ to: `unix:${socketPath}`, peer: "" }),
  "auto over plain HTTP": () => ({ to: `127.0.0.1:${gateway.port("auto")}`, peer: ", 127.0.0.1" }),
  "auto over TLS": () => ({ to: `127.0.0.1:${gateway.port("auto")}`, caFile, peer: ", 127.0.0.1" }),
};

for (const kind of FRONT_PROXIES) {
  for (const [what, place] of Object.entries(PLACES)) {
    test(`${kind} before ${what}: the upstream sees the client and its scheme, forged or not`, async (t) => {
      if (skipWithout(t, missingProxy(kind))) return;
      const { peer, ...to } = place();
      await using front = await startFrontProxy(kind, to);
      const chain = [`${CLIENT}${peer}`, CLIENT];
      for (const forged of [{}, FORGED]) {
        const secure = await fetchFrom(front.httpsPort, "/p?q=1", { ...overHttps(), headers: { host: "a.example", ...forged } });
        assert.deepEqual(pick(seenIn(secure)), [...chain, "https", "a.example", "a.example"]);
        assert.equal(secure.headers["strict-transport-security"], "max-age=31536000");

        const plain = await fetchFrom(front.httpPort, "/p?q=1", { ...overHttp, headers: { host: "a.example", ...forged } });
        assert.equal(plain.headers["strict-transport-security"], undefined);
        if (what.startsWith("auto")) assert.deepEqual([plain.status, plain.headers["location"]], [308, "https://a.example/p?q=1"]);
        else assert.deepEqual(pick(seenIn(plain)), [...chain, "http", "a.example", "a.example"]);
      }
      assert.match(await upgradeThrough(front.httpsPort), /^HTTP\/1\.1 101 [^]*\r\n\r\nproto=httpsecho$/);
    });
  }
}

/** What comes back on a WebSocket's connection over TLS that says "echo". */
async function upgradeThrough(port: number): Promise<string> {
  const socket = connectTls({ port, host: "127.0.0.1", servername: "localhost", ca: certificate().cert, ALPNProtocols: ["http/1.1"] });
  let text = "";
  let said = false;
  socket.on("error", () => {});
  socket.on("data", (chunk) => {
    text += chunk.toString("latin1");
    if (!said && text.includes("proto=")) {
      said = true;
      socket.write("echo");
    }
  });
  socket.write(
    "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  );
  await waitFor(() => text.endsWith("echo") || socket.destroyed, { what: () => `the echo, got: ${text}` });
  socket.destroy();
  return text;
}

const CHAINS: [FrontProxyKind, FrontProxyKind][] = [
  ["nginx", "haproxy"],
  ["haproxy", "caddy"],
  ["caddy", "nginx"],
];
for (const [outer, inner] of CHAINS) {
  test(`${outer} before ${inner} before the gateway: the client stands at the end of the chain`, async (t) => {
    if (skipWithout(t, missingProxy(outer, inner))) return;
    await using second = await startFrontProxy(inner, { to: `127.0.0.1:${gateway.port("behind")}`, inner: true });
    await using first = await startFrontProxy(outer, { to: `127.0.0.1:${second.httpPort}` });
    const headers = { host: "a.example", ...FORGED };
    const secure = await fetchFrom(first.httpsPort, "/", { ...overHttps(), headers });
    assert.deepEqual(pick(seenIn(secure)), [`${CLIENT}, 127.0.0.1, 127.0.0.1`, CLIENT, "https", "a.example", "a.example"]);
    const plain = await fetchFrom(first.httpPort, "/", { ...overHttp, headers });
    assert.deepEqual(pick(seenIn(plain)), [`${CLIENT}, 127.0.0.1, 127.0.0.1`, CLIENT, "http", "a.example", "a.example"]);
  });
}

for (const kind of FRONT_PROXIES) {
  test(`${kind} that says nothing of its clients: it is the client itself, over plain HTTP`, async (t) => {
    if (skipWithout(t, missingProxy(kind))) return;
    const host = (port: number): string => (kind === "nginx" ? `127.0.0.1:${port}` : "a.example");
    const behind = gateway.port("behind");
    await using front = await startFrontProxy(kind, { to: `127.0.0.1:${behind}`, silent: true });
    const seen = seenIn(await fetchFrom(front.httpsPort, "/", overHttps()));
    assert.deepEqual(pick(seen), ["127.0.0.1", "127.0.0.1", "http", host(behind), host(behind)]);

    const auto = gateway.port("auto");
    await using other = await startFrontProxy(kind, { to: `127.0.0.1:${auto}`, silent: true });
    const answer = await fetchFrom(other.httpsPort, "/x", overHttps());
    assert.deepEqual([answer.status, answer.headers["location"]], [308, `https://${kind === "nginx" ? "127.0.0.1" : "a.example"}/x`]);
  });
}

test("nginx as it is delivered speaks HTTP/1.0: a body without a length passes whole", async (t) => {
  if (skipWithout(t, missingProxy("nginx"))) return;
  await using front = await startFrontProxy("nginx", { to: `127.0.0.1:${gateway.port("behind")}`, silent: true });
  const answer = await fetchFrom(front.httpPort, "/", { method: "POST", headers: { "transfer-encoding": "chunked" }, body: "x".repeat(10_000) });
  assert.equal(seenIn(answer)["content-length"], "10000");
  await waitFor(() => gateway.accessLog.some(({ protocol, method }) => protocol === "HTTP/1.0" && method === "POST"));
});

test("who comes round the proxy is refused, or redirected as any plain HTTP, whatever it forges", async () => {
  const headers = { host: "a.example", ...FORGED };
  const behind = await fetchFrom(gateway.port("behind"), "/", { localAddress: STRANGER, headers });
  assert.equal(behind.status, 403);
  assert.match(behind.body, /ERR_NOT_PROXY/);
  const auto = await fetchFrom(gateway.port("auto"), "/x", { localAddress: STRANGER, headers });
  assert.deepEqual([auto.status, auto.headers["location"], auto.headers["strict-transport-security"]], [308, "https://a.example/x", undefined]);
  const secure = await fetchFrom(gateway.port("auto"), "/x", { localAddress: STRANGER, headers, ca: await gateway.ca() });
  assert.deepEqual(pick(seenIn(secure)), [STRANGER, STRANGER, "https", "a.example", "a.example"]);
});

test("connections that come round the proxy take no place of the proxy's", async () => {
  const port = gateway.port("narrow");
  const stranger = connect({ port, host: "127.0.0.1", localAddress: STRANGER });
  try {
    await once(stranger, "connect");
    assert.equal((await fetchFrom(port, "/")).status, 200);
    assert.equal(stranger.destroyed, false);
    stranger.write("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    const [answer] = (await once(stranger, "data")) as [Buffer];
    assert.match(answer.toString("latin1"), /^HTTP\/1\.1 403 [^]*Connection: close[^]*ERR_NOT_PROXY/);
  } finally {
    stranger.destroy();
  }
});

test("who was refused keeps no place of the few for strangers, which a CA needs as well", async () => {
  const port = gateway.port("narrow");
  const refused = async (): Promise<Socket> => {
    const socket = connect({ port, host: "127.0.0.1", localAddress: STRANGER }).on("error", () => {});
    socket.write("GET / HTTP/1.1\r\nHost: a.example\r\n\r\n");
    const answer = await Promise.race([once(socket, "data"), once(socket, "close")]);
    assert.match(String(answer[0]), /^HTTP\/1\.1 403 /);
    return socket;
  };
  const sockets: Socket[] = [];
  try {
    for (let i = 0; i < 70; i += 1) sockets.push(await refused());
  } finally {
    for (const socket of sockets) socket.destroy();
  }
});

test("bytes of the PROXY protocol from the proxy are answered with 400 by every listener that takes plain HTTP", async () => {
  const request = "GET / HTTP/1.1\r\nHost: a.example\r\nX-Forwarded-Proto: https\r\n\r\n";
  const addresses = Buffer.from([0x21, 0x11, 0, 12, 6, 6, 6, 6, 127, 0, 0, 1, 0x10, 0, 0, 80]);
  const v2 = Buffer.concat([Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1"), addresses, Buffer.from(request)]);
  for (const listener of ["behind", "auto"]) {
    for (const bytes of [`PROXY TCP4 6.6.6.6 127.0.0.1 4096 80\r\n${request}`, v2]) {
      const before = origin.connections();
      const { statuses, closed } = await sendRaw(gateway.port(listener), [bytes], 2);
      assert.deepEqual([statuses, closed, origin.connections()], [[400], true, before], listener);
    }
  }
});

test("an IPv6 client is read in every way in which proxies write it", async () => {
  for (const told of [
    { "x-forwarded-for": "2001:db8::7" },
    { "x-forwarded-for": "[2001:db8::7]" },
    { "x-forwarded-for": "[2001:db8::7]:4711" },
    { "x-forwarded-for": "6.6.6.6, [2001:db8::7]:4711 , ::1" },
    { "x-real-ip": "2001:db8::7" },
    { forwarded: 'for="[2001:db8::7]:4711";proto=https' },
  ]) {
    const answer = await fetchFrom(gateway.port("behind6"), "/", { host: "::1", headers: { host: "[2001:db8::1]:8443", ...(told as Record<string, string>) } });
    const seen = seenIn(answer);
    assert.equal(seen["x-real-ip"], "2001:db8::7", JSON.stringify(told));
    assert.match(String(seen["forwarded"]), /^for="\[2001:db8::7\]";host="\[2001:db8::1\]:8443";proto=/);
  }
});

test("a unix socket's proxy that names no client leaves it unknown, and a listener that is not behind one believes nothing there", async () => {
  const seen = seenIn(await fetchFrom(0, "/", { socketPath, headers: { host: "a.example" } }));
  assert.deepEqual(pick(seen), [undefined, undefined, "http", "a.example", "a.example"]);
  const path = join(dir, "open.sock");
  await using open = await startGateway({
    yaml: `
listeners: { socket: { protocol: http, listen: "unix:${path}" } }
routes: [{ name: all, upstream: "${origin.url}", auth: none }]
`,
  });
  const forged = seenIn(await fetchFrom(0, "/", { socketPath: path, headers: { host: "a.example", ...FORGED } }));
  assert.deepEqual(pick(forged), [undefined, undefined, "http", "a.example", "a.example"]);
  assert.equal(
    open.log.some(({ level }) => level === "error"),
    false,
  );
});
