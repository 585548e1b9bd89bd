import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect as connectTcp, createServer, type AddressInfo, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { AcmeChallenges } from "../certificates/acme-challenges.ts";
import { openInternalCa, type InternalCa } from "../certificates/internal-ca.ts";
import { createListenerTls } from "../certificates/select.ts";
import type { CertificateSource, ServerCertificate } from "../certificates/source.ts";
import { openTicketKeys, type TicketKeys } from "../certificates/ticket-keys.ts";
import { cipherList } from "../lib/cipher-suites.ts";
import type { TlsProtocolPlan } from "../plan/model.ts";
import { openLog } from "../telemetry/log.ts";
import { TlsStats } from "../telemetry/tls-stats.ts";
import { createTestCa } from "../../test/components/pki.ts";
import { waitFor } from "../../test/components/wait.ts";
import { createTlsTerminator, refusePlain } from "./tls.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-terminator-"));
const servers: Server[] = [];
const logged: string[] = [];
const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (line) => void logged.push(line) });
let ca: InternalCa;
before(async () => {
  ca = await openInternalCa(join(root, "ca"));
});
after(() => {
  for (const server of servers) server.close();
  rmSync(root, { recursive: true, force: true });
});

type Options = {
  listener?: string;
  protocol?: Partial<TlsProtocolPlan>;
  /** Default: the internal CA for a.example.com and this machine. */
  source?: CertificateSource;
  tickets?: TicketKeys | null;
  challenges?: AcmeChallenges;
  handshakeTimeoutMs?: number;
  /** Default: greets. */
  onSecure?: (socket: TLSSocket) => void;
};

/** A terminator on a port of its own, which greets those who got through. */
async function serve(options: Options = {}): Promise<{ port: number; stats: TlsStats; open: () => number }> {
  const { listener = "web", source = null, tickets = null, challenges = new AcmeChallenges(), handshakeTimeoutMs = 5_000 } = options;
  const protocol = { minVersion: "TLSv1.2", ciphers: null, clientAuth: null, ...options.protocol } as const;
  const certificates = createListenerTls(
    {
      mode: "application",
      certificates: [],
      acme: null,
      tailscale: false,
      internal: source === null,
      hosts: ["a.example.com"],
      protocol: { ...protocol, key: JSON.stringify(protocol) },
    },
    { listener, listenHost: "127.0.0.1", tailnetNames: () => [], acme: source, tailscale: null, internalCa: ca, tickets },
  );
  const stats = new TlsStats();
  const terminator = createTlsTerminator({
    listener,
    certificates,
    alpnProtocols: ["h2", "http/1.1"],
    handshakeTimeoutMs,
    onSecure: options.onSecure ?? ((socket) => socket.on("error", () => {}).end("welcome")),
    onPlain: refusePlain,
    stats,
    challenges,
    log,
  });
  const sockets = new Set<Socket>();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    terminator.accept(socket);
  });
  servers.push(server);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { port: (server.address() as AddressInfo).port, stats, open: () => sockets.size };
}

type Outcome = {
  names: string;
  protocol: string | null;
  cipher: string;
  group: string;
  alpn: string | false | null;
  reused: boolean;
  session: Buffer | undefined;
};

/** Shakes hands and waits for the greeting. @throws the client's error, or "closed" */
function shake(port: number, options: ConnectionOptions = {}): Promise<Outcome> {
  const { promise, resolve, reject } = Promise.withResolvers<Outcome>();
  let session: Buffer | undefined;
  const socket = connect({ port, host: "127.0.0.1", servername: "a.example.com", rejectUnauthorized: false, ...options });
  socket.on("session", (each) => (session = each));
  socket.once("data", () => {
    const key = socket.getEphemeralKeyInfo() as { name?: string } | null;
    const names = socket.getPeerCertificate().subjectaltname ?? "";
    const [protocol, cipher] = [socket.getProtocol(), socket.getCipher().standardName];
    // A ticket of TLS 1.3 stands before the greeting.
    resolve({ names, protocol, cipher, group: key?.name ?? "", alpn: socket.alpnProtocol, reused: socket.isSessionReused(), session });
    socket.destroy();
  });
  socket.on("error", reject);
  socket.on("close", () => reject(new Error("closed")));
  return promise;
}

