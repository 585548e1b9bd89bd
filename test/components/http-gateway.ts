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
import type { AuthorizationServer, EndpointAnswer, EndpointRequest } from "../../src/authorization-server/endpoint.ts";
import type { Authentication, Proof, TokenSource } from "../../src/identity/authenticate.ts";
import type { LiveIssuer } from "../../src/identity/issuer.ts";
import type { IdentityProvider } from "../../src/identity/provider-health.ts";
import type { Person } from "../../src/identity/person.ts";
import { sameResourceKey } from "../../src/lib/public-url.ts";
import { wantsUpgrade } from "../../src/http/upgrade.ts";
import { AddressSet, parseDialAddress } from "../../src/lib/address.ts";
import { rememberPeer, type TailnetPeer } from "../../src/lib/tailnet-peer.ts";
import type { AuthWayPlan, AuthorizationServerPlan, OAuthResourcePlan, PeopleMatch, ResourceMetadataPlan, TokenPlan } from "../../src/plan/auth-model.ts";
import type { HttpListenerPlan, RoutePlan, TargetScheme, UpstreamPlan } from "../../src/plan/model.ts";
import type { AccessLogWriter } from "../../src/telemetry/access-log.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import type { Log } from "../../src/telemetry/log.ts";
import { HttpUpstream } from "../../src/upstreams/http-pool.ts";
import { Upstream } from "../../src/upstreams/upstream.ts";
import { NOBODY } from "../../src/plan/build-people.ts";

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
  /** Default: none. */
  servers?: FakeServer[];
  /** By name. Default: none. */
  issuers?: Record<string, TokenSource>;
  /** See `HttpState.identifyMs`. */
  identifyMs?: number;
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
      authorizationServers: (options.servers ?? []).map(({ plan: server }) => server),
      trustedProxies: new AddressSet(options.trustedProxies ?? []),
    },
    servers: new Map((options.servers ?? []).map(({ plan: { issuer }, live }) => [issuer, live])),
    issuers: new Map(
      Object.entries(options.issuers ?? {}).map(([name, source]): [string, LiveIssuer] => {
        const provider = (): IdentityProvider => ({ kind: "issuer", name, url: "", outage: null });
        return [name, { ...source, metadata: async () => null, provider, readAssertion: async () => ({ kind: "invalid", reason: "" }), close: () => {} }];
      }),
    ),
    identifyMs: options.identifyMs,
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

/** Admits everybody who has an account at GitHub. */
export const EVERYBODY: PeopleMatch = { ...NOBODY, githubUsers: "*" };

export const OCTOCAT: Person = {
  source: "github",
  subject: "1",
  name: "octocat",
  email: "octocat@example.com",
  domain: "example.com",
  orgs: [],
  teams: [],
  groups: ["staff", "a,b"],
  claims: {},
  peer: null,
};

/** What a token or a session of OCTOCAT proves. @param resource of a token; null for a session */
export function proofOf(resource: string | null, scopes: readonly string[] = []): Proof {
  const identity = { source: "github", name: "octocat", scopes, email: "octocat@example.com", groups: ["staff", "a,b"], client: "test-client" } as const;
  return {
    kind: "identity",
    by: resource === null ? "session" : "oauth",
    identity,
    person: OCTOCAT,
    issuer: null,
    resource: resource === null ? null : sameResourceKey(resource),
    expiresAtMs: null,
  };
}

export type FakeServer = { readonly plan: AuthorizationServerPlan; readonly live: AuthorizationServer; readonly requests: EndpointRequest[] };

/** An authorization server that knows these tokens and sessions and no others, and answers its endpoints with what they were asked. */
export function fakeServer(args: {
  issuer: string;
  resources?: string[];
  sessionOrigins?: string[];
  anyHost?: boolean;
  tokens?: Record<string, Authentication | Promise<Authentication>>;
  sessions?: Record<string, Authentication | Promise<Authentication>>;
  answer?: (request: EndpointRequest) => EndpointAnswer;
}): FakeServer {
  const requests: EndpointRequest[] = [];
  const resource = (url: string): OAuthResourcePlan => ({
    url,
    routes: [],
    scopes: [],
    scopeSets: [[]],
    assertions: [],
    optionalScopes: [],
    allow: [EVERYBODY],
    grants: new Set(["authorization_code"]),
    accessTokenMs: 3_600_000,
    refreshTokenMs: 3_600_000,
    loginLifetimeMs: 86_400_000,
    accessTokenFormat: "opaque",
  });
  const isEndpoint = /^\/(?:authorize|token|register|\.well-known\/oauth-authorization-server)$/;
  return {
    requests,
    plan: {
      issuer: args.issuer,
      host: new URL(args.issuer).hostname,
      resources: (args.resources ?? []).map(resource),
      sessionOrigins: new Set(args.sessionOrigins ?? []),
      sessionLifetimesMs: new Map((args.sessionOrigins ?? []).map((origin) => [origin, 3_600_000])),
      listeners: null,
      anyHost: args.anyHost ?? false,
      login: { github: null, oidc: null, password: null, tailnet: true },
      clients: [],
      scopes: new Map(),
      key: args.issuer,
    },
    live: {
      issuer: args.issuer,
      serves: (origin, path) => path.startsWith("/.sidegate/") || (origin === args.issuer && isEndpoint.test(path)),
      handle: async (request) => {
        requests.push(request);
        return args.answer?.(request) ?? { status: 200, headers: ["Content-Type", "text/plain"], body: `${request.origin}${request.path}` };
      },
      tokens: { find: (token) => args.tokens?.[token] ?? null, isOwn: true },
      findSession: (cookie) => args.sessions?.[cookie] ?? { kind: "invalid" },
      loginLocation: (_origin, returnTo) => `/.sidegate/login?return_to=${encodeURIComponent(returnTo)}`,

      notAdmitted: (_origin, { name }) => ({ status: 403, headers: ["Content-Type", "text/html; charset=utf-8"], body: `<p>${name} is not admitted</p>` }),
    },
  };
}

/** A route with a public URL, as the plan has it for `oauth` and other ways. */
export function protectedRoute(
  url: string,
  ways: readonly AuthWayPlan[],
  partial: Partial<RoutePlan> & { metadata?: Partial<ResourceMetadataPlan> } = {},
): Partial<RoutePlan> {
  const { host, origin, pathname } = new URL(url);
  const { metadata, ...route } = partial;
  const scopes = ways.flatMap((way) => (way.kind === "oauth" || way.kind === "issuer" ? way.scopes : []));
  const isResource = ways.some(({ kind }) => kind === "oauth" || kind === "issuer");
  return {
    host: host.replace(/:\d+$/, ""),
    path: pathname === "/" ? { kind: "any" } : { kind: "prefix", path: pathname },
    auth: ways,
    publicUrl: url,
    origins: new Set([origin]),
    resource: isResource ? { url, authorizationServers: [origin], scopes, baseScopes: scopes, ...metadata } : null,
    ...route,
  };
}

export function oauthWay(url: string, scopes: readonly string[] = [], allow: PeopleMatch = EVERYBODY): AuthWayPlan {
  return { kind: "oauth", resource: sameResourceKey(url), scopes, allow, identityAssertions: new Set() };
}

export function sessionWay(allow: PeopleMatch = EVERYBODY): AuthWayPlan {
  return { kind: "session", allow };
}
