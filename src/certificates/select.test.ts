import assert from "node:assert/strict";
import { execFile, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer as createHttpsServer } from "node:https";
import type { AddressInfo, Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect, createServer, type TlsOptions } from "node:tls";
import { promisify } from "node:util";
import type { CertificatePair, TlsProtocolPlan } from "../plan/model.ts";
import { createInternalSource } from "./internal.ts";
import { openInternalCa, type InternalCa } from "./internal-ca.ts";
import { createListenerTls, type ListenerTls } from "./select.ts";
import { CertificateError, type CertificateSource, type ServerCertificate } from "./source.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-tls-"));
const servers: Server[] = [];
let ca: InternalCa;
/** Signs what plays the certificates from files. */
let fileCa: InternalCa;
before(async () => {
  ca = await openInternalCa(join(root, "state"));
  fileCa = await openInternalCa(join(root, "files"));
});
after(() => {
  for (const server of servers) server.close();
  rmSync(root, { recursive: true, force: true });
});

function pair(certFile: string, ...dns: string[]): CertificatePair {
  const { cert, key } = fileCa.issue(dns, Date.now());
  return { certFile, cert, key, names: dns };
}

const PROTOCOL: TlsProtocolPlan = { minVersion: "TLSv1.2", ciphers: null, clientAuth: null, key: "a" };

type Parts = {
  certificates: readonly CertificatePair[];
  internal: boolean;
  protocol?: Partial<TlsProtocolPlan>;
  acme?: CertificateSource;
  tailscale?: CertificateSource;
  tailnetNames?: () => readonly string[];
};

function listenerTls(
  parts: Parts,
  hosts: string[],
  listenHost: string | null,
  internalCa: InternalCa | null,
  previous: ListenerTls | null = null,
): ListenerTls {
  const { certificates, internal, protocol = {}, acme = null, tailscale = null, tailnetNames = () => [] } = parts;
  return createListenerTls(
    { mode: "application", certificates, acme: null, tailscale: tailscale !== null, internal, hosts, protocol: { ...PROTOCOL, ...protocol } },
    { listener: "web", listenHost, tailnetNames, acme, tailscale, internalCa, tickets: null },
    previous,
  );
}

function tlsOptions(contexts: ListenerTls): TlsOptions {
  const SNICallback: TlsOptions["SNICallback"] = (name, callback) => {
    const context = contexts.find(name);
    callback(context === null ? new Error("unrecognized name") : null, context ?? undefined);
  };
  return { ...contexts.options(contexts.fallback), SNICallback };
}

async function listen(server: Server): Promise<number> {
  servers.push(server);
  const { promise, resolve } = Promise.withResolvers<void>();
  server.listen(0, "127.0.0.1", resolve);
  await promise;
  return (server.address() as AddressInfo).port;
}

async function serve(contexts: ListenerTls): Promise<number> {
  const server = createServer(tlsOptions(contexts), (socket) => socket.on("error", () => {}).end());
  server.on("tlsClientError", () => {});
  return await listen(server);
}

/** The names of the certificate that a client gets, or the error. It trusts both CAs and checks `servername` unless it is empty. */
function handshake(port: number, servername: string, options: { maxVersion?: "TLSv1.1" | "TLSv1.2"; host?: string } = {}): Promise<string> {
  const { promise, resolve } = Promise.withResolvers<string>();
  const { host = "127.0.0.1", ...versions } = options;
  // A client may allow old versions only at OpenSSL's security level 0.
  const old = options.maxVersion === "TLSv1.1" ? { minVersion: "TLSv1.1" as const, ciphers: "DEFAULT@SECLEVEL=0" } : {};
  const socket = connect({ host, port, servername, ca: [ca.cert, fileCa.cert], ...versions, ...old }, () => {
    resolve(socket.getPeerCertificate().subjectaltname ?? "no names");
    socket.destroy();
  });
  socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
  return promise;
}

function names(...dns: string[]): string {
  return dns.map((name) => `DNS:${name}`).join(", ");
}

