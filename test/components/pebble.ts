// Pebble, the test CA of Let's Encrypt, with its DNS server, which answers every name with 127.0.0.1.
import { spawn, type ChildProcess } from "node:child_process";
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { Resolver } from "node:dns/promises";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openInternalCa } from "../../src/certificates/internal-ca.ts";
import { findProgram } from "./require.ts";
import { waitFor } from "./wait.ts";

export type PebbleOptions = {
  /** Where the CA looks for http-01; default: a free port. */
  readonly httpPort?: number;
  /** Where the CA looks for tls-alpn-01; default: a free port. */
  readonly tlsPort?: number;
  /** Key ids and their base64url keys: accounts need one of them. Default: accounts need none. */
  readonly eab?: Readonly<Record<string, string>>;
  /** Of the certificates; default 90 days. */
  readonly validitySeconds?: number;
  /** What answers about pending authorizations and orders say in Retry-After; default: nothing. */
  readonly retryAfterSeconds?: number;
  /** Names that the CA refuses, with everything below them. */
  readonly blocked?: readonly string[];
  /** Validations wait this long; default: not at all. */
  readonly sleepSeconds?: number;
  /** Further variables, as PEBBLE_WFE_NONCEREJECT (default 5 %) and PEBBLE_AUTHZREUSE (default 50 %). */
  readonly env?: Readonly<Record<string, string>>;
};

export type Pebble = AsyncDisposable & {
  readonly directoryUrl: string;
  /** The CA of the directory's own TLS: PEM, and a file with it. */
  readonly ca: string;
  readonly caFile: string;
  readonly httpPort: number;
  readonly tlsPort: number;
  /** The DNS server's, on 127.0.0.1, UDP and TCP. */
  readonly dnsPort: number;
  /** PEM of the root that issues; another one after each start. */
  root(): Promise<string>;
  /** Adds a value to those of a TXT record. */
  setTxt(name: string, value: string): Promise<void>;
  /** Removes all values. */
  clearTxt(name: string): Promise<void>;
  /** What the DNS server shows under a name. */
  txt(name: string): Promise<string[]>;
  /** What the CA answers about the renewal of a certificate, raw. */
  setRenewalInfo(cert: string, answer: string): Promise<void>;
  /** Lines that the CA logged since its first start. */
  readonly log: () => readonly string[];
  /** Requests that the CA got since its first start, as `POST /order-plz`. */
  readonly requests: () => readonly string[];
  /** The CA is away; the DNS server stays. */
  stop(): Promise<void>;
  /** It comes back on the same port, and has forgotten accounts, orders and its root. */
  start(): Promise<void>;
};

/** Why Pebble cannot run, for `skipWithout`; null when it can. */
export function missingPebble(): string | null {
  return findProgram("pebble") === null || findProgram("pebble-challtestsrv") === null ? "Pebble is not installed" : null;
}

/** Starts the CA and its DNS server on free ports of 127.0.0.1. */
export async function startPebble(options: PebbleOptions = {}): Promise<Pebble> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await tryPebble(options);
    } catch (error) {
      // Another test may take a port between the look for it and the start.
      if (attempt === 3 || !String(error).includes("address already in use")) throw error;
    }
  }
}

