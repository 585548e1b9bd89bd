// Config -> Plan: pure and synchronous. The configuration was checked before, so that nothing here can fail.
import type { AccessLog, Config, HttpListener, TcpListener } from "../config/types.ts";
import { AddressSet, parseListenAddress } from "../lib/address.ts";
import { buildAuthorizationServers, buildIssuers, buildScopes } from "./build-auth.ts";
import { buildRoutes } from "./build-routes.ts";
import { buildTailscale, tailnetMatch } from "./build-tailscale.ts";
import { TlsPlans } from "./build-tls.ts";
import { UpstreamPlans } from "./build-upstreams.ts";
import type { AccessLogPlan, AlertsPlan, BindAddress, ListenAddress, ListenerPlan, Plan } from "./model.ts";
import { durationMs, sizeBytes } from "./units.ts";

/**
 * The plan of a resolved configuration. `files`: PEM texts of certificates, keys and CAs by absolute path, as `loadConfig` gives them.
 * @throws {Error} only when the configuration did not come from `loadConfig`.
 */
export function buildPlan(config: Config, files: ReadonlyMap<string, string>): Plan {
  const upstreams = new UpstreamPlans(config, files);
  const routes = buildRoutes(config, upstreams);
  const tcpUpstreams = upstreams.addTcp(config.listeners);
  const tls = new TlsPlans(config, files);
  const listeners = new Map<string, ListenerPlan>();
  for (const [name, listener] of Object.entries(config.listeners)) {
    const shared = {
      name,
      listen: listenAddress(listener.listen),
      tls: tls.plan(name, listener),
      allow: Array.isArray(listener.allow) ? new AddressSet(listener.allow) : null,
      allowTailnet: listener.allow === undefined || Array.isArray(listener.allow) ? null : tailnetMatch(listener.allow.tailnet),
      deny: listener.deny === undefined || listener.deny.length === 0 ? null : new AddressSet(listener.deny),
      maxConnections: listener.max_connections,
      accessLog: buildAccessLog(listener.access_log ?? config.access_log),
    };
    listeners.set(
      name,
      listener.protocol === "http"
        ? { ...shared, ...buildHttp(listener), ...tls.httpPlan(listener) }
        : { ...shared, ...buildTcp(listener, tcpUpstreams.get(name) ?? "") },
    );
  }
  return {
    log: { level: config.log.level ?? "info", format: config.log.format },
    stateDir: config.state.dir,
    admin: bindAddress(config.admin.listen),
    drainTimeoutMs: durationMs(config.drain_timeout),
    trustedProxies: new AddressSet(config.trusted_proxies),
    alerts: buildAlerts(config),
    tailscale: buildTailscale(config),
    tokens: config.auth.tokens.map((token) => ({ name: token.name, sha256: Buffer.from(token.sha256 ?? "", "hex"), scopes: token.scopes })),
    scopes: buildScopes(config),
    issuers: buildIssuers(config, files),
    authorizationServers: buildAuthorizationServers(config, files),
    upstreams: upstreams.all,
    listeners,
    routes,
  };
}

function buildAlerts({ alerts }: Config): AlertsPlan | null {
  return alerts === undefined ? null : { webhook: { url: alerts.webhook.url ?? "", secret: alerts.webhook.secret ?? null } };
}

function buildHttp(listener: HttpListener) {
  const { handshake, headers, read, write, idle } = listener.timeouts;
  return {
    protocol: "http" as const,
    maxHeaderBytes: sizeBytes(listener.max_header_size),
    timeouts: {
      handshakeMs: durationMs(handshake),
      headersMs: durationMs(headers),
      readMs: durationMs(read),
      writeMs: durationMs(write),
      idleMs: durationMs(idle),
    },
  };
}

function buildTcp(listener: TcpListener, upstream: string) {
  const { connect, idle, expect } = listener.timeouts;
  const rate = listener.connection_rate;
  return {
    protocol: "tcp" as const,
    upstream,
    expect: listener.expect ?? null,
    maxConnectionsPerClient: listener.max_connections_per_client,
    connectionRate: rate === undefined ? null : { connections: rate.connections, perMs: durationMs(rate.per) },
    keepAliveMs: durationMs(listener.keep_alive),
    timeouts: { connectMs: durationMs(connect), idleMs: durationMs(idle), expectMs: durationMs(expect) },
  };
}

function buildAccessLog(log: AccessLog): AccessLogPlan {
  if (typeof log === "string") return { kind: log };
  return { kind: "files", dir: log.dir, retentionMs: durationMs(log.retention), maxBytes: sizeBytes(log.max_size) };
}

function bindAddress(text: string): BindAddress {
  const address = listenAddress(text);
  if (address.kind === "tailnet") throw new RangeError("Not an address of this machine");
  return address;
}

function listenAddress(text: string): ListenAddress {
  const address = parseListenAddress(text);
  if (address === null) throw new RangeError("Not an address to listen on");
  return address;
}