test("a client gets the certificate of its server name: exact before wildcard, the first file for the others", async () => {
  const contexts = listenerTls(
    {
      certificates: [
        pair("a.pem", "a.example.com"),
        pair("w.pem", "*.example.com"),
        pair("b.pem", "b.example.com", "b.example.org"),
        pair("late.pem", "a.example.com", "late.example.net"),
      ],
      internal: false,
    },
    [],
    null,
    null,
  );
  const port = await serve(contexts);
  assert.equal(await handshake(port, "a.example.com"), names("a.example.com"));
  assert.equal(await handshake(port, "B.Example.ORG"), names("b.example.com", "b.example.org"));
  assert.equal(await handshake(port, "b.example.com"), names("b.example.com", "b.example.org"));
  assert.equal(await handshake(port, "b.example.org"), names("b.example.com", "b.example.org"));
  assert.equal(await handshake(port, "any.example.com"), names("*.example.com"));
  assert.equal(await handshake(port, "late.example.net"), names("a.example.com", "late.example.net"));
  // Two labels are not covered: the client sees the first certificate and refuses it.
  assert.equal(await handshake(port, "x.y.example.com"), "ERR_TLS_CERT_ALTNAME_INVALID");
  assert.equal(await handshake(port, "unknown.example.org"), "ERR_TLS_CERT_ALTNAME_INVALID");
  assert.deepEqual(
    contexts.list().map((info) => [info.source, info.file]),
    [
      ["file", "a.pem"],
      ["file", "w.pem"],
      ["file", "b.pem"],
      ["file", "late.pem"],
    ],
  );
});

test("the internal CA serves the hosts of the routes and this machine, whether the client sends a name or not", async () => {
  const contexts = listenerTls({ certificates: [], internal: true }, ["mcp.example.com", "*.apps.example.com"], "127.0.0.1", ca);
  const port = await serve(contexts);
  assert.equal(await handshake(port, "mcp.example.com"), names("mcp.example.com"));
  assert.equal(await handshake(port, "one.apps.example.com"), names("*.apps.example.com"));
  assert.match(await handshake(port, "localhost"), /DNS:localhost, IP Address:127\.0\.0\.1/);
  // No server name: node verifies the address 127.0.0.1 instead.
  assert.match(await handshake(port, ""), /IP Address:127\.0\.0\.1/);
  assert.equal(await handshake(port, "other.example.com"), "ERR_TLS_CERT_ALTNAME_INVALID");
});

test("the internal CA serves the names of the node in the tailnet, from when they are known", () => {
  let node: readonly string[] = [];
  const tls = listenerTls({ certificates: [], internal: true, tailnetNames: () => node }, ["mcp.example.com"], "127.0.0.1", ca);
  const [before, contextBefore] = [tls.fallback, tls.find("ib4.tail.test")];
  assert.equal(tls.fallback, before);
  node = ["ib4.tail.test", "ib4"];
  assert.notEqual(tls.fallback, before);
  assert.notEqual(tls.find("ib4.tail.test"), contextBefore);
  assert.equal(tls.find("IB4"), tls.find("ib4.tail.test."));
  assert.equal(tls.find("mcp.example.com"), tls.find("mcp.example.com"));
  assert.deepEqual(tls.fallback?.info.names.slice(-2), node);
});

test("files come before the internal CA", async () => {
  const contexts = listenerTls({ certificates: [pair("a.pem", "a.example.com")], internal: true }, ["a.example.com", "b.example.com"], null, ca);
  const port = await serve(contexts);
  assert.equal(await handshake(port, "a.example.com"), names("a.example.com"));
  assert.equal(await handshake(port, "b.example.com"), names("b.example.com"));
  assert.equal(contexts.fallback?.info.file, "a.pem");
  const sources = contexts.list().map((info) => `${info.source} ${info.names[0]} ${info.issuer.startsWith("CN=Sidegate local CA")}`);
  assert.deepEqual(sources, ["file a.example.com true", "internal localhost true", "internal b.example.com true"]);
});

test("without any certificate the handshake is refused", async () => {
  const contexts = listenerTls({ certificates: [], internal: false }, [], null, null);
  const port = await serve(contexts);
  assert.equal(contexts.fallback, null);
  assert.equal(contexts.find("a.example.com"), null);
  assert.match(await handshake(port, "a.example.com"), /ECONNRESET|ERR_SSL/);
  assert.match(await handshake(port, ""), /ECONNRESET|ERR_SSL/);
});

test("TLS 1.1 is refused, TLS 1.2 is served", async () => {
  const port = await serve(listenerTls({ certificates: [], internal: true }, [], null, ca));
  assert.match(await handshake(port, "localhost", { maxVersion: "TLSv1.1" }), /ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION/);
  assert.match(await handshake(port, "localhost", { maxVersion: "TLSv1.2" }), /DNS:localhost/);
});