async function reasonOf(attempt: Promise<unknown>): Promise<string> {
  return attempt.then(
    () => "served",
    (error: NodeJS.ErrnoException) => error.code ?? error.message,
  );
}

/** All that the other side sends until it ends the connection, for bytes sent in pieces. */
async function answerTo(port: number, ...pieces: Buffer[]): Promise<Buffer> {
  const socket = connectTcp({ port, host: "127.0.0.1" });
  const received: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => received.push(chunk)).on("error", () => {});
  await once(socket, "connect");
  for (const piece of pieces) {
    socket.write(piece);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  if (!socket.closed) await once(socket, "close");
  return Buffer.concat(received);
}

/** The bytes that Node's own client sends first. */
async function helloOf(options: ConnectionOptions): Promise<Buffer> {
  const sent = Promise.withResolvers<Buffer>();
  const server = createServer((socket) => socket.once("data", (bytes: Buffer) => (sent.resolve(bytes), socket.destroy()))).listen(0, "127.0.0.1");
  await once(server, "listening");
  connect({ port: (server.address() as AddressInfo).port, host: "127.0.0.1", ...options }).on("error", () => {});
  const hello = await sent.promise;
  server.close();
  return hello;
}

const NONE: CertificateSource = { get: () => null, fallback: () => null, list: () => [] };
/** One that knows the names of its certificates, and nobody else. */
const knows = (...names: string[]): CertificateSource => ({ ...NONE, get: (name) => (names.includes(name) ? ca.issue([name], Date.now()) : null) });

test("the hybrid group is agreed on first, whatever order the client prefers, and others are served", async () => {
  const { port } = await serve();
  assert.equal((await shake(port, { ecdhCurve: "X25519MLKEM768" })).protocol, "TLSv1.3");
  const groups = async (ecdhCurve: string): Promise<string> => (await shake(port, { ecdhCurve })).group;
  const alone = await groups("X25519MLKEM768");
  assert.equal(await groups("X25519:X25519MLKEM768"), alone);
  assert.equal(await groups("X25519"), "X25519");
  assert.notEqual(alone, "X25519");
  assert.equal(await groups("P-384"), "secp384r1");
});

test("min_tls_version and cipher suites hold for both versions, and what is older is told so", async () => {
  const old = { minVersion: "TLSv1", maxVersion: "TLSv1.1", ciphers: "DEFAULT@SECLEVEL=0" } as const;
  const both = await serve();
  assert.equal((await shake(both.port, { maxVersion: "TLSv1.2" })).cipher, "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256");
  assert.equal((await shake(both.port, { ciphers: "TLS_AES_256_GCM_SHA384:TLS_AES_128_GCM_SHA256" })).cipher, "TLS_AES_128_GCM_SHA256");
  assert.equal(await reasonOf(shake(both.port, old)), "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION");
  assert.equal(await reasonOf(shake(both.port, { ...old, maxVersion: "TLSv1" })), "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION");
  assert.equal(
    await reasonOf(shake(both.port, { maxVersion: "TLSv1.2", ciphers: "AES128-SHA:ECDHE-ECDSA-AES128-SHA" })),
    "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE",
  );
  assert.deepEqual(Object.fromEntries(both.stats.failures), { protocol_version: 2, no_shared_cipher: 1 });

  const newest = await serve({ protocol: { minVersion: "TLSv1.3" } });
  assert.equal((await shake(newest.port)).protocol, "TLSv1.3");
  assert.equal(await reasonOf(shake(newest.port, { maxVersion: "TLSv1.2" })), "ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION");

  const ciphers = cipherList(["TLS_CHACHA20_POLY1305_SHA256", "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384"]);
  const chosen = await serve({ protocol: { ciphers } });
  assert.equal((await shake(chosen.port)).cipher, "TLS_CHACHA20_POLY1305_SHA256");
  assert.equal((await shake(chosen.port, { maxVersion: "TLSv1.2" })).cipher, "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384");
  const wrong12 = { maxVersion: "TLSv1.2", ciphers: "ECDHE-ECDSA-AES128-GCM-SHA256" } as const;
  assert.equal(await reasonOf(shake(chosen.port, wrong12)), "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE");
  assert.equal(await reasonOf(shake(chosen.port, { ciphers: "TLS_AES_128_GCM_SHA256" })), "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE");
  assert.deepEqual(Object.fromEntries(chosen.stats.failures), { no_shared_cipher: 2 });
  assert.deepEqual(Object.fromEntries(chosen.stats.handshakes), {
    "TLSv1.3\nTLS_CHACHA20_POLY1305_SHA256\nfalse": 1,
    "TLSv1.2\nTLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384\nfalse": 1,
  });
});

