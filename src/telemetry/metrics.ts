// The metrics: objects of plain numbers that the data path looks up once and counts in without allocating, written out when Prometheus asks.
import { CertificateMetrics, writeTls, type CertificateSample } from "./certificate-metrics.ts";
import { Exposition } from "./exposition.ts";
import { Histogram, HTTP_BUCKETS, TCP_BUCKETS } from "./histogram.ts";
import { writeIdentityProviders, type IdentityProviderSample } from "./identity-metrics.ts";
import { openProcessStats } from "./process-stats.ts";
import { writeTailnet, type TailnetSample } from "./tailnet-metrics.ts";
import { TlsStats } from "./tls-stats.ts";

/** The route label of requests that no route matched. No route can have this name. */
export const NO_ROUTE = "-";

// Reasons are chosen by our own code, so more than these would be a mistake; it must not cost memory without end.
const MAX_REASONS = 32;

/** One route on one HTTP listener. `active`: requests under way. */
export class HttpRouteStats {
  active = 0;
  retired = false;
  bytesIn = 0;
  bytesOut = 0;
  readonly codes = new Map<number, number>();
  readonly durations = new Histogram(HTTP_BUCKETS);

  /** A request ended. Bytes are those of the bodies, or of both ways of an upgraded connection. */
  observe(status: number, durationMs: number, bytesIn: number, bytesOut: number): void {
    this.codes.set(status, (this.codes.get(status) ?? 0) + 1);
    this.durations.observe(durationMs);
    this.bytesIn += bytesIn;
    this.bytesOut += bytesOut;
  }
}

/** One TCP listener. `active`: connections relayed now. */
export class TcpListenerStats {
  active = 0;
  retired = false;
  bytesIn = 0;
  bytesOut = 0;
  readonly reasons = new Map<string, number>();
  readonly durations = new Histogram(TCP_BUCKETS);

  /** A relayed connection ended. `bytesIn` came from the client. */
  observe(durationMs: number, bytesIn: number, bytesOut: number): void {
    this.durations.observe(durationMs);
    this.bytesIn += bytesIn;
    this.bytesOut += bytesOut;
  }

  /** A connection was not relayed; `reason` is one of a few fixed words. */
  refused(reason: string): void {
    const key = this.reasons.has(reason) || this.reasons.size < MAX_REASONS ? reason : "other";
    this.reasons.set(key, (this.reasons.get(key) ?? 0) + 1);
  }
}

/** The sockets of any listener; its owner counts. `refused`: closed at once by limits or address. */
export class ConnectionStats {
  active = 0;
  retired = false;
  accepted = 0;
  refused = 0;
}

export type TargetSample = {
  readonly upstream: string;
  readonly target: string;
  readonly health: "unknown" | "healthy" | "degraded" | "unhealthy";
  readonly active: number;
};

/** What is asked for at each scrape instead of being counted. */
export type MetricsSources = {
  readonly version: string;
  readonly targets: () => Iterable<TargetSample>;
  readonly certificates: () => Iterable<CertificateSample>;
  readonly identityProviders: () => Iterable<IdentityProviderSample>;
  readonly accessLogDropped: () => number;
  /** Null: nothing is on the tailnet. */
  readonly tailnet: () => TailnetSample | null;
};

type Series<T> = { readonly listener: string; readonly route: string; readonly stats: T };

/** Gauges and counters of the whole process. The `active`, `accepted` and `refused` fields are written by whoever asked for the object. */
export class Metrics {
  readonly #sources: MetricsSources;
  readonly #process = openProcessStats();
  readonly #routes = new Map<string, Series<HttpRouteStats>>();
  readonly #tcp = new Map<string, Series<TcpListenerStats>>();
  readonly #connections = new Map<string, Series<ConnectionStats>>();
  readonly #tls = new Map<string, Series<TlsStats>>();
  readonly certificates = new CertificateMetrics();
  #reloads = 0;
  #failedReloads = 0;
  #lastReloadOk = true;
  #loadedAtMs: number;
  readonly #now: () => number;

