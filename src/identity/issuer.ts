// An issuer of tokens outside of the gateway: its keys, and who its tokens speak of.
import { hash } from "node:crypto";
import type { IssuerPlan, ScopePlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Authentication, Proof, TokenSource } from "./authenticate.ts";
import { ASSERTION_TYPE, assertionFromClaims, type IdentityAssertion } from "./identity-assertion.ts";
import { Introspection } from "./introspection.ts";
import { Kept, RETRY_MS } from "./issuer-kept.ts";
import { AnswerMemory } from "./issuer-memory.ts";
import { fetchMetadata, type IssuerMetadata } from "./issuer-metadata.ts";
import { audienceKey, proofFromClaims } from "./issuer-person.ts";
import { IssuerError, IssuerTransport, type JsonObject } from "./issuer-transport.ts";
import { readKeys, type JwtKeys } from "./jwt-keys.ts";
import { lookAtJwt, type UnverifiedJwt } from "./jwt-look.ts";
import { KeysUnavailable, TokenRefusal, verifyJwt } from "./jwt-verify.ts";
import { type IdentityProvider, ProviderHealth } from "./provider-health.ts";

export type LiveIssuer = TokenSource & {
  /** Its metadata document, byte for byte; null when it cannot be had. Never rejects. */
  metadata(): Promise<string | null>;
  provider(): IdentityProvider;
  /** What an identity assertion says, when the issuer has made it and it is valid now. It is not remembered: the same one is read again. Never rejects. */
  readAssertion(assertion: string): Promise<ReadAssertion>;
  close(): void;
};

export type ReadAssertion =
  | { readonly kind: "assertion"; readonly assertion: IdentityAssertion }
  | { readonly kind: "invalid"; readonly reason: string }
  | Extract<Authentication, { kind: "unavailable" }>;

/** How long a token that was verified counts without being verified again. */
const VERIFIED_MS = 10_000;
const MAX_VERIFIED = 10_000;
const ASSERTION_TYPES = new Set([ASSERTION_TYPE]);
const WRONG_ASSERTION_TYPE = `Its header 'typ' must be '${ASSERTION_TYPE}'`;
const METADATA_FRESH_MS = 3_600_000;
const KEYS_FRESH_MS = 600_000;

type Asked = "metadata" | "keys" | "introspection";
const CHANGES: Readonly<Record<Asked, readonly [fails: string, works: string]>> = {
  metadata: ["The issuer's metadata cannot be fetched; what is known goes on serving for a day", "The issuer's metadata can be fetched again"],
  keys: ["The issuer's keys cannot be fetched; what is known goes on serving for a day", "The issuer's keys can be fetched again"],
  introspection: ["The issuer cannot be asked about tokens that say nothing by themselves", "The issuer can be asked about tokens again"],
};

/** Fetches nothing before the first token comes. @param scopes that include others */
export function openIssuer(plan: IssuerPlan, log: Log, scopes: ReadonlyMap<string, ScopePlan>): LiveIssuer {
  return new Issuer(plan, log, scopes);
}

class Issuer implements LiveIssuer {
  readonly #plan: IssuerPlan;
  readonly #log: Log;
  readonly #scopes: ReadonlyMap<string, ScopePlan>;
  readonly #audiences: ReadonlySet<string>;
  readonly #transport: IssuerTransport;
  readonly #health: ProviderHealth<Asked>;
  readonly #metadata: Kept<IssuerMetadata>;
  readonly #keys: Kept<JwtKeys>;
  readonly #introspection: Introspection | null;
  readonly #verified = new AnswerMemory<Proof>(MAX_VERIFIED);

