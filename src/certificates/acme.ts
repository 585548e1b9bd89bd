// The certificates that are had from ACME CAs, or to be had: which ones, whose turn it is, and the sources that listeners ask.
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { describeSystemError } from "../lib/errors.ts";
import { wildcardOf } from "../lib/host-cover.ts";
import { removeOldDrafts } from "../lib/secret-file.ts";
import { within } from "../lib/within.ts";
import type { AcmePlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import { AcmeCertificate, type AcmeContext, type AcmeOrderPlan, type Attempt } from "./acme-certificate.ts";
import type { AcmeIssuer } from "./acme-issuer.ts";
import { findStandIns } from "./acme-stand-ins.ts";
import type { CertificateEvent } from "./events.ts";
import type { CertificateSource, ServerCertificate } from "./source.ts";
import { acmeFiles } from "./store.ts";

// Let's Encrypt takes far more; a CA of one's own may be small.
const MAX_ORDERS = 4;
// At once and a look: 10,000 new certificates have their windows within twenty minutes, and no CA feels it.
const MAX_QUESTIONS = 10;
const LOOK_MS = 1_000;
const REFRESH_MS = 30_000;
const LOCKED_LOOK_MS = 5_000;
const MAX_READING = 32;
const CLOSE_MS = 2_000;
// Two may have limits of their own, as on the same names; three in a row look like the account's.
const MAX_REFUSALS = 3;
// Then one certificate an hour tries it for all, whatever the CA said: a limit of that one alone may last a week, and must not hold the others back.
const MAX_ACCOUNT_HOLD_MS = 3_600_000;

export type PreparedAcme = {
  /** For one of the plans that were prepared; others have none. */
  source(plan: AcmePlan): CertificateSource;
  /** Orders begin at once, in the background. */
  commit(): void;
};

/** Times for tests. */
export type AcmeTimes = {
  readonly lookMs?: number;
  readonly refreshMs?: number;
  readonly lockedLookMs?: number;
  readonly touchMs?: number;
  readonly staleMs?: number;
};

type Wanted = { readonly certificate: AcmeCertificate; readonly plan: AcmeOrderPlan };
type Account = { refusals: number; heldUntilMs: number; trying: boolean };

export class AcmeCertificates {
  readonly #log: Log;
  readonly #openIssuer: (stateDir: string) => AcmeIssuer;
  readonly #context: AcmeContext;
  readonly #lookMs: number;
  readonly #refreshMs: number;
  /** By file, in the order of the plans. */
  #wanted: ReadonlyMap<string, AcmeCertificate> = new Map();
  /** By name, for those that have no certificate yet. */
  #standIns: ReadonlyMap<string, ServerCertificate> = new Map();
  #issuer: { readonly stateDir: string; readonly issuer: AcmeIssuer } | null = null;
  readonly #accounts = new Map<string, Account>();
  /** Modification times of the directories as last seen. */
  readonly #directories = new Map<string, number>();
  readonly #tasks = new Set<Promise<unknown>>();
  #ordering = 0;
  #asking = 0;
  #stateError = "";
  #refreshing = false;
  #refreshedAtMs = 0;
  #timer: NodeJS.Timeout | null = null;
  #closed = false;

  /**
   * @param args.pid tells people who holds a lock. @param args.openIssuer called at most once for a state directory that certificates are kept in.
   * @param args.onEvent `renewed` and `renewal_failed`.
   */
  constructor(args: {
    log: Log;
    pid: number;
    openIssuer: (stateDir: string) => AcmeIssuer;
    onEvent: (event: CertificateEvent) => void;
    now?: () => number;
    random?: () => number;
    times?: AcmeTimes;
  }) {
    const { log, pid, openIssuer, onEvent, now = Date.now, random = Math.random, times = {} } = args;
    const { lookMs = LOOK_MS, refreshMs = REFRESH_MS, lockedLookMs = LOCKED_LOOK_MS, ...lockTimes } = times;
    this.#log = log;
    this.#openIssuer = openIssuer;
    this.#lookMs = lookMs;
    this.#refreshMs = refreshMs;
    this.#context = { log, pid, onEvent, now, random, lockedLookMs, lockTimes, onStateError: (file, error) => this.#tellStateError(file, error) };
  }

  /** Reads what the state holds for these plans. Never rejects: what cannot be read is logged, and ordered. Before `commit` nothing is ordered and nothing of the present plan changes. */
  async prepare(plans: readonly AcmePlan[], stateDir: string): Promise<PreparedAcme> {
    const hasNames = plans.some(({ certificates }) => certificates.length > 0);
    const opened = hasNames && this.#issuer?.stateDir !== stateDir ? { stateDir, issuer: this.#openIssuer(stateDir) } : this.#issuer;
    const wanted = new Map<string, Wanted>();
    const added: AcmeCertificate[] = [];
    const ofPlans = new Map<AcmePlan, AcmeCertificate[]>();
    for (const plan of plans) {
      const ofPlan: AcmeCertificate[] = [];
      ofPlans.set(plan, ofPlan);
      for (const names of plan.certificates) {
        const id = acmeFiles(stateDir, plan.account, names).certificate;
        let certificate = wanted.get(id)?.certificate ?? this.#wanted.get(id);
        if (certificate === undefined) {
          if (opened === null) continue;
          certificate = new AcmeCertificate(this.#context, opened.issuer, stateDir, plan, names);
          added.push(certificate);
        }
        ofPlan.push(certificate);
        // Of two listeners with the same certificate the first one says how it is ordered.
        if (!wanted.has(id)) wanted.set(id, { certificate, plan });
      }
    }
    await refreshAll(added, true);
    const missing = [...wanted.values()].flatMap(({ certificate }) => (certificate.served === null ? certificate.names : []));
    const standIns = await findStandIns(stateDir, missing, this.#present(), this.#context.now());
    return {
      source: (plan) => createSource(ofPlans.get(plan) ?? [], standIns, this.#context.now),
      commit: () => this.#commit(wanted, opened, standIns),
    };
  }

  /** All that serves now: of what is wanted, and in its place. */
  #present(): ServerCertificate[] {
    const served = [...this.#wanted.values()].flatMap((certificate) => certificate.served ?? []);
    return [...served, ...this.#standIns.values()];
  }

  #commit(
    wanted: ReadonlyMap<string, Wanted>,
    opened: { stateDir: string; issuer: AcmeIssuer } | null,
    standIns: ReadonlyMap<string, ServerCertificate>,
  ): void {
    if (this.#closed) return;
    this.#issuer = opened;
    this.#standIns = standIns;
    if (standIns.size > 0) {
      this.#log.info({ event: "certificate_stand_in", names: [...standIns.keys()] }, "Earlier certificates serve until those that are wanted now have come");
    }
    for (const [id, certificate] of this.#wanted) if (!wanted.has(id)) certificate.stop();
    this.#wanted = new Map(Array.from(wanted, ([id, { certificate }]) => [id, certificate]));
    for (const { certificate, plan } of wanted.values()) certificate.setPlan(plan);
    if (this.#timer === null && this.#wanted.size > 0) this.#timer = setInterval(() => this.#look(), this.#lookMs).unref();
    this.#refreshedAtMs = this.#context.now();
    this.#startOrders();
  }

  /** Why the state cannot be used, since when everything is kept in memory; empty when it can. */
  get stateError(): string {
    return this.#stateError;
  }

  /** Orders the certificate that covers this name now, whatever its age; joins an order that is under way. The outcome is a sentence. Never rejects. */
  async renew(name: string): Promise<{ ok: boolean; message: string }> {
    if (this.#closed) return { ok: false, message: "The gateway is stopping" };
    const host = name.toLowerCase();
    const all = [...this.#wanted.values()];
    const certificate = all.find(({ names }) => names.includes(host)) ?? all.find(({ names }) => names.includes(wildcardOf(host)));
    if (certificate === undefined)
      return { ok: false, message: `No certificate of an ACME CA covers '${name}': 'tls.acme' orders those for the hosts of routes and for its 'domains'` };
    // A person waits: this one does not queue.
    const { outcome, message } = await this.#track(certificate.attempt(true));
    return { ok: outcome === "renewed", message };
  }

  /** Stops what is under way and lets go of the locks, within 2 s. Never rejects. */
  async close(): Promise<void> {
    this.#closed = true;
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
    for (const certificate of this.#wanted.values()) certificate.stop();
    await within(Promise.allSettled(this.#tasks), CLOSE_MS);
  }

  #look(): void {
    this.#startOrders();
    for (const certificate of this.#wanted.values()) {
      if (this.#asking >= MAX_QUESTIONS) break;
      if (certificate.isToAsk()) void this.#track(this.#ask(certificate));
    }
    // A clock that was set back must not stop this.
    if (!this.#refreshing && Math.abs(this.#context.now() - this.#refreshedAtMs) >= this.#refreshMs) void this.#track(this.#refresh());
  }

  async #ask(certificate: AcmeCertificate): Promise<void> {
    this.#asking += 1;
    await certificate.ask();
    this.#asking -= 1;
  }

  #startOrders(): void {
    if (this.#closed) return;
    for (const certificate of this.#wanted.values()) {
      if (this.#ordering >= MAX_ORDERS) return;
      if (certificate.isDue() && !this.#isHeld(certificate)) void this.#track(this.#order(certificate));
    }
  }

  async #order(certificate: AcmeCertificate): Promise<void> {
    const account = this.#accountOf(certificate);
    this.#ordering += 1;
    account.trying = true;
    const attempt = await certificate.attempt(false);
    this.#ordering -= 1;
    account.trying = false;
    this.#noteRefusal(account, attempt);
    this.#startOrders();
  }

  #accountOf({ accountKey }: AcmeCertificate): Account {
    let account = this.#accounts.get(accountKey);
    if (account === undefined) this.#accounts.set(accountKey, (account = { refusals: 0, heldUntilMs: 0, trying: false }));
    return account;
  }

  #isHeld(certificate: AcmeCertificate): boolean {
    const { refusals, heldUntilMs, trying } = this.#accountOf(certificate);
    if (refusals < MAX_REFUSALS) return false;
    const waitMs = heldUntilMs - this.#context.now();
    return trying || (waitMs > 0 && waitMs <= MAX_ACCOUNT_HOLD_MS);
  }

  #noteRefusal(account: Account, { outcome, retryAfterMs }: Attempt): void {
    if (outcome !== "renewed" && outcome !== "failed") return;
    account.refusals = retryAfterMs === null ? 0 : account.refusals + 1;
    if (retryAfterMs === null || account.refusals < MAX_REFUSALS) return;
    account.heldUntilMs = this.#context.now() + Math.min(retryAfterMs, MAX_ACCOUNT_HOLD_MS);
    this.#log.warn(
      { event: "acme_account_held", until: new Date(account.heldUntilMs).toISOString() },
      `The CA limits how much is ordered: ${account.refusals} orders in a row were refused, the account's others wait`,
    );
  }

  /** Looks for what other gateways wrote: in a directory that did not change there is nothing to be read. */
  async #refresh(): Promise<void> {
    this.#refreshing = true;
    this.#refreshedAtMs = this.#context.now();
    const changed = new Set<string>();
    const all = [...this.#wanted.values()];
    for (const directory of new Set(all.map(({ directory }) => directory))) {
      const modifiedMs = await stat(directory).then(
        ({ mtimeMs }) => mtimeMs,
        () => 0,
      );
      if (!this.#directories.has(directory)) await Promise.all([removeOldDrafts(directory), removeOldDrafts(join(directory, "locks"))]);
      if (this.#directories.get(directory) !== modifiedMs) changed.add(directory);
      this.#directories.set(directory, modifiedMs);
    }
    await refreshAll(
      all.filter((certificate) => certificate.isUnsaved || changed.has(certificate.directory)),
      false,
    );
    if (all.every((certificate) => !certificate.isUnsaved)) this.#stateError = "";
    this.#refreshing = false;
  }

  /** Once until everything could be written again: what is wrong with one file is mostly wrong with all. */
  #tellStateError(file: string, error: unknown): void {
    if (this.#stateError !== "") return;
    this.#stateError = `cannot use '${file}': ${describeSystemError(error)}; certificates serve from memory and are lost with a restart until the state directory can be read and written`;
    this.#log.error({ event: "certificate_state_failed", file }, `C${this.#stateError.slice(1)}`);
  }

  #track<T>(task: Promise<T>): Promise<T> {
    this.#tasks.add(task);
    void task.finally(() => this.#tasks.delete(task));
    return task;
  }
}

/** Some at a time: each has a file open. */
async function refreshAll(certificates: readonly AcmeCertificate[], first: boolean): Promise<void> {
  const queue = certificates.values();
  const work = async (): Promise<void> => {
    for (const certificate of queue) await (first ? certificate.load() : certificate.refresh());
  };
  await Promise.all(Array.from({ length: MAX_READING }, work));
}

/** Exact names before wildcards, and what there is before what is to be had. */
function createSource(certificates: readonly AcmeCertificate[], standIns: ReadonlyMap<string, ServerCertificate>, now: () => number): CertificateSource {
  const byName = new Map<string, AcmeCertificate[]>();
  for (const certificate of certificates) {
    for (const name of certificate.names) {
      const others = byName.get(name);
      if (others === undefined) byName.set(name, [certificate]);
      else others.push(certificate);
    }
  }
  const find = (name: string): ServerCertificate | null => {
    const own = byName.get(name);
    if (own === undefined) return null;
    for (const { served } of own) if (served !== null) return served;
    const standIn = standIns.get(name);
    // It must not keep the internal CA from serving the name once it has ended.
    return standIn !== undefined && (standIn.info.notAfter?.getTime() ?? 0) > now() ? standIn : null;
  };
  return {
    get: (serverName) => find(serverName) ?? find(wildcardOf(serverName)),
    // A client that names no host must not learn which ones there are.
    fallback: () => null,
    list: () => certificates.map((certificate) => certificate.info()),
  };
}