test("an unknown server name without a default gets the alert unrecognized_name, no name missing_extension, and known ones are served", async () => {
  const { port, stats, open } = await serve({ source: knows("b.example.com") });
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    assert.equal(await reasonOf(shake(port, { maxVersion })), "ERR_SSL_TLSV1_UNRECOGNIZED_NAME");
    assert.equal(await reasonOf(shake(port, { maxVersion, servername: "" })), "ERR_SSL_TLSV13_ALERT_MISSING_EXTENSION");
    assert.equal((await shake(port, { maxVersion, servername: "B.example.com" })).names, "DNS:b.example.com");
  }
  assert.deepEqual(Object.fromEntries(stats.failures), { unknown_name: 4 });
  const hello = await helloOf({ servername: "a.example.com" });
  assert.deepEqual(await answerTo(port, hello), Buffer.from([0x15, 3, 3, 0, 2, 2, 0x70]));
  // Pieces as of a client whose hello takes more than one packet.
  assert.deepEqual(await answerTo(port, hello.subarray(0, 1), hello.subarray(1, 900), hello.subarray(900)), Buffer.from([0x15, 3, 3, 0, 2, 2, 0x70]));
  await waitFor(() => open() === 0);
});

test("a source that cannot give its certificate ends one handshake, not the gateway", async () => {
  const broken: ServerCertificate = { ...ca.issue(["a.example.com"], Date.now()), key: "no key" };
  const { port, stats } = await serve({ source: { ...NONE, get: () => broken } });
  assert.equal(await reasonOf(shake(port)), "ERR_SSL_TLSV1_ALERT_INTERNAL_ERROR");
  assert.deepEqual(Object.fromEntries(stats.failures), { other: 1 });
});

test("a renewed default is what clients with and without a server name get next; a broken one is refused, and the one before goes on", async () => {
  const first = ca.issue(["first.example.com"], Date.now());
  let current = first;
  const { port } = await serve({ source: { ...NONE, fallback: () => current } });
  const names = async (servername: string): Promise<string> => (await shake(port, { servername })).names;
  assert.deepEqual([await names(""), await names("x.example.com")], ["DNS:first.example.com", "DNS:first.example.com"]);
  current = ca.issue(["second.example.com"], Date.now());
  assert.deepEqual([await names(""), await names("x.example.com")], ["DNS:second.example.com", "DNS:second.example.com"]);
  current = { ...first, key: "no key" };
  assert.equal(await names(""), "DNS:second.example.com");
  assert.equal(logged.filter((line) => line.includes("Cannot use a renewed certificate")).length, 1);
});

test("plain HTTP on a TLS port is told so in plain HTTP; anything else is closed without a word", async () => {
  const { port, stats, open } = await serve();
  // It goes on sending for a while, as the upload of a large file does, and reads only then.
  const client = connectTcp({ port, host: "127.0.0.1", allowHalfOpen: true });
  client.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
  for (let piece = 0; piece < 10; piece += 1) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    client.write("x".repeat(100_000));
  }
  client.end();
  let answer = "";
  for await (const chunk of client) answer += String(chunk);
  // Well before the time that is given to those who do not close.
  await waitFor(() => open() === 0, { timeoutMs: 500 });
  assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n.*\r\n\r\nThis port takes HTTPS: use https:\/\/ instead of http:\/\/\n$/s);
  assert.deepEqual(await answerTo(port, Buffer.from([0, 1, 2, 3])), Buffer.alloc(0));
  assert.deepEqual(Object.fromEntries(stats.failures), { http_request: 1, other: 1 });
  await waitFor(() => open() === 0);
});

test("a ClientHello is answered however it is cut into pieces", async () => {
  const { port, stats } = await serve({ handshakeTimeoutMs: 200 });
  const hello = await helloOf({ servername: "a.example.com" });
  for (const pieces of [[hello], [hello.subarray(0, 1), hello.subarray(1)], [hello.subarray(0, 5), hello.subarray(5, 700), hello.subarray(700)]]) {
    const answer = await answerTo(port, ...pieces);
    // A handshake record with a ServerHello.
    assert.deepEqual([answer[0], answer[5]], [22, 2]);
  }
  assert.deepEqual(Object.fromEntries(stats.failures), { timeout: 3 });
});

