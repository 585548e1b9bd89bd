// Whose sessions are whose: an id that leaked or was guessed opens nobody else's session.
import { hash } from "node:crypto";

const MAX_SESSIONS = 50_000;
// One who opens sessions without end pushes out their own, and not those of others.
const MAX_OF_ONE = 5_000;

/** Who a request is for the sessions of an upstream (`place`), and which of them it uses. */
export type SessionUse = {
  readonly owner: string;
  readonly place: string;
  readonly ids: readonly string[];
  /**
   * Those of them that become the owner's by being used: where it is not said that a route is for MCP, one in a query may be a word that is no session at all,
   * and only an endpoint event makes it one.
   */
  readonly claimed: readonly string[];
};

/** In memory alone: after a restart the upstream, which knows its sessions, decides, and who uses one first has it. */
export class SessionOwners {
  readonly #maxSessions: number;
  readonly #maxOfOne: number;
  /** Owner by key, the one used longest ago first. */
  readonly #owners = new Map<string, string>();
  /** Keys by owner, likewise. */
  readonly #keys = new Map<string, Set<string>>();

  constructor(maxSessions = MAX_SESSIONS, maxOfOne = MAX_OF_ONE) {
    this.#maxSessions = maxSessions;
    this.#maxOfOne = maxOfOne;
  }

  get size(): number {
    return this.#owners.size;
  }

  /** Whether somebody else is known to have the session. @param place what knows the session @param owner not empty */
  isForeign(place: string, session: string, owner: string): boolean {
    const known = this.#owners.get(keyOf(place, session));
    return known !== undefined && known !== owner;
  }

  /** Notes the use of a session. Who has it keeps it. */
  bind(place: string, session: string, owner: string): void {
    const key = keyOf(place, session);
    const known = this.#owners.get(key);
    if (known !== undefined && known !== owner) return;
    this.#drop(key, owner);
    this.#owners.set(key, owner);
    const own = this.#keys.get(owner) ?? new Set();
    this.#keys.set(owner, own.add(key));
    if (own.size > this.#maxOfOne) this.#dropFirst(own);
    if (this.#owners.size > this.#maxSessions) this.#dropFirst(this.#owners.keys());
  }

  /** Forgets a session that has ended. */
  unbind(place: string, session: string, owner: string): void {
    const key = keyOf(place, session);
    if (this.#owners.get(key) === owner) this.#drop(key, owner);
  }

  #dropFirst(keys: Iterable<string>): void {
    for (const key of keys) return this.#drop(key, this.#owners.get(key) ?? "");
  }

  #drop(key: string, owner: string): void {
    this.#owners.delete(key);
    const own = this.#keys.get(owner);
    own?.delete(key);
    if (own?.size === 0) this.#keys.delete(owner);
  }
}

/** Whether some upstream may read it as an id that is written otherwise: Python takes the digits of all scripts, and spaces around them, for those of a UUID. */
export function isDisguised(session: string): boolean {
  return !/^[!-~]*$/.test(session) && /^.{32}$/su.test(bareId(session));
}

/** Ids are credentials of a kind: only their hash is kept. */
function keyOf(place: string, session: string): string {
  return hash("sha256", `${place}\n${canonicalId(session)}`, "base64url");
}

/** One form for all spellings of a UUID that upstreams read as the same (Python's UUID and int(…, 16) do): no other spelling is a way round. */
function canonicalId(session: string): string {
  const digits = bareId(session);
  if (digits.length !== 32 || !/^[+]?(?:0x)?[0-9a-f_]+$/i.test(digits)) return session;
  return `uuid ${digits
    .toLowerCase()
    .replace(/^\+?(?:0x)?/, "")
    .replaceAll("_", "")
    .replace(/^0+/, "")}`;
}

function bareId(session: string): string {
  return session.replaceAll(/urn:|uuid:|[{}-]/gi, "");
}
