// Whether a route lets a request in. Its Permit is the only thing that opens the way to an upstream.
import type { AuthWayPlan } from "../plan/model.ts";
import type { Authentication } from "./authenticate.ts";
import type { Identity } from "./identity.ts";

const MADE_HERE = Symbol("permit");

/** The proof that a request may go on. Nobody but `authorize` can make one. */
export type Permit = { readonly [MADE_HERE]: true; /** Null: the route is open to everybody. */ readonly identity: Identity | null };

/** Why a request may not go on. `scopes`: what would have let this identity in. */
export type Denial =
  { readonly denied: "no_credentials" | "invalid_credentials" } | { readonly denied: "insufficient_scope"; readonly scopes: readonly string[] };

const OPEN: Permit = { [MADE_HERE]: true, identity: null };
const NO_CREDENTIALS: Denial = { denied: "no_credentials" };
const INVALID_CREDENTIALS: Denial = { denied: "invalid_credentials" };
const permits = new WeakMap<Identity, Permit>();

/**
 * Tries the ways in until one admits. `ways` null is `auth: none`; an empty list admits nobody. An identity whose name no way
 * takes is as good as no valid one: the answer does not tell that its token exists.
 */
export function authorize(ways: readonly AuthWayPlan[] | null, authentication: Authentication): Permit | Denial {
  if (ways === null) return OPEN;
  if (authentication.kind === "none") return NO_CREDENTIALS;
  if (authentication.kind === "invalid") return INVALID_CREDENTIALS;
  const { identity } = authentication;
  let lacking: readonly string[] | null = null;
  for (const way of ways) {
    if (way.names !== null && !way.names.has(identity.name)) continue;
    if (hasAll(identity.scopes, way.scopes)) return permitFor(identity);
    lacking ??= way.scopes;
  }
  return lacking === null ? INVALID_CREDENTIALS : { denied: "insufficient_scope", scopes: lacking };
}

function hasAll(granted: readonly string[], wanted: readonly string[]): boolean {
  for (const scope of wanted) if (!granted.includes(scope)) return false;
  return true;
}

function permitFor(identity: Identity): Permit {
  let permit = permits.get(identity);
  if (permit === undefined) permits.set(identity, (permit = { [MADE_HERE]: true, identity }));
  return permit;
}
