// Sessions of people with browsers: made by a login, found by their cookie, ended by time, sign-out or the operator.
import type { Authentication } from "../identity/authenticate.ts";
import type { Identity } from "../identity/identity.ts";
import { personName, personNow, personSource, type Person } from "../identity/person.ts";
import { asciiName } from "../lib/printable.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import { tryParseJson } from "./kept.ts";
import type { StateStore } from "../state/store.ts";
import type { Log } from "../telemetry/log.ts";
import { authorityOf } from "./login-authority.ts";
import { isSecret, makeSecret, secretHash } from "./browser.ts";

const CACHE_MS = 2_000;
const MAX_CACHED = 10_000;
// From one origin to the next takes a browser no longer.
const HANDOFF_MS = 60_000;
const RETRY_AFTER_S = 5;

const NONE: Authentication = { kind: "none" };

type KeptSession = {
  readonly origin: string;
  readonly person: Person;
  /** As `authorityOf` had it. */ readonly authority: string | null;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
};
/** One that counts. `id`: ends it, and neither is nor tells the value of its cookie. `expiresAtMs`: as the file has it now. */
export type SessionAbout = {
  readonly id: string;
  readonly person: Person;
  readonly origin: string;
  readonly createdAtMs: number;
  readonly expiresAtMs: number;
};
/** A login that another origin takes over. `browser`: hash of that of the browser there. */
export type Handoff = { readonly origin: string; readonly returnTo: string; readonly browser: string; readonly person: Person };

export type SessionsOptions = {
  readonly issuer: string;
  /** By origin. */
  readonly lifetimesMs: ReadonlyMap<string, number>;
  /** Who may have a session at all. */
  readonly login: LoginPlan;
  readonly store: StateStore;
  readonly log: Log;
  readonly now: () => number;
};

export class Sessions {
  readonly #options: SessionsOptions;
  readonly #prefix: string;
  readonly #handoffs: string;
  readonly #cache = new Map<string, { readonly found: Authentication; readonly untilMs: number }>();
  // Of two that run at once, the one that looked before something ended must not remember it.
  #generation = 0;

  constructor(options: SessionsOptions) {
    this.#options = options;
    const place = secretHash(options.issuer).slice(0, 22);
    this.#prefix = `session:${place}:`;
    this.#handoffs = `session-handoff:${place}:`;
  }

  /** How long a session lasts on that origin; 0 where there are none. */
  lifetimeMs(origin: string): number {
    return this.#options.lifetimesMs.get(origin) ?? 0;
  }

  /** A new session; resolves with the value of its cookie. */
  async create(origin: string, person: Person): Promise<string> {
    const { store, login, now } = this.#options;
    const lifetimeMs = this.lifetimeMs(origin);
    const cookie = makeSecret();
    const kept: KeptSession = { origin, person, authority: authorityOf(person, login), createdAtMs: now(), expiresAtMs: now() + lifetimeMs };
    await store.set(this.#key(cookie), JSON.stringify(kept), lifetimeMs);
    return cookie;
  }

  /** Never rejects. A session is known on the origin that it was made for alone. */
  find(cookie: string, origin: string): Authentication | Promise<Authentication> {
    if (!isSecret(cookie)) return NONE;
    const key = this.#key(cookie);
    const id = `${key} ${origin}`;
    const cached = this.#cache.get(id);
    return cached !== undefined && cached.untilMs > this.#options.now() ? cached.found : this.#look(key, origin, id);
  }

  async #look(key: string, origin: string, id: string): Promise<Authentication> {
    const generation = this.#generation;
    const { store, log, now } = this.#options;
    try {
      const session = this.#judge(await store.get(key));
      if (session === null || session.origin !== origin) return NONE;
      const found = proofOf(session);
      if (generation === this.#generation) {
        if (this.#cache.size >= MAX_CACHED) this.#cache.clear();
        this.#cache.set(id, { found, untilMs: Math.min(now() + CACHE_MS, session.expiresAtMs) });
      }
      return found;
    } catch (error) {
      log.error({ err: error }, "Cannot look up a session");
      return { kind: "unavailable", message: "The sessions cannot be looked up", retryAfterS: RETRY_AFTER_S };
    }
  }

  /** What was kept, as it counts by the file of now; null when it does not any more. */
  #judge(text: string | null): KeptSession | null {
    const { login, now } = this.#options;
    const kept = tryParseJson(text) as KeptSession | null;
    if (kept === null) return null;
    // The file may say less by now than it did then.
    const expiresAtMs = Math.min(kept.expiresAtMs, kept.createdAtMs + this.lifetimeMs(kept.origin));
    if (expiresAtMs <= now()) return null;
    const person = personNow(kept.person, login);
    return person === null || kept.authority !== authorityOf(person, login) ? null : { ...kept, expiresAtMs, person };
  }

  /** All that `find` would know. */
  async list(): Promise<SessionAbout[]> {
    return (await this.#options.store.list(this.#prefix)).flatMap(({ key, value }): SessionAbout[] => {
      const session = this.#judge(value);
      if (session === null) return [];
      const { person, origin, createdAtMs, expiresAtMs } = session;
      return [{ id: key.slice(this.#prefix.length), person, origin, createdAtMs, expiresAtMs }];
    });
  }

  /** False when there was none. */
  async end(cookie: string): Promise<boolean> {
    return isSecret(cookie) && this.endById(secretHash(cookie));
  }

  /** False when there was none. @param id as `list` has it */
  async endById(id: string): Promise<boolean> {
    const was = await this.#options.store.delete(`${this.#prefix}${id}`);
    this.#forget();
    return was;
  }

  /** @param user `github:octocat`; null: everybody. Resolves with the number of sessions that are gone. */
  async revoke(user: string | null): Promise<number> {
    const { store } = this.#options;
    let count = 0;
    // Handoffs first: what they become must be in the second list.
    for (const prefix of [this.#handoffs, this.#prefix]) {
      for (const { key, value } of await store.list(prefix)) {
        const person = (tryParseJson(value) as { readonly person: Person } | null)?.person;
        if (user !== null && (person === undefined || userOf(person) !== user)) continue;
        if (await store.delete(key)) count += 1;
      }
    }
    this.#forget();
    return count;
  }

  /** Resolves with a code that is good once, for a minute, in the browser that began. */
  async handOff(handoff: Handoff): Promise<string> {
    const code = makeSecret();
    await this.#options.store.set(`${this.#handoffs}${secretHash(code)}`, JSON.stringify(handoff), HANDOFF_MS);
    return code;
  }

  async takeHandoff(code: string): Promise<Handoff | null> {
    return isSecret(code) ? (tryParseJson(await this.#options.store.take(`${this.#handoffs}${secretHash(code)}`)) as Handoff | null) : null;
  }

  #key(cookie: string): string {
    return `${this.#prefix}${secretHash(cookie)}`;
  }

  #forget(): void {
    this.#generation += 1;
    this.#cache.clear();
  }
}

/** `github:octocat`: how operators and logs call somebody. */
export function userOf(person: Person): string {
  return `${personSource(person)}:${personName(person)}`;
}

function proofOf({ person, expiresAtMs }: KeptSession): Authentication {
  const { source, email, groups, peer } = person;
  // What machines show is no login.
  if (source === "client" || source === "issuer") return NONE;
  const identity: Identity = {
    source,
    name: personName(person),
    scopes: [],
    ...(email === null ? {} : { email }),
    ...(groups.length === 0 ? {} : { groups }),
    ...(peer === null ? {} : { node: asciiName(peer.shortName) }),
  };
  return { kind: "identity", by: "session", identity, person, issuer: null, resource: null, expiresAtMs };
}
