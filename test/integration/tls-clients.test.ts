// The TLS clients that people use against every kind of listener that ends TLS: who gets in, with which certificate, version and protocol.
import assert from "node:assert/strict";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { freePort } from "../components/free-port.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { createTestCa } from "../components/pki.ts";
import { findProgram, skipWithout } from "../components/require.ts";
import { curl, node, openssl, python, runProgram, tlsClientsMissing, type TlsAnswer, type TlsCase } from "../components/tls-clients.ts";
import { waitFor } from "../components/wait.ts";

const LISTENERS = ["require", "request", "auto", "raw"] as const;
const VERSIONS = ["1.2", "1.3"] as const;
// Processes of clients at a time.
const AT_ONCE = 4;
const RENEGOTIATING_CLIENT = new URL("../components/renegotiating-client.py", import.meta.url).pathname;

const servers = createTestCa("Server CA");
const clients = createTestCa("Client CA");
let dir: string;
let origin: Origin;
let gateway: Gateway;
let base: Pick<TlsCase, "ca" | "cert" | "key">;

before(async () => {
  dir = await mkdtemp(join(tmpdir(), "sidegate-clients-"));
  const first = servers.issue("/CN=first", { san: "DNS:localhost,IP:127.0.0.1" });
  const named = servers.issue("/CN=named", { san: "DNS:named.example.com" });
  const pairs = { trader: clients.issue("/CN=trader"), forged: createTestCa("Forger").issue("/CN=admin") };
  for (const [name, { cert, key }] of Object.entries(pairs)) {
    await writeFile(join(dir, `${name}.crt`), cert);
    await writeFile(join(dir, `${name}.key`), key);
  }
  await writeFile(join(dir, "ca.crt"), servers.cert);
  base = { ca: join(dir, "ca.crt"), cert: null, key: null };
  origin = await startOrigin((req, res) => void res.end(`user ${String(req.headers["x-forwarded-user"] ?? "nobody")}\n`));
  const acmePort = await freePort();
  const files = "cert_file: first.crt, key_file: first.key, certificates: [{ cert_file: named.crt, key_file: named.key }]";
  gateway = await startGateway({
    yaml: `state: { dir: ${dir}/state }
listeners:
  require: { protocol: http, listen: "127.0.0.1:0", tls: { ${files}, client_auth: require, ca_file: clients.crt } }
  request: { protocol: http, listen: "127.0.0.1:0", tls: { ${files}, client_auth: request, ca_file: clients.crt } }
  auto: { protocol: http, listen: "127.0.0.1:0", tls: { mode: auto, ${files}, client_auth: request, ca_file: clients.crt } }
  raw: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${origin.port}", tls: { ${files}, client_auth: require, ca_file: clients.crt } }
  open: { protocol: http, listen: "127.0.0.1:0", tls: { ${files} } }
  waiting: { protocol: http, listen: "127.0.0.1:${acmePort}", tls: { acme: { directory: "https://127.0.0.1:9/none", domains: [a.example.com], https_port: ${acmePort} } } }
routes:
  - { path: /, listeners: [open, waiting], upstream: "${origin.url}", auth: none }
  - { path: /admin, upstream: "${origin.url}", auth: [{ client_certificate: { subjects: [admin] } }] }
  - { path: /, upstream: "${origin.url}", auth: [{ client_certificate: {} }], identity_headers: true }
`,
    files: { "first.crt": first.cert, "first.key": first.key, "named.crt": named.cert, "named.key": named.key, "clients.crt": clients.cert },
    expectErrors: true,
  });
});
after(async () => {
  await gateway[Symbol.asyncDispose]();
  await origin[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

/** Results in the order of the items, some at a time. */
async function eachOf<T, R>(items: readonly T[], work: (item: T) => Promise<R>): Promise<R[]> {
  const results: R[] = [];
  const rest = items.entries();
  const workRest = async (): Promise<void> => {
    for (const [i, item] of rest) results[i] = await work(item);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, workRest));
  return results;
}

const refusals = (): number => gateway.log.filter(({ msg, reason }) => msg === "TLS handshake failed" && reason === "client_certificate").length;

test("openssl, curl, Python and Node.js get in by TLS 1.2 and 1.3, with and without server name and client certificate, or are refused", async (t) => {
  if (skipWithout(t, tlsClientsMissing())) return;
  const cases = LISTENERS.flatMap((listener) =>
    VERSIONS.flatMap((version) =>
      [null, "named.example.com"].flatMap((name) =>
        [false, true].map((shows) => {
          const pair = shows ? { cert: join(dir, "trader.crt"), key: join(dir, "trader.key") } : {};
          return { listener, shows, tls: { ...base, port: gateway.port(listener), version, name, ...pair } satisfies TlsCase };
        }),
      ),
    ),
  );
  const before = refusals();
  const all = cases.map(({ tls }) => tls);
  const [ofPython, ...others] = await Promise.all([python(all), eachOf(all, openssl), eachOf(all, curl), eachOf(all, node)]);
  for (const [client, answers] of Object.entries({ python: ofPython, openssl: others[0], curl: others[1], node: others[2] })) {
    const seen: string[] = answers.map(({ version, subject, status, body }) =>
      status === undefined ? "refused" : `${version} ${subject} ${status} ${status === 200 ? body?.trim() : ""}`,
    );
    const expected = cases.map(({ listener, shows, tls }) => {
      if (!shows && (listener === "require" || listener === "raw")) return "refused";
      const status = shows ? `200 user ${listener === "raw" ? "nobody" : "trader"}` : "403 ";
      return `TLSv${tls.version} ${tls.name === null ? "first" : "named"} ${status}`;
    });
    assert.deepEqual(seen, expected, `${client}: ${answers.find(({ error }) => error !== undefined)?.error}`);
  }
  // Each was refused for its certificate, and for nothing else.
  const missing = cases.filter(({ listener, shows }) => !shows && (listener === "require" || listener === "raw")).length;
  await waitFor(() => refusals() - before === missing * 4, { what: () => `${missing * 4} refusals, there were ${refusals() - before}` });
});

test("h2 and http/1.1 are agreed on as each client asks, and a client of other protocols is told so", async (t) => {
  if (skipWithout(t, tlsClientsMissing())) return;
  const curlHasHttp2 = / HTTP2\b/.test((await runProgram("curl", ["--version"])).stdout);
  for (const listener of ["open", "auto"]) {
    const tls = (version: "1.2" | "1.3", ...alpn: string[]): TlsCase => ({ ...base, port: gateway.port(listener), version, name: null, alpn });
    for (const version of VERSIONS) {
      assert.equal((await openssl(tls(version, "h2", "http/1.1"))).alpn, "h2");
      // The gateway's preference counts.
      assert.equal((await openssl(tls(version, "http/1.1", "h2"))).alpn, "h2");
      assert.equal((await openssl(tls(version, "http/1.1"))).alpn, "http/1.1");
      assert.equal((await openssl(tls(version))).alpn, null);
      assert.match((await openssl(tls(version, "spdy/3"))).text, /alert no application protocol/);
      const [old] = await python([tls(version, "spdy/3", "http/1.1")]);
      assert.equal(old?.alpn, "http/1.1");
      const status = listener === "open" ? 200 : 403;
      assert.deepEqual([(await curl(tls(version))).alpn, (await curl(tls(version))).status], ["http/1.1", status]);
      if (!curlHasHttp2) continue;
      const { alpn, status: ofHttp2 } = await curl(tls(version, "h2"));
      assert.deepEqual([alpn, ofHttp2], ["h2", status]);
    }
  }
  // What it carries is the upstream's business: nothing is agreed on.
  const pair = { cert: join(dir, "trader.crt"), key: join(dir, "trader.key") };
  const raw = await openssl({ ...base, ...pair, port: gateway.port("raw"), version: "1.3", name: null, alpn: ["h2", "http/1.1"] });
  assert.deepEqual([raw.alpn, raw.status], [null, 200]);
});

test("a name that no certificate is for is told so when there is no default, and gets the default otherwise", async (t) => {
  if (skipWithout(t, tlsClientsMissing())) return;
  for (const version of VERSIONS) {
    const unknown: TlsCase = { ...base, port: gateway.port("waiting"), version, name: "unknown.example.com" };
    assert.match((await openssl(unknown)).text, /unrecognized name/);
    assert.match((await curl(unknown)).error ?? "", /unrecognized name/);
    assert.match((await python([unknown]))[0]?.error ?? "", /unrecognized[_ ]name/i);
    assert.match((await node(unknown)).error ?? "", /unrecognized[_ ]name/i);
    // The client sees the certificate of another, and refuses it.
    const { subject, error } = await openssl({ ...unknown, port: gateway.port("open") });
    assert.equal(subject, "first");
    assert.match(error ?? "", /hostname mismatch/i);
  }
});

test("TLS 1.1 is refused by the alert protocol_version", async (t) => {
  if (skipWithout(t, tlsClientsMissing())) return;
  for (const listener of LISTENERS) {
    const old: TlsCase = { ...base, port: gateway.port(listener), version: "1.1", name: null };
    const said: TlsAnswer[] = [await openssl(old), await curl(old), ...(await python([old])), await node(old)];
    for (const { status, error } of said) {
      assert.equal(status, undefined);
      assert.match(error ?? "", /alert[_ ]protocol[_ ]version/i);
    }
  }
});

test("nobody becomes somebody else by renegotiating, which is refused", async (t) => {
  if (skipWithout(t, findProgram("python3") === null ? "python3 is not installed" : null)) return;
  const file = (name: string): string => join(dir, name);
  const renegotiate = async (listener: string, first: string, second: string): Promise<string> => {
    const pair = (name: string): string[] => (name === "-" ? ["-", "-"] : [file(`${name}.crt`), file(`${name}.key`)]);
    const args = [RENEGOTIATING_CLIENT, String(gateway.port(listener)), "/admin", ...pair(first), ...pair(second)];
    const { stdout, stderr } = await runProgram("python3", args);
    assert.equal(stderr, "");
    return stdout.trim();
  };
  for (const listener of ["request", "auto", "require", "raw"]) {
    // A certificate of the CA first, then one of the same client's own making that says 'admin'.
    assert.equal(await renegotiate(listener, "trader", "forged"), "renegotiation refused", listener);
    assert.equal(await renegotiate(listener, "trader", "trader"), "renegotiation refused", listener);
  }
  assert.equal(await renegotiate("request", "-", "trader"), "renegotiation refused");
  assert.equal(await renegotiate("open", "-", "trader"), "renegotiation refused");
});

test("openssl takes up its sessions of TLS 1.2 and 1.3 again after a restart of the gateway", async (t) => {
  if (skipWithout(t, tlsClientsMissing())) return;
  const yaml = `state: { dir: ${dir}/resumption }
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
  raw: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${origin.port}", tls: { internal: true } }
routes:
  - { upstream: "${origin.url}", auth: none }
`;
  const sessions = ["web", "raw"].flatMap((listener) => VERSIONS.map((version) => ({ listener, version, file: join(dir, `${listener}-${version}.session`) })));
  const ask = async (running: Gateway, option: "-sess_out" | "-sess_in"): Promise<string[]> => {
    const ca = join(running.dir, "ca.crt");
    await writeFile(ca, await readFile(`${dir}/resumption/internal-ca/ca.crt`));
    return eachOf(sessions, async ({ listener, version, file }) => {
      const { text, status } = await openssl({ ...base, ca, port: running.port(listener), version, name: "localhost" }, [option, file]);
      return `${/^(New|Reused), TLSv[\d.]+/m.exec(text)?.[0]} ${status}`;
    });
  };
  const expected = (how: string): string[] => sessions.map(({ version }) => `${how}, TLSv${version} 200`);
  {
    await using running = await startGateway({ yaml });
    assert.deepEqual(await ask(running, "-sess_out"), expected("New"));
    await waitFor(() => readFile(`${dir}/resumption/tls/ticket-keys.json`));
  }
  await using running = await startGateway({ yaml });
  assert.deepEqual(await ask(running, "-sess_in"), expected("Reused"));
});
