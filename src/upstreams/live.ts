// The live upstreams of the gateway: one that a reload leaves as it was keeps its connections and its health.
import type { UpstreamPlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import type { TargetSample } from "../telemetry/metrics.ts";
import { startHealth, type Health } from "./health.ts";
import { HttpUpstream } from "./http-pool.ts";
import { Upstream } from "./upstream.ts";

/** The upstreams of a plan by name, HTTP and TCP apart; `commit` is called once, or never. */
export type PreparedUpstreams = { readonly http: ReadonlyMap<string, HttpUpstream>; readonly tcp: ReadonlyMap<string, Upstream>; readonly commit: () => void };

type Entry = {
  readonly upstream: Upstream;
  /** Null for the upstream of TCP listeners, whose connections are dialled one by one. */
  readonly http: HttpUpstream | null;
  health: Health | null;
};

export class LiveUpstreams {
  #entries = new Map<string, Entry>();
  readonly #log: Log;

  constructor(log: Log) {
    this.#log = log;
  }

  get all(): Upstream[] {
    return [...this.#entries.values()].map(({ upstream }) => upstream);
  }

  /** A line for each target, for the metrics. */
  *samples(): Iterable<TargetSample> {
    for (const { plan, targets } of this.all) {
      for (const target of targets) yield { upstream: plan.name, target: target.plan.url, health: target.health, active: target.active };
    }
  }

  /**
   * The live upstreams of the next plan, by name. Nothing connects before `commit`, which starts the new ones' health checks and closes
   * what is not used any more: requests that are under way there end first.
   * @throws {GatewayError} when a pool cannot be made (a CA file that OpenSSL refuses)
   */
  prepare(plans: ReadonlyMap<string, UpstreamPlan>): PreparedUpstreams {
    const next = new Map<string, Entry>();
    const http = new Map<string, HttpUpstream>();
    const tcp = new Map<string, Upstream>();
    for (const [name, plan] of plans) {
      const present = this.#entries.get(name);
      const entry = present?.upstream.plan.key === plan.key ? present : createEntry(plan);
      next.set(name, entry);
      if (entry.http === null) tcp.set(name, entry.upstream);
      else http.set(name, entry.http);
    }
    const commit = (): void => {
      for (const [name, entry] of this.#entries) if (next.get(name) !== entry) close(entry);
      for (const entry of next.values()) {
        if (this.#entries.get(entry.upstream.plan.name) !== entry) warnOfBlindTrust(entry.upstream.plan, this.#log);
        entry.health ??= startHealth(entry.upstream, this.#log);
      }
      this.#entries = next;
    };
    return { http, tcp, commit };
  }

  /** Ends health checks and connections at once. */
  destroy(): void {
    for (const { health, http } of this.#entries.values()) {
      health?.close();
      void http?.close(0);
    }
    this.#entries = new Map();
  }
}

/** Once for each change: whoever reads the log of a start or a reload should see it. */
function warnOfBlindTrust({ name, tls }: UpstreamPlan, log: Log): void {
  if (tls.verify) return;
  log.warn(
    { upstream: name },
    `Upstream '${name}' takes any certificate of its targets: whoever is in between can read and change everything. Name their CA in 'ca_file' in place of 'insecure_skip_verify'`,
  );
}

function createEntry(plan: UpstreamPlan): Entry {
  const upstream = new Upstream(plan);
  return { upstream, http: plan.scheme === "tcp" ? null : new HttpUpstream(upstream), health: null };
}

function close({ health, http }: Entry): void {
  health?.close();
  void http?.close(Number.POSITIVE_INFINITY);
}
