// Certificates by themselves: the whole gateway and a real CA.
import assert from "node:assert/strict";
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { Agent, request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { connect } from "node:tls";
import { startCloudflare } from "../components/cloudflare.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { freePort } from "../components/free-port.ts";
import { startOrigin } from "../components/origin.ts";
import { missingPebble, startPebble, type Pebble } from "../components/pebble.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

type Certificate = { names: string[]; source: string; issuer: string; expires_at: string | null; renews_at: string | null; error: string };

const needsPebble = (t: TestContext): boolean => skipWithout(t, missingPebble());

async function certificates(gateway: Gateway): Promise<Certificate[]> {
  return ((await gateway.status()) as { certificates: Certificate[] }).certificates;
}

async function issued(gateway: Gateway, ...names: string[]): Promise<void> {
  let all: Certificate[] = [];
  await waitFor(
    async () => {
      all = await certificates(gateway);
      return names.every((name) => all.some((each) => each.names.includes(name) && each.expires_at !== null));
    },
    { timeoutMs: 20_000, what: () => `certificates for ${names.join(", ")}: ${JSON.stringify(all)}` },
  );
}

/** Serial number of the certificate that a client gets who trusts `ca` and checks the name; otherwise the error's code. */
function handshake(port: number, servername: string, ca: string): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const socket = connect({ host: "127.0.0.1", port, servername, ca }, () => {
    resolve(socket.getPeerCertificate().serialNumber);
    socket.destroy();
  });
  socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  return promise;
}

function acme(pebble: Pebble, more = ""): string {
  return `acme: { directory: "${pebble.directoryUrl}", ca_file: "${pebble.caFile}"${more} }`;
}

function orders(pebble: Pebble): number {
  return pebble.requests().filter((line) => line === "POST /order-plz").length;
}

test("three lines give every host of the routes a certificate before the first client asks, and a restart orders nothing", async (t) => {
  if (needsPebble(t)) return;
  const port = await freePort();
  await using pebble = await startPebble({ tlsPort: port });
  await using origin = await startOrigin((_req, res) => void res.end("hello"));
  const state = await mkdtemp(join(tmpdir(), "sidegate-acme-"));
  t.after(() => rm(state, { recursive: true, force: true }));
  const yaml = `
state: { dir: ${state} }
listeners:
  https:
    protocol: http
    listen: 127.0.0.1:${port}
    tls:
      ${acme(pebble, `, email: admin@example.com, https_port: ${port}`)}
routes:
  - { host: mcp.example.com, upstream: "http://127.0.0.1:${origin.port}", auth: none }
  - { host: docs.example.com, upstream: "http://127.0.0.1:${origin.port}", auth: none }
`;
  await using first = await startGateway({ yaml });
  await issued(first, "mcp.example.com", "docs.example.com");
  const root = await pebble.root();
  const serial = await handshake(port, "mcp.example.com", root);
  assert.match(serial, /^[0-9A-F]{8,}$/);
  assert.match(await handshake(port, "docs.example.com", root), /^[0-9A-F]{8,}$/);
  // A name that is not ours is told so.
  assert.equal(await handshake(port, "other.example.com", root), "ERR_SSL_TLSV1_UNRECOGNIZED_NAME");
  const before = orders(pebble);
  for (const { renews_at, expires_at } of await certificates(first)) {
    const [renews, ends] = [Date.parse(renews_at ?? ""), Date.parse(expires_at ?? "")];
    assert.ok(renews > Date.now() + 40 * 86_400_000 && renews < ends - 28 * 86_400_000, `renews at ${renews_at}`);
  }
  await waitFor(async () => (await first.admin("/metrics")).body.includes('sidegate_certificate_renewals_total{result="success"} 2'), {
    what: () => "the count",
  });

  await first.stop();
  await using second = await startGateway({ yaml });
  await issued(second, "mcp.example.com", "docs.example.com");
  assert.equal(await handshake(port, "mcp.example.com", root), serial);
  assert.equal(orders(pebble), before);
});

