// One certificate that tailscaled gets for a name of the node: what serves, and one attempt to get the next one.
import { formatDuration } from "../lib/duration.ts";
import { GatewayError } from "../lib/errors.ts";
import { untilAborted } from "../lib/until-aborted.ts";
import type { Log } from "../telemetry/log.ts";
import type { CertificateEvent } from "./events.ts";
import { describeServed } from "./expiry.ts";
import { afterFailure, afterSuccess, ASK_AGAIN_MS, createSchedule, isDue, isOver, nextAttemptMs, spreadOf, type Life, type Schedule } from "./renew.ts";
import { CertificateError, type CertificateInfo, type ServerCertificate } from "./source.ts";
import { checkCertificate, type StoredCertificate } from "./store.ts";
import { describeTailscaleFailure, heldBackMs, isUnanswered } from "./tailscale-problem.ts";

const DAY_MS = 86_400_000;
/** More than the one that serves is still valid by: tailscaled keeps no other one that satisfies that. */
const MARGIN_MS = 60_000;

/** What all certificates share. */
export type TailscaleContext = {
  /** @param minValidityMs 0 = whichever tailscaled has, otherwise one that is valid for so long, ordered where it has none. */
  readonly certificate: (domain: string, minValidityMs: number) => Promise<{ readonly cert: string; readonly key: string }>;
  readonly log: Log;
  readonly onEvent: (event: CertificateEvent) => void;
  readonly now: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
  /** The longest that tailscaled is waited for. */
  readonly timeoutMs: number;
};

export class TailscaleCertificate {
  readonly domain: string;
  readonly #context: TailscaleContext;
  readonly #stop = new AbortController();
  #served: ServerCertificate | null = null;
  #life: Life | null = null;
  #schedule: Schedule = createSchedule("", "", 0);
  #unanswered = false;
  #attempt: Promise<{ ok: boolean; message: string }> | null = null;

  constructor(context: TailscaleContext, domain: string) {
    this.#context = context;
    this.domain = domain;
  }

  /** The one that serves, also after its end; null when there is none yet. */
  get served(): ServerCertificate | null {
    return this.#served;
  }