  constructor(plan: IssuerPlan, log: Log, scopes: ReadonlyMap<string, ScopePlan>) {
    this.#plan = plan;
    this.#log = log;
    this.#scopes = scopes;
    this.#audiences = new Set([...plan.audiences].map(audienceKey));
    this.#transport = new IssuerTransport(plan);
    this.#health = new ProviderHealth<Asked>({
      who: { kind: "issuer", name: plan.name, url: plan.issuer },
      faultOf: (error) => {
        if (error instanceof IssuerError) return error.isOfToken ? null : error.message;
        // What any other error is made of is not known.
        return `Internal error (${error instanceof Error ? error.name : typeof error})`;
      },
      onChange: (what, error) => this.#tell(what, error),
    });
    this.#metadata = new Kept({
      fetch: (before) => this.#health.watch("metadata", () => fetchMetadata(plan.issuer, this.#transport, before)),
      freshMs: METADATA_FRESH_MS,
    });
    this.#keys = new Kept({ fetch: (before) => this.#health.watch("keys", () => this.#fetchKeys(before)), freshMs: KEYS_FRESH_MS });
    const { introspection } = plan;
    this.#introspection =
      introspection === null
        ? null
        : new Introspection({
            plan,
            introspection,
            post: (form, headers) =>
              this.#health.watch("introspection", async () => this.#transport.postForm(introspection.url ?? (await this.#introspectionUrl()), form, headers)),
            prove: (answer) => this.#prove(answer, false),
            explain: (error) => this.#explain(error),
          });
  }

  /** Of JWTs only those with our `iss` are this issuer's: no other issuer's token is ever sent to it. */
  find(token: string): Authentication | null | Promise<Authentication | null> {
    const key = hash("sha256", token, "base64");
    const verified = this.#verified.get(key);
    if (verified !== null) return verified;
    const jwt = lookAtJwt(token);
    if (jwt === null) return this.#introspection?.find(token, key) ?? null;
    return jwt.claims["iss"] === this.#plan.issuer ? this.#verify(token, jwt, key) : null;
  }

  async metadata(): Promise<string | null> {
    try {
      return (await this.#metadata.get()).text;
    } catch {
      return null;
    }
  }

  async readAssertion(assertion: string): Promise<ReadAssertion> {
    const jwt = lookAtJwt(assertion);
    if (jwt === null) return { kind: "invalid", reason: "It is no JWT" };
    try {
      // Whatever types its access tokens may have.
      const claims = await verifyJwt(assertion, jwt, this.#keys, { ...this.#plan, types: ASSERTION_TYPES, wrongType: WRONG_ASSERTION_TYPE });
      return { kind: "assertion", assertion: assertionFromClaims(claims, this.#plan) };
    } catch (error) {
      const why = this.#explain(error);
      return why.kind === "invalid" ? { kind: "invalid", reason: why.reason ?? "It cannot be looked at" } : why;
    }
  }

  provider(): IdentityProvider {
    return this.#health.describe();
  }

  close(): void {
    this.#health.close();
    this.#transport.close();
    this.#verified.clear();
  }

  async #verify(token: string, jwt: UnverifiedJwt, key: string): Promise<Authentication> {
    try {
      const claims = await verifyJwt(token, jwt, this.#keys, this.#plan);
      const { typ } = jwt.header;
      const proof = this.#prove(claims, typeof typ === "string" && /^(?:application\/)?at\+jwt$/i.test(typ));
      const { exp } = claims;
      if (typeof exp === "number") this.#verified.put(key, proof, Math.min(Date.now() + VERIFIED_MS, exp * 1_000));
      return proof;
    } catch (error) {
      return this.#explain(error);
    }
  }

  #prove(claims: JsonObject, isAccessToken: boolean): Proof {
    return proofFromClaims(claims, this.#audiences, this.#plan, this.#scopes, isAccessToken);
  }

  #explain(error: unknown): Extract<Authentication, { kind: "invalid" | "unavailable" }> {
    const issuer = this.#plan.name;
    if (error instanceof TokenRefusal) {
      const { message: reason, detail } = error;
      this.#log.debug({ issuer, reason, ...(detail !== "" && { detail }) }, "Token of an issuer refused");
      return { kind: "invalid", reason };
    }
    if (error instanceof KeysUnavailable || error instanceof IssuerError) return { kind: "unavailable", message: error.message, retryAfterS: RETRY_MS / 1_000 };
    // Nothing of the error goes on: what it is made of is not known.
    this.#log.error({ issuer, reason: error instanceof Error ? error.name : typeof error }, "Token of an issuer could not be looked at");
    return { kind: "invalid" };
  }

  async #fetchKeys(before: JwtKeys | null): Promise<JwtKeys> {
    const { name, jwksUrl } = this.#plan;
    const url = jwksUrl ?? (await this.#metadata.get()).jwksUrl;
    if (url === null) throw new IssuerError(`The metadata of issuer '${name}' has no 'jwks_uri'; name the address in 'jwks_url'`);
    try {
      return readKeys(await this.#transport.getJson(url), url, before);
    } catch (error) {
      // They may have moved.
      if (jwksUrl === null) this.#metadata.outdate();
      throw error;
    }
  }

  async #introspectionUrl(): Promise<string> {
    const { introspectionUrl } = await this.#metadata.get();
    if (introspectionUrl !== null) return introspectionUrl;
    throw new IssuerError(`The metadata of issuer '${this.#plan.name}' has no 'introspection_endpoint'; name the address in 'introspection.url'`);
  }

  /** Once when it begins and once when it is over. */
  #tell(what: Asked, reason: string | null): void {
    const issuer = this.#plan.name;
    const [fails, works] = CHANGES[what];
    if (reason === null) this.#log.info({ issuer }, works);
    else this.#log.warn({ issuer, reason }, fails);
  }
}
