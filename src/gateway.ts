// The composition root: builds the parts in order, hands them to one another, and takes them through start, reload and stop.
import { setTimeout as delay } from "node:timers/promises";
import { startAdmin, type Admin } from "./admin/admin.ts";
import type { GatewayStatus, ReloadResult } from "./admin/status.ts";
import type { ListenerTls } from "./certificates/select.ts";
import { explainFileMount } from "./config/file-mount.ts";
import { formatRefusal, formatWarnings } from "./config/format-problems.ts";
import { loadConfig, type LoadedConfig } from "./config/load.ts";
import { watchConfig, type ConfigWatch } from "./config/watch.ts";
import { createHttpLive, createHttpState } from "./http/state.ts";
import { formatAddress } from "./lib/address.ts";
import { formatDuration } from "./lib/duration.ts";
import { describeSystemError, GatewayError } from "./lib/errors.ts";
import { Listeners, type ListenerUpdate } from "./listeners/apply.ts";
import { buildPlan } from "./plan/build.ts";
import { describeChange } from "./plan/describe-change.ts";
import type { ListenerPlan, Plan } from "./plan/model.ts";
import { GatewayAuth, type PreparedAuth } from "./gateway-auth.ts";
import { GatewayCertificates } from "./gateway-certificates.ts";
import { buildStatus } from "./gateway-status.ts";
import { GatewayTailnet } from "./gateway-tailnet.ts";
import { createTcpLive } from "./tcp/connection.ts";
import { AccessLogs, type AccessLogWriter } from "./telemetry/access-log.ts";
import { changeLog, openLog, openStandardError, type Log } from "./telemetry/log.ts";
import { Metrics } from "./telemetry/metrics.ts";
import { LiveUpstreams, type PreparedUpstreams } from "./upstreams/live.ts";

export type GatewayOptions = {
  /** Absolute path of the configuration file. */
  readonly file: string;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly version: string;
  /** Of this process, for `status`. */
  readonly pid: number;
};

/** The configuration is bad; `text` shows all its problems and warnings to people. */
export class ConfigError extends GatewayError {
  readonly text: string;

  constructor(file: string, text: string) {
    super("ERR_CONFIG", `Cannot use configuration file '${file}'`);
    this.text = text;
  }
}

const PEM_KEY = /\b(?:cert|key)_file$/;
const SETTLING_LOOKS = 5;
const SETTLING_MS = 200;
const LAST_WORDS_MS = 300;

type GoodConfig = Extract<LoadedConfig, { ok: true }>;
type Prepared = {
  readonly plan: Plan;
  readonly digest: string;
  readonly accessLogs: ReadonlySet<AccessLogWriter | null>;
  readonly commit: () => void;
  readonly abort: () => Promise<void>;
};

/** Starts everything that the file names. @throws {ConfigError} {ListenError} {GatewayError} with nothing left open */
export async function startGateway(options: GatewayOptions): Promise<Gateway> {
  const startedAt = performance.now();
  const loaded = await loadConfig(options.file, options.env);
  if (!loaded.ok) throw new ConfigError(options.file, formatRefusal(loaded));
  const gateway = new Gateway(options, openLog(buildPlan(loaded.config, loaded.files).log, openStandardError(options.env)));
  await gateway.start(loaded, startedAt);
  return gateway;
}

export class Gateway {
  readonly #options: GatewayOptions;
  readonly #log: Log;
  readonly #startedAt = new Date();
  readonly #metrics: Metrics;
  readonly #accessLogs: AccessLogs;
  readonly #upstreams: LiveUpstreams;
  readonly #tailnet: GatewayTailnet;
  readonly #certificates: GatewayCertificates;
  readonly #auth: GatewayAuth;
  readonly #listeners: Listeners;
  #current: Prepared | null = null;
  #admin: Admin | null = null;
  #watch: ConfigWatch | null = null;
  #running: Promise<ReloadResult> | null = null;
  #waiting: Promise<ReloadResult> | null = null;
  /** The newest file was refused, and why; null = the newest file serves. */
  #refusal: { readonly at: Date; readonly result: Extract<ReloadResult, { outcome: "refused" }> } | null = null;
  #loadedAt = new Date();
  #stopping: Promise<void> | null = null;
  readonly #stop = new AbortController();

