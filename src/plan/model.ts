// The plan: what should run, as plain data. Code that serves traffic sees this and never the configuration.
import type { AddressSet } from "../lib/address.ts";
import type { TailscaleFlags } from "../lib/tailscale-flags.ts";
import type { AuthWayPlan, AuthorizationServerPlan, IssuerPlan, McpPlan, ResourceMetadataPlan, ScopePlan, TailnetMatch, TokenPlan } from "./auth-model.ts";

/** What a socket is bound to. `host` null means all interfaces, IPv6 and IPv4. */
export type BindAddress = { readonly kind: "tcp"; readonly host: string | null; readonly port: number } | { readonly kind: "unix"; readonly path: string };

/** Where a listener listens. A port of the tailnet is bound where tailscaled brings its connections. */
export type ListenAddress = BindAddress | { readonly kind: "tailnet"; readonly port: number };

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

/** What is spoken, and what clients must show. Listeners with equal keys may share what is made of it. */
export type TlsProtocolPlan = {
  readonly minVersion: "TLSv1.2" | "TLSv1.3";
  /** OpenSSL's list, TLS 1.3 names in it; null = the gateway's default. */
  readonly ciphers: string | null;
  /** `ca`: PEM of the CAs that sign client certificates. Null: clients are not asked. */
  readonly clientAuth: { readonly mode: "request" | "require"; readonly ca: string } | null;
  /** Hash of the above. */
  readonly key: string;
};

/** TLS ends here: on every connection (application), or on those that begin with a ClientHello (auto). */
export type TlsTermination = {
  readonly mode: "application" | "auto";
  /** The first one is also for clients without a known server name. */
  readonly certificates: readonly CertificatePair[];
  readonly acme: AcmePlan | null;
  /** The certificate that tailscaled gets for the node's name. */
  readonly tailscale: boolean;
  readonly internal: boolean;
  /** Names by which clients may ask for it, lower case, `*.example.com` for a wildcard: the local CA certifies them. `acme` has those that surely are. */
  readonly hosts: readonly string[];
  readonly protocol: TlsProtocolPlan;
};

export type TlsPlan = { readonly mode: "disabled" | "behind_proxy" } | TlsTermination;

/** An account at a CA. `key` is a hash of the CA and of whom it knows by external binding: what was issued is kept by it, whatever else changes. */
export type AcmeAccountPlan = {
  readonly key: string;
  readonly directoryUrl: string;
  readonly email: string | null;
  /** PEM; null = the system's CAs. */
  readonly ca: string | null;
  /** `hmacKey` in base64url. */
  readonly eab: { readonly kid: string; readonly hmacKey: string } | null;
};

export type AcmeChallengeType = "http-01" | "tls-alpn-01" | "dns-01";

type DnsBase = {
  /** `address` or `address:port`; null = the system's. */
  readonly resolvers: readonly string[] | null;
  readonly propagationTimeoutMs: number;
};

export type DnsPlan =
  | (DnsBase & { readonly provider: "cloudflare"; readonly apiToken: string; readonly apiUrl: string })
  | (DnsBase & { readonly provider: "exec"; readonly command: readonly string[]; readonly timeoutMs: number });

/** Certificates that a CA is asked for, and how. */
export type AcmePlan = {
  readonly account: AcmeAccountPlan;
  /** Those that can work, the best one first; the next one is tried when one fails. Never empty. */
  readonly challenges: readonly AcmeChallengeType[];
  /** Null without dns-01. */
  readonly dns: DnsPlan | null;
  /** The names of each certificate, lower case, sorted as in the file; a wildcard as `*.example.com`. */
  readonly certificates: readonly (readonly string[])[];
};

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

export type UpstreamTlsPlan = {
  /** PEM of ca_file, or null for the system's CAs. */
  readonly ca: string | null;
  /** Null: the host of the target. */
  readonly serverName: string | null;
  /** The client certificate, both PEM. */
  readonly certificate: { readonly cert: string; readonly key: string } | null;
  /** False: any certificate of a target is taken. */
  readonly verify: boolean;
};