test("names that are asked for do not make the CA issue without limit", () => {
  const source = createInternalSource(ca, ["*.apps.example.com"], null, () => []);
  for (let i = 0; i < 50; i += 1) {
    void source.get(`x${i}.apps.example.com`);
    void source.get(`x${i}.example.org`);
    void source.get(`x.y${i}.apps.example.com`);
  }
  assert.deepEqual(
    source.list().map((info) => info.names[0]),
    ["localhost", "*.apps.example.com"],
  );
});

test("a leaf is renewed a month before its end", () => {
  let now = Date.now();
  const source = createInternalSource(
    ca,
    [],
    null,
    () => [],
    () => now,
  );
  const first = source.fallback();
  now += 59 * 86_400_000;
  assert.equal(source.fallback(), first);
  now += 2 * 86_400_000;
  const second = source.fallback();
  assert.notEqual(second, first);
  assert.ok((second?.info.notAfter?.getTime() ?? 0) > now + 89 * 86_400_000);
  // In the last days of the CA there is nothing to win by renewing in each handshake.
  now = ca.notAfter.getTime() - 86_400_000;
  assert.equal(source.fallback(), source.fallback());
});

test("an unchanged file is not prepared again, a changed one is", () => {
  const plan = { certificates: [pair("a.pem", "a.example.com"), pair("b.pem", "b.example.com")], internal: false } as const;
  const present = listenerTls(plan, [], null, null);
  const changed = pair("b.pem", "b.example.com");
  const next = listenerTls({ ...plan, certificates: [{ ...plan.certificates[0] }, changed] }, [], null, null, present);
  assert.equal(next.files.get("a.example.com"), present.files.get("a.example.com"));
  assert.notEqual(next.files.get("b.example.com"), present.files.get("b.example.com"));
});

test("a valid certificate is not replaced by one that has expired; at a start that one serves", () => {
  const ended = fileCa.issue(["a.example.com"], Date.now() - 200 * 86_400_000);
  const old: CertificatePair = { certFile: "a.pem", cert: ended.cert, key: ended.key, names: ["a.example.com"] };
  const present = listenerTls({ certificates: [pair("a.pem", "a.example.com")], internal: false }, [], null, null);
  assert.throws(() => listenerTls({ certificates: [old], internal: false }, [], null, null, present), /^CertificateError: Certificate 'a\.pem' expired on 2/);
  const started = listenerTls({ certificates: [old], internal: false }, [], null, null);
  assert.equal(listenerTls({ certificates: [{ ...old }], internal: false }, [], null, null, started).fallback?.cert, ended.cert);
});

test("a pair that OpenSSL refuses is an error that names the file and holds no key", () => {
  const good = pair("good.pem", "a.example.com");
  const foreign = ca.issue(["x"], Date.now()).key;
  const attempt = (certificate: CertificatePair): CertificateError => {
    try {
      listenerTls({ certificates: [certificate], internal: false }, [], null, null);
    } catch (error) {
      assert.ok(error instanceof CertificateError);
      return error;
    }
    assert.fail("no error");
  };
  const mismatch = attempt({ ...good, certFile: "bad.pem", key: foreign });
  assert.equal(mismatch.message, "Cannot use certificate 'bad.pem': key values mismatch");
  const half = attempt({ ...good, key: good.key.slice(0, 100) });
  for (const error of [mismatch, half]) {
    const text = `${error.message} ${error.stack} ${JSON.stringify(error)} ${String(error.cause)} ${JSON.stringify(error.cause)}`;
    for (const line of [...good.key.split("\n"), ...foreign.split("\n")].filter((each) => each.length > 20 && !each.startsWith("---")))
      assert.ok(!text.includes(line.slice(0, 20)));
  }
});

