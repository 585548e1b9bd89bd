// TLS to upstreams: whom the gateway believes, whom it says that it is, and what it says when that fails.
import assert from "node:assert/strict";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { request } from "node:http";
import type { RequestListener } from "node:http";
import { createServer, type AddressInfo, type Socket } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { TLSSocket } from "node:tls";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom } from "../components/http-client.ts";
import { startHttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startHttpsOrigin, startOrigin, type Origin } from "../components/origin.ts";
import { createTestCa, type Pair } from "../components/pki.ts";
import { waitFor } from "../components/wait.ts";

const servers = createTestCa("Server CA");
const clients = createTestCa("Client CA");
const others = createTestCa("Other CA");
const server = servers.issue("/CN=bus", { san: "DNS:bus.internal,IP:127.0.0.1" });
const gatewayPair = clients.issue("/CN=sidegate");

/** Answers with what it learnt of its client in the handshake. */
const tellClient: RequestListener = (req, res) => {
  const socket = req.socket as TLSSocket & { servername: string | false };
  const client = socket.getPeerX509Certificate()?.subject ?? null;
  res.end(
    JSON.stringify({ client, authorized: socket.authorized, servername: socket.servername, reused: socket.isSessionReused(), protocol: socket.getProtocol() }),
  );
};
const MUTUAL = { ...server, requestCert: true, rejectUnauthorized: true, ca: clients.cert };

type Tls = NonNullable<NonNullable<HttpGatewayOptions["upstream"]>["tls"]>;
const tls = (partial: Partial<Tls> = {}): { upstream: { tls: Tls } } => ({
  upstream: { tls: { ca: servers.cert, serverName: "bus.internal", certificate: null, verify: true, ...partial } },
});

async function answerOf(target: string, partial?: Partial<Tls>): Promise<{ status: number; error: string; seen: Record<string, unknown> }> {
  await using gateway = await startHttpGateway({ targets: [target], ...tls(partial) });
  const { status, body } = await fetchFrom(gateway.port, "/");
  await waitFor(() => gateway.accessLog.length === 1);
  return { status, error: String(gateway.accessLog[0]?.["error"]), seen: JSON.parse(body) as Record<string, unknown> };
}

test("server_name is asked for and verified, whatever the target is called; an address without one is no server name", async () => {
  await using origin = await startHttpsOrigin(server, tellClient);
  for (const host of ["localhost", "127.0.0.1"]) {
    const { status, seen } = await answerOf(`https://${host}:${origin.port}`);
    assert.deepEqual([status, seen["servername"]], [200, "bus.internal"], host);
  }
  const byAddress = await answerOf(`https://127.0.0.1:${origin.port}`, { serverName: null });
  assert.deepEqual([byAddress.status, byAddress.seen["servername"]], [200, false]);
});

for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
  test(`a target that wants a client certificate gets it, for upgrades too, and sessions are resumed: ${version}`, async () => {
    await using origin = await startHttpsOrigin(
      { ...MUTUAL, minVersion: version, maxVersion: version },
      (req, res) => ((res.shouldKeepAlive = false), tellClient(req, res)),
      (req, socket) =>
        socket.end(
          `HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ${(req.socket as TLSSocket).getPeerX509Certificate()?.subject}\r\n\r\n`,
        ),
    );
    await using gateway = await startHttpGateway({ targets: [origin.url], ...tls({ certificate: gatewayPair }) });
    const ask = async () => JSON.parse((await fetchFrom(gateway.port, "/")).body) as Record<string, unknown>;
    const [first, second] = [await ask(), await ask()];
    assert.deepEqual(first, { client: "CN=sidegate", authorized: true, servername: "bus.internal", reused: false, protocol: version });
    assert.deepEqual([second["client"], second["reused"]], ["CN=sidegate", true]);
    const upgrade = request({ port: gateway.port, headers: { connection: "upgrade", upgrade: "x" } });
    upgrade.end();
    const [response, socket] = (await once(upgrade, "upgrade")) as [{ headers: Record<string, string> }, Socket];
    assert.equal(response.headers["upgrade"], "CN=sidegate");
    socket.destroy();
  });
}

