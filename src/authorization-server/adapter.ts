// What an authorization server keeps: the models of oidc-provider in the state, and the people that its grants are of.
import { createHash } from "node:crypto";
import { errors, type Adapter, type Payload } from "oidc-provider";
import type { Person } from "../identity/person.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import type { StateStore } from "../state/store.ts";
import { authorityOf } from "./login-authority.ts";

/** The grant by which a client shows an assertion of somebody else (RFC 7523, 2.1). */
export const JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/** Claim of our JWTs: hash of the id of the grant. */
export const GRANT_CLAIM = "grant";

// Of clients that race with themselves, or lost the answer to a refresh.
const GRACE_MS = 45_000;
// Tokens stay for a while after their end, so that we can say why they are refused.
const AFTERLIFE_MS = 600_000;
const UNUSED_CLIENT_MS = 90 * 86_400_000;
// Whoever registers and never gets a code; anybody can.
const NEW_CLIENT_MS = 30 * 86_400_000;
// Of those, and of those that have not been used for two months: so many registrations stay, the latest.
const MAX_IDLE_CLIENTS = 5_000;
const NEW_PERSON_MS = 3_600_000;

/** What is known of a grant beside its person and its scopes. Times in milliseconds since 1970. */
export type GrantAbout = {
  readonly clientName: string;
  readonly clientKind: "static" | "registered" | "document";
  /** Empty: it had none, as it came by an identity assertion. */
  readonly redirectUri: string;
  readonly createdAtMs: number;
};

/** A record that stays until it is deleted, or nobody has used it for long. `id`: a hash of its own. `aliveUntilMs` null: nobody has. */
export type Kept = { readonly id: string; readonly payload: Payload; readonly aliveUntilMs: number | null };

type KeptPerson = { readonly person: Person; /** As `authorityOf` had it. */ readonly authority: string | null; readonly savedAtMs: number };

/**
 * The state of one issuer. Ids (tokens, codes, ...) are keys only as hashes. Grants and registered clients have no end of their own: what keeps them is a
 * second key that use prolongs. So nothing is ever written over them, and whoever deletes one has the last word also against a use at the same moment.
 */
export class ServerState {
  readonly #store: StateStore;
  readonly #prefix: string;
  readonly #now: () => number;
  /** Called when tokens or grants have gone. */
  onGone: () => void = () => {};

  constructor(store: StateStore, issuer: string, now: () => number) {
    this.#store = store;
    this.#prefix = `oauth:${idHash(issuer).slice(0, 22)}:`;
    this.#now = now;
  }