async function tryPebble(options: PebbleOptions): Promise<Pebble> {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-pebble-"));
  const [port, managementPort, dnsPort, dnsManagementPort] = [await quietPort(), await quietPort(), await quietPort(), await quietPort()];
  const [httpPort, tlsPort] = [options.httpPort ?? (await quietPort()), options.tlsPort ?? (await quietPort())];
  const authority = await openInternalCa(dir);
  const { cert, key } = authority.issue(["127.0.0.1", "localhost"], Date.now());
  const [certificate, privateKey, config] = [join(dir, "tls.crt"), join(dir, "tls.key"), join(dir, "pebble.json")];
  writeFileSync(certificate, cert);
  writeFileSync(privateKey, key, { mode: 0o600 });
  const retryAfter = options.retryAfterSeconds ?? 0;
  const pebble = {
    listenAddress: `127.0.0.1:${port}`,
    managementListenAddress: `127.0.0.1:${managementPort}`,
    certificate,
    privateKey,
    httpPort,
    tlsPort,
    ocspResponderURL: "",
    externalAccountBindingRequired: options.eab !== undefined,
    externalAccountMACKeys: options.eab ?? {},
    domainBlocklist: options.blocked ?? [],
    retryAfter: { authz: retryAfter, order: retryAfter },
    keyAlgorithm: "ecdsa",
    profiles: { default: { description: "default", validityPeriod: options.validitySeconds ?? 7_776_000 } },
  };
  writeFileSync(config, JSON.stringify({ pebble }));
  const sleep = options.sleepSeconds === undefined ? { PEBBLE_VA_NOSLEEP: "1" } : { PEBBLE_VA_SLEEPTIME: String(options.sleepSeconds) };

  const log: string[] = [];
  let ca: ChildProcess | null = null;
  const dnsLog: string[] = [];
  const dns = run("pebble-challtestsrv", dnsArgs(dnsPort, dnsManagementPort), {}, dnsLog);
  const root = (): Promise<string> => fetchText(`https://127.0.0.1:${managementPort}/roots/0`, authority.cert);
  const start = async (): Promise<void> => {
    ca = run("pebble", ["-config", config, "-dnsserver", `127.0.0.1:${dnsPort}`], { ...sleep, ...options.env }, log);
    await started(ca, log, () => Promise.all([fetchText(`https://127.0.0.1:${port}/dir`, authority.cert), root()]));
  };
  const stop = async (): Promise<void> => {
    if (ca !== null) await end(ca);
    ca = null;
  };
  const dnsCall = async (path: string, body: object): Promise<void> => {
    const response = await fetch(`http://127.0.0.1:${dnsManagementPort}/${path}`, { method: "POST", body: JSON.stringify(body) });
    if (!response.ok) throw new Error(`pebble-challtestsrv answered ${path} with ${response.status}: ${await response.text()}`);
  };
  const close = async (): Promise<void> => {
    await Promise.all([stop(), end(dns)]);
    rmSync(dir, { recursive: true, force: true });
  };
  const resolver = new Resolver();
  resolver.setServers([`127.0.0.1:${dnsPort}`]);
  try {
    await Promise.all([
      start(),
      started(dns, dnsLog, () => Promise.all([resolver.resolve4("a.example.com"), dnsCall("clear-txt", { host: "a.example.com." })])),
    ]);
  } catch (error) {
    await close();
    throw error;
  }

  return {
    directoryUrl: `https://127.0.0.1:${port}/dir`,
    ca: authority.cert,
    caFile: authority.certFile,
    httpPort,
    tlsPort,
    dnsPort,
    root,
    setTxt: (name, value) => dnsCall("set-txt", { host: `${name}.`, value }),
    clearTxt: (name) => dnsCall("clear-txt", { host: `${name}.` }),
    txt: async (name) => (await resolver.resolveTxt(name).catch(() => [])).map((chunks) => chunks.join("")),
    setRenewalInfo: async (certificateOf, answer) => {
      await fetchText(
        `https://127.0.0.1:${managementPort}/set-renewal-info/`,
        authority.cert,
        JSON.stringify({ certificate: certificateOf, ariResponse: answer }),
      );
    },
    log: () => log,
    requests: () => log.flatMap((line) => /Pebble \S+ \S+ ((?:GET|HEAD|POST) \S+)/.exec(line)?.[1] ?? []),
    stop,
    start,
    [Symbol.asyncDispose]: close,
  };
}

/** A free port below those that the system gives to connections and to port 0, so that nobody gets it before its program starts. */
async function quietPort(): Promise<number> {
  for (;;) {
    const port = randomInt(20_000, 32_000);
    const server = createServer().listen(port, "127.0.0.1");
    const free = await once(server, "listening").then(
      () => true,
      () => false,
    );
    if (!free) continue;
    server.close();
    await once(server, "close");
    return port;
  }
}

function dnsArgs(port: number, managementPort: number): string[] {
  const off = ["http01", "https01", "doh", "tlsalpn01"].flatMap((name) => [`-${name}`, ""]);
  return [...off, "-dnsserver", `127.0.0.1:${port}`, "-management", `127.0.0.1:${managementPort}`, "-defaultIPv4", "127.0.0.1", "-defaultIPv6", ""];
}

function run(name: string, args: string[], env: Record<string, string>, log: string[]): ChildProcess {
  const child = spawn(findProgram(name) ?? name, args, { env: { PATH: process.env["PATH"], ...env }, stdio: ["ignore", "pipe", "pipe"] });
  for (const stream of [child.stdout, child.stderr]) {
    let rest = "";
    stream.setEncoding("utf8").on("data", (text: string) => {
      const lines = (rest + text).split("\n");
      rest = lines.pop() ?? "";
      log.push(...lines);
    });
  }
  child.on("error", (error) => log.push(String(error)));
  return child;
}

/** Waits until what a program serves is there. @throws when it ended instead */
async function started(child: ChildProcess, log: readonly string[], probe: () => Promise<unknown>): Promise<void> {
  const ended = (): boolean => child.exitCode !== null || child.signalCode !== null;
  await waitFor(async () => ended() || Boolean(await probe()), { what: () => `${child.spawnfile} to start: ${log.join("\n")}` });
  if (ended()) throw new Error(`${child.spawnfile} ended: ${log.slice(-3).join("\n")}`);
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

async function fetchText(url: string, ca: string, body: string | null = null): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const call = request(url, { ca, agent: false, method: body === null ? "GET" : "POST", headers: { "user-agent": "test" } }, (response) => {
    let text = "";
    response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    response.on("end", () => (response.statusCode === 200 ? resolve(text) : reject(new Error(`Pebble answered ${url} with ${response.statusCode}: ${text}`))));
  });
  call.on("error", reject);
  call.end(body);
  return await promise;
}
