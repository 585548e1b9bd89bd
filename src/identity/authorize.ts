// Whether a route lets a request in. Its Permit is the only thing that opens the way to an upstream.
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { AuthWayPlan } from "../plan/model.ts";
import type { Authentication } from "./authenticate.ts";
import { admittedIdentity, type ClientCertificate } from "./client-certificate.ts";
import type { Identity } from "./identity.ts";
import { matchesTailnet, tailnetIdentity } from "./tailnet.ts";

const MADE_HERE = Symbol("permit");

/** The proof that a request may go on. Nobody but `authorize` can make one. */
export type Permit = { readonly [MADE_HERE]: true; /** Null: the route is open to everybody. */ readonly identity: Identity | null };

/** Why a request may not go on. `scopes`: what would have let this identity in. The certificate or the tailnet is the reason where no token would admit. */
export type Denial =
  | { readonly denied: "no_credentials" | "invalid_credentials" | "no_certificate" | "certificate_not_admitted" | "not_on_tailnet" | "tailnet_not_admitted" }
  | { readonly denied: "insufficient_scope"; readonly scopes: readonly string[] };

const OPEN: Permit = { [MADE_HERE]: true, identity: null };
const NO_CREDENTIALS: Denial = { denied: "no_credentials" };
const INVALID_CREDENTIALS: Denial = { denied: "invalid_credentials" };
const NO_CERTIFICATE: Denial = { denied: "no_certificate" };
const CERTIFICATE_NOT_ADMITTED: Denial = { denied: "certificate_not_admitted" };
const NOT_ON_TAILNET: Denial = { denied: "not_on_tailnet" };
const TAILNET_NOT_ADMITTED: Denial = { denied: "tailnet_not_admitted" };
const permits = new WeakMap<Identity, Permit>();

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
  const identity = authentication.kind === "identity" ? authentication.identity : null;
  let lacking: readonly string[] | null = null;
  let tokenAdmits = false;
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
    tokenAdmits = true;
    if (identity === null || (way.names !== null && !way.names.has(identity.name))) continue;
    if (hasAll(identity.scopes, way.scopes)) return permitFor(identity);
    lacking ??= way.scopes;
  }
  if (lacking !== null) return { denied: "insufficient_scope", scopes: lacking };
  if (!tokenAdmits && ways.length > 0) return denialWithoutTokens(ways, certificate, peer);
  return authentication.kind === "none" ? NO_CREDENTIALS : INVALID_CREDENTIALS;
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