test("what fails is said in words that tell what to do", async () => {
  const expired = servers.issue("/CN=bus", { san: "DNS:bus.internal", notAfter: new Date(Date.now() - 5_000) });
  const future = servers.issue("/CN=bus", { san: "DNS:bus.internal", notBefore: new Date(Date.now() + 3_600_000) });
  const many = servers.issue("/CN=bus", { san: Array.from({ length: 7 }, (_, i) => `DNS:host${i}.example`).join(",") });
  const clientOnly = servers.issue("/CN=bus", { san: "DNS:bus.internal", usage: "clientAuth" });
  const v12 = { maxVersion: "TLSv1.2" } as const;
  for (const [options, partial, words] of [
    [server, { ca: others.cert }, /its certificate is signed by an unknown CA: name it in 'ca_file'/],
    [server, { serverName: "other.internal" }, /its certificate is for 'bus\.internal', '127\.0\.0\.1', not for 'other\.internal': set 'server_name'/],
    [many, {}, /for 'host0\.example', .*'host4\.example', 2 more, not for 'bus\.internal'/],
    [servers.issue("/CN=elsewhere"), {}, /its certificate is without a name, not for 'bus\.internal'/],
    [expired, {}, /its certificate has expired/],
    [future, {}, /its certificate is not valid yet: one of the clocks is wrong/],
    [clientOnly, {}, /its certificate is not for servers/],
    [MUTUAL, {}, /the target wants a client certificate: give 'cert_file' and 'key_file'/],
    [{ ...MUTUAL, ...v12 }, {}, /it wants a client certificate, or has no cipher suite in common/],
    [{ ...server, minVersion: "TLSv1.1", maxVersion: "TLSv1.1", ciphers: "ALL@SECLEVEL=0" } as const, {}, /the target speaks no TLS version from 1\.2 on/],
  ] as const) {
    await using origin = await startHttpsOrigin(options, tellClient);
    const { status, error } = await answerOf(origin.url, partial);
    assert.equal(status, 502, String(words));
    assert.match(error, words);
    assert.ok(error.endsWith(`at localhost:${origin.port}`), error);
  }
  await using plain = await startOrigin((_req, res) => void res.end());
  const { error } = await answerOf(plain.url.replace("http:", "https:"));
  assert.match(error, /the target does not speak TLS/);
});

test("a target that was refused is refused again: its session is not taken up", async () => {
  for (const version of ["TLSv1.2", "TLSv1.3"] as const) {
    await using origin = await startHttpsOrigin({ ...server, minVersion: version, maxVersion: version }, tellClient);
    await using gateway = await startHttpGateway({ targets: [origin.url], ...tls({ serverName: "other.internal" }) });
    for (let i = 0; i < 3; i += 1) assert.equal((await fetchFrom(gateway.port, "/")).status, 502, version);
  }
});

test("insecure_skip_verify takes any certificate, and nothing else does", async () => {
  await using origin = await startHttpsOrigin(others.issue("/CN=elsewhere"), tellClient);
  assert.equal((await answerOf(origin.url, { ca: null })).status, 502);
  assert.equal((await answerOf(origin.url, { ca: null, verify: false })).status, 200);
});

test("a CA or a pair that OpenSSL refuses is refused before anything connects, without a word of the key", async () => {
  const start = (partial: Partial<Tls>) => startHttpGateway({ targets: ["https://localhost:1"], ...tls(partial) });
  await assert.rejects(
    start({ certificate: { cert: gatewayPair.cert, key: server.key } }),
    /^GatewayError: Cannot use the certificates of upstream 'up': (?!.*BEGIN)/s,
  );
});

// The whole gateway: files, reload, health checks, status.

let mutual: Origin;
let free: Origin;
before(async () => {
  mutual = await startHttpsOrigin(MUTUAL, tellClient);
  free = await startHttpsOrigin(server, tellClient);
});
after(async () => {
  await mutual[Symbol.asyncDispose]();
  await free[Symbol.asyncDispose]();
});

