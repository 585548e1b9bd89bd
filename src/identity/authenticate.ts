// Who makes a request, found out from its credentials: what kind of bearer token it is, and who knows it.
import { hash, timingSafeEqual } from "node:crypto";
import type { ScopePlan, TokenPlan } from "../plan/auth-model.ts";
import { printable } from "../lib/printable.ts";
import type { Identity } from "./identity.ts";
import { lookAtJwt } from "./jwt-look.ts";
import type { Person } from "./person.ts";
import { expandScopes } from "./scopes.ts";

/** What a credential proves, and by which kind of way in it may be used: never by another. */
export type Proof = {
  readonly kind: "identity";
  readonly by: "token" | "oauth" | "issuer" | "session";
  readonly identity: Identity;
  /** Null for static tokens. */
  readonly person: Person | null;
  /** Name in `Plan.issuers`, of an issuer's token. */
  readonly issuer: string | null;
  /** What a token of our own server is for, in the form of `sameResourceKey`. */
  readonly resource: string | null;
  /** Null: it does not end by itself. */
  readonly expiresAtMs: number | null;
};

/** `none`: no credentials came. `invalid`: some came and prove nothing; `reason` for the client, without secrets, `detail` for the log alone. `unavailable`: who would know does not answer. */
export type Authentication =
  | Proof
  | { readonly kind: "none" }
  | { readonly kind: "invalid"; readonly reason?: string; readonly detail?: string }
  | { readonly kind: "unavailable"; readonly message: string; readonly retryAfterS: number };

/** Who knows a kind of token. Never rejects. */
export type TokenSource = {
  /** Null: it is none of this source's, another one may know it. */
  find(token: string): Authentication | null | Promise<Authentication | null>;
  /** Our own: what it knows, or may know, is shown to nobody else. Default: false. */
  readonly isOwn?: boolean;
};

const NO_CREDENTIALS: Authentication = { kind: "none" };
const INVALID: Authentication = { kind: "invalid" };

// RFC 6750, 2.1: the scheme in any case, one or more spaces, and a token68.
const BEARER = /^bearer +([A-Za-z0-9._~+/-]+=*)$/i;
// JWTs with lists of groups are long.
const MAX_TOKEN_LENGTH = 16_384;
const MAX_ISSUER_CHARS = 200;

/** The tokens of a plan with the answer for each, made once. */
export type TokenIndex = readonly { readonly sha256: Buffer; readonly found: Authentication }[];

export function buildTokenIndex(tokens: readonly TokenPlan[], known: ReadonlyMap<string, ScopePlan>): TokenIndex {
  return tokens.map(({ name, sha256, scopes }) => {
    const identity: Identity = { source: "token", name, scopes: expandScopes(scopes, known) };
    return { sha256, found: { kind: "identity", by: "token", identity, person: null, issuer: null, resource: null, expiresAtMs: null } };
  });
}

/**
 * @param authorization value of the Authorization header, null when there is none. Tokens are taken from nowhere else (RFC 6750, 5.3).
 * @param sources those that the route takes tokens of, in the order in which they are asked. At once when static tokens alone are to be asked.
 */
export function authenticate(authorization: string | null, tokens: TokenIndex, sources: readonly TokenSource[] = []): Authentication | Promise<Authentication> {
  if (authorization === null) return NO_CREDENTIALS;
  const token = authorization.length <= MAX_TOKEN_LENGTH ? BEARER.exec(authorization)?.[1] : undefined;
  if (token === undefined) return INVALID;
  const sha256 = hash("sha256", token, "buffer");
  let found: Authentication | null = null;
  // All are compared, so that the time tells nothing of which one it was.
  for (const known of tokens) if (timingSafeEqual(known.sha256, sha256)) found = known.found;
  return found ?? ask(token, sources, 0);
}

/** Until one proves something. An issuer that refuses is not the last word: a token that nothing can be read of may be another's. */
function ask(token: string, sources: readonly TokenSource[], from: number, refused: Authentication = INVALID): Authentication | Promise<Authentication> {
  let answer = refused;
  for (let i = from; i < sources.length; i += 1) {
    const source = sources[i];
    const found = source?.find(token) ?? null;
    const isLast = (one: Authentication): boolean => one.kind === "identity" || source?.isOwn === true;
    if (found instanceof Promise)
      return found.then((late) => (late !== null && isLast(late) ? late : ask(token, sources, i + 1, late === null ? answer : weightier(answer, late))));
    if (found !== null && isLast(found)) return found;
    if (found !== null) answer = weightier(answer, found);
  }
  return answer === INVALID ? unknown(token) : answer;
}

/** Nobody here knows it: of a JWT the log says whose it claims to be, which tells what is missing in the file. */
function unknown(token: string): Authentication {
  const iss = lookAtJwt(token)?.claims["iss"];
  return typeof iss === "string" ? { kind: "invalid", detail: `no issuer of this route is '${printable(iss, MAX_ISSUER_CHARS)}'` } : INVALID;
}

/** Who does not answer might have known it; then a reason says more than none. */
function weightier(first: Authentication, second: Authentication): Authentication {
  if (first.kind === "unavailable") return first;
  return second.kind === "unavailable" || first === INVALID ? second : first;
}