test("what clients know by a 'public_url' alone gets its certificate like a host, and a name that ends elsewhere is never ordered", async (t) => {
  if (needsPebble(t)) return;
  const port = await freePort();
  await using pebble = await startPebble({ tlsPort: port });
  await using origin = await startOrigin((_req, res) => void res.end("hello"));
  const route = (path: string, url: string, more: string): string =>
    `  - { path: ${path}, public_url: "${url}", upstream: "http://127.0.0.1:${origin.port}", ${more} }`;
  await using gateway = await startGateway({
    files: { users: `alice:$scrypt$ln=17,r=8,p=1$${"A".repeat(22)}$${"A".repeat(43)}\n` },
    yaml: `
listeners:
  https: { protocol: http, listen: "127.0.0.1:${port}", tls: { ${acme(pebble, `, https_port: ${port}`)} } }
auth: { login: { password: { users_file: users } }, server: { host: auth.example.com } }
routes:
${route("/mcp", "https://mcp.example.com/mcp", "auth: [{ oauth: {} }]")}
${route("/here", `https://here.example.com:${port}/here`, "auth: none")}
${route("/there", "https://there.example.com:9/there", "auth: none")}
`,
  });
  await issued(gateway, "mcp.example.com", "here.example.com", "auth.example.com");
  const root = await pebble.root();
  for (const name of ["mcp.example.com", "here.example.com", "auth.example.com"]) assert.match(await handshake(port, name, root), /^[0-9A-F]{8,}$/);
  assert.equal(await handshake(port, "there.example.com", root), "ERR_SSL_TLSV1_UNRECOGNIZED_NAME");
  assert.equal((await certificates(gateway)).length, 3);
  assert.equal(orders(pebble), 3);
});

test("http-01 is answered on the plain listener before every route, also where it redirects", async (t) => {
  if (needsPebble(t)) return;
  const [port, plain] = [await freePort(), await freePort()];
  await using pebble = await startPebble({ httpPort: plain });
  await using gateway = await startGateway({
    yaml: `
tls:
  ${acme(pebble, `, http_port: ${plain}`)}
listeners:
  https: { protocol: http, listen: "127.0.0.1:${port}" }
  plain: { protocol: http, listen: "127.0.0.1:${plain}", tls: { mode: disabled }, redirect_to_https: true, deny: [127.0.0.0/8] }
routes:
  - { host: mcp.example.com, path_prefix: /, upstream: "http://127.0.0.1:9", auth: none }
`,
  });
  await issued(gateway, "mcp.example.com");
  assert.match(await handshake(port, "mcp.example.com", await pebble.root()), /^[0-9A-F]{8,}$/);
});

test("dns-01 at Cloudflare gives a wildcard, and several names share one certificate", async (t) => {
  if (needsPebble(t)) return;
  await using pebble = await startPebble();
  await using cloudflare = await startCloudflare({ dns: pebble });
  await using gateway = await startGateway({
    files: { token: "test-token\n" },
    yaml: `
listeners:
  https:
    protocol: http
    listen: 127.0.0.1:0
    tls:
      acme:
        directory: "${pebble.directoryUrl}"
        ca_file: "${pebble.caFile}"
        dns: { provider: cloudflare, api_token_file: token, api_url: "${cloudflare.url}", resolvers: ["127.0.0.1:${pebble.dnsPort}"] }
        domains: ["*.example.com", [a.b.example.com, c.example.com]]
routes:
  - { host: "*.example.com", upstream: "http://127.0.0.1:9", auth: none }
`,
  });
  await issued(gateway, "*.example.com", "a.b.example.com");
  const root = await pebble.root();
  const port = gateway.port("https");
  const wildcard = await handshake(port, "any.example.com", root);
  const both = await handshake(port, "a.b.example.com", root);
  assert.match(wildcard, /^[0-9A-F]{8,}$/);
  assert.notEqual(both, wildcard);
  // Exact before wildcard.
  assert.equal(await handshake(port, "c.example.com", root), both);
  assert.deepEqual(cloudflare.records, []);
  assert.ok(!JSON.stringify(gateway.log).includes("test-token"));
});

test("a certificate is renewed under load without a failed request, and by itself", async (t) => {
  if (needsPebble(t)) return;
  const port = await freePort();
  await using pebble = await startPebble({ tlsPort: port, validitySeconds: 9 });
  await using origin = await startOrigin((_req, res) => void res.end("hello"));
  await using gateway = await startGateway({
    // On a busy machine the end of so short a life may pass before the renewal is there, which is told.
    expectErrors: true,
    yaml: `
listeners:
  https:
    protocol: http
    listen: 127.0.0.1:${port}
    tls:
      ${acme(pebble, `, https_port: ${port}`)}
routes:
  - { host: mcp.example.com, upstream: "http://127.0.0.1:${origin.port}", auth: none }
`,
  });
  await issued(gateway, "mcp.example.com");
  const ca = await pebble.root();
  const serials = new Set<string>();
  const failures: string[] = [];
  const stop = new AbortController();
  const ask = async (agent: Agent): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const going = request({ host: "127.0.0.1", port, servername: "mcp.example.com", ca, agent, headers: { host: "mcp.example.com" } }, (response) => {
      if (response.statusCode !== 200) failures.push(String(response.statusCode));
      response.resume().on("end", resolve);
    });
    going.on("error", (error) => {
      failures.push(error.message);
      resolve();
    });
    going.end();
    return promise;
  };
  const busy = Array.from({ length: 8 }, async (_each, i) => {
    const agent = new Agent({ keepAlive: i % 2 === 0, maxCachedSessions: 0 });
    while (!stop.signal.aborted) await ask(agent);
    agent.destroy();
  });
  for (let i = 0; i < 3; i += 1) {
    serials.add(await handshake(port, "mcp.example.com", ca));
    const forced = await gateway.admin("/certificates/renew?name=mcp.example.com", "POST");
    assert.equal(forced.status, 200, forced.body);
  }
  stop.abort();
  await Promise.all(busy);
  assert.deepEqual(failures, []);
  assert.equal(serials.size, 3);
  for (const serial of serials) assert.match(serial, /^[0-9A-F]{8,}$/);
  const last = await handshake(port, "mcp.example.com", ca);
  await waitFor(async () => ![last, "CERT_HAS_EXPIRED"].includes(await handshake(port, "mcp.example.com", ca)), {
    timeoutMs: 20_000,
    what: () => "a renewal that nobody asked for",
  });
});

test("a CA that is away for the whole start stops nothing, and what failed is told and tried again", async (t) => {
  if (needsPebble(t)) return;
  const port = await freePort();
  await using pebble = await startPebble({ tlsPort: port });
  await pebble.stop();
  await using origin = await startOrigin((_req, res) => void res.end("hello"));
  await using gateway = await startGateway({
    yaml: `
listeners:
  https:
    protocol: http
    listen: 127.0.0.1:${port}
    tls:
      internal: true
      ${acme(pebble, `, https_port: ${port}`)}
routes:
  - { host: mcp.example.com, upstream: "http://127.0.0.1:${origin.port}", auth: none }
`,
  });
  await waitFor(async () => (await certificates(gateway)).some(({ error }) => error !== ""), { what: () => "the failure" });
  const [failed] = (await certificates(gateway)).filter(({ source }) => source === "acme");
  assert.match(failed?.error ?? "", /127\.0\.0\.1.*connection refused/);
  assert.ok(Date.parse(failed?.renews_at ?? "") > Date.now());
  const ready = await gateway.admin("/ready");
  assert.equal(ready.status, 200);
  assert.match(ready.body, /"degraded".*no certificate yet/);
  // Meanwhile the local CA serves the name.
  assert.match(await handshake(port, "mcp.example.com", await gateway.ca()), /^[0-9A-F]{8,}$/);

  await pebble.start();
  const renewed = await gateway.admin("/certificates/renew?name=mcp.example.com", "POST");
  assert.equal(renewed.status, 200, renewed.body);
  assert.match(await handshake(port, "mcp.example.com", await pebble.root()), /^[0-9A-F]{8,}$/);
  assert.match((await gateway.admin("/ready")).body, /"status":"ready"/);
});

test("an order that the CA refuses names what the CA said, and an edit that mends it is tried at once", async (t) => {
  if (needsPebble(t)) return;
  const port = await freePort();
  const hmacKey = Buffer.from("0123456789abcdef0123456789abcdef").toString("base64url");
  await using pebble = await startPebble({ tlsPort: port, eab: { "kid-1": hmacKey } });
  const yaml = (eab: string): string => `
listeners:
  https:
    protocol: http
    listen: 127.0.0.1:${port}
    tls:
      ${acme(pebble, `, https_port: ${port}${eab}`)}
routes:
  - { host: mcp.example.com, upstream: "http://127.0.0.1:9", auth: none }
`;
  await using gateway = await startGateway({ yaml: yaml("") });
  let told = "";
  await waitFor(
    async () => {
      told = (await certificates(gateway)).map(({ error }) => error).join();
      return told.includes("externalAccountRequired); set 'eab'");
    },
    { what: () => `the refusal: ${told}` },
  );
  await gateway.edit(yaml(`, eab: { kid: kid-1, hmac_key: ${hmacKey} }`));
  await issued(gateway, "mcp.example.com");
  assert.match(await handshake(port, "mcp.example.com", await pebble.root()), /^[0-9A-F]{8,}$/);
  assert.ok(!JSON.stringify([gateway.log, await gateway.status()]).includes(hmacKey));
  const files = await readdir(join(gateway.dir, "state", "acme"), { recursive: true });
  assert.ok(
    files.some((file) => file.endsWith("account.json")),
    files.join(" "),
  );
});