export type UpstreamPlan = {
  /** Name in the file, or the URL written on the route or listener. */
  readonly name: string;
  /** Equal keys mean that everything is equal: a live upstream with its connections is kept over a reload. Never logged: it contains a hash of secrets. */
  readonly key: string;
  readonly scheme: TargetScheme;
  readonly targets: readonly TargetPlan[];
  /** Of https targets. */
  readonly tls: UpstreamTlsPlan;
  readonly authorization: string | null;
  /** Most HTTP/1.1 connections to each target; 0 = no limit. */
  readonly maxConnections: number;
  readonly health: HealthPlan | null;
  readonly ejection: { readonly failures: number; readonly durationMs: number };
  readonly timeouts: UpstreamTimeouts;
};

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
  /** Name of an entry of `Plan.upstreams`; null for a route that is only asked about at /verify. */
  readonly upstream: string | null;
  /** Null: `auth: none`, said explicitly. Never an empty list. */
  readonly auth: readonly AuthWayPlan[] | null;
  /** The address at which clients know it, in its normal form: from the configuration alone. Null when that says none. */
  readonly publicUrl: string | null;
  /** What clients are told of the resource; null where no way takes tokens that they could get by themselves. */
  readonly resource: ResourceMetadataPlan | null;
  /**
   * The origins whose pages may call, in lower case; null: not looked at. Of routes to which a browser could be led by a page that is none of ours.
   */
  readonly origins: ReadonlySet<string> | "*" | null;
  /** Null: messages are not read. */
  readonly mcp: McpPlan | null;
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
  /** Only on `tailnet:` listeners; null: every node. */
  readonly allowTailnet: TailnetMatch | null;
  readonly deny: AddressSet | null;
  readonly maxConnections: number;
  readonly accessLog: AccessLogPlan;
};

export type HttpListenerPlan = ListenerBase & {
  readonly protocol: "http";
  readonly maxHeaderBytes: number;
  /** Requests whose client did not use https are redirected: asked for by `redirect_to_https`, and always in mode auto. */
  readonly redirectToHttps: boolean;
  /** Port of https for clients that came to a port other than 80, whose Host header says so; in mode auto only for those behind proxies. */
  readonly httpsPort: number;
  /** Value of Strict-Transport-Security; null = not sent. */
  readonly hsts: string | null;
  readonly securityHeaders: boolean;
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

/** `secret` null: not signed. */
export type AlertsPlan = { readonly webhook: { readonly url: string; readonly secret: string | null } };

/** The tailscaled that Sidegate runs, and what it asks of the tailnet. */
export type TailscaleNodePlan = {
  readonly kind: "own";
  /** Null: the machine's. */
  readonly hostname: string | null;
  /** Null: somebody logs in by a browser. Never logged. */
  readonly authKey: string | null;
  readonly tags: readonly string[];
  /** Null: Tailscale's own. */
  readonly controlUrl: string | null;
  readonly acceptDns: boolean;
  readonly ephemeral: boolean;
  readonly timeoutMs: number;
  readonly seal: boolean;
  readonly tun: boolean;
  readonly stateDir: string;
  readonly flags: TailscaleFlags;
};

/** A tailscaled of somebody else, whose settings are not ours. */
export type TailscaleExternalPlan = { readonly kind: "external"; readonly socket: string; readonly timeoutMs: number; readonly seal: boolean };

/** `ports`: those that `tailnet:` listeners open, in ascending order. */
export type TailscalePlan = (TailscaleNodePlan | TailscaleExternalPlan) & { readonly ports: readonly number[] };

export type Plan = {
  readonly log: LogPlan;
  readonly stateDir: string;
  readonly admin: BindAddress;
  readonly drainTimeoutMs: number;
  readonly trustedProxies: AddressSet;
  /** Null: alerts are only logged. */
  readonly alerts: AlertsPlan | null;
  /** Null: nothing is on the tailnet. */
  readonly tailscale: TailscalePlan | null;
  readonly tokens: readonly TokenPlan[];
  readonly scopes: ReadonlyMap<string, ScopePlan>;
  readonly issuers: readonly IssuerPlan[];
  /** One for each host. Empty when no route has `oauth` or `session`. */
  readonly authorizationServers: readonly AuthorizationServerPlan[];
  readonly upstreams: ReadonlyMap<string, UpstreamPlan>;
  readonly listeners: ReadonlyMap<string, ListenerPlan>;
  /** In the order of precedence: priority, then specificity of the host, then of the path, then the file's order. */
  readonly routes: readonly RoutePlan[];
};
