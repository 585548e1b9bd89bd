// The HTTP side of the gateway inside the test's own process: a listener with routes, for stories that need no configuration file.
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { createServer as createHttp2Server, type Http2Server } from "node:http2";
import { createServer as createNetServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createServer as createTlsServer } from "node:tls";
import type { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";
import { handleExpect, handleRequest, handleUpgrade } from "../../src/http/handle.ts";
import { answerParserError } from "../../src/http/rescue.ts";
import { createHttpLive, createHttpState, type HttpState } from "../../src/http/state.ts";
import { wantsUpgrade } from "../../src/http/upgrade.ts";
import { AddressSet, parseDialAddress } from "../../src/lib/address.ts";
import { rememberPeer, type TailnetPeer } from "../../src/lib/tailnet-peer.ts";
import type { HttpListenerPlan, RoutePlan, TargetScheme, TokenPlan, UpstreamPlan } from "../../src/plan/model.ts";
import type { AccessLogWriter } from "../../src/telemetry/access-log.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import type { Log } from "../../src/telemetry/log.ts";
import { HttpUpstream } from "../../src/upstreams/http-pool.ts";
import { Upstream } from "../../src/upstreams/upstream.ts";

export const TOKEN = "test-token-with-scope";
export const OTHER_TOKEN = "test-token-without-scope";

export type HttpGatewayOptions = {
  /** URLs of the targets. */
  targets: string[];
  routes?: Partial<RoutePlan>[];
  listener?: Partial<Omit<HttpListenerPlan, "timeouts">> & { timeouts?: Partial<HttpListenerPlan["timeouts"]> };
  upstream?: Partial<Omit<UpstreamPlan, "timeouts" | "targets">> & { timeouts?: Partial<UpstreamPlan["timeouts"]> };
  trustedProxies?: string[];
  tls?: boolean;
  /** Whose all connections are in the tailnet. */
  peer?: TailnetPeer;
  /** Default: no listener has ACME. */
  challenges?: AcmeChallenges;
  /** Default: any free one. */
  port?: number;
  /** Where access-log lines go besides `accessLog`, which then stays empty. */
  accessLogWriter?: AccessLogWriter;
};

export type HttpGateway = AsyncDisposable & {
  readonly port: number;
  readonly state: HttpState;
  readonly upstream: HttpUpstream;
  readonly accessLog: Record<string, unknown>[];
  readonly errors: unknown[];
  readonly sockets: ReadonlySet<Socket>;
};

export function routePlan(partial: Partial<RoutePlan> = {}): RoutePlan {
  return {
    name: "r",
    index: 0,
    listeners: null,
    host: null,
    path: { kind: "any" },
    methods: null,
    headers: [],
    priority: 50,
    upstream: "up",
    auth: null,
    publicUrl: null,
    resource: null,
    origins: null,
    mcp: null,
    stripPrefix: null,
    requestHeaders: { set: [], remove: new Set() },
    responseHeaders: { set: [], remove: new Set() },
    identityHeaders: false,
    cors: null,
    ...partial,
  };
}

/** A plain listener on loopback. */
export function httpListenerPlan(partial: HttpGatewayOptions["listener"] = {}): HttpListenerPlan {
  const { timeouts, ...listener } = partial;
  return {
    name: "web",
    protocol: "http",
    listen: { kind: "tcp", host: "127.0.0.1", port: 0 },
    tls: { mode: "disabled" },
    redirectToHttps: false,
    httpsPort: 443,
    hsts: null,
    securityHeaders: false,
    allow: null,
    allowTailnet: null,
    deny: null,
    maxConnections: 0,
    accessLog: { kind: "stdout" },
    maxHeaderBytes: 16_384,
    ...listener,
    timeouts: { handshakeMs: 10_000, headersMs: 10_000, readMs: 60_000, writeMs: 60_000, idleMs: 120_000, ...timeouts },
  };
}

export function upstreamPlan(urls: string[], partial: HttpGatewayOptions["upstream"] = {}): UpstreamPlan {
  const targets = urls.map((url) => {
    const scheme = (url.startsWith("unix:") ? "http" : url.slice(0, url.indexOf(":"))) as TargetScheme;
    const address = parseDialAddress(url.startsWith("unix:") ? url : url.slice(url.indexOf("//") + 2));
    if (address === null) throw new Error(`No target: ${url}`);
    return { url, scheme, address };
  });
  const { timeouts, ...rest } = partial;
  return {
    name: "up",
    key: "up",
    scheme: targets[0]?.scheme ?? "http",
    targets,
    tls: { ca: null, serverName: null, certificate: null, verify: true },
    authorization: null,
    maxConnections: 0,
    health: null,
    ejection: { failures: 3, durationMs: 10_000 },
    ...rest,
    timeouts: { connectMs: 5_000, responseHeadersMs: 300_000, readMs: 0, writeMs: 60_000, idleMs: 0, keepAliveMs: 4_000, ...timeouts },
  };
}

let pem: { cert: string; key: string } | null = null;

/** A self-signed certificate for localhost, made once. */
export function certificate(): { cert: string; key: string } {
  if (pem !== null) return pem;
  const dir = mkdtempSync(join(tmpdir(), "sidegate-cert-"));
  const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-subj", "/CN=localhost"];
  execFileSync("openssl", [...args, "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", join(dir, "k"), "-out", join(dir, "c")], {
    stdio: "ignore",
  });
  pem = { cert: readFileSync(join(dir, "c"), "utf8"), key: readFileSync(join(dir, "k"), "utf8") };
  rmSync(dir, { recursive: true });
  return pem;
}

function token(name: string, text: string, scopes: string[]): TokenPlan {
  return { name, sha256: createHash("sha256").update(text).digest(), scopes };
}

/** Starts a listener on loopback. Routes without `auth` are open. */
export async function startHttpGateway(options: HttpGatewayOptions): Promise<HttpGateway> {
  const accessLog: Record<string, unknown>[] = [];
  const errors: unknown[] = [];
  const log = { error: (...args: unknown[]) => errors.push(args), warn: () => {}, info: () => {}, debug: () => {} } as unknown as Log;
  const upstream = new HttpUpstream(new Upstream(upstreamPlan(options.targets, options.upstream)));
  const plan = httpListenerPlan(options.listener);
  const state = createHttpState({
    plan,
    gateway: {
      routes: (options.routes ?? [{}]).map((route, index) => routePlan({ name: `r${index}`, ...route, index })),
      tokens: [token("ci", TOKEN, ["mcp"]), token("other", OTHER_TOKEN, [])],
      scopes: new Map(),
      authorizationServers: [],
      trustedProxies: new AddressSet(options.trustedProxies ?? []),
    },
    servers: new Map(),
    issuers: new Map(),
    upstreams: new Map([["up", upstream]]),
    challenges: options.challenges ?? null,
    metrics: new Metrics({ version: "test", targets: () => [], accessLogDropped: () => 0 }),
    live: createHttpLive(),
    drain: { draining: false, cut: false },
    accessLog: options.accessLogWriter ?? { write: (line) => void accessLog.push(JSON.parse(line) as Record<string, unknown>) },
    log,
  });

  const http1 = createServer({
    insecureHTTPParser: false,
    requestTimeout: 0,
    headersTimeout: plan.timeouts.headersMs,
    keepAliveTimeout: plan.timeouts.idleMs,
    maxHeaderSize: plan.maxHeaderBytes,
    connectionsCheckingInterval: 100,
    optimizeEmptyRequests: true,
    shouldUpgradeCallback: wantsUpgrade,
  });
  http1.emit("listening");
  http1.on("request", (req, res) => handleRequest(state, req, res));
  http1.on("checkContinue", (req, res) => handleExpect(state, req, res));
  http1.on("checkExpectation", (req, res) => handleExpect(state, req, res));
  http1.on("upgrade", (req, socket, head) => handleUpgrade(state, req, socket as Socket, head));
  http1.on("clientError", (error, socket) => answerParserError(state, error, socket as Socket));
  const http2: Http2Server = createHttp2Server({ settings: { maxConcurrentStreams: 128 }, strictSingleValueFields: false });
  http2.on("request", (req, res) => handleRequest(state, req, res));
  http2.on("checkContinue", (req, res) => handleExpect(state, req, res));
  http2.on("sessionError", () => {});

  const sockets = new Set<Socket>();
  const server = createNetServer({ allowHalfOpen: true, noDelay: true });
  const tls = options.tls === true ? createTlsServer({ ...certificate(), ALPNProtocols: ["h2", "http/1.1"] }) : null;
  tls?.on("tlsClientError", () => {});
  tls?.on("secureConnection", (socket) => (socket.alpnProtocol === "h2" ? http2 : http1).emit("connection", socket));
  server.on("connection", (socket) => {
    sockets.add(socket);
    socket.once("close", () => sockets.delete(socket));
    socket.on("error", () => {});
    if (options.peer !== undefined) rememberPeer(socket, options.peer);
    // As listeners/tls.ts does.
    socket.allowHalfOpen = tls === null;
    (tls ?? http1).emit("connection", socket);
  });
  server.listen(options.port ?? 0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    state,
    upstream,
    accessLog,
    errors,
    sockets,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      closeQuietly(http1);
      server.close();
      await upstream.close(0);
    },
  };
}

function closeQuietly(server: Server): void {
  server.close(() => {});
}