  /** What oidc-provider reads and writes a model by. */
  adapter(model: string): Adapter {
    return {
      upsert: (id, payload, expiresInS) => this.#upsert(model, id, payload, expiresInS),
      find: (id) => this.find(model, id),
      // Sessions of oidc-provider are not used: each authorization asks a person, and knows its own.
      findByUid: () => Promise.resolve(undefined),
      findByUserCode: () => Promise.resolve(undefined),
      destroy: async (id) => void (await this.#destroy(model, idHash(id))),
      consume: (id) => this.#consume(model, id),
      // The end of a grant is the end of its record, and `find` asks for that.
      revokeByGrantId: () => Promise.resolve(),
    };
  }

  /** A model by its id. The members of a grant that is gone are gone with it. */
  async find(model: string, id: string): Promise<Payload | undefined> {
    if (model === "Session") return undefined;
    const hashed = idHash(id);
    const text = await this.#store.get(this.#key(model, hashed));
    if (text === null) return undefined;
    const payload = JSON.parse(text) as Payload;
    if (model === "Client") return (await this.#aliveUntil(model, hashed)) === null ? undefined : payload;
    if (model === "Grant") {
      const aliveUntilMs = await this.#aliveUntil(model, hashed);
      return aliveUntilMs === null ? undefined : { ...payload, jti: id, exp: Math.floor(aliveUntilMs / 1000) };
    }
    const { grantId } = payload;
    if (typeof grantId === "string" && (await this.#store.get(this.#key("Grant", idHash(grantId)))) === null) return undefined;
    if (model !== "AuthorizationCode" && model !== "RefreshToken") return { ...payload, jti: id };
    const usedAt = await this.#store.get(this.#key(`${model}-used`, hashed));
    const isHidden = model === "RefreshToken" && usedAt !== null && this.#now() - Number(usedAt) < GRACE_MS;
    return { ...payload, jti: id, ...(usedAt === null || isHidden ? {} : { consumed: Math.floor(Number(usedAt) / 1000) }) };
  }

  async #upsert(model: string, id: string, payload: Payload, expiresInS: number | undefined): Promise<void> {
    if (model === "Session") return;
    const hashed = idHash(id);
    // The id of a token is the token.
    const { jti: _jti, ...rest } = payload;
    const text = JSON.stringify(rest);
    const ttlMs = expiresInS === undefined ? null : expiresInS * 1000;
    if (model === "Grant" || model === "Client") {
      await this.#keepAlive(model, hashed, model === "Client" ? NEW_CLIENT_MS : (ttlMs ?? UNUSED_CLIENT_MS));
      return this.#store.set(this.#key(model, hashed), text, null);
    }
    if (model === "ReplayDetection") {
      if (!(await this.#store.add(this.#key(model, hashed), text, ttlMs))) throw new errors.InvalidClientAuth("client assertion was used before");
      return;
    }
    const isToken = model === "AccessToken" || model === "ClientCredentials";
    await this.#store.set(this.#key(model, hashed), text, ttlMs === null || !isToken ? ttlMs : ttlMs + AFTERLIFE_MS);
    const { grantId, clientId } = payload;
    const isUse = model === "AuthorizationCode" || model === "RefreshToken" || payload["gty"] === JWT_BEARER;
    if (isUse && typeof clientId === "string") await this.#useClient(idHash(clientId));
    // What was given out before may live longer than what is given now.
    if ((model === "RefreshToken" || model === "AccessToken") && typeof grantId === "string" && ttlMs !== null) {
      const untilMs = await this.#aliveUntil("Grant", idHash(grantId));
      if (untilMs === null || untilMs < this.#now() + ttlMs) await this.#keepAlive("Grant", idHash(grantId), ttlMs);
    }
  }

  async #destroy(model: string, hashed: string): Promise<boolean> {
    const existed = await this.#store.delete(this.#key(model, hashed));
    if (model === "Grant" || model === "Client") {
      await this.#store.delete(this.#key(`${model}-alive`, hashed));
      await this.#store.delete(this.#key("about", hashed));
    }
    this.onGone();
    return existed;
  }

  /** @throws when somebody else was first with a code, whose tokens then end (OAuth 2.1, 4.1.3) */
  async #consume(model: string, id: string): Promise<void> {
    const hashed = idHash(id);
    const payload = await this.find(model, id);
    const leftMs = typeof payload?.["exp"] === "number" ? payload["exp"] * 1000 - this.#now() : 0;
    const isFirst = await this.#store.add(this.#key(`${model}-used`, hashed), String(this.#now()), Math.max(leftMs, GRACE_MS));
    if (isFirst || model !== "AuthorizationCode") return;
    if (typeof payload?.["grantId"] === "string") await this.#destroy("Grant", idHash(payload["grantId"]));
    throw new errors.InvalidGrant("authorization code already consumed");
  }

  /** Whether the grant stands. @param id hash of its id, as `grantHash` gives it */
  async hasGrant(id: string): Promise<boolean> {
    return (await this.#store.get(this.#key("Grant", id))) !== null;
  }

  /** A registered client was used. */
  async #useClient(hashed: string): Promise<void> {
    const untilMs = await this.#aliveUntil("Client", hashed);
    // Once a day is enough.
    if (untilMs !== null && untilMs - this.#now() < UNUSED_CLIENT_MS - 86_400_000) await this.#keepAlive("Client", hashed, UNUSED_CLIENT_MS);
  }

  async #keepAlive(model: string, hashed: string, ttlMs: number): Promise<void> {
    await this.#store.set(this.#key(`${model}-alive`, hashed), String(this.#now() + ttlMs), ttlMs);
  }

  async #aliveUntil(model: string, hashed: string): Promise<number | null> {
    const text = await this.#store.get(this.#key(`${model}-alive`, hashed));
    return text === null ? null : Number(text);
  }

  /** Its tokens of before are worth nothing from now on: those that it got for itself have no grant that could end. For ever: how long they live said the file of then. */
  async endClient(clientId: string): Promise<void> {
    await this.#store.set(this.#key("ended", idHash(clientId)), String(this.#now()), null);
    this.onGone();
  }

  /** When its tokens were taken back; 0: never. */
  async clientEndedAtMs(clientId: string): Promise<number> {
    return Number(await this.#store.get(this.#key("ended", idHash(clientId))));
  }

  /** Of a JWT nothing else is kept. @param id its `jti` @param ttlMs how long it would live */
  async revokeJwt(id: string, ttlMs: number): Promise<void> {
    await this.#store.set(this.#key("jwt-revoked", idHash(id)), "1", Math.max(1_000, ttlMs));
    this.onGone();
  }

  async isRevokedJwt(id: string): Promise<boolean> {
    return (await this.#store.get(this.#key("jwt-revoked", idHash(id)))) !== null;
  }

  /** False when the assertion was used before: each counts once. @param expiresAtMs when nobody takes it any more */
  useAssertion(issuer: string, id: string, expiresAtMs: number): Promise<boolean> {
    return this.#store.add(this.#key("assertion", idHash(JSON.stringify([issuer, id]))), "1", Math.max(1_000, expiresAtMs - this.#now()));
  }

  /**
   * On the tailnet a person is somebody on a device: who is admitted there may hang on either.
   * @param toldTo the client to which alone an issuer says this of the person: it may tell each something else. Null: it counts for all clients
   * @returns the id that `findPerson` takes
   */
  async savePerson(person: Person, login: LoginPlan, toldTo: string | null = null): Promise<string> {
    const authority = authorityOf(person, login);
    const who = [person.source, authority, person.subject, person.peer?.id ?? null];
    const accountId = idHash(JSON.stringify(toldTo === null ? who : [...who, toldTo]));
    const kept: KeptPerson = { person, authority, savedAtMs: this.#now() };
    await this.#store.set(this.#key("person", accountId), JSON.stringify(kept), null);
    return accountId;
  }

  /** @param login when the person's login must be one of these still; null: whatever became of it */
  async findPerson(accountId: string, login: LoginPlan | null): Promise<Person | null> {
    const text = await this.#store.get(this.#key("person", accountId));
    if (text === null) return null;
    const { person, authority } = JSON.parse(text) as KeptPerson;
    return login === null || authority === authorityOf(person, login) ? person : null;
  }

  /** @param grantId as oidc-provider has it */
  async saveAbout(grantId: string, about: GrantAbout): Promise<void> {
    await this.#store.set(this.#key("about", idHash(grantId)), JSON.stringify(about), null);
  }

  /** @param id of a Kept */
  async findAbout(id: string): Promise<GrantAbout | null> {
    const text = await this.#store.get(this.#key("about", id));
    return text === null ? null : (JSON.parse(text) as GrantAbout);
  }

  /** For one use: who waits for the consent to an interaction. */
  async saveWaiting(uid: string, browser: string, ttlMs: number): Promise<void> {
    await this.#store.set(this.#key("waiting", idHash(uid)), idHash(browser), ttlMs);
  }

  /** An authorization that will not go on: nobody answers it any more. */
  async dropInteraction(uid: string): Promise<void> {
    await this.#store.delete(this.#key("waiting", idHash(uid)));
    await this.#store.delete(this.#key("Interaction", idHash(uid)));
  }

  async isWaiting(uid: string, browser: string): Promise<boolean> {
    return (await this.#store.get(this.#key("waiting", idHash(uid)))) === idHash(browser);
  }

  /** Of several answers to one question only one is taken. */
  async takeWaiting(uid: string, browser: string): Promise<boolean> {
    return (await this.isWaiting(uid, browser)) && (await this.#store.take(this.#key("waiting", idHash(uid)))) === idHash(browser);
  }

  /** All grants or registered clients, those that nobody uses any more too. */
  async list(model: "Grant" | "Client"): Promise<Kept[]> {
    const prefix = this.#key(model, "");
    const kept: Kept[] = [];
    for (const { key, value } of await this.#store.list(prefix)) {
      const id = key.slice(prefix.length);
      kept.push({ id, payload: JSON.parse(value) as Payload, aliveUntilMs: await this.#aliveUntil(model, id) });
    }
    return kept;
  }

  /** False when it was gone before. @param id of a Kept */
  delete(model: "Grant" | "Client", id: string): Promise<boolean> {
    return this.#destroy(model, id);
  }

  /** Deletes what nobody can use any more. */
  async sweep(): Promise<void> {
    const prefix = this.#key("person", "");
    // People first: who comes meanwhile, with a grant, is not among them.
    const people = await this.#store.list(prefix);
    const accounts = new Set<unknown>();
    for (const { id, payload, aliveUntilMs } of await this.list("Grant")) {
      if (aliveUntilMs === null) await this.#destroy("Grant", id);
      else accounts.add(payload["accountId"]);
    }
    let idle = 0;
    for (const { id, aliveUntilMs } of (await this.list("Client")).toSorted((a, b) => (b.aliveUntilMs ?? 0) - (a.aliveUntilMs ?? 0))) {
      if (aliveUntilMs !== null && aliveUntilMs - this.#now() <= NEW_CLIENT_MS) idle += 1;
      if (aliveUntilMs === null || idle > MAX_IDLE_CLIENTS) await this.#destroy("Client", id);
    }
    for (const { key, value } of people) {
      const isNew = this.#now() - (JSON.parse(value) as KeptPerson).savedAtMs < NEW_PERSON_MS;
      if (!isNew && !accounts.has(key.slice(prefix.length))) await this.#store.delete(key);
    }
  }

  #key(kind: string, hashed: string): string {
    return `${this.#prefix}${kind}:${hashed}`;
  }
}

/** What is kept of an id. */
export function idHash(id: string): string {
  return createHash("sha256").update(id).digest("base64url");
}
