// Accounts at ACME CAs: made once, kept in the state directory, made again when the CA has forgotten them.
import { createPrivateKey } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { makeSecretFile, writeSecretFile } from "../lib/secret-file.ts";
import type { Log } from "../telemetry/log.ts";
import type { AcmeAccountPlan } from "../plan/model.ts";
import { AcmeError } from "./acme-issuer.ts";
import { openAcmeConnection, type AcmeConnection } from "./acme-transport.ts";

export type AcmeAccount = {
  /** By which the CA knows it. */
  readonly url: string;
  /** PEM, P-256. */
  readonly key: string;
  /** What the CA was told; null: nothing. */
  readonly email: string | null;
};

/** A key comes before its account: should we die in between, the CA finds the account by the key (RFC 8555, 7.3.1), and no binding is used twice. */
type KeptAccount = Omit<AcmeAccount, "url"> & { readonly url: string | null };

type Flight = { readonly result: Promise<AcmeAccount>; readonly stop: AbortController; waiting: number };

/** `<stateDir>/acme/<host of the directory>-<account.key>`, which is one account's. */
export function acmeAccountDir(stateDir: string, { directoryUrl, key }: AcmeAccountPlan): string {
  return join(stateDir, "acme", `${new URL(directoryUrl).host.replaceAll(/[^a-z0-9.-]/g, "_")}-${key}`);
}

export class AcmeAccounts {
  readonly #stateDir: string;
  readonly #log: Log;
  readonly #kept = new Map<string, KeptAccount>();
  readonly #unsaved = new Set<string>();
  readonly #flights = new Map<string, Flight>();
  #warned = false;

  constructor(stateDir: string, log: Log) {
    this.#stateDir = stateDir;
    this.#log = log;
  }