test("clients that are silent, trickle, or leave are counted by their reason and leave nothing behind", async () => {
  const { port, stats, open } = await serve({ source: NONE, handshakeTimeoutMs: 200 });
  assert.deepEqual(await answerTo(port), Buffer.alloc(0));
  // The header of a hello, whose rest never comes: the look at it has a deadline too.
  assert.deepEqual(await answerTo(port, Buffer.from([22, 3, 1, 2, 0])), Buffer.alloc(0));
  const plain = await serve({ handshakeTimeoutMs: 200 });
  assert.deepEqual(await answerTo(plain.port, Buffer.from([22, 3, 1, 2, 0])), Buffer.alloc(0));
  const leaver = connectTcp({ port, host: "127.0.0.1" }).on("error", () => {});
  await once(leaver, "connect");
  leaver.resetAndDestroy();
  await waitFor(() => stats.failures.get("aborted") === 1);
  assert.deepEqual(Object.fromEntries(stats.failures), { timeout: 2, aborted: 1 });
  assert.deepEqual(Object.fromEntries(plain.stats.failures), { timeout: 1 });
  await waitFor(() => open() + plain.open() === 0);
});

test("a client that resets its connection just before it gets session tickets is gone, and leaves nothing behind", async () => {
  let raw: Socket | null = null;
  let reason: string | undefined = "";
  const { port, open } = await serve({
    onSecure: (socket) => {
      raw?.resetAndDestroy();
      // As a relay does that passes half-closed connections on.
      socket.allowHalfOpen = true;
      socket.on("error", (error: NodeJS.ErrnoException) => (reason = error.code)).on("end", () => socket.end("goodbye"));
      socket.resume();
    },
  });
  raw = connectTcp({ port, host: "127.0.0.1" }).on("error", () => {});
  const secure = connect({ socket: raw, servername: "a.example.com", rejectUnauthorized: false }).on("error", () => {});
  secure.write("hello");
  await waitFor(() => reason !== "" && open() === 0, { what: () => `the end of the connection, with an error: ${reason}` });
  assert.match(reason ?? "", /EPIPE|ECONNRESET/);
});

test("a CA that validates by tls-alpn-01 gets the challenge's certificate, and nobody else does", async () => {
  const challenges = new AcmeChallenges();
  const { port, stats, open } = await serve({ challenges, protocol: { clientAuth: { mode: "require", ca: createTestCa().cert } } });
  const ofChallenge = ca.issue(["challenge.example.com"], Date.now());
  const validate = (servername: string, ALPNProtocols: string[]): Promise<{ names: string; alpn: string | false | null }> => {
    const { promise, resolve, reject } = Promise.withResolvers<{ names: string; alpn: string | false | null }>();
    const socket = connect(
      { socket: connectTcp({ port, host: "127.0.0.1", allowHalfOpen: true }), servername, ALPNProtocols, rejectUnauthorized: false },
      () => {
        const seen = { names: socket.getPeerCertificate().subjectaltname ?? "", alpn: socket.alpnProtocol };
        // It waits for the gateway to close, for as long as it takes.
        socket.on("end", () => resolve(seen)).resume();
      },
    );
    socket.on("error", reject);
    return promise;
  };
  const hide = challenges.showTlsAlpn("a.example.com", ofChallenge.cert, ofChallenge.key);
  assert.deepEqual(await validate("A.example.com", ["acme-tls/1"]), { names: "DNS:challenge.example.com", alpn: "acme-tls/1" });
  assert.equal(stats.handshakes.size, 0);
  await waitFor(() => open() === 0);
  // Another name, or a client that speaks other protocols too, is an ordinary client: here one without the certificate that it needs.
  assert.equal(await reasonOf(validate("b.example.com", ["acme-tls/1"])), "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL");
  assert.equal(await reasonOf(shake(port, { ALPNProtocols: ["h2", "acme-tls/1"] })), "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED");
  hide();
  assert.equal(await reasonOf(validate("a.example.com", ["acme-tls/1"])), "ERR_SSL_TLSV1_ALERT_NO_APPLICATION_PROTOCOL");
  await waitFor(() => open() === 0);
});

