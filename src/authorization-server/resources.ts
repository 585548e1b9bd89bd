// What a client may ask for: which resource is meant, and which of its scopes.
import { expandScopes } from "../identity/scopes.ts";
import { sameResourceKey } from "../lib/public-url.ts";
import type { AuthorizationServerPlan, OAuthResourcePlan } from "../plan/auth-model.ts";

/** Granted where a resource needs no scopes: oidc-provider knows no grant of nothing. */
export const NO_SCOPE = "sidegate";

/** In place of a resource that cannot be told; it is nobody's. */
const NONE = "urn:sidegate:no-resource";

// Those of OpenID Connect mean nothing to a resource, and refresh tokens are given to all: clients that ask for them get along without.
const IGNORED = new Set(["openid", "profile", "email", "address", "phone", "offline_access"]);
// Without the scope 'openid', which we do not have, oidc-provider refuses these; they change nothing here (RFC 6749, 3.1: to be ignored).
const IGNORED_PARAMETERS = ["acr_values", "claims", "claims_locales", "id_token_hint", "max_age", "nonce", "dpop_jkt"];

/** The resource that a URL means; a slash at its end makes no difference. */
export function findResource(plan: AuthorizationServerPlan, url: string): OAuthResourcePlan | null {
  const key = sameResourceKey(url);
  return key === "" ? null : (plan.resources.find((resource) => sameResourceKey(resource.url) === key) ?? null);
}

/** Whether the scopes, with all that they include, open any way of the resource. */
export function isEnough({ scopes: known }: AuthorizationServerPlan, { scopeSets }: OAuthResourcePlan, granted: readonly string[]): boolean {
  const all = expandScopes(granted, known);
  return scopeSets.some((scopes) => scopes.every((scope) => all.includes(scope)));
}

export function takesAssertions({ assertions }: OAuthResourcePlan): boolean {
  return assertions.length > 0;
}

/** Whether clients can act for people at all: somebody can log in, and a resource is for that. */
export function isForPeople({ login, resources }: AuthorizationServerPlan): boolean {
  const canLogIn = login.github !== null || login.oidc !== null || login.password !== null || login.tailnet;
  return canLogIn && resources.some(({ grants }) => grants.has("authorization_code"));
}

/** What oidc-provider wants to know of a resource for a token. @param scopes default: all that it has */
export function oauthResource(resource: OAuthResourcePlan, tokenMs: number, scopes = allScopes(resource)) {
  return {
    scope: [...scopes, ...(resource.scopes.length === 0 ? [NO_SCOPE] : [])].join(" "),
    audience: resource.url,
    accessTokenTTL: seconds(tokenMs),
    accessTokenFormat: resource.accessTokenFormat,
    jwt: { sign: { alg: "ES256" } },
  };
}

export function seconds(ms: number): number {
  return Math.max(1, Math.floor(ms / 1000));
}

/** Needed scopes first. */
export function allScopes({ scopes, optionalScopes }: OAuthResourcePlan): readonly string[] {
  return [...scopes, ...optionalScopes];
}

/**
 * The parameters of an authorization request in the words of the plan: the resource is named, by its URL there, and so are scopes. What is wrong with them is left
 * as it is, for oidc-provider to refuse when it knows where the answer may go.
 */
export function shapeAuthorization(plan: AuthorizationServerPlan, given: URLSearchParams): URLSearchParams {
  const params = new URLSearchParams(given);
  for (const name of IGNORED_PARAMETERS) params.delete(name);
  // We have no other; that of a form would run a script of the library's, before anybody was asked.
  if (params.has("response_mode") && params.get("response_mode") !== "query") params.set("response_mode", "unsupported");
  const scopes = askedScopes(params);
  const resource = shapeResource(plan, params, (one) => one.grants.has("authorization_code") && scopes.every((scope) => allScopes(one).includes(scope)));
  if (params.getAll("scope").length < 2) params.set("scope", authorizationScopes(resource, scopes).join(" "));
  return params;
}

/** The same of a token request. */
export function shapeToken(plan: AuthorizationServerPlan, given: URLSearchParams): URLSearchParams {
  const params = new URLSearchParams(given);
  if (params.get("grant_type") === "client_credentials") {
    const scopes = askedScopes(params);
    const resource = shapeResource(plan, params, (one) => one.grants.has("client_credentials") && scopes.every((scope) => allScopes(one).includes(scope)));
    if (scopes.length === 0 && resource !== null && params.getAll("scope").length < 2) params.set("scope", allScopes(resource).join(" "));
    return params;
  }
  const named = params.getAll("resource").filter((url) => url !== "");
  if (named.length > 0) setResources(plan, params, named);
  if (params.getAll("scope").length === 1) {
    // What was left out of the authorization is no reason to refuse a refresh; nothing left means all that was granted.
    const scopes = askedScopes(params);
    if (scopes.length === 0) params.delete("scope");
    else params.set("scope", scopes.join(" "));
  }
  return params;
}

function authorizationScopes(resource: OAuthResourcePlan | null, asked: readonly string[]): readonly string[] {
  if (resource === null) return asked.length === 0 ? [NO_SCOPE] : asked;
  const known = asked.filter((scope) => allScopes(resource).includes(scope));
  // Some that are unknown are left out (RFC 6749, 3.3); nothing but unknown ones is refused.
  if (asked.length > 0 && known.length === 0) return asked;
  const scopes = asked.length === 0 ? resource.scopes : known;
  return resource.scopes.length === 0 ? [...scopes, NO_SCOPE] : scopes;
}

function askedScopes(params: URLSearchParams): string[] {
  const asked = (params.get("scope") ?? "").split(" ");
  return [...new Set(asked)].filter((scope) => scope !== "" && scope !== NO_SCOPE && !IGNORED.has(scope));
}

/** Names the resource: the one that was asked for, else the only one, else the only one that fits. Null when it cannot be told. */
function shapeResource(plan: AuthorizationServerPlan, params: URLSearchParams, fits: (resource: OAuthResourcePlan) => boolean): OAuthResourcePlan | null {
  const named = params.getAll("resource").filter((url) => url !== "");
  if (named.length > 0) return setResources(plan, params, named);
  // Clients of 2025-03-26 know no resources.
  const fitting = plan.resources.length === 1 ? plan.resources : plan.resources.filter(fits);
  const [only] = fitting;
  const resource = fitting.length === 1 && only !== undefined ? only : null;
  params.set("resource", resource?.url ?? NONE);
  return resource;
}

function setResources(plan: AuthorizationServerPlan, params: URLSearchParams, named: readonly string[]): OAuthResourcePlan | null {
  const found = [...new Set(named.map((url) => findResource(plan, url)))];
  const [only] = found;
  if (found.length !== 1 || only === undefined || only === null) {
    params.set("resource", NONE);
    return null;
  }
  params.set("resource", only.url);
  return only;
}
