// Who a token of an issuer speaks of, and for whom it was made.
import { asciiName } from "../lib/printable.ts";
import type { IssuerPlan, ScopePlan } from "../plan/auth-model.ts";
import type { Proof } from "./authenticate.ts";
import type { Identity } from "./identity.ts";
import type { JsonObject } from "./issuer-transport.ts";
import { TokenRefusal } from "./jwt-verify.ts";
import { claimTexts, matchesPeople, type Person } from "./person.ts";
import { expandScopes, mayHave } from "./scopes.ts";

type Scopes = ReadonlyMap<string, ScopePlan>;

// RFC 6749, 3.3. Others could end the header in which scopes are told.
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;
const OTHER_USES = new Set(["id", "refresh", "offline", "logout"]);
// The last moment that a Date can hold.
const LAST_MS = 8_640_000_000_000_000;

/** An audience as it is compared: of a URL the host in lower case and no slash at the end, anything else as it is. */
export function audienceKey(audience: string): string {
  const [, before, behind = ""] = /^(https?:\/\/[^/?#@\\\s]+)(.*)$/is.exec(audience) ?? [];
  if (before === undefined) return audience;
  return `${before.toLowerCase()}${behind.includes("?") ? behind : behind.replace(/\/$/, "")}`;
}

/**
 * What claims prove that the issuer vouches for and whose times were looked at.
 * @param audiences in the form of `audienceKey`
 * @throws {TokenRefusal} when the token was not made for us, is no access token, or speaks of nobody
 */
export function proofFromClaims(claims: JsonObject, audiences: ReadonlySet<string>, plan: IssuerPlan, scopes: Scopes, isAccessToken: boolean): Proof {
  checkAudience(claims["aud"], audiences);
  // Whoever has seen such a token could use it without its key (RFC 9449, 7.1; RFC 8705, 3).
  if (claims["cnf"] !== undefined) throw new TokenRefusal("The token is bound to a key, and cannot be used as a bearer token");
  if (!isAccessToken && isForOtherUse(claims)) throw new TokenRefusal("The token is no access token");
  const client = clientOf(claims);
  const person = personFromClaims(claims, client, plan);
  const granted = plan.grants.flatMap((grant) => (matchesPeople(person, grant.allow) ? grant.scopes : []));
  const identity: Identity = {
    source: `issuer:${plan.name}`,
    name: asciiName(person.name),
    // A scope that is for some comes to nobody else, whoever grants it.
    scopes: expandScopes([...new Set([...scopesOf(claims, plan.scopesClaim), ...granted])], scopes).filter((name) => mayHave(person, name, scopes)),
    ...(person.email !== null && { email: person.email }),
    ...(person.groups.length > 0 && { groups: person.groups }),
    ...(client !== null && { client: asciiName(client) }),
  };
  const exp = claims["exp"];
  const expiresAtMs = typeof exp === "number" ? Math.min(exp * 1_000 + plan.clockToleranceMs, LAST_MS) : null;
  return { kind: "identity", by: "issuer", identity, person, issuer: plan.name, resource: null, expiresAtMs };
}

function checkAudience(aud: unknown, audiences: ReadonlySet<string>): void {
  if (aud === undefined) throw new TokenRefusal("The token does not say for whom it is");
  const named: unknown[] = [aud].flat();
  if (!named.every((one) => typeof one === "string")) throw new TokenRefusal("The token is malformed", "'aud' holds something that is no text");
  if (!named.some((one) => audiences.has(audienceKey(one)))) throw new TokenRefusal("The token is for another audience", "see 'audience'");
}

/**
 * What only ID, logout and refresh tokens have. An ID token tells a client who logged in there; as a bearer token it would let that client act for the
 * person. Keycloak names the use in the payload, and older ones put a nonce into access tokens, too.
 */
function isForOtherUse({ nonce, typ, events, at_hash: atHash, c_hash: codeHash }: JsonObject): boolean {
  if (atHash !== undefined || codeHash !== undefined || events !== undefined) return true;
  const use = typeof typ === "string" ? typ.toLowerCase() : "";
  return OTHER_USES.has(use) || (nonce !== undefined && use !== "bearer");
}

function clientOf({ client_id: clientId, azp }: JsonObject): string | null {
  for (const id of [clientId, azp]) if (typeof id === "string" && id !== "") return id;
  return null;
}

/**
 * @param client that the token was given to; null: it speaks of a person in any case
 * @throws {TokenRefusal} when it speaks of nobody
 */
export function personFromClaims(claims: JsonObject, client: string | null, { issuer, userClaim, groupsClaim }: IssuerPlan): Person {
  const { sub } = claims;
  // A client that acts for itself may have no 'sub'; its id must not pass for the 'sub' of a person.
  const subject = typeof sub === "string" && sub !== "" ? sub : client === null || sub !== undefined ? null : `client:${client}`;
  if (subject === null) throw new TokenRefusal("The token does not say whom it speaks of");
  const email = verifiedEmail(claims);
  const named = userClaim.length === 1 && userClaim[0] === "email" ? [email ?? ""] : claimTexts(claims, userClaim);
  return {
    source: "issuer",
    subject,
    name: named.find((text) => text !== "") ?? subject,
    email,
    domain: domainOf(claims, email, issuer),
    orgs: [],
    teams: [],
    groups: claimTexts(claims, groupsClaim),
    claims,
    peer: null,
  };
}

/** Some issuers write the truth as a text. Only ASCII is made lower case: other letters could turn into somebody else's. */
function verifiedEmail({ email, email_verified: verified }: JsonObject): string | null {
  if (typeof email !== "string" || (verified !== true && verified !== "true")) return null;
  return /^[^\s@]+@[^\s@]+$/.test(email) ? lower(email) : null;
}

/** Anybody may have a Google account with an address of another domain: the organisation's own are those with 'hd'. */
function domainOf({ hd }: JsonObject, email: string | null, issuer: string): string | null {
  if (issuer === "https://accounts.google.com") return typeof hd === "string" ? lower(hd) : null;
  return email === null ? null : email.slice(email.indexOf("@") + 1);
}

/** A text with spaces between, or a list of which each is one. */
function scopesOf(claims: JsonObject, path: readonly string[] | null): string[] {
  for (const place of path === null ? [["scope"], ["scp"]] : [path]) {
    let value: unknown = claims;
    for (const step of place) value = typeof value === "object" && value !== null && Object.hasOwn(value, step) ? (value as JsonObject)[step] : undefined;
    const texts: unknown[] = typeof value === "string" ? value.split(" ") : Array.isArray(value) ? value : [];
    const scopes = texts.filter((text) => typeof text === "string" && SCOPE.test(text)) as string[];
    if (scopes.length > 0) return scopes;
  }
  return [];
}

function lower(text: string): string {
  return text.replaceAll(/[A-Z]+/g, (some) => some.toLowerCase());
}