const yaml = (more: string, target = `https://127.0.0.1:${mutual.port}`): string => `
listeners: { web: { protocol: http, listen: "127.0.0.1:0" } }
upstreams:
  bus:
    targets: ["${target}"]
    health: { path: /, interval: 1s, timeout: 1s, failures: 1 }
    ${more}
routes: [{ path_prefix: /, upstream: bus, auth: none }]
`;
const PAIR = "ca_file: servers.crt\n    server_name: bus.internal\n    cert_file: c.crt\n    key_file: c.key";
const files = (pair: Pair): Record<string, string> => ({ "servers.crt": servers.cert, "c.crt": pair.cert, "c.key": pair.key });

async function health(gateway: Gateway): Promise<{ verified: boolean; health: string; reason: string }> {
  const { upstreams } = (await gateway.status()) as { upstreams: { verified: boolean; targets: { health: string; reason: string }[] }[] };
  const { verified = false, targets = [] } = upstreams[0] ?? {};
  return { verified, health: targets[0]?.health ?? "", reason: targets[0]?.reason ?? "" };
}

test("health checks show the same certificate as requests, and a changed pair serves from the reload on", async () => {
  await using gateway = await startGateway({ yaml: yaml(PAIR), files: files(gatewayPair) });
  const client = async () => (JSON.parse((await fetchFrom(gateway.port("web"), "/")).body) as { client: string }).client;
  await waitFor(async () => (await health(gateway)).health === "healthy");
  assert.equal(await client(), "CN=sidegate");
  const renewed = clients.issue("/CN=renewed");
  for (const [name, text] of [
    ["c.key", renewed.key],
    ["c.crt", renewed.cert],
  ] as const)
    await writeFile(join(gateway.dir, "config", name), text);
  await waitFor(async () => (await client()) === "CN=renewed");
  await gateway.edit(yaml(PAIR.split("\n    cert_file")[0] ?? ""));
  await waitFor(async () => (await health(gateway)).health === "unhealthy");
  assert.match((await health(gateway)).reason, /the target wants a client certificate: give 'cert_file' and 'key_file'/);
});

test("an upstream that is not verified says so once in the log, and in the status", async () => {
  const target = `https://127.0.0.1:${free.port}`;
  await using gateway = await startGateway({ yaml: yaml("ca_file: servers.crt", target), files: files(gatewayPair) });
  await waitFor(async () => (await health(gateway)).health === "healthy");
  assert.equal((await health(gateway)).verified, true);
  const warnings = () => gateway.log.filter(({ level, msg }) => level === "warn" && msg.startsWith("Upstream 'bus' takes any certificate")).length;
  assert.equal(warnings(), 0);
  await gateway.edit(yaml("insecure_skip_verify: true", target));
  await waitFor(async () => (await health(gateway)).health === "healthy");
  assert.deepEqual([(await health(gateway)).verified, warnings()], [false, 1]);
  await gateway.edit(`${yaml("insecure_skip_verify: true", target)}drain_timeout: 7s\n`);
  assert.equal(warnings(), 1);
});

test("a check of a target that never answers the handshake ends at its timeout or with its upstream, and its connection with it", async () => {
  const open = new Set<Socket>();
  const silent = createServer((socket) => {
    open.add(socket.on("error", () => {}).resume());
    socket.on("close", () => open.delete(socket));
  }).listen(0, "127.0.0.1");
  await once(silent, "listening");
  try {
    const address = `127.0.0.1:${(silent.address() as AddressInfo).port}`;
    const checked = (timeout: string): string =>
      yaml(`ca_file: servers.crt`, `https://${address}`).replace(/health: \{.*\}/, `health: { path: /health, interval: 1h, timeout: ${timeout}, failures: 1 }`);
    await using gateway = await startGateway({ yaml: checked("500ms"), files: files(gatewayPair) });
    // The library's own limit is 10 s.
    await waitFor(async () => (await health(gateway)).health === "unhealthy", { timeoutMs: 4_000 });
    assert.equal((await health(gateway)).reason, `GET /health: timed out after 500ms at ${address}`);
    await waitFor(() => open.size === 0, { timeoutMs: 2_000 });
    await gateway.edit(checked("1h"));
    await waitFor(() => open.size === 1);
    await gateway.edit(checked("500ms").replace(/health: \{.*\}/, ""));
    await waitFor(() => open.size === 0, { timeoutMs: 4_000 });
  } finally {
    silent.close();
  }
});
