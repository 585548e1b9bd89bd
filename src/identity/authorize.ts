// Whether a route lets a request in. Its Permit is the only thing that opens the way to an upstream.
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { AuthWayPlan } from "../plan/auth-model.ts";
import type { Authentication, Proof } from "./authenticate.ts";
import { admittedIdentity, type ClientCertificate } from "./client-certificate.ts";
import type { Identity } from "./identity.ts";
import { matchesPeople, unverifiedEmail } from "./person.ts";
import { matchesTailnet, tailnetIdentity } from "./tailnet.ts";

const MADE_HERE = Symbol("permit");

/** The proof that a request may go on. Nobody but `authorize` can make one. */
export type Permit = { readonly [MADE_HERE]: true; /** Null: the route is open to everybody. */ readonly identity: Identity | null };

/**
 * Why a request may not go on. `scopes`: what would have let this identity in, with those that it has. The certificate or the tailnet is the reason
 * where no token and no login would admit.
 */
export type Denial =
  | { readonly denied: "no_credentials" | "no_certificate" | "certificate_not_admitted" | "not_on_tailnet" | "tailnet_not_admitted" }
  | { readonly denied: "invalid_credentials"; readonly reason: string | null; /** For the log alone. */ readonly detail?: string }
  | { readonly denied: "not_admitted"; readonly identity: Identity; /** One that did not count. */ readonly unverifiedEmail?: string }
  | { readonly denied: "insufficient_scope"; readonly scopes: readonly string[] }
  | { readonly denied: "unavailable"; readonly message: string; readonly retryAfterS: number };

const OPEN: Permit = { [MADE_HERE]: true, identity: null };
const NO_CREDENTIALS: Denial = { denied: "no_credentials" };
const INVALID_CREDENTIALS = { denied: "invalid_credentials", reason: null } as const satisfies Denial;
const NO_CERTIFICATE: Denial = { denied: "no_certificate" };
const CERTIFICATE_NOT_ADMITTED: Denial = { denied: "certificate_not_admitted" };
const NOT_ON_TAILNET: Denial = { denied: "not_on_tailnet" };
const TAILNET_NOT_ADMITTED: Denial = { denied: "tailnet_not_admitted" };

const permits = new WeakMap<Identity, Permit>();

type CredentialWay = Extract<AuthWayPlan, { kind: "token" | "oauth" | "issuer" | "session" }>;

/**
 * Tries the ways in until one admits: a token that is not valid does not harm a certificate that is. `ways` null is `auth: none`; an
 * empty list admits nobody. An identity whose name no way takes is as good as no valid one: the answer does not tell that its token exists.
 * @param certificate of the connection, and valid now; null without one
 * @param peer whose connection it is in the tailnet; null when it did not come from there
 */
export function authorize(
  ways: readonly AuthWayPlan[] | null,
  authentication: Authentication,
  certificate: ClientCertificate | null = null,
  peer: TailnetPeer | null = null,
): Permit | Denial {
  if (ways === null) return OPEN;
  const proof = authentication.kind === "identity" ? authentication : null;
  let lacking: readonly string[] | null = null;
  let takesCredentials = false;
  let isKnown = false;
  for (const way of ways) {
    if (way.kind === "client_certificate") {
      const admitted = certificate === null ? null : admittedIdentity(certificate, way);
      if (admitted !== null) return permitFor(admitted);
      continue;
    }
    if (way.kind === "tailnet") {
      if (peer !== null && matchesTailnet(peer, way.match)) return permitFor(tailnetIdentity(peer));
      continue;
    }
    takesCredentials = true;
    if (proof === null || !isFor(way, proof)) continue;
    isKnown ||= way.kind !== "token";
    if (!admits(way, proof)) continue;
    const wanted = way.kind === "session" ? [] : way.scopes;
    if (hasAll(proof.identity.scopes, wanted)) return permitFor(proof.identity);
    lacking ??= [...new Set([...proof.identity.scopes, ...wanted])];
  }
  if (lacking !== null) return { denied: "insufficient_scope", scopes: lacking };
  if (!takesCredentials && ways.length > 0) return denialWithoutTokens(ways, certificate, peer);
  if (proof !== null && isKnown) {
    const unverified = proof.person === null ? null : unverifiedEmail(proof.person);
    return { denied: "not_admitted", identity: proof.identity, ...(unverified === null ? {} : { unverifiedEmail: unverified }) };
  }
  if (authentication.kind === "unavailable") return { denied: "unavailable", message: authentication.message, retryAfterS: authentication.retryAfterS };
  if (authentication.kind === "invalid" && authentication.reason !== undefined) return { denied: "invalid_credentials", reason: authentication.reason };
  if (authentication.kind === "invalid" && authentication.detail !== undefined) return { ...INVALID_CREDENTIALS, detail: authentication.detail };
  return authentication.kind === "none" ? NO_CREDENTIALS : INVALID_CREDENTIALS;
}

/** Whether the way takes this kind of proof, and that one was made for it: a token for another resource is none. */
function isFor(way: CredentialWay, proof: Proof): boolean {
  if (way.kind !== proof.by) return false;
  if (way.kind === "oauth") return proof.resource !== null && proof.resource !== "" && proof.resource === way.resource;
  return way.kind !== "issuer" || (proof.issuer !== null && proof.issuer === way.issuer);
}

function admits(way: CredentialWay, { identity, person }: Proof): boolean {
  if (way.kind === "token") return way.names === null || way.names.has(identity.name);
  if (way.kind === "issuer" && way.allow === null) return true;
  if (person === null || way.allow === null) return false;
  // Another way of the same resource may have the same names in its 'allow', and mean people of the login.
  if (way.kind === "oauth" && person.source === "issuer" && !way.identityAssertions.has(person.issuer?.name ?? "")) return false;
  return matchesPeople(person, way.allow);
}

/** Says what was shown and did not do; otherwise what is missing. */
function denialWithoutTokens(ways: readonly AuthWayPlan[], certificate: ClientCertificate | null, peer: TailnetPeer | null): Denial {
  const wants = (kind: AuthWayPlan["kind"]): boolean => ways.some((way) => way.kind === kind);
  if (certificate !== null && wants("client_certificate")) return CERTIFICATE_NOT_ADMITTED;
  if (peer !== null && wants("tailnet")) return TAILNET_NOT_ADMITTED;
  return wants("client_certificate") ? NO_CERTIFICATE : NOT_ON_TAILNET;
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