test("'require' lets in clients of the CA alone, 'request' everybody", async () => {
  const [trusted, foreign] = [createTestCa("Trusted"), createTestCa("Foreign")];
  const good = trusted.issue("/CN=good");
  const bad: Record<string, ConnectionOptions> = {
    foreign: foreign.issue("/CN=foreign"),
    expired: trusted.issue("/CN=expired", { notBefore: new Date(Date.now() - 7_200_000), notAfter: new Date(Date.now() - 3_600_000) }),
    "for servers": trusted.issue("/CN=server", { usage: "serverAuth" }),
  };
  const require = await serve({ protocol: { clientAuth: { mode: "require", ca: trusted.cert } } });
  const request = await serve({ protocol: { clientAuth: { mode: "request", ca: trusted.cert } } });
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    for (const servername of ["a.example.com", ""]) {
      const missing = maxVersion === "TLSv1.3" ? "ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED" : "ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE";
      assert.equal((await shake(require.port, { ...good, maxVersion, servername })).protocol, maxVersion);
      assert.equal(await reasonOf(shake(require.port, { maxVersion, servername })), missing);
      for (const [what, pair] of Object.entries(bad)) assert.notEqual(await reasonOf(shake(require.port, { ...pair, maxVersion, servername })), "served", what);
      for (const pair of [{}, good, ...Object.values(bad)]) assert.equal((await shake(request.port, { ...pair, maxVersion, servername })).protocol, maxVersion);
    }
  }
  assert.deepEqual(Object.fromEntries(require.stats.failures), { client_certificate: 16 });
});

test("a session is resumed on its own listener, by the same rules alone", async () => {
  const tickets = await openTicketKeys(join(root, "sessions"), log);
  const clientCa = createTestCa("Clients");
  const good = clientCa.issue("/CN=good");
  const open = await serve({ tickets });
  const renewed = await serve({ tickets });
  const others = {
    "another listener": await serve({ tickets, listener: "other" }),
    "other rules": await serve({ tickets, protocol: { minVersion: "TLSv1.2", ciphers: cipherList() } }),
    "other keys": await serve({ tickets: null }),
    "client certificates asked for": await serve({ tickets, protocol: { clientAuth: { mode: "request", ca: clientCa.cert } } }),
  };
  const require = await serve({ tickets, protocol: { clientAuth: { mode: "require", ca: clientCa.cert } } });
  for (const maxVersion of ["TLSv1.2", "TLSv1.3"] as const) {
    const fresh = async (): Promise<ConnectionOptions> => ({ maxVersion, session: (await shake(open.port, { maxVersion })).session });
    assert.equal((await shake(open.port, await fresh())).reused, true);
    // As after a restart or a reload that changes nothing in what is spoken.
    assert.equal((await shake(renewed.port, await fresh())).reused, true);
    for (const [what, { port }] of Object.entries(others)) assert.equal((await shake(port, await fresh())).reused, false, `${maxVersion}, ${what}`);
    assert.notEqual(await reasonOf(shake(require.port, await fresh())), "served");
    // Whoever showed a certificate shows it again: in the meantime it may have expired, or its CA was taken away.
    const first = await shake(require.port, { ...good, maxVersion });
    const again = { maxVersion, ...(first.session === undefined ? {} : { session: first.session }) };
    assert.notEqual(await reasonOf(shake(require.port, again)), "served");
    assert.equal((await shake(require.port, { ...good, ...again })).reused, false);
  }
  assert.equal(open.stats.handshakes.get("TLSv1.3\nTLS_AES_128_GCM_SHA256\ntrue"), 1);
});

test("new ticket keys are taken by the next handshake, also beside a renewed certificate", async () => {
  let now = Date.now();
  const tickets = await openTicketKeys(join(root, "rotation"), log, () => now);
  await tickets.settled();
  let current = ca.issue(["first.example.com"], now);
  const { port } = await serve({ tickets, source: { ...NONE, fallback: () => current } });
  const { session } = await shake(port);
  current = ca.issue(["second.example.com"], now);
  assert.equal((await shake(port, { session })).reused, true);
  now += 25 * 3_600_000;
  void tickets.current;
  await tickets.settled();
  const after = await shake(port, { session });
  assert.equal(after.reused, false);
  assert.equal((await shake(port, { session: after.session })).reused, true);
});
