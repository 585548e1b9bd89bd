// Who makes a request, found out from its credentials. Bearer tokens are the first source.
import { hash, timingSafeEqual } from "node:crypto";
import type { TokenPlan } from "../plan/model.ts";
import type { Identity } from "./identity.ts";

/** `none`: no credentials came. `invalid`: some came and prove nothing. */
export type Authentication = { readonly kind: "none" } | { readonly kind: "invalid" } | { readonly kind: "identity"; readonly identity: Identity };

const NONE: Authentication = { kind: "none" };
const INVALID: Authentication = { kind: "invalid" };
// RFC 6750, 2.1: the scheme in any case, one or more spaces, and a token68.
const BEARER = /^bearer +([A-Za-z0-9._~+/-]+=*)$/i;
const MAX_TOKEN_LENGTH = 4_096;

/** The tokens of a plan with the answer for each, made once. */
export type TokenIndex = readonly { readonly sha256: Buffer; readonly found: Authentication }[];

export function buildTokenIndex(tokens: readonly TokenPlan[]): TokenIndex {
  return tokens.map(({ name, sha256, scopes }) => ({ sha256, found: { kind: "identity", identity: { source: "token", name, scopes } } }));
}

/** @param authorization value of the Authorization header, null when there is none. Tokens are taken from nowhere else (RFC 6750, 5.3). */
export function authenticate(authorization: string | null, tokens: TokenIndex): Authentication {
  if (authorization === null) return NONE;
  const token = authorization.length <= MAX_TOKEN_LENGTH ? BEARER.exec(authorization)?.[1] : undefined;
  if (token === undefined) return INVALID;
  const sha256 = hash("sha256", token, "buffer");
  let found = INVALID;
  // All are compared, so that the time tells nothing of which one it was.
  for (const entry of tokens) if (timingSafeEqual(entry.sha256, sha256)) found = entry.found;
  return found;
}
