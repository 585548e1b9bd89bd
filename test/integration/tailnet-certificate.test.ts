// The certificate that tailscaled gives: through its LocalAPI to real handshakes, renewed, and told about when it is not.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer as createHttpServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer, type AddressInfo, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createHttpsServer, request as httpsRequest } from "node:https";
import { createInterface } from "node:readline";
import { test, type TestContext } from "node:test";
import { connect } from "node:tls";
import { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";
import { openInternalCa } from "../../src/certificates/internal-ca.ts";
import { loadConfig } from "../../src/config/load.ts";
import { GatewayCertificates } from "../../src/gateway-certificates.ts";
import { TailscaleCertificates } from "../../src/certificates/tailscale.ts";
import { createTlsTerminator, refusePlain } from "../../src/listeners/tls.ts";
import { buildPlan } from "../../src/plan/build.ts";
import { openLocalApi } from "../../src/tailscale/local-api.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { TlsStats } from "../../src/telemetry/tls-stats.ts";
import { missingPebble, startPebble, type Pebble } from "../components/pebble.ts";
import { findProgram, skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const DAY_MS = 86_400_000;
const NODE = "ib-gateway.tail1234.ts.net";

type Pair = { readonly cert: string; readonly key: string };
type Kept = Pair & { readonly endMs: number };

async function listen(t: TestContext, server: Server, where: string | number): Promise<Server> {
  await new Promise<void>((resolve) => (typeof where === "string" ? server.listen(where, resolve) : server.listen(where, "127.0.0.1", resolve)));
  t.after(() => void server.close());
  return server;
}

/** As tailscaled gives certificates: the kept one, or a new one where that is valid for too short a time (feature/acme/cert.go). */
async function startLocalApi(t: TestContext, socket: string, order: () => Kept) {
  const state = { kept: null as Kept | null, asked: 0, refusal: "" };
  const answer = (request: IncomingMessage, response: ServerResponse): void => {
    const url = new URL(request.url ?? "", "http://local-tailscaled.sock");
    if (request.headers.host !== "local-tailscaled.sock" || request.headers.origin !== undefined) return void response.writeHead(403).end();
    state.asked += 1;
    if (url.pathname !== `/localapi/v0/cert/${NODE}`) return void response.writeHead(500).end("invalid domain\n");
    const text = url.searchParams.get("min_validity") ?? "";
    // Go's durations: 2592000000ms.
    const minValidityMs = text === "" ? 0 : Number(/^(\d+)ms$/.exec(text)?.[1]);
    if (state.kept === null || state.kept.endMs - Date.now() < minValidityMs) {
      if (state.refusal !== "") return void response.writeHead(500).end(`${state.refusal}\n`);
      state.kept = order();
    }
    response.writeHead(200, { "content-type": "text/plain" }).end(state.kept.key + state.kept.cert);
  };
  const server = createHttpServer(answer);
  await listen(t, server, socket);
  t.after(() => server.closeAllConnections());
  return state;
}

async function setUp(t: TestContext) {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-tailnet-certificate-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const ca = await openInternalCa(join(dir, "lets-encrypt"));
  const issue = (ageDays: number): Kept => {
    const { cert, key } = ca.issue([NODE], Date.now() - ageDays * DAY_MS);
    return { cert, key, endMs: Date.now() + (90 - ageDays) * DAY_MS };
  };
  const socket = join(dir, "s.sock");
  const daemon = await startLocalApi(t, socket, () => issue(0));
  const api = openLocalApi(socket);
  t.after(() => api.close());

  const alerts: { type: string; data: { source: string; names: string[] } }[] = [];
  const receiver = createHttpServer((request, response) => {
    let body = "";
    request.setEncoding("utf8").on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      alerts.push(JSON.parse(body) as (typeof alerts)[number]);
      response.writeHead(204).end();
    });
  });
  await listen(t, receiver, 0);
  t.after(() => receiver.closeAllConnections());

  const lines: Record<string, unknown>[] = [];
  const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(JSON.parse(text)) });
  const tailnet = { runs: false, domains: [] as readonly string[], calls: 0 };
  const metrics = new Metrics({
    certificates: () => certificates.list().map(({ source, names, notAfter }) => ({ source, name: names[0] ?? "", notAfter })),
  });
  const certificates = new GatewayCertificates({
    log,
    pid: process.pid,
    metrics: metrics.certificates,
    tailnet: {
      runs: () => tailnet.runs,
      domains: () => tailnet.domains,
      names: () => [],
      certificate(domain, minValidityMs) {
        // The gateway's tailnet is an object with methods, too.
        assert.ok(this.runs());
        tailnet.calls += 1;
        return api.certificate(domain, minValidityMs);
      },
    },
  });
  t.after(() => certificates.close());

  const file = join(dir, "sidegate.yaml");
  /** Serves this configuration: a port for each listener. */
  const load = async (tls: string, listeners: number): Promise<number[]> => {
    const text = Array.from({ length: listeners }, (_, i) => `  l${i}: { protocol: http, listen: "tailnet:${20_000 + i}", tls: ${tls} }\n`).join("");
    writeFileSync(
      file,
      `version: 1\nstate: { dir: ${dir}/state }\nalerts: { webhook: { url: "http://127.0.0.1:${(receiver.address() as AddressInfo).port}/" } }\nlisteners:\n${text}routes:\n  - { path: /x, upstream: "http://127.0.0.1:1", auth: none }\n`,
    );
    const loaded = await loadConfig(file, {});
    assert.ok(loaded.ok, JSON.stringify(loaded));
    const prepared = await certificates.prepare(buildPlan(loaded.config, loaded.files));
    prepared.commit();
    const ports: number[] = [];
    for (const [listener, own] of prepared.tls) {
      const terminator = createTlsTerminator({
        listener,
        certificates: own,
        alpnProtocols: ["http/1.1"],
        handshakeTimeoutMs: 10_000,
        onSecure: (secure) => secure.on("error", () => {}).end(),
        onPlain: refusePlain,
        stats: new TlsStats(),
        challenges: new AcmeChallenges(),
        log,
      });
      const server = await listen(
        t,
        createServer({ allowHalfOpen: true }, (socket_) => terminator.accept(socket_)),
        0,
      );
      ports.push((server.address() as AddressInfo).port);
    }
    return ports;
  };
  /** The certificate that a client gets, which trusts the CA; it checks the whole name when that is what it asks for. */
  const handshake = (port: number, servername: string): Promise<string> => {
    const { promise, resolve } = Promise.withResolvers<string>();
    const check = servername === NODE ? {} : { checkServerIdentity: () => undefined };
    const client = connect({ host: "127.0.0.1", port, servername, ca: ca.cert, ...check }, () => {
      resolve(client.getPeerX509Certificate()?.toString() ?? "none");
      client.destroy();
    });
    client.on("error", (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
    return promise;
  };
  const said = (event: string): Record<string, unknown>[] => lines.filter((line) => line["event"] === event);
  return { daemon, tailnet, certificates, metrics, alerts, issue, load, handshake, said };
}

const TLS = "{ mode: application, tailscale: true }";

test("ten listeners share the certificate of the node's name, got as soon as the node has one; other names get it, too", async (t) => {
  const { daemon, tailnet, certificates, load, handshake } = await setUp(t);
  const ports = await load(TLS, 10);
  const [port = 0] = ports;
  // Fail closed: no other certificate takes its place.
  assert.equal(await handshake(port, NODE), "ERR_SSL_TLSV1_UNRECOGNIZED_NAME");
  assert.deepEqual([certificates.list()[0]?.error, daemon.asked], ["the node is not on the tailnet", 0]);
  Object.assign(tailnet, { runs: true, domains: [NODE] });
  certificates.tailnetChanged();
  assert.equal(tailnet.calls, 1);
  await waitFor(async () => (await handshake(port, NODE)) === daemon.kept?.cert);
  for (const each of ports) {
    for (const name of [NODE, "ib-gateway", ""]) assert.equal(await handshake(each, name), daemon.kept?.cert, `${each} '${name}'`);
  }
  assert.equal(daemon.asked, 1);
  const own = certificates.list();
  assert.equal(own.length, 10);
  assert.deepEqual([own[9]?.source, own[9]?.names, own[9]?.error], ["tailscale", [NODE], ""]);
  assert.match(own[0]?.issuer ?? "", /^CN=Sidegate/);

  // Over a reload it stays, without a question; a listener that does not want it does not get it.
  const [again = 0] = await load(TLS, 1);
  assert.equal(await handshake(again, NODE), daemon.kept?.cert);
  const [internal = 0] = await load("{ mode: application, internal: true }", 1);
  assert.notEqual(await handshake(internal, NODE), daemon.kept?.cert);
  assert.deepEqual(
    certificates.list().map(({ source }) => source),
    ["internal"],
  );
  assert.equal(daemon.asked, 1);
});

test("an old one is renewed at once; while that fails it serves, and everybody is told, until a new one comes", async (t) => {
  const { daemon, tailnet, certificates, metrics, alerts, issue, load, handshake, said } = await setUp(t);
  const old = issue(80);
  daemon.kept = old;
  daemon.refusal = "your Tailscale account does not support getting TLS certs";
  Object.assign(tailnet, { runs: true, domains: [NODE] });
  const [port = 0] = await load(TLS, 2);
  await waitFor(() => said("certificate_renewal_failed").length > 0, { timeoutMs: 30_000 });
  assert.equal(await handshake(port, NODE), old.cert);
  assert.match(
    String(said("certificate_renewal_failed")[0]?.["msg"]),
    /switch on MagicDNS and then HTTPS Certificates .*; the present one serves and is valid until /,
  );
  const [info] = certificates.list();
  assert.match(info?.error ?? "", /^the tailnet gives no HTTPS certificates/);
  await waitFor(() => alerts.length > 0, { timeoutMs: 30_000 });
  assert.deepEqual([alerts[0]?.type, alerts[0]?.data.source, alerts[0]?.data.names], ["certificate.renewal_failed", "tailscale", [NODE]]);
  const text = await metrics.text();
  assert.match(text, /sidegate_certificate_renewals_total\{result="failure"\} 1\n/);
  assert.match(text, new RegExp(`sidegate_certificate_expiry_seconds\\{source="tailscale",name="${NODE}"\\} 8\\d{5}`));

  assert.deepEqual((await certificates.renew(NODE)).ok, false);
  daemon.refusal = "";
  const renewal = await certificates.renew(NODE);
  assert.ok(renewal.ok, renewal.message);
  assert.notEqual(daemon.kept, old);
  assert.equal(await handshake(port, NODE), daemon.kept.cert);
  assert.equal(certificates.list()[0]?.error, "");
  await waitFor(() => alerts.some(({ type }) => type === "certificate.renewed"), { timeoutMs: 30_000 });
  // A person may have a new one at any time.
  const before: Pair = daemon.kept;
  assert.ok((await certificates.renew(NODE)).ok);
  assert.notEqual(daemon.kept, before);
  assert.equal(await handshake(port, ""), daemon.kept.cert);
});

const [control, tailscaled] = ["tailnet-control", "tailscaled"].map(findProgram);
const missing = control === null || tailscaled === null ? "tailnet-control or tailscaled is not there" : missingPebble();

/** Pebble as Let's Encrypt answers: tailscaled's library wants the order's address with the answer to its end, too. */
async function startFrontOfPebble(t: TestContext, pebble: Pebble, dir: string): Promise<{ directoryUrl: string; caFile: string }> {
  const authority = await openInternalCa(dir);
  const { cert, key } = authority.issue(["127.0.0.1"], Date.now());
  const server = createHttpsServer({ cert, key }, (request, response) => {
    const { method = "GET", url: path = "/", headers } = request;
    // The CA names its addresses by the Host that it was asked at.
    const call = httpsRequest(new URL(path, pebble.directoryUrl), { method, headers, ca: pebble.ca }, (answer) => {
      const order = path.replace("/finalize-order/", "/my-order/");
      response.writeHead(answer.statusCode ?? 500, { ...answer.headers, ...(order === path ? {} : { location: `https://${headers.host}${order}` }) });
      answer.pipe(response);
    });
    call.on("error", () => response.destroy());
    request.pipe(call);
  });
  await listen(t, server, 0);
  t.after(() => server.closeAllConnections());
  return { directoryUrl: `https://127.0.0.1:${(server.address() as AddressInfo).port}/dir`, caFile: authority.certFile };
}

test("the real tailscaled orders one from a CA, gives it again after our restart, and renews it when it is asked for more validity than it has", async (t) => {
  if (skipWithout(t, missing)) return;
  const patient = { timeoutMs: 120_000 };
  // The test's control server sets no DNS records: the CA takes them as seen. tailscaled proves each time what is proven already.
  await using pebble = await startPebble({ validitySeconds: 60, env: { PEBBLE_VA_ALWAYS_VALID: "1", PEBBLE_AUTHZREUSE: "0", PEBBLE_WFE_NONCEREJECT: "0" } });
  const net = spawn(control ?? "", [], { stdio: ["pipe", "pipe", "ignore"] });
  t.after(() => net.kill("SIGKILL"));
  const [line] = (await once(createInterface(net.stdout), "line")) as [string];
  const { control: url } = JSON.parse(line) as { control: string };
  const dir = mkdtempSync(join(tmpdir(), "sidegate-tailscaled-"));
  const socket = join(dir, "s.sock");
  const { directoryUrl, caFile } = await startFrontOfPebble(t, pebble, join(dir, "front"));
  const daemon = spawn(tailscaled ?? "", ["--tun=userspace-networking", `--statedir=${dir}`, `--socket=${socket}`, "--port=0"], {
    stdio: "ignore",
    env: {
      ...process.env,
      TS_NO_LOGS_NO_SUPPORT: "true",
      TS_PANIC_IF_HIT_MAIN_CONTROL: "1",
      TS_DISABLE_PORTMAPPER: "1",
      TS_ASSUME_NETWORK_UP_FOR_TEST: "1",
      TS_NETCHECK_GENERATE_204_URL: `${url}/generate_204`,
      TS_DEBUG_ACME_DIRECTORY_URL: directoryUrl,
      SSL_CERT_FILE: caFile,
    },
  });
  const api = openLocalApi(socket, { timeoutMs: 30_000 });
  t.after(async () => {
    await api.close();
    daemon.kill("SIGKILL");
    if (daemon.exitCode === null && daemon.signalCode === null) await once(daemon, "exit");
    rmSync(dir, { recursive: true, force: true, maxRetries: 10 });
  });
  await waitFor(async () => (await api.status()).state === "NeedsLogin", patient);
  await api.start("tskey-auth-any", { ControlURL: url, WantRunning: true, Hostname: "ib-gateway" });
  await api.loginInteractive();
  const { certDomains } = await waitFor(async () => {
    const status = await api.status();
    return status.state === "Running" && status.certDomains.length > 0 ? status : null;
  }, patient);
  assert.deepEqual(certDomains, ["ib-gateway.tail.test"]);
  const [name = ""] = certDomains;

  const lines: Record<string, unknown>[] = [];
  const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(JSON.parse(text)) });
  const open = (domains: readonly string[]): TailscaleCertificates => {
    const certificates = new TailscaleCertificates({
      tailnet: { runs: () => true, domains: () => domains, certificate: (domain, minValidityMs) => api.certificate(domain, minValidityMs) },
      log,
      onEvent: () => {},
    });
    t.after(() => certificates.close());
    certificates.want(true);
    return certificates;
  };
  const certificates = open(certDomains);
  const first = await waitFor(() => certificates.source.get(name), { ...patient, what: () => `the certificate:\n${JSON.stringify(lines)}` });
  assert.match(first.info.issuer, /^CN=Pebble/);
  const restarted = open(certDomains);
  assert.equal((await waitFor(() => restarted.source.get(name), patient)).cert, first.cert);
  restarted.close();
  const second = await waitFor(() => {
    const served = certificates.source.get(name);
    return served?.cert === first.cert ? null : served;
  }, patient);
  // Renewed before its end, which `renew` does at any time.
  assert.ok((second.info.notBefore?.getTime() ?? 0) < (first.info.notAfter?.getTime() ?? 0));
  const renewal = await certificates.renew(name);
  assert.ok(renewal.ok, renewal.message);
  assert.notEqual(certificates.source.get(name)?.cert, second.cert);

  const stranger = open(["other.tail.test"]);
  const error = await waitFor(() => stranger.source.list()[0]?.error, patient);
  assert.equal(error, "it is not, or no longer, the node's name in the tailnet");
});
