// Identity assertions (ID-JAG): an issuer vouches for a person to a client, which shows that to the authorization server of a resource.
import type { IssuerPlan } from "../plan/auth-model.ts";
import { personFromClaims } from "./issuer-person.ts";
import type { JsonObject } from "./issuer-transport.ts";
import { TokenRefusal } from "./jwt-verify.ts";
import type { Person } from "./person.ts";

/** The header `typ` that an identity assertion has, and no access token may have. */
export const ASSERTION_TYPE = "oauth-id-jag+jwt";

/** What an assertion says. For whom it is, and to whom it was given, has still to be looked at. */
export type IdentityAssertion = {
  /** With the issuer. */
  readonly person: Person;
  /** The authorization server that may take it. */
  readonly audience: string;
  readonly clientId: string;
  /** `jti`. */
  readonly id: string;
  /** URLs; empty: it does not say which. */
  readonly resources: readonly string[];
  /** Null: it does not say which. */
  readonly scopes: readonly string[] | null;
  /** When nobody takes it any more, with the tolerance for the issuer's clock. */
  readonly expiresAtMs: number;
};

// How far ahead it may expire: so long it is remembered, so that it counts once.
const MAX_LIFETIME_MS = 3_600_000;

// A key, tenants and details narrow what the assertion is for, and whom `sub` names; they are not understood here, and leaving them out would widen it.
const NARROWING = {
  cnf: "a key",
  tenant: "a tenant of the issuer",
  aud_tenant: "a tenant of this service",
  authorization_details: "authorization details",
};

/**
 * What the claims of an assertion say whose signature and times were verified (draft-ietf-oauth-identity-assertion-authz-grant-04, 3.1 and 4.4.1).
 * @throws {TokenRefusal}
 */
export function assertionFromClaims(claims: JsonObject, plan: IssuerPlan): IdentityAssertion {
  const { aud, exp, iat, resource, scope } = claims;
  const nowMs = Date.now();
  if (typeof exp !== "number" || exp * 1_000 > nowMs + MAX_LIFETIME_MS + plan.clockToleranceMs) throw new TokenRefusal("It lives longer than an hour");
  if (typeof iat !== "number" || !Number.isFinite(iat)) throw new TokenRefusal("It does not say when it was made ('iat')");
  if (iat * 1_000 > nowMs + plan.clockToleranceMs) throw new TokenRefusal("It was made in the future ('iat')");
  for (const [claim, what] of Object.entries(NARROWING))
    if (claims[claim] !== undefined) throw new TokenRefusal(`It is for ${what} ('${claim}'), which is not possible here`);
  // Each of several could show it to the others as its own.
  const audiences: unknown[] = [aud].flat();
  const [audience] = audiences;
  if (audiences.length !== 1 || typeof audience !== "string") throw new TokenRefusal("It must be for one authorization server alone ('aud')");
  if (scope !== undefined && typeof scope !== "string") throw new TokenRefusal("It is malformed: 'scope' is no text");
  const resources: unknown[] = resource === undefined ? [] : [resource].flat();
  if (!resources.every((one) => typeof one === "string") || (resource !== undefined && resources.length === 0))
    throw new TokenRefusal("It is malformed: 'resource' names none");
  textOf(claims, "sub");
  return {
    person: { ...personFromClaims(claims, null, plan), issuer: { name: plan.name, url: plan.issuer } },
    audience,
    clientId: textOf(claims, "client_id"),
    id: textOf(claims, "jti"),
    resources,
    scopes: scope === undefined ? null : [...new Set(scope.split(" "))].filter((one) => one !== ""),
    // Times are compared in whole seconds.
    expiresAtMs: (exp + 1) * 1_000 + plan.clockToleranceMs,
  };
}

function textOf(claims: JsonObject, name: string): string {
  const text = claims[name];
  if (typeof text === "string" && text !== "") return text;
  throw new TokenRefusal(`It lacks '${name}'`);
}