  constructor(options: GatewayOptions, log: Log) {
    this.#options = options;
    this.#log = log;
    this.#accessLogs = new AccessLogs(log);
    this.#upstreams = new LiveUpstreams(log);
    this.#metrics = new Metrics({
      version: options.version,
      targets: () => this.#upstreams.samples(),
      certificates: () => this.#certificates.list().map(({ source, names, file, notAfter }) => ({ source, name: names[0] ?? file ?? "", notAfter })),
      identityProviders: () => this.#auth.providers().map(({ kind, name, outage }) => ({ kind, name, failing: outage !== null })),
      accessLogDropped: () => this.#accessLogs.dropped,
      tailnet: () => this.#tailnet.status(),
    });
    this.#tailnet = new GatewayTailnet({
      log,
      pid: options.pid,
      env: options.env,
      onChange: () => this.#certificates.tailnetChanged(),
      onHosts: () => void this.#listeners.tailnetMoved(),
    });
    this.#certificates = new GatewayCertificates({ log, pid: options.pid, metrics: this.#metrics.certificates, tailnet: this.#tailnet });
    this.#auth = new GatewayAuth(log);
    this.#listeners = new Listeners(this.#metrics, this.#certificates.challenges, log, this.#tailnet);
  }

  /** @throws as `startGateway` */
  async start(loaded: GoodConfig, startedAt: number): Promise<void> {
    let prepared: Prepared | null = null;
    try {
      prepared = await this.#prepare(loaded);
      this.#admin = await this.#startAdmin(prepared.plan);
      this.#commit(prepared);
    } catch (error) {
      await prepared?.abort();
      await this.close(0);
      throw error;
    }
    this.#warn(loaded);
    this.#watch = watchConfig({ paths: loaded.paths, onChange: () => void this.reload(), onWarning: (text) => this.#log.warn(text) });
    const mounted = await explainFileMount(this.#options.file);
    if (mounted !== null) this.#log.warn({ event: "single_file_mount" }, mounted);
    const listeners = this.#listeners.all.map(({ listener, address }) => `${listener.plan.name} ${address}`);
    this.#log.info(
      { event: "started", version: this.#options.version, file: this.#options.file, listeners, duration_ms: Math.round(performance.now() - startedAt) },
      "Serving",
    );
  }

  /**
   * Looks at the file and takes what changed. One reload at a time; those that are asked for meanwhile share the next one, which reads the
   * newest bytes. Never rejects: what is wrong is in the result, in the log, in `/ready` and in `status`.
   */
  reload(): Promise<ReloadResult> {
    if (this.#running === null) {
      this.#running = this.#reload().finally(() => (this.#running = null));
      return this.#running;
    }
    this.#waiting ??= this.#running.then(() => {
      this.#waiting = null;
      return this.reload();
    });
    return this.#waiting;
  }

  /** What SIGHUP does: who sends it sees no result, and so the log has a word, too, when the file is refused as before. */
  async hangUp(): Promise<void> {
    const before = this.#refusal;
    await this.reload();
    if (before !== null && this.#refusal === before)
      this.#log.info({ event: "still_refused", since: before.at.toISOString() }, "Configuration still refused, the last good one goes on");
  }

  async #reload(): Promise<ReloadResult> {
    const current = this.#current;
    const unchanged = { outcome: "unchanged", warnings: [], text: "" } as const;
    if (this.#stopping !== null || current === null) return unchanged;
    const startedAt = performance.now();
    try {
      const loaded = await this.#load();
      if (this.#stopping !== null) return unchanged;
      this.#watch?.replace(loaded.paths);
      const { warnings } = loaded;
      if (!loaded.ok) return this.#refuse({ outcome: "refused", problems: loaded.problems, warnings, text: formatRefusal(loaded) });
      const told = { warnings, text: formatWarnings(warnings, loaded.source) };
      if (loaded.digest === current.digest && this.#listeners.all.every(({ down }) => down === "")) {
        if (this.#refusal !== null) {
          this.#metrics.restored();
          this.#log.info({ event: "restored" }, "The configuration file is again the one that serves");
          this.#refusal = null;
        }
        return { outcome: "unchanged", ...told };
      }
      const prepared = await this.#prepare(loaded);
      const previousAdmin = this.#admin;
      try {
        await this.#tailnet.sealAhead(prepared.plan, this.#stop.signal);
        if (this.#stop.signal.aborted) {
          await prepared.abort();
          return unchanged;
        }
        if (formatAddress(prepared.plan.admin) !== formatAddress(current.plan.admin)) this.#admin = await this.#startAdmin(prepared.plan);
      } catch (error) {
        await prepared.abort();
        this.#tailnet.apply(current.plan.tailscale);
        throw error;
      }
      this.#commit(prepared);
      if (previousAdmin !== this.#admin) void previousAdmin?.close();
      this.#metrics.reload(true);
      this.#warn(loaded);
      this.#log.info(
        { event: "reloaded", ...describeChange(current.plan, prepared.plan), duration_ms: Math.round(performance.now() - startedAt) },
        "Configuration reloaded",
      );
      return { outcome: "changed", ...told };
    } catch (error) {
      const message = error instanceof GatewayError ? error.message : `Cannot apply the configuration: ${describeSystemError(error)}`;
      return this.#refuse({ outcome: "refused", problems: [{ file: this.#options.file, message }], warnings: [], text: `${this.#options.file}: ${message}\n` });
    }
  }

  #warn({ warnings, source }: GoodConfig): void {
    if (warnings.length > 0)
      this.#log.warn({ event: "config_warnings", problems: warnings, text: formatWarnings(warnings, source) }, "The configuration has warnings");
  }

  /** A certificate and its key are replaced one after the other: what does not fit at first gets a moment. */
  async #load(): Promise<LoadedConfig> {
    const { file, env } = this.#options;
    for (let looks = 1; ; looks += 1) {
      const loaded = await loadConfig(file, env);
      if (loaded.ok || looks > SETTLING_LOOKS || this.#stopping !== null || !loaded.problems.every(({ path }) => PEM_KEY.test(path))) return loaded;
      await delay(SETTLING_MS, undefined, { ref: false });
    }
  }

  #refuse(result: Extract<ReloadResult, { outcome: "refused" }>): ReloadResult {
    // The same refusal again, because the directory was looked at once more, is no news.
    if (this.#refusal?.result.text === result.text) return result;
    this.#refusal = { at: new Date(), result };
    this.#metrics.reload(false);
    this.#log.error(
      { event: "reload_refused", problems: result.problems, warnings: result.warnings, text: result.text },
      "Configuration refused, the last good one goes on",
    );
    return result;
  }

  /** Everything that can fail. Until `commit` nothing that serves is touched, and after a failure or `abort` nothing is left of it. */
  async #prepare(loaded: GoodConfig): Promise<Prepared> {
    try {
      return await this.#prepareAll(loaded);
    } catch (error) {
      this.#retain(this.#current);
      throw error;
    }
  }

  async #prepareAll(loaded: GoodConfig): Promise<Prepared> {
    const plan = buildPlan(loaded.config, loaded.files);
    const upstreams = this.#upstreams.prepare(plan.upstreams);
    await this.#tailnet.prepare(plan.tailscale);
    const certificates = await this.#certificates.prepare(plan);
    const auth = await this.#auth.prepare(plan);
    const update = (listener: ListenerPlan): ListenerUpdate => this.#update(plan, listener, { upstreams, auth }, certificates.tls.get(listener.name) ?? null);
    let updates: ListenerUpdate[];
    let listeners: Awaited<ReturnType<Listeners["prepare"]>>;
    try {
      updates = [...plan.listeners.values()].map(update);
      listeners = await this.#listeners.prepare(updates);
    } catch (error) {
      auth.abort();
      throw error;
    }
    const commit = (): void => {
      changeLog(this.#log, plan.log);
      upstreams.commit();
      // An order may begin at once: its challenges need the listeners.
      listeners.commit(plan.drainTimeoutMs);
      auth.commit();
      certificates.commit();
      // A port is opened to the tailnet when its socket is there.
      this.#tailnet.apply(plan.tailscale);
    };
    const abort = async (): Promise<void> => {
      await listeners.abort();
      auth.abort();
      this.#retain(this.#current);
    };
    return { plan, digest: loaded.digest, accessLogs: new Set(updates.map(({ state }) => state.accessLog)), commit, abort };
  }

  #commit(prepared: Prepared): void {
    prepared.commit();
    this.#retain(prepared);
    this.#current = prepared;
    this.#loadedAt = new Date();
    this.#refusal = null;
  }

  /** Lets go of log files and metrics that only another configuration had. */
  #retain(prepared: Prepared | null): void {
    this.#accessLogs.retain(prepared?.accessLogs ?? new Set());
    this.#metrics.retain(new Set(prepared?.plan.listeners.keys()), new Set(prepared?.plan.routes.map(({ name }) => name)));
  }

  #update(
    plan: Plan,
    listener: ListenerPlan,
    live: { readonly upstreams: PreparedUpstreams; readonly auth: PreparedAuth },
    certificates: ListenerTls | null,
  ): ListenerUpdate {
    const { upstreams, auth } = live;
    const accessLog = this.#accessLogs.open(listener.accessLog, listener.name);
    const present = this.#listeners.find(listener.name);
    if (listener.protocol === "http") {
      const kept = present?.protocol === "http" ? present.state : { live: createHttpLive(), drain: { draining: false, cut: false } };
      const state = createHttpState({
        plan: listener,
        gateway: plan,
        upstreams: upstreams.http,
        servers: auth.servers,
        issuers: auth.issuers,
        challenges: [...plan.listeners.values()].some(({ tls }) => "protocol" in tls && tls.acme !== null) ? this.#certificates.challenges : null,
        live: kept.live,
        drain: kept.drain,
        metrics: this.#metrics,
        accessLog,
        log: this.#log,
      });
      return { protocol: "http", plan: listener, state, certificates };
    }
    const upstream = upstreams.tcp.get(listener.upstream);
    if (upstream === undefined) throw new GatewayError("ERR_INTERNAL", `Listener '${listener.name}' has no upstream '${listener.upstream}'`);
    const tcpLive = present?.protocol === "tcp" ? present.state.live : createTcpLive();
    return {
      protocol: "tcp",
      plan: listener,
      state: { plan: listener, upstream, live: tcpLive, stats: this.#metrics.tcpListener(listener.name), accessLog, log: this.#log },
      certificates,
    };
  }

  #startAdmin(plan: Plan): Promise<Admin> {
    return startAdmin({
      address: plan.admin,
      status: () => this.status(),
      metrics: this.#metrics,
      reload: () => this.reload(),
      renew: (name) => this.#certificates.renew(name),
      logout: () => this.#tailnet.logout(),
      auth: this.#auth,
      log: this.#log,
    });
  }

  /** What `/status`, `/ready` and the commands show. */
  status(): GatewayStatus {
    return buildStatus({
      version: this.#options.version,
      pid: this.#options.pid,
      file: this.#options.file,
      startedAt: this.#startedAt,
      loadedAt: this.#loadedAt,
      refusal: this.#refusal,
      stopping: this.#stopping !== null,
      plan: this.#current?.plan ?? null,
      digest: this.#current?.digest ?? "",
      listeners: this.#listeners,
      upstreams: this.#upstreams.all,
      stateError: this.#certificates.stateError,
      identityProviders: this.#auth.providers(),
      tls: this.#certificates.tls,
      tailnet: this.#tailnet.status(),
      tailnetClients: this.#listeners.tailnetClients(),
    });
  }

  /** Stops accepting at once, lets what is under way end until the deadline (default: the plan's), then ends everything. */
  close(drainTimeoutMs = this.#current?.plan.drainTimeoutMs ?? 0): Promise<void> {
    this.#stopping ??= this.#close(drainTimeoutMs);
    return this.#stopping;
  }

  async #close(drainTimeoutMs: number): Promise<void> {
    const startedAt = performance.now();
    if (this.#current !== null) this.#log.info({ event: "stopping", drain_timeout: formatDuration(drainTimeoutMs) }, "Stopping");
    this.#watch?.close();
    this.#stop.abort();
    await this.#running?.catch(() => {});
    // Whoever stops us waits for all of it, and not longer: Docker kills after 10 s.
    const leftMs = Math.max(0, drainTimeoutMs - (performance.now() - startedAt));
    const hasGuests = this.#listeners.tailnetClients().length > 0;
    await Promise.all([this.#listeners.close(leftMs), this.#certificates.close()]);
    // tailscaled carries the ends of their connections to them: without it they would wait for ever.
    if (hasGuests) await delay(LAST_WORDS_MS);
    await this.#tailnet.close();
    await this.#auth.close();
    this.#upstreams.destroy();
    await this.#admin?.close();
    await this.#accessLogs.close();
    this.#metrics.close();
    if (this.#current !== null) this.#log.info({ event: "stopped", duration_ms: Math.round(performance.now() - startedAt) }, "Stopped");
  }
}