  constructor(sources: Partial<MetricsSources> = {}, now: () => number = Date.now) {
    this.#sources = {
      version: "",
      targets: () => [],
      certificates: () => [],
      identityProviders: () => [],
      accessLogDropped: () => 0,
      tailnet: () => null,
      ...sources,
    };
    this.#now = now;
    this.#loadedAtMs = now();
  }

  /** @param route name of the route, or NO_ROUTE. */
  httpRoute(listener: string, route: string): HttpRouteStats {
    return getOrCreate(this.#routes, listener, route, () => new HttpRouteStats());
  }

  tcpListener(listener: string): TcpListenerStats {
    return getOrCreate(this.#tcp, listener, "", () => new TcpListenerStats());
  }

  connections(listener: string): ConnectionStats {
    return getOrCreate(this.#connections, listener, "", () => new ConnectionStats());
  }

  /** The handshakes of a listener whose TLS ends here. */
  tls(listener: string): TlsStats {
    return getOrCreate(this.#tls, listener, "", () => new TlsStats());
  }

  /** A reload ended; one that changed nothing is not told. */
  reload(ok: boolean): void {
    if (ok) {
      this.#reloads += 1;
      this.#loadedAtMs = this.#now();
    } else this.#failedReloads += 1;
    this.#lastReloadOk = ok;
  }

  /** The file is again the one that serves: nothing new was taken. */
  restored(): void {
    this.#lastReloadOk = true;
  }

  /** After a reload: series of listeners and routes that are no longer there vanish as soon as nothing is under way on them. */
  retain(listeners: ReadonlySet<string>, routes: ReadonlySet<string>): void {
    retire(this.#routes, ({ listener, route }) => !listeners.has(listener) || !(route === NO_ROUTE || routes.has(route)));
    retire(this.#tcp, ({ listener }) => !listeners.has(listener));
    retire(this.#connections, ({ listener }) => !listeners.has(listener));
    retire(this.#tls, ({ listener }) => !listeners.has(listener));
  }

  /** Everything in the Prometheus text format. */
  async text(): Promise<string> {
    const out = new Exposition();
    out.family("sidegate_build_info", "gauge", "Version of the gateway; always 1.");
    out.sample("sidegate_build_info", { version: this.#sources.version }, 1);
    this.#writeConnections(out);
    this.#writeHttp(out);
    this.#writeTcp(out);
    writeTls(out, live(this.#tls));
    this.certificates.write(out, this.#sources.certificates(), this.#now());
    this.#writeTargets(out);
    writeIdentityProviders(out, this.#sources.identityProviders());
    writeTailnet(out, this.#sources.tailnet(), this.#now());
    this.#writeConfig(out);
    out.single("sidegate_access_log_dropped_total", "counter", "Access log lines lost because they could not be written.", this.#sources.accessLogDropped());
    await this.#process.write(out);
    return out.text();
  }

  /** Stops watching the event loop. */
  close(): void {
    this.#process.close();
  }

  #writeConnections(out: Exposition): void {
    const all = live(this.#connections);
    out.family("sidegate_connections_active", "gauge", "Open client connections.");
    for (const { listener, stats } of all) out.sample("sidegate_connections_active", { listener }, stats.active);
    out.family("sidegate_connections_accepted_total", "counter", "Accepted client connections.");
    for (const { listener, stats } of all) out.sample("sidegate_connections_accepted_total", { listener }, stats.accepted);
    out.family("sidegate_connections_refused_total", "counter", "Client connections closed at once by an address rule or a limit.");
    for (const { listener, stats } of all) out.sample("sidegate_connections_refused_total", { listener }, stats.refused);
  }

  #writeHttp(out: Exposition): void {
    const all = live(this.#routes);
    out.family("sidegate_http_requests_total", "counter", "Requests that ended, by status code.");
    for (const { listener, route, stats } of all) {
      for (const [code, count] of stats.codes) out.sample("sidegate_http_requests_total", { listener, route, code: String(code) }, count);
    }
    out.family("sidegate_http_requests_active", "gauge", "Requests under way, upgraded connections too.");
    for (const { listener, route, stats } of all) out.sample("sidegate_http_requests_active", { listener, route }, stats.active);
    out.family("sidegate_http_request_duration_seconds", "histogram", "Time from the request to the end of its response.");
    for (const { listener, route, stats } of all) out.histogram("sidegate_http_request_duration_seconds", { listener, route }, stats.durations);
    out.family("sidegate_http_request_bytes_total", "counter", "Bytes of request bodies.");
    for (const { listener, route, stats } of all) out.sample("sidegate_http_request_bytes_total", { listener, route }, stats.bytesIn);
    out.family("sidegate_http_response_bytes_total", "counter", "Bytes of response bodies.");
    for (const { listener, route, stats } of all) out.sample("sidegate_http_response_bytes_total", { listener, route }, stats.bytesOut);
  }

  #writeTcp(out: Exposition): void {
    const all = live(this.#tcp);
    out.family("sidegate_tcp_connections_active", "gauge", "Relayed TCP connections.");
    for (const { listener, stats } of all) out.sample("sidegate_tcp_connections_active", { listener }, stats.active);
    out.family("sidegate_tcp_connection_duration_seconds", "histogram", "Time that relayed TCP connections lasted.");
    for (const { listener, stats } of all) out.histogram("sidegate_tcp_connection_duration_seconds", { listener }, stats.durations);
    out.family("sidegate_tcp_connections_refused_total", "counter", "TCP connections that were not relayed, by reason.");
    for (const { listener, stats } of all) {
      for (const [reason, count] of stats.reasons) out.sample("sidegate_tcp_connections_refused_total", { listener, reason }, count);
    }
    out.family("sidegate_tcp_received_bytes_total", "counter", "Bytes from clients of connections that ended.");
    for (const { listener, stats } of all) out.sample("sidegate_tcp_received_bytes_total", { listener }, stats.bytesIn);
    out.family("sidegate_tcp_sent_bytes_total", "counter", "Bytes to clients of connections that ended.");
    for (const { listener, stats } of all) out.sample("sidegate_tcp_sent_bytes_total", { listener }, stats.bytesOut);
  }

  #writeTargets(out: Exposition): void {
    const all = [...this.#sources.targets()];
    out.family("sidegate_upstream_target_healthy", "gauge", "1 when the target is healthy, degraded or not checked yet, 0 when it is unhealthy.");
    for (const { upstream, target, health } of all) out.sample("sidegate_upstream_target_healthy", { upstream, target }, health === "unhealthy" ? 0 : 1);
    out.family("sidegate_upstream_target_degraded", "gauge", "1 when the target fails in its maintenance window.");
    for (const { upstream, target, health } of all) out.sample("sidegate_upstream_target_degraded", { upstream, target }, health === "degraded" ? 1 : 0);
    out.family("sidegate_upstream_target_active", "gauge", "Requests or connections under way to the target.");
    for (const { upstream, target, active } of all) out.sample("sidegate_upstream_target_active", { upstream, target }, active);
  }

  #writeConfig(out: Exposition): void {
    out.family("sidegate_config_reloads_total", "counter", "Reloads that changed something or were refused.");
    out.sample("sidegate_config_reloads_total", { result: "success" }, this.#reloads);
    out.sample("sidegate_config_reloads_total", { result: "failure" }, this.#failedReloads);
    out.single(
      "sidegate_config_last_reload_successful",
      "gauge",
      "1 when the newest configuration file serves, 0 when it was refused.",
      this.#lastReloadOk ? 1 : 0,
    );
    out.single("sidegate_config_last_reload_success_timestamp_seconds", "gauge", "When the configuration that serves was taken.", this.#loadedAtMs / 1_000);
    out.single(
      "sidegate_config_age_seconds",
      "gauge",
      "Time since the configuration that serves was taken.",
      Math.max(0, (this.#now() - this.#loadedAtMs) / 1_000),
    );
  }
}

function getOrCreate<T extends { retired: boolean }>(all: Map<string, Series<T>>, listener: string, route: string, create: () => T): T {
  const key = `${listener}\n${route}`;
  let series = all.get(key);
  if (series === undefined) {
    series = { listener, route, stats: create() };
    all.set(key, series);
  }
  series.stats.retired = false;
  return series.stats;
}

function retire<T extends { retired: boolean; active: number }>(all: Map<string, Series<T>>, gone: (series: Series<T>) => boolean): void {
  for (const series of all.values()) series.stats.retired = gone(series);
  live(all);
}

// What a removed listener or route still has under way goes on being counted until it ends.
function live<T extends { retired: boolean; active: number }>(all: Map<string, Series<T>>): Series<T>[] {
  for (const [key, { stats }] of all) if (stats.retired && stats.active === 0) all.delete(key);
  return [...all.values()];
}
