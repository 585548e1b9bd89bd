// One certificate that is had from an ACME CA, or to be had: what serves, what is remembered, and one attempt to get the next one.
import { createHash } from "node:crypto";
import { formatDuration } from "../lib/duration.ts";
import { describeSystemError, GatewayError } from "../lib/errors.ts";
import { FileLock } from "../lib/file-lock.ts";
import { untilAborted } from "../lib/until-aborted.ts";
import type { AcmePlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import { AcmeError, type AcmeIssuer, type IssuedCertificate } from "./acme-issuer.ts";
import { AcmeRecord } from "./acme-record.ts";
import type { CertificateEvent } from "./events.ts";
import { describeServed } from "./expiry.ts";
import { afterAsking, afterFailure, afterSuccess, ASK_AGAIN_MS, isOver, MAX_HOLD_MS, type Schedule } from "./renew.ts";
import type { CertificateInfo, ServerCertificate } from "./source.ts";
import { acmeFiles, checkCertificate, type StoredCertificate } from "./store.ts";

// Besides what DNS may take. An issuer that never answers must not hold a place for ever.
const ORDER_TIMEOUT_MS = 600_000;
const ASK_TIMEOUT_MS = 60_000;
// Of a CA that limits orders and does not say for how long.
const UNTOLD_LIMIT_MS = 3_600_000;

/** What all certificates share. */
export type AcmeContext = {
  readonly log: Log;
  readonly onEvent: (event: CertificateEvent) => void;
  readonly now: () => number;
  /** From 0 to 1. */
  readonly random: () => number;
  readonly pid: number;
  /** How soon a certificate that another gateway orders is looked at again. */
  readonly lockedLookMs: number;
  readonly lockTimes: { readonly touchMs?: number; readonly staleMs?: number };
  /** Told when the state cannot be read or written. */
  readonly onStateError: (file: string, error: unknown) => void;
};

/** How a certificate is ordered. */
export type AcmeOrderPlan = Pick<AcmePlan, "account" | "challenges" | "dns">;

export type Attempt = {
  /** `waiting`: another gateway is at it. `stopped`: nobody wants the certificate any more. */
  readonly outcome: "renewed" | "failed" | "waiting" | "stopped";
  /** A sentence. */
  readonly message: string;
  /** What a rate-limited CA asked for; null otherwise. */
  readonly retryAfterMs: number | null;
};

export class AcmeCertificate {
  readonly names: readonly string[];
  readonly #record: AcmeRecord;
  readonly #context: AcmeContext;
  readonly #issuer: AcmeIssuer;
  readonly #lock: FileLock;
  readonly #stop = new AbortController();
  #plan: AcmeOrderPlan;
  #planKey: string;
  #lookAtMs = 0;
  #attempt: Promise<Attempt> | null = null;
  /** Whether the CA has answered to it: what is left is writing that down. */
  #isAnswered = false;
  #asking: Promise<void> | null = null;

  constructor(context: AcmeContext, issuer: AcmeIssuer, stateDir: string, plan: AcmeOrderPlan, names: readonly string[]) {
    this.names = names;
    this.#context = context;
    this.#issuer = issuer;
    const files = acmeFiles(stateDir, plan.account, names);
    this.#lock = new FileLock(files.lock, { pid: context.pid, ...context.lockTimes });
    this.#plan = plan;
    this.#planKey = planKeyOf(plan);
    this.#record = new AcmeRecord({ log: context.log, onStateError: context.onStateError, files, names, planKey: this.#planKey });
  }

  /** The one that serves, also after its end; null when there is none yet. */
  get served(): ServerCertificate | null {
    return this.#record.served;
  }

  /** Where the state holds it. */
  get directory(): string {
    return this.#record.files.directory;
  }

  get accountKey(): string {
    return this.#plan.account.key;
  }

  /** Whether the state does not hold what it should. */
  get isUnsaved(): boolean {
    return this.#record.isUnsaved;
  }

  info(): CertificateInfo {
    const { issuer = "", notBefore = null, notAfter = null } = this.#record.served?.info ?? {};
    const renewAt = new Date(Math.max(this.#record.nextAttemptMs, this.#context.now()));
    return { source: "acme", names: this.names, file: null, issuer, notBefore, notAfter, renewAt, error: this.#record.schedule.error };
  }

  isDue(): boolean {
    const now = this.#context.now();
    return this.#attempt === null && isOver(this.#lookAtMs, now) && this.#record.isDue(now);
  }

  /** Whether it is time to ask the CA for its renewal window. */
  isToAsk(): boolean {
    const idle = this.#attempt === null && this.#asking === null && this.#record.schedule.failures === 0;
    return idle && this.#record.served !== null && isOver(this.#record.schedule.askAtMs, this.#context.now()) && !this.isDue();
  }

  /** From the next attempt on. After a failure that is at once: somebody has just mended what was wrong. */
  setPlan(plan: AcmeOrderPlan): void {
    this.#plan = plan;
    this.#planKey = planKeyOf(plan);
    this.#record.setPlanKey(this.#planKey);
  }

  /** Nobody wants it any more: what is under way ends soon, and leaves no trace. */
  stop(): void {
    this.#stop.abort();
  }

  /** Reads what the state holds, before anything else. Never rejects. */
  load(): Promise<void> {
    return this.#record.load();
  }

  /** Looks at the state: takes what is new there, and writes what could not be written. Never rejects. */
  async refresh(): Promise<void> {
    if (this.#attempt === null) await this.#record.refresh(false);
  }

  /** Orders it when it is due, or when `asked`; joins an attempt that is under way. Never rejects. */
  attempt(asked: boolean): Promise<Attempt> {
    // Somebody who has seen how the last one ended asks for another one, although that one's lock is not released yet.
    if (asked && this.#attempt !== null && this.#isAnswered) return this.#attempt.then(() => this.attempt(true));
    if (this.#attempt === null) this.#isAnswered = false;
    this.#attempt ??= this.#try(asked)
      .catch((error: unknown) => this.#failed(error, null))
      .finally(() => (this.#attempt = null));
    return this.#attempt;
  }

  /** Asks the CA when it wants the certificate renewed. Never rejects: without an answer a third of the life decides. */
  ask(): Promise<void> {
    this.#asking ??= this.#ask().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #try(asked: boolean): Promise<Attempt> {
    this.#lookAtMs = 0;
    const before = this.#record.served;
    if (!(await this.#takeLock())) {
      this.#lookAtMs = this.#context.now() + this.#context.lockedLookMs;
      return {
        outcome: "waiting",
        message: `Another gateway is ordering the certificate for ${quote(this.names)} now: look again in a minute`,
        retryAfterMs: null,
      };
    }
    try {
      await this.#record.refresh(true);
      // Whoever had the lock may have got it meanwhile.
      if (asked ? this.#record.served !== before : !this.#record.isDue(this.#context.now())) return this.#had();
      return await this.#order(asked);
    } finally {
      await this.#lock.release();
    }
  }

  #had(): Attempt {
    const { error } = this.#record.schedule;
    const message =
      error === ""
        ? `Another gateway got the certificate for ${quote(this.names)}`
        : `Another gateway could not get the certificate for ${quote(this.names)}: ${error}`;
    return { outcome: error === "" ? "renewed" : "waiting", message, retryAfterMs: null };
  }

  /** True also when the state takes no locks: a certificate too many is better than none. */
  async #takeLock(): Promise<boolean> {
    try {
      return await this.#lock.tryTake();
    } catch (error) {
      this.#context.onStateError(this.#record.files.lock, error);
      return true;
    }
  }

  async #order(asked: boolean): Promise<Attempt> {
    const { log, now, random, onEvent } = this.#context;
    const { account, challenges, dns } = this.#plan;
    const planKey = this.#planKey;
    if (this.#stop.signal.aborted) return this.#stopped();
    const { schedule: present } = this.#record;
    const challenge = challenges[(present.challenge + present.failures) % challenges.length];
    if (challenge === undefined) throw new AcmeError("No challenge can be answered: no listener has the port that the CA looks at");
    log.info({ event: "certificate_ordering", names: this.names, directory: account.directoryUrl, challenge }, "Ordering a certificate");
    const timeoutMs = ORDER_TIMEOUT_MS + (dns === null ? 0 : dns.propagationTimeoutMs + (dns.provider === "exec" ? 2 * dns.timeoutMs : 0));
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(timeoutMs)]);
    let issued: StoredCertificate;
    try {
      const request = { account, names: this.names, challenge, dns, replaces: this.#record.served?.cert ?? null, signal };
      issued = this.#check(await untilAborted(this.#issuer.order(request), signal));
      this.#isAnswered = true;
    } catch (error) {
      this.#isAnswered = true;
      if (this.#stop.signal.aborted) return this.#stopped();
      return this.#failed(signal.aborted ? new AcmeError(`The CA did not answer in ${formatDuration(timeoutMs)}`) : error, planKey);
    }
    const schedule = afterSuccess(present, this.#record.life, issued.leaf, asked, now(), random());
    await this.#record.take(issued, schedule);
    const { issuer, notAfter } = issued.certificate.info;
    log.info({ event: "certificate_renewed", names: this.names, issuer, not_after: notAfter?.toISOString() }, "Got a certificate");
    onEvent({ kind: "renewed", source: "acme", names: this.names, notAfter, reason: "" });
    const end = notAfter === null ? "" : ` that is valid until ${notAfter.toISOString()}`;
    return { outcome: "renewed", message: `Got a certificate for ${quote(this.names)}${end}`, retryAfterMs: null };
  }

  #stopped(): Attempt {
    return { outcome: "stopped", message: `The order of the certificate for ${quote(this.names)} was stopped`, retryAfterMs: null };
  }

  #check({ cert, key }: IssuedCertificate): StoredCertificate {
    try {
      return checkCertificate("acme", this.names, cert, key);
    } catch (error) {
      throw new AcmeError(`What the CA sent ${error instanceof GatewayError ? error.message : "cannot be decoded"}`);
    }
  }

  /** @param planKey of the plan that failed; null when it was not the plan's fault */
  async #failed(error: unknown, planKey: string | null): Promise<Attempt> {
    const { log, now, random, onEvent } = this.#context;
    const retryAfterMs = error instanceof AcmeError ? error.retryAfterMs : null;
    const why = error instanceof GatewayError ? error.message : describeSystemError(error);
    const schedule = afterFailure(this.#record.schedule, why, retryAfterMs, now(), random());
    // The plan that would be tried next has not failed yet.
    const isOutdated = planKey !== null && planKey !== this.#planKey;
    await this.#record.remember(isOutdated ? { ...schedule, failures: 0, retryAtMs: 0 } : schedule);
    const nextMs = Math.max(this.#record.nextAttemptMs, now());
    const next = nextMs <= now() ? "tried again at once" : `tried again in ${formatDuration(nextMs - now())}`;
    const reason = `Cannot get the certificate for ${quote(this.names)}: ${why}; ${next}${describeServed(this.#record.life, now())}`;
    log.warn(
      { event: "certificate_renewal_failed", names: this.names, failures: this.#record.schedule.failures, next_attempt: new Date(nextMs).toISOString() },
      reason,
    );
    onEvent({ kind: "renewal_failed", source: "acme", names: this.names, notAfter: this.#record.served?.info.notAfter ?? null, reason });
    const isLimited = error instanceof AcmeError && error.problem === "rateLimited";
    return { outcome: "failed", message: reason, retryAfterMs: retryAfterMs ?? (isLimited ? UNTOLD_LIMIT_MS : null) };
  }

  async #ask(): Promise<void> {
    const { log, now, random } = this.#context;
    const { served } = this.#record;
    if (served === null) return;
    const signal = AbortSignal.any([this.#stop.signal, AbortSignal.timeout(ASK_TIMEOUT_MS)]);
    let schedule: (present: Schedule) => Schedule;
    try {
      const window = await untilAborted(this.#issuer.renewalWindow(this.#plan.account, served.cert, signal), signal);
      const chance = random();
      schedule = (present) => afterAsking(present, window, now(), chance);
    } catch (error) {
      const retryAfterMs = error instanceof AcmeError ? (error.retryAfterMs ?? 0) : 0;
      const againMs = Math.min(Math.max(ASK_AGAIN_MS, retryAfterMs), MAX_HOLD_MS);
      log.debug(
        { event: "renewal_window_unknown", names: this.names },
        `Cannot learn when the CA wants the certificate renewed: ${describeSystemError(error)}`,
      );
      schedule = (present) => ({ ...present, askAtMs: now() + againMs });
    }
    // Another one serves by now, which has a window of its own.
    if (this.#stop.signal.aborted || this.#record.served !== served) return;
    await this.#record.remember(schedule(this.#record.schedule));
  }
}

/** Names for a sentence. */
function quote(names: readonly string[]): string {
  const more = names.length > 3 ? ` and ${names.length - 2} more` : "";
  return (more === "" ? names : names.slice(0, 2)).map((name) => `'${name}'`).join(", ") + more;
}

const planKeys = new WeakMap<AcmeOrderPlan, string>();

/** It is kept with the private key, and a hash besides: the secrets in it cannot be read. */
function planKeyOf(plan: AcmeOrderPlan): string {
  let key = planKeys.get(plan);
  if (key === undefined) {
    const { account, challenges, dns } = plan;
    key = createHash("sha256")
      .update(JSON.stringify([account, challenges, dns]))
      .digest("base64url")
      .slice(0, 16);
    planKeys.set(plan, key);
  }
  return key;
}