  /**
   * The account of a plan. Those who want it at the same time share one attempt to make it.
   * @param gone one that the CA does not know any more.
   * @throws {AcmeError}
   */
  async open(plan: AcmeAccountPlan, signal: AbortSignal, gone: AcmeAccount | null = null): Promise<AcmeAccount> {
    const id = JSON.stringify([acmeAccountDir(this.#stateDir, plan), gone?.url]);
    let flight = this.#flights.get(id);
    if (flight === undefined) {
      const stop = new AbortController();
      const result = this.#open(plan, stop.signal, gone).finally(() => this.#flights.get(id)?.stop === stop && this.#flights.delete(id));
      flight = { result, stop, waiting: 0 };
      this.#flights.set(id, flight);
    }
    flight.waiting += 1;
    const stopped = Promise.withResolvers<never>();
    const onAbort = (): void => stopped.reject(new AcmeError("The ACME account is not waited for any more", { cause: signal.reason }));
    if (signal.aborted) onAbort();
    signal.addEventListener("abort", onAbort, { once: true });
    try {
      return await Promise.race([flight.result, stopped.promise]);
    } finally {
      signal.removeEventListener("abort", onAbort);
      flight.waiting -= 1;
      // Nobody wants it any more; whoever comes next begins anew.
      if (flight.waiting === 0) {
        if (this.#flights.get(id) === flight) this.#flights.delete(id);
        flight.stop.abort();
      }
    }
  }

  async #open(plan: AcmeAccountPlan, signal: AbortSignal, gone: AcmeAccount | null): Promise<AcmeAccount> {
    const dir = acmeAccountDir(this.#stateDir, plan);
    const kept = this.#kept.get(dir) ?? (await this.#read(dir));
    const url = kept === null || kept.url === gone?.url ? null : kept.url;
    if (kept !== null && url !== null && kept.email === plan.email) {
      // Written again as long as the state did not take it.
      if (this.#unsaved.has(dir)) await this.#keep(dir, kept);
      this.#kept.set(dir, kept);
      return { ...kept, url };
    }
    await using connection = await openAcmeConnection(plan, signal);
    if (kept !== null && url !== null) {
      const account = { ...kept, url };
      return await this.#update(connection, plan, dir, account);
    }
    if (kept === null) {
      const key = (await connection.run(({ crypto }) => crypto.createPrivateEcdsaKey("P-256"))).toString();
      await this.#begin(dir, { url: null, key, email: null });
      return await this.#open(plan, signal, gone);
    }
    const account = await register(connection, plan, kept.key);
    await this.#keep(dir, account);
    this.#log.info({ ca: connection.ca, email: plan.email }, gone === null ? "ACME account is open" : "ACME account was made again: the CA had forgotten it");
    return account;
  }

  /** Tells the CA another address. That it refuses it is no reason to go without certificates. */
  async #update(connection: AcmeConnection, plan: AcmeAccountPlan, dir: string, account: AcmeAccount): Promise<AcmeAccount> {
    try {
      await connection.run(({ Client }) =>
        new Client({ directoryUrl: plan.directoryUrl, accountKey: account.key, accountUrl: account.url }).updateAccount({ contact: contactOf(plan) }),
      );
    } catch (error) {
      if (!(error instanceof AcmeError) || error.problem === null) throw error;
      if (error.problem !== "accountDoesNotExist")
        this.#log.warn({ ca: connection.ca, email: plan.email, reason: error.message }, "The CA did not take the changed address of the ACME account");
      // Not kept, so that it is tried again.
      return account;
    }
    const changed = { ...account, email: plan.email };
    await this.#keep(dir, changed);
    return changed;
  }

  async #read(dir: string): Promise<KeptAccount | null> {
    const file = join(dir, "account.json");
    let text: string;
    try {
      text = await readFile(file, "utf8");
    } catch (error) {
      if (systemErrorCode(error) !== "ENOENT") this.#warn(file, error);
      return null;
    }
    return parseAccount(text);
  }

  /** Keeps this one, or another gateway's, which has begun in the same moment: they have one key, and so one account. */
  async #begin(dir: string, account: KeptAccount): Promise<void> {
    const file = join(dir, "account.json");
    try {
      if (await makeSecretFile(file, textOf(account))) return void this.#kept.set(dir, account);
    } catch {
      return this.#keep(dir, account);
    }
    const present = await this.#read(dir);
    if (present !== null) return void this.#kept.set(dir, present);
    this.#log.warn({ file }, "The ACME account that is kept is damaged: a new one is made");
    await this.#keep(dir, account);
  }

  async #keep(dir: string, account: KeptAccount): Promise<void> {
    this.#kept.set(dir, account);
    const file = join(dir, "account.json");
    try {
      await writeSecretFile(file, textOf(account));
      this.#unsaved.delete(dir);
    } catch (error) {
      this.#unsaved.add(dir);
      this.#warn(file, error);
    }
  }

  #warn(file: string, error: unknown): void {
    if (this.#warned) return;
    this.#warned = true;
    this.#log.warn({ file, reason: describeSystemError(error) }, "The ACME account cannot be kept: the next start makes another one, and CAs limit how many");
  }
}

/** Null when the text is damaged. */
function parseAccount(text: string): KeptAccount | null {
  try {
    const { url, key, email } = JSON.parse(text) as Partial<Record<keyof KeptAccount, unknown>>;
    if (typeof key !== "string" || !isText(url) || !isText(email)) return null;
    createPrivateKey(key);
    return { url, key, email };
  } catch {
    return null;
  }
}

function textOf(account: KeptAccount): string {
  return `${JSON.stringify(account, null, 2)}\n`;
}

function isText(value: unknown): value is string | null {
  return value === null || typeof value === "string";
}

async function register(connection: AcmeConnection, plan: AcmeAccountPlan, key: string): Promise<AcmeAccount> {
  const url = await connection.run(async ({ Client }) => {
    const client = new Client({
      directoryUrl: plan.directoryUrl,
      accountKey: key,
      ...(plan.eab === null ? {} : { externalAccountBinding: { kid: plan.eab.kid, hmacKey: plan.eab.hmacKey } }),
    });
    await client.createAccount({ termsOfServiceAgreed: true, contact: contactOf(plan) });
    return client.getAccountUrl();
  });
  return { url, key, email: plan.email };
}

function contactOf({ email }: AcmeAccountPlan): string[] {
  return email === null ? [] : [`mailto:${email}`];
}
