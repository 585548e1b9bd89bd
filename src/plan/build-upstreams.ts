// Upstreams of the plan: the named ones, and one for each URL that stands on a route or listener itself.
import { createHash } from "node:crypto";
import type { Config, TcpListener, Upstream, UpstreamEntry } from "../config/types.ts";
import { parseDialAddress } from "../lib/address.ts";
import { parseMaintenance } from "../lib/maintenance.ts";
import { parseTarget } from "../lib/target.ts";
import type { HealthPlan, TargetPlan, TargetScheme, UpstreamPlan, UpstreamTlsPlan } from "./model.ts";
import { durationMs } from "./units.ts";

type Kind = "http" | "tcp";
type Draft = Omit<UpstreamPlan, "key" | "name">;

// What the schema's defaults give to an entry without settings.
const PLAIN = {
  maxConnections: 0,
  ejection: { failures: 3, durationMs: 10_000 },
  timeouts: { connectMs: 5_000, responseHeadersMs: 300_000, readMs: 0, writeMs: 60_000, idleMs: 0, keepAliveMs: 4_000 },
};

const PLAIN_TLS: UpstreamTlsPlan = { ca: null, serverName: null, certificate: null, verify: true };

const TCP_HEALTH = { interval: "30s", timeout: "5s", failures: 2 };

/** Collects the upstreams that routes and listeners use. Those that nothing uses are left out: nobody would dial them. */
export class UpstreamPlans {
  readonly all = new Map<string, UpstreamPlan>();
  readonly #entries: Readonly<Record<string, UpstreamEntry>>;
  readonly #files: ReadonlyMap<string, string>;

  constructor(config: Config, files: ReadonlyMap<string, string>) {
    this.#entries = config.upstreams;
    this.#files = files;
  }

  /** The name in the plan of the upstream that a route names, or gives as a URL. */
  addHttp(text: string): string {
    if (!this.all.has(text)) this.#add(text, this.#draft(text, "http"));
    return text;
  }

  /**
   * The name in the plan of each TCP listener's upstream. Health and connect timeout belong to the listener: listeners that go to the
   * same place with the same settings share an upstream, others get one of their own, named `upstream (listener)`.
   */
  addTcp(listeners: Config["listeners"]): ReadonlyMap<string, string> {
    const byText = Map.groupBy(
      Object.entries(listeners).flatMap(([name, listener]) =>
        listener.protocol === "tcp" ? [{ name, text: listener.upstream, draft: this.#tcpDraft(listener) }] : [],
      ),
      ({ text }) => text,
    );
    const names = new Map<string, string>();
    for (const [text, users] of byText) {
      const shared = !this.all.has(text) && new Set(users.map(({ draft }) => JSON.stringify(draft))).size === 1;
      for (const { name, draft } of users) {
        const own = shared ? text : `${text} (${name})`;
        if (!this.all.has(own)) this.#add(own, draft);
        names.set(name, own);
      }
    }
    return names;
  }

  #add(name: string, draft: Draft): void {
    const plan = { name, ...draft };
    this.all.set(name, { ...plan, key: createHash("sha256").update(JSON.stringify(plan)).digest("base64url") });
  }

  #draft(text: string, kind: Kind): Draft {
    const entry = Object.hasOwn(this.#entries, text) ? this.#entries[text] : undefined;
    if (typeof entry === "object") return this.#entryDraft(entry, kind);
    const targets = [targetPlan(entry ?? text, kind)];
    return { scheme: schemeOf(targets), targets, tls: PLAIN_TLS, authorization: null, health: null, ...PLAIN };
  }

  #entryDraft(entry: Upstream, kind: Kind): Draft {
    const targets = entry.targets.map((url) => targetPlan(url, kind));
    const { health, timeouts } = entry;
    return {
      scheme: schemeOf(targets),
      targets,
      tls: {
        ca: this.#text(entry.ca_file),
        serverName: entry.server_name?.toLowerCase() ?? null,
        certificate: entry.cert_file === undefined ? null : { cert: this.#text(entry.cert_file) ?? "", key: this.#text(entry.key_file) ?? "" },
        verify: !entry.insecure_skip_verify,
      },
      authorization: entry.authorization ?? null,
      maxConnections: entry.max_connections,
      health:
        health === undefined
          ? null
          : { kind: "http", path: health.path, intervalMs: durationMs(health.interval), timeoutMs: durationMs(health.timeout), failures: health.failures },
      ejection: { failures: entry.ejection.failures, durationMs: durationMs(entry.ejection.duration) },
      timeouts: {
        connectMs: durationMs(timeouts.connect),
        responseHeadersMs: durationMs(timeouts.response_headers),
        readMs: durationMs(timeouts.read),
        writeMs: durationMs(timeouts.write),
        idleMs: durationMs(timeouts.idle),
        keepAliveMs: durationMs(timeouts.keep_alive),
      },
    };
  }

  #text(file: string | undefined): string | null {
    return file === undefined ? null : (this.#files.get(file) ?? null);
  }

  #tcpDraft(listener: TcpListener): Draft {
    const draft = this.#draft(listener.upstream, "tcp");
    return { ...draft, health: tcpHealth(listener), timeouts: { ...draft.timeouts, connectMs: durationMs(listener.timeouts.connect) } };
  }
}

function schemeOf(targets: readonly TargetPlan[]): TargetScheme {
  return targets[0]?.scheme ?? "http";
}

function targetPlan(url: string, kind: Kind): TargetPlan {
  const parsed = parseTarget(url);
  if (parsed.ok) return { url, scheme: parsed.scheme === "unix" ? kind : parsed.scheme, address: parsed.address };
  // A TCP listener writes host:port.
  const address = parseDialAddress(url);
  if (address === null) throw new RangeError("Not a target");
  return { url, scheme: kind, address };
}

function tcpHealth(listener: TcpListener): HealthPlan {
  const health = typeof listener.health === "string" ? { check: listener.health, ...TCP_HEALTH } : listener.health;
  const text = "maintenance" in health ? (health.maintenance ?? "") : "";
  const window = parseMaintenance(text);
  return {
    kind: health.check,
    intervalMs: durationMs(health.interval),
    timeoutMs: durationMs(health.timeout),
    failures: health.failures,
    clientId: "client_id" in health ? (health.client_id ?? 0) : 0,
    maintenance: window === null ? null : { text, ...window },
  };
}