  info(): CertificateInfo {
    const { issuer = "", notBefore = null, notAfter = null } = this.#served?.info ?? {};
    const renewAt = new Date(Math.max(nextAttemptMs(this.#schedule, this.#life), this.#context.now()));
    return { source: "tailscale", names: [this.domain], file: null, issuer, notBefore, notAfter, renewAt, error: this.#schedule.error };
  }

  /** Whether to renew or get it now. */
  isDue(): boolean {
    return isDue(this.#schedule, this.#life, this.#context.now());
  }

  /** Whether to ask tailscaled now, unless that is under way. Once a day that is for what it has: it may have renewed by itself, as a CA asks for that revokes certificates. */
  isToAsk(): boolean {
    return this.isDue() || (this.#schedule.failures === 0 && isOver(this.#schedule.askAtMs, this.#context.now()));
  }

  /** tailscaled is there again: what failed only because it was not is tried at once. */
  hurry(): void {
    if (this.#unanswered) this.#schedule = { ...this.#schedule, retryAtMs: 0 };
  }

  /** Nobody wants it any more: what is under way leaves no trace. */
  stop(): void {
    this.#stop.abort();
  }

  /** Asks tailscaled, for a new one when it is due or `asked`; joins an attempt that is under way. The message is a sentence. Never rejects. */
  attempt(asked: boolean): Promise<{ ok: boolean; message: string }> {
    this.#attempt ??= this.#try(asked).finally(() => (this.#attempt = null));
    return this.#attempt;
  }

  async #try(asked: boolean): Promise<{ ok: boolean; message: string }> {
    const { certificate, now, timeoutMs } = this.#context;
    const isDue = this.isDue();
    const renews = this.#served !== null && (asked || isDue);
    // With 0 it answers at once with what it keeps, and renews that in the background where its own schedule says so. Any other value makes it
    // order one when its own is valid for less than that, whatever the new one will have (feature/acme/cert.go: shouldStartDomainRenewal).
    const minValidityMs = renews ? Math.max(0, (this.#life?.notAfterMs ?? 0) - now()) + MARGIN_MS : 0;
    const timeout = AbortSignal.timeout(timeoutMs);
    try {
      const pair = await untilAborted(certificate(this.domain, minValidityMs), AbortSignal.any([this.#stop.signal, timeout]));
      return this.#take(this.#check(pair), renews, asked);
    } catch (error) {
      if (this.#stop.signal.aborted) return { ok: false, message: `The certificate for '${this.domain}' is not wanted any more` };
      const failure = timeout.aborted ? new CertificateError(`tailscaled did not answer in ${formatDuration(timeoutMs)}`) : error;
      return isDue ? this.#failed(failure) : this.#missed(failure);
    }
  }

  #check({ cert, key }: { readonly cert: string; readonly key: string }): StoredCertificate {
    let checked: StoredCertificate;
    try {
      checked = checkCertificate("tailscale", [this.domain], cert, key);
    } catch (error) {
      throw new CertificateError(`what tailscaled sent ${error instanceof GatewayError ? error.message : "cannot be decoded"}`);
    }
    const { notAfter } = checked.certificate.info;
    if (notAfter !== null && notAfter.getTime() <= this.#context.now())
      throw new CertificateError(`what tailscaled sent is a certificate that expired on ${notAfter.toISOString()}; is the clock right?`);
    return checked;
  }

  #take({ certificate, leaf }: StoredCertificate, renews: boolean, asked: boolean): { ok: boolean; message: string } {
    const { log, now, random, onEvent } = this.#context;
    const { issuer, notBefore, notAfter } = certificate.info;
    const askAtMs = now() + DAY_MS * (0.9 + 0.2 * random());
    this.#unanswered = false;
    if (leaf === this.#schedule.leaf) {
      if (renews) throw new CertificateError("tailscaled gave the one that it had given before");
      this.#schedule = { ...this.#schedule, askAtMs };
      return { ok: false, message: `tailscaled has no newer certificate for '${this.domain}'` };
    }
    this.#schedule = { ...afterSuccess(this.#schedule, this.#life, leaf, asked, now(), random()), askAtMs };
    this.#life = { notBeforeMs: notBefore?.getTime() ?? 0, notAfterMs: notAfter?.getTime() ?? 0, spread: spreadOf(leaf) };
    this.#served = certificate;
    const end = notAfter?.toISOString();
    log.info({ event: "certificate_renewed", names: [this.domain], issuer, not_after: end }, "Got a certificate from tailscaled");
    onEvent({ kind: "renewed", source: "tailscale", names: [this.domain], notAfter, reason: "" });
    return { ok: true, message: `Got a certificate for '${this.domain}' that is valid until ${end}` };
  }

  /** No harm done: the one that serves has a good part of its life left. */
  #missed(error: unknown): { ok: boolean; message: string } {
    const { log, now } = this.#context;
    this.#schedule = { ...this.#schedule, askAtMs: now() + ASK_AGAIN_MS };
    const message = `Cannot get a newer certificate for '${this.domain}' from tailscaled: ${describeTailscaleFailure(error)}${describeServed(this.#life, now())}`;
    log.info({ event: "certificate_not_renewed", names: [this.domain] }, message);
    return { ok: false, message };
  }

  #failed(error: unknown): { ok: boolean; message: string } {
    const { log, now, random, onEvent } = this.#context;
    const why = describeTailscaleFailure(error);
    this.#unanswered = isUnanswered(error);
    this.#schedule = afterFailure(this.#schedule, why, heldBackMs(error), now(), random());
    const { failures, retryAtMs } = this.#schedule;
    const next = `tried again in ${formatDuration(retryAtMs - now())}`;
    const reason = `Cannot get the certificate for '${this.domain}' from tailscaled: ${why}; ${next}${describeServed(this.#life, now())}`;
    log.warn({ event: "certificate_renewal_failed", names: [this.domain], failures, next_attempt: new Date(retryAtMs).toISOString() }, reason);
    onEvent({ kind: "renewal_failed", source: "tailscale", names: [this.domain], notAfter: this.#served?.info.notAfter ?? null, reason });
    return { ok: false, message: reason };
  }
}
