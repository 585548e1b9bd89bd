// The certificates that tailscaled gives for the names of the node: which ones, when they are asked for, and the source that listeners ask.
import type { Log } from "../telemetry/log.ts";
import type { CertificateEvent } from "./events.ts";
import type { CertificateInfo, CertificateSource, ServerCertificate } from "./source.ts";
import { TailscaleCertificate, type TailscaleContext } from "./tailscale-certificate.ts";
import { NO_DOMAINS } from "./tailscale-problem.ts";

const LOOK_MS = 1_000;
// The names come with the first network map, a moment after the node runs.
const GRACE_MS = 10_000;
// tailscaled waits for Let's Encrypt to look at a DNS record that its control server sets.
const TIMEOUT_MS = 300_000;

/** The tailnet, as far as it gives certificates. */
export type CertificateTailnet = {
  /** Whether the node is on the tailnet now. */
  runs(): boolean;
  /** Names that tailscaled gives certificates for, the node's own first; empty while they are not known, and when the tailnet gives none. */
  domains(): readonly string[];
  /** Rejects with an error whose message is for people; `status` 0 = no answer, 429 = the CA limits orders, for `retryAfterMs` where that is known. */
  certificate(...asked: Parameters<TailscaleContext["certificate"]>): ReturnType<TailscaleContext["certificate"]>;
};

/** Times for tests. */
export type TailscaleTimes = { readonly lookMs?: number; readonly graceMs?: number; readonly timeoutMs?: number };

/** Kept in memory alone: tailscaled has them on disk, and gives them again after a restart at no cost. */
export class TailscaleCertificates {
  readonly #tailnet: CertificateTailnet;
  readonly #context: TailscaleContext;
  readonly #lookMs: number;
  readonly #graceMs: number;
  /** By name, in the order of the tailnet. */
  #certificates: ReadonlyMap<string, TailscaleCertificate> = new Map();
  /** Of the node's name before: it serves until that of the present one is there. */
  #last: ServerCertificate | null = null;
  #ran = false;
  /** Since when the node runs and the tailnet gives no names; null when it gives some. */
  #emptySinceMs: number | null = null;
  #toldEmpty = false;
  #timer: NodeJS.Timeout | null = null;

  /** The same one for all listeners. A client that sends the short name of the node, or none, gets the certificate of the whole name. */
  readonly source: CertificateSource = {
    get: (serverName) => this.#certificates.get(serverName)?.served ?? null,
    fallback: () => this.#fallback(),
    list: () => this.#list(),
  };

  /** @param args.onEvent `renewed` and `renewal_failed`. */
  constructor(args: {
    tailnet: CertificateTailnet;
    log: Log;
    onEvent: (event: CertificateEvent) => void;
    now?: () => number;
    random?: () => number;
    times?: TailscaleTimes;
  }) {
    const { tailnet, log, onEvent, now = Date.now, random = Math.random, times = {} } = args;
    const { lookMs = LOOK_MS, graceMs = GRACE_MS, timeoutMs = TIMEOUT_MS } = times;
    this.#tailnet = tailnet;
    this.#lookMs = lookMs;
    this.#graceMs = graceMs;
    this.#context = { certificate: (domain, minValidityMs) => tailnet.certificate(domain, minValidityMs), log, onEvent, now, random, timeoutMs };
  }

  /** Whether a listener wants them, from now on. What there is stays over reloads; what nobody wants is let go of. */
  want(wanted: boolean): void {
    if (!wanted) this.close();
    else if (this.#timer === null) {
      this.#timer = setInterval(() => this.look(), this.#lookMs).unref();
      this.look();
    }
  }

  /** Looks at the tailnet, and asks for what is due: each second, and called when the tailnet changed. */
  look(): void {
    if (this.#timer === null) return;
    const runs = this.#tailnet.runs();
    const isBack = runs && !this.#ran;
    this.#ran = runs;
    // One that serves goes on to be renewed while tailscaled is away, or starts again and does not know its names yet.
    const domains = this.#tailnet.domains().map((domain) => domain.toLowerCase().replace(/\.$/, ""));
    if (domains.length > 0) this.#setDomains(domains);
    this.#noteEmpty(runs && domains.length === 0);
    if (!runs) return;
    for (const certificate of this.#certificates.values()) {
      if (isBack) certificate.hurry();
      if (certificate.isToAsk()) void certificate.attempt(false);
    }
  }

  /** Has a new one ordered for this name, whatever the age of the present one; Let's Encrypt gives five a week. The outcome is a sentence. Never rejects. */
  async renew(name: string): Promise<{ ok: boolean; message: string }> {
    const certificate = this.#certificates.get(name.toLowerCase());
    if (certificate === undefined) return { ok: false, message: `'${name}' is no name of this node that the tailnet gives certificates for` };
    if (!this.#tailnet.runs()) return { ok: false, message: `Cannot renew the certificate of '${name}': the node is not on the tailnet now` };
    return certificate.attempt(true);
  }

  close(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    for (const certificate of this.#certificates.values()) certificate.stop();
    this.#certificates = new Map();
    this.#last = null;
    this.#ran = false;
    this.#noteEmpty(false);
  }

  #setDomains(domains: readonly string[]): void {
    const before = this.#certificates;
    const wanted = new Set(domains);
    const gone = [...before.keys()].filter((domain) => !wanted.has(domain));
    if (gone.length === 0 && wanted.size === before.size) return;
    if (gone.length > 0) {
      this.#last = this.#fallback();
      for (const domain of gone) before.get(domain)?.stop();
      this.#context.log.info(
        { event: "certificate_dropped", names: gone, wanted: domains },
        "The node's name in the tailnet is another one: a certificate for that is asked for",
      );
    }
    this.#certificates = new Map(Array.from(wanted, (domain) => [domain, before.get(domain) ?? new TailscaleCertificate(this.#context, domain)]));
  }

  #noteEmpty(isEmpty: boolean): void {
    if (!isEmpty) {
      this.#emptySinceMs = null;
      this.#toldEmpty = false;
      return;
    }
    this.#emptySinceMs ??= this.#context.now();
    if (this.#toldEmpty || !this.#isEmpty()) return;
    this.#toldEmpty = true;
    this.#context.log.warn({ event: "certificate_not_offered" }, `No certificate can be had from tailscaled: ${NO_DOMAINS}`);
  }

  /** Whether the tailnet gives no names for long enough to believe it. */
  #isEmpty(): boolean {
    return this.#emptySinceMs !== null && Math.abs(this.#context.now() - this.#emptySinceMs) >= this.#graceMs;
  }

  #fallback(): ServerCertificate | null {
    for (const { served } of this.#certificates.values()) if (served !== null) return served;
    return this.#last;
  }

  #list(): readonly CertificateInfo[] {
    const runs = this.#tailnet.runs();
    const away = runs ? "" : "the node is not on the tailnet";
    if (this.#certificates.size === 0) {
      const error = this.#isEmpty() ? NO_DOMAINS : away;
      return [{ source: "tailscale", names: [], file: null, issuer: "", notBefore: null, notAfter: null, renewAt: null, error }];
    }
    return Array.from(this.#certificates.values(), (certificate) => {
      const info = certificate.info();
      return info.error === "" && certificate.isDue() ? { ...info, error: away } : info;
    });
  }
}