test("ten thousand certificates are taken at once, and looking one of them up does not grow with their number", { timeout: 60_000 }, () => {
  const one = pair("one.pem", "example.com");
  const certificates = Array.from({ length: 10_000 }, (_, i) => ({ ...one, certFile: `${i}.pem`, names: [`n${i}.example.com`, `*.n${i}.example.com`] }));
  // What OpenSSL refuses shows up when it is asked for: proving them all would take seconds.
  certificates[9_000] = { ...one, certFile: "9000.pem", key: "no key", names: ["n9000.example.com"] };
  const contexts = listenerTls({ certificates, internal: false }, [], null, null);
  assert.throws(() => contexts.find("n9000.example.com"), /^CertificateError: Cannot use certificate '9000\.pem'/);
  const context = contexts.find("x.n9999.example.com");
  assert.notEqual(context, null);
  assert.equal(contexts.find("n9999.example.com"), context);
  assert.notEqual(contexts.find("n9998.example.com"), context);
  assert.equal(contexts.find("unknown.example.org"), contexts.find("n0.example.com"));
  const started = performance.now();
  for (let i = 0; i < 100_000; i += 1) void contexts.files.get(`x.n${i % 10_000}.example.com`);
  // A scan of ten thousand entries would take minutes; this takes some ten milliseconds.
  assert.ok(performance.now() - started < 10_000);
  // Of the next configuration nothing is prepared again.
  assert.equal(listenerTls({ certificates, internal: false }, [], null, null, contexts).find("n9999.example.com"), context);
});

test("files come before ACME, ACME before tailscaled, and that before the internal CA", () => {
  const issue = (name: string): ServerCertificate => fileCa.issue([name], Date.now());
  const one = issue("node.ts.net");
  const orders = { "a.example.com": issue("a.example.com"), "b.example.com": issue("b.example.com") };
  const acme: CertificateSource = { get: (name) => orders[name as keyof typeof orders] ?? null, fallback: () => null, list: () => [] };
  const tailscale: CertificateSource = {
    get: (name) => (["node.ts.net", "b.example.com", "localhost"].includes(name) ? one : null),
    fallback: () => one,
    list: () => [one.info],
  };
  const file = pair("a.pem", "a.example.com");
  const tls = listenerTls({ certificates: [], internal: true, acme, tailscale }, ["c.example.com"], null, ca);
  const context = (name: string, from = tls): unknown => from.find(name);
  const ofNode = context("node.ts.net");
  assert.equal(tls.fallback, one);
  // The short name, and none at all.
  assert.equal(context("node"), ofNode);
  assert.equal(context("localhost"), ofNode);
  assert.notEqual(context("b.example.com"), ofNode);
  assert.notEqual(context("c.example.com"), ofNode);
  assert.ok(tls.list().includes(one.info));
  const withFile = listenerTls({ certificates: [file], internal: true, acme, tailscale }, [], null, ca);
  assert.equal(withFile.fallback?.cert, file.cert);
  assert.notEqual(context("node.ts.net", withFile), context("a.example.com", withFile));
  assert.equal(context("node", withFile), context("a.example.com", withFile));
});

test("a default that cannot be served is found out before the configuration serves", () => {
  const broken = { ...ca.issue(["a.example.com"], Date.now()), key: "no key" };
  const source: CertificateSource = { get: () => null, fallback: () => broken, list: () => [] };
  assert.throws(() => listenerTls({ certificates: [], internal: false, acme: source }, [], null, null), CertificateError);
});

test("contexts are made anew when what is spoken changes", () => {
  const parts = { certificates: [pair("a.pem", "a.example.com")], internal: false };
  const present = listenerTls(parts, [], null, null);
  const next = listenerTls({ ...parts, protocol: { key: "b", minVersion: "TLSv1.3" } }, [], null, null, present);
  assert.notEqual(next.find("a.example.com"), present.find("a.example.com"));
});

const hasCurl = spawnSync("curl", ["--version"]).status === 0;
test("curl trusts the CA by --cacert alone", { skip: !hasCurl && "curl is not installed: apt-get install curl" }, async () => {
  const contexts = listenerTls({ certificates: [], internal: true }, [], "127.0.0.1", ca);
  const port = await listen(createHttpsServer(tlsOptions(contexts), (_, response) => response.end("served")));
  const curl = async (...args: string[]): Promise<string> => (await promisify(execFile)("curl", ["-sS", "--noproxy", "*", ...args])).stdout;
  assert.equal(await curl("--cacert", ca.certFile, `https://127.0.0.1:${port}/`), "served");
  assert.equal(await curl("--cacert", ca.certFile, "--resolve", `localhost:${port}:127.0.0.1`, `https://localhost:${port}/`), "served");
  await assert.rejects(curl("--cacert", fileCa.certFile, `https://127.0.0.1:${port}/`), /SSL certificate problem/);
});
