// The plan: what should run, as plain data. Code that serves traffic sees this and never the configuration.
import type { AddressSet } from "../lib/address.ts";

/** Where a listener listens. `host` null means all interfaces, IPv6 and IPv4. */
export type ListenAddress = { readonly kind: "tcp"; readonly host: string | null; readonly port: number } | { readonly kind: "unix"; readonly path: string };

/** Where an upstream connection goes. */
export type DialAddress = { readonly kind: "tcp"; readonly host: string; readonly port: number } | { readonly kind: "unix"; readonly path: string };

export type AccessLogPlan =
  | { readonly kind: "stdout" }
  | { readonly kind: "off" }
  | { readonly kind: "files"; readonly dir: string; readonly retentionMs: number; readonly maxBytes: number };

/** A certificate with its chain and its key, both PEM, as read from their files. */
export type CertificatePair = {
  readonly certFile: string;
  readonly cert: string;
  readonly key: string;
  /** Lower-case DNS names and IP addresses it is valid for; a wildcard as `*.example.com`. */
  readonly names: readonly string[];
};

export type TlsPlan =
  { readonly mode: "disabled" } | { readonly mode: "application"; readonly certificates: readonly CertificatePair[]; readonly internal: boolean };

export type TargetScheme = "http" | "https" | "h2c" | "tcp";

/** One address of an upstream. `url` is as written in the file and names it in logs and metrics. */
export type TargetPlan = { readonly url: string; readonly scheme: TargetScheme; readonly address: DialAddress };

export type HealthPlan =
  | { readonly kind: "http"; readonly path: string; readonly intervalMs: number; readonly timeoutMs: number; readonly failures: number }
  | {
      readonly kind: "tcp" | "ib_api" | "ib_session";
      readonly intervalMs: number;
      readonly timeoutMs: number;
      readonly failures: number;
      /** Only for ib_session; 0 otherwise. */
      readonly clientId: number;
      readonly maintenance: MaintenanceWindow | null;
    };

/** Minutes after local midnight in an IANA time zone; `toMinute` below `fromMinute` spans midnight. */
export type MaintenanceWindow = { readonly text: string; readonly fromMinute: number; readonly toMinute: number; readonly timeZone: string };

/** All durations in milliseconds, 0 = no limit. */
export type UpstreamTimeouts = {
  readonly connectMs: number;
  readonly responseHeadersMs: number;
  readonly readMs: number;
  readonly writeMs: number;
  readonly idleMs: number;
  readonly keepAliveMs: number;
};

export type UpstreamPlan = {
  /** Name in the file, or the URL written on the route or listener. */
  readonly name: string;
  /** Equal keys mean that everything is equal: a live upstream with its connections is kept over a reload. Never logged: it contains a hash of secrets. */
  readonly key: string;
  readonly scheme: TargetScheme;
  readonly targets: readonly TargetPlan[];
  /** PEM of ca_file, or null for the system's CAs. */
  readonly ca: string | null;
  readonly authorization: string | null;
  /** Most HTTP/1.1 connections to each target; 0 = no limit. */
  readonly maxConnections: number;
  readonly health: HealthPlan | null;
  readonly ejection: { readonly failures: number; readonly durationMs: number };
  readonly timeouts: UpstreamTimeouts;
};

export type TokenPlan = { readonly name: string; readonly sha256: Buffer; readonly scopes: readonly string[] };

/** One way in: a token by name (null = any) that grants all of `scopes`. */
export type AuthWayPlan = { readonly kind: "token"; readonly names: ReadonlySet<string> | null; readonly scopes: readonly string[] };

export type HeaderRules = {
  /** Pairs name, value; names as written. */
  readonly set: readonly (readonly [string, string])[];
  /** Lower-case names. */
  readonly remove: ReadonlySet<string>;
};

export type CorsPlan = {
  /** "*" or the set of origins. */
  readonly origins: "*" | ReadonlySet<string>;
  readonly methods: string;
  /** Null: allow what the preflight asks for. */
  readonly headers: string | null;
  readonly exposeHeaders: string;
  readonly credentials: boolean;
  readonly maxAgeSeconds: number;
};

export type PathMatch =
  { readonly kind: "any" } | { readonly kind: "exact" | "prefix"; readonly path: string } | { readonly kind: "regex"; readonly source: string };

export type RoutePlan = {
  readonly name: string;
  /** Position in the file's list, for error texts: routes[2]. */
  readonly index: number;
  /** Names of the HTTP listeners that serve it; null = all. */
  readonly listeners: ReadonlySet<string> | null;
  /** Lower case; null = any; `*.example.com` for a wildcard. */
  readonly host: string | null;
  readonly path: PathMatch;
  /** Null: every method but CONNECT and TRACE. */
  readonly methods: ReadonlySet<string> | null;
  /** Pairs lower-case name, value; "*" = any value. */
  readonly headers: readonly (readonly [string, string])[];
  readonly priority: number;
  /** Name of an entry of `Plan.upstreams`. */
  readonly upstream: string;
  /** Null: `auth: none`, said explicitly. Never an empty list. */
  readonly auth: readonly AuthWayPlan[] | null;
  readonly stripPrefix: string | null;
  readonly requestHeaders: HeaderRules;
  readonly responseHeaders: HeaderRules;
  readonly identityHeaders: boolean;
  readonly cors: CorsPlan | null;
};

type ListenerBase = {
  readonly name: string;
  readonly listen: ListenAddress;
  readonly tls: TlsPlan;
  /** Null: everybody. */
  readonly allow: AddressSet | null;
  readonly deny: AddressSet | null;
  readonly maxConnections: number;
  readonly accessLog: AccessLogPlan;
};

export type HttpListenerPlan = ListenerBase & {
  readonly protocol: "http";
  readonly maxHeaderBytes: number;
  readonly timeouts: { readonly handshakeMs: number; readonly headersMs: number; readonly readMs: number; readonly writeMs: number; readonly idleMs: number };
};

export type TcpListenerPlan = ListenerBase & {
  readonly protocol: "tcp";
  /** Name of an entry of `Plan.upstreams`. */
  readonly upstream: string;
  readonly expect: "ib_api" | null;
  readonly maxConnectionsPerClient: number;
  readonly connectionRate: { readonly connections: number; readonly perMs: number } | null;
  readonly keepAliveMs: number;
  readonly timeouts: { readonly connectMs: number; readonly idleMs: number; readonly expectMs: number };
};

export type ListenerPlan = HttpListenerPlan | TcpListenerPlan;

export type LogPlan = { readonly level: "trace" | "debug" | "info" | "warn" | "error"; readonly format: "auto" | "json" | "pretty" };

export type Plan = {
  readonly log: LogPlan;
  readonly stateDir: string;
  readonly admin: ListenAddress;
  readonly drainTimeoutMs: number;
  readonly trustedProxies: AddressSet;
  readonly tokens: readonly TokenPlan[];
  readonly upstreams: ReadonlyMap<string, UpstreamPlan>;
  readonly listeners: ReadonlyMap<string, ListenerPlan>;
  /** In the order of precedence: priority, then specificity of the host, then of the path, then the file's order. */
  readonly routes: readonly RoutePlan[];
};
