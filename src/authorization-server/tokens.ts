// Access tokens that this server gave out: whose they are and what they are for.
import type { Authentication, Proof } from "../identity/authenticate.ts";
import { personName, personNow, personSource, type Person } from "../identity/person.ts";
import { expandScopes, mayHave } from "../identity/scopes.ts";
import { asciiName } from "../lib/printable.ts";
import { sameResourceKey } from "../lib/public-url.ts";
import type { AuthorizationServerPlan, OAuthResourcePlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import { idHash, type ServerState } from "./adapter.ts";
import { EXPIRED, GONE, REVOKED, type Claims, type JwtTokens } from "./jwt-tokens.ts";
import { allScopes, findResource } from "./resources.ts";

// What another process revokes is refused after this.
const CACHE_MS = 2_000;
const CACHE_SIZE = 10_000;
const OPAQUE = /^[A-Za-z0-9_-]{43}$/;

export class TokenLookup {
  readonly #plan: AuthorizationServerPlan;
  readonly #state: ServerState;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #jwts: JwtTokens;
  readonly #cache = new Map<string, { readonly found: Proof; readonly untilMs: number }>();
  #generation = 0;

  constructor(plan: AuthorizationServerPlan, state: ServerState, jwts: JwtTokens, log: Log, now: () => number) {
    this.#plan = plan;
    this.#state = state;
    this.#log = log;
    this.#now = now;
    this.#jwts = jwts;
  }

  /** Never rejects. Null for what has not the form of our tokens, or is known to nobody here. At once when it was asked lately. */
  find(token: string): Authentication | null | Promise<Authentication | null> {
    const key = idHash(token);
    const hit = this.#cache.get(key);
    if (hit !== undefined && hit.untilMs > this.#now()) return isOver(hit.found, this.#now()) ? EXPIRED : hit.found;
    if (OPAQUE.test(token)) return this.#answer(key, this.#findOpaque(token));
    return this.#jwts.isOurs(token) ? this.#answer(key, this.#findJwt(token)) : null;
  }

  /** Forgets all answers: something was revoked. */
  clear(): void {
    this.#generation += 1;
    this.#cache.clear();
  }

  async #answer(key: string, asked: Promise<Authentication | null>): Promise<Authentication | null> {
    const generation = this.#generation;
    try {
      const found = await asked;
      // Revoked while it was looked up: the answer may be of before.
      if (found?.kind === "identity" && generation === this.#generation) this.#remember(key, found);
      return found;
    } catch (error) {
      this.#log.error({ server: this.#plan.issuer, err: error }, "cannot look up an access token");
      return { kind: "unavailable", message: "The state that knows access tokens cannot be read", retryAfterS: 1 };
    }
  }

  #remember(key: string, found: Proof): void {
    this.#cache.delete(key);
    if (this.#cache.size >= CACHE_SIZE) for (const oldest of this.#cache.keys()) if (this.#cache.delete(oldest)) break;
    this.#cache.set(key, { found, untilMs: this.#now() + CACHE_MS });
  }

  async #findOpaque(token: string): Promise<Authentication | null> {
    const payload = (await this.#state.find("AccessToken", token)) ?? (await this.#state.find("ClientCredentials", token));
    if (payload === undefined) return null;
    const { accountId, clientId, scope, aud, iat, exp } = payload;
    if (typeof clientId !== "string" || typeof aud !== "string" || typeof iat !== "number" || typeof exp !== "number") return REVOKED;
    const account = typeof accountId === "string" ? accountId : null;
    return this.#prove({ accountId: account, clientId, scope: typeof scope === "string" ? scope : "", audience: aud, issuedAtS: iat, expiresAtS: exp });
  }

  async #findJwt(token: string): Promise<Authentication> {
    const claims = await this.#jwts.read(token);
    return "kind" in claims ? claims : this.#prove(claims);
  }

  /** One of the file that is there no more has no other place. Of documents nothing is kept. */
  async #hasClient(id: string): Promise<boolean> {
    return id.startsWith("https://") || this.#plan.clients.some((client) => client.id === id) || (await this.#state.find("Client", id)) !== undefined;
  }

  /** The plan of now decides what the token is still worth. */
  async #prove({ accountId, clientId, scope, audience, issuedAtS, expiresAtS }: Claims): Promise<Authentication> {
    const { scopes: known, clients, login } = this.#plan;
    const expiresAtMs = expiresAtS * 1000;
    if (expiresAtMs <= this.#now()) return EXPIRED;
    const resource = findResource(this.#plan, audience);
    if (resource === null) return REVOKED;
    const machine = accountId === null ? clients.find(({ id }) => id === clientId) : undefined;
    if (accountId === null && machine === undefined) return REVOKED;
    if (machine !== undefined && issuedAtS * 1000 <= (await this.#state.clientEndedAtMs(machine.id))) return REVOKED;
    if (accountId !== null && !(await this.#hasClient(clientId))) return REVOKED;
    const person = machine === undefined ? personNow(await this.#state.findPerson(accountId ?? "", login), login) : machinePerson(machine.id);
    if (person === null) return GONE;
    if (person.source === "issuer" && !isVouchedFor(person, resource)) return REVOKED;
    const isTheirs = (name: string): boolean => mayHave(person, name, known);
    const offered = allScopes(resource);
    const granted = scope.split(" ").filter((name) => offered.includes(name) && isTheirs(name) && (machine === undefined || machine.scopes.includes(name)));
    return {
      kind: "identity",
      by: "oauth",
      identity: {
        source: personSource(person),
        name: personName(person),
        // A scope that is for some does not come to others by one that includes it.
        scopes: expandScopes(granted, known).filter(isTheirs),
        ...(person.email === null ? {} : { email: person.email }),
        ...(person.groups.length === 0 ? {} : { groups: person.groups }),
        ...(person.peer === null ? {} : { node: asciiName(person.peer.shortName) }),
        ...(machine === undefined ? { client: clientId } : {}),
      },
      person,
      issuer: null,
      resource: sameResourceKey(resource.url),
      expiresAtMs,
    };
  }
}

function isOver({ expiresAtMs }: Proof, now: number): boolean {
  return expiresAtMs !== null && expiresAtMs <= now;
}

/** Whether a way of the resource still takes identity assertions of who vouched for the person. */
function isVouchedFor({ issuer }: Person, { assertions }: OAuthResourcePlan): boolean {
  return issuer !== undefined && assertions.some(({ issuers }) => issuers.get(issuer.name) === issuer.url);
}

function machinePerson(id: string): Person {
  return { source: "client", subject: id, name: id, email: null, domain: null, orgs: [], teams: [], groups: [], claims: {}, peer: null };
}
