// What the claims of an OpenID provider prove of a person. Providers differ, and their host tells which one it is.
import { claimTexts, type Person } from "../identity/person.ts";
import { ENTRA_HOSTS, entraTenant } from "../lib/entra.ts";
import type { LoginPlan } from "../plan/auth-model.ts";

type OidcPlan = NonNullable<LoginPlan["oidc"]>;
type Claims = Readonly<Record<string, unknown>>;
type Address = { readonly email: string | null; readonly domain: string | null };

// The tenant of personal accounts, which everybody can make.
const PERSONAL_TENANT = "9188040d-6c67-4b5b-b112-36a304b66dad";
const OKTA_HOST = /\.(?:okta|oktapreview|okta-emea|okta-gov)\.com$/;
// Of one token or one login: they say nothing of the person.
const PROTOCOL_CLAIMS = new Set([
  "aio",
  "at_hash",
  "aud",
  "auth_time",
  "azp",
  "c_hash",
  "exp",
  "iat",
  "jti",
  "nbf",
  "nonce",
  "rh",
  "s_hash",
  "sid",
  "typ",
  "uti",
  "ver",
]);

/** Whether the id token leaves out what rules may ask for, so that the userinfo endpoint is worth a request. */
export function lacksClaims(claims: Claims, plan: Pick<OidcPlan, "scopes" | "groupsClaim">): boolean {
  const hasEmail = !plan.scopes.includes("email") || (claims["email"] !== undefined && claims["email_verified"] !== undefined);
  return !hasEmail || claimTexts(claims, plan.groupsClaim).length === 0;
}

/**
 * @param claims of the id token, validated; they count before those of the userinfo endpoint
 * @returns notes: for the log, what the provider left out
 */
export function oidcPerson(
  plan: Pick<OidcPlan, "issuer" | "groupsClaim">,
  claims: Claims,
  userinfo: Claims,
): { readonly person: Person; readonly notes: readonly string[] } {
  const issuer = new URL(plan.issuer);
  const all = Object.fromEntries(Object.entries({ ...userinfo, ...claims }).filter(([name]) => !PROTOCOL_CLAIMS.has(name)));
  const isEntra = ENTRA_HOSTS.has(issuer.hostname);
  // The address and the word that it is verified must come from one mouth.
  const isWhole = claims["email"] !== undefined && claims["email_verified"] !== undefined;
  const verified = verifiedAddress(isWhole || userinfo["email"] === undefined ? claims : userinfo);
  const address = isEntra ? entraAddress(all, issuer) : issuer.hostname === "accounts.google.com" ? googleAddress(verified, all) : verified;
  const groups = claimTexts(all, plan.groupsClaim);
  const subject = String(claims["sub"]);
  const person: Person = {
    source: "oidc",
    subject,
    name: (hasUniqueNames(issuer) ? textOf(all["preferred_username"]) : null) ?? address.email ?? subject,
    ...address,
    orgs: [],
    teams: [],
    groups: [...new Set(isKeycloak(issuer) ? groups.flatMap(keycloakGroup) : groups)],
    claims: all,
    peer: null,
  };
  return {
    person,
    notes: leavesGroupsOut(all) ? ["Entra ID leaves out the groups of a person who is in many: let it send those that are assigned to the application"] : [],
  };
}

function verifiedAddress(claims: Claims): Address {
  const email = textOf(claims["email"]);
  // Cognito's userinfo has the word in quotes.
  return claims["email_verified"] === true || claims["email_verified"] === "true" ? addressOf(email) : addressOf(null);
}

/** Whoever has an address of a company is not one of its people any more when its `hd` is missing: Google says so of that claim alone. */
function googleAddress({ email }: Address, claims: Claims): Address {
  return { email, domain: textOf(claims["hd"])?.toLowerCase() ?? null };
}

/** There is no `email_verified`: in a tenant of its own the address is the word of its administrators, but not that of a guest, nor of personal accounts. */
function entraAddress(claims: Claims, issuer: URL): Address {
  const tenant = entraTenant(issuer);
  const tid = textOf(claims["tid"]);
  const isOurs = tenant !== null && tenant !== PERSONAL_TENANT && (tid === null || tid.toLowerCase() === tenant);
  const isGuest = claims["idp"] !== undefined && claims["idp"] !== claims["iss"];
  const edov = claims["xms_edov"];
  const isUnproven = edov !== undefined && ![true, 1, "1", "true"].some((yes) => yes === edov);
  if (!isOurs || isGuest || isUnproven) return addressOf(null);
  return addressOf(textOf(claims["email"]) ?? textOf(claims["preferred_username"]) ?? textOf(claims["upn"]));
}

function addressOf(email: string | null): Address {
  const found = email === null ? null : /^[^\s@]+@([^\s@]+)$/.exec(email.toLowerCase());
  // A guest's name in the tenant holds the address of somewhere else.
  if (found === null || found[0].includes("#ext#")) return { email: null, domain: null };
  return { email: found[0], domain: found[1] ?? null };
}

/** Elsewhere people may call themselves as others do (OpenID Connect Core, 5.7). */
function hasUniqueNames(issuer: URL): boolean {
  return ENTRA_HOSTS.has(issuer.hostname) || OKTA_HOST.test(issuer.hostname) || isKeycloak(issuer);
}

function isKeycloak(issuer: URL): boolean {
  return /\/realms\/[^/]+\/?$/.test(issuer.pathname);
}

/** Its groups are paths: `/ops` is `ops` to people. */
function keycloakGroup(group: string): string[] {
  return group.startsWith("/") ? [group, group.slice(1)] : [group];
}

/** Entra's overage: where there are too many, the token says where to ask. */
function leavesGroupsOut(claims: Claims): boolean {
  const names = claims["_claim_names"];
  return typeof names === "object" && names !== null && "groups" in names;
}

function textOf(value: unknown): string | null {
  return typeof value === "string" && value !== "" ? value : null;
}
