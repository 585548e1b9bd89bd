// What clients learn of the authorization server (RFC 8414, and OpenID Connect Discovery 1.0 for those that look there), and where.
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";
import { JWT_BEARER } from "./adapter.ts";
import { ASSERTION_PROFILE } from "./identity-assertion.ts";
import { ASSERTION_ALGORITHMS, AUTH_METHODS } from "./provider.ts";
import { allScopes, isForPeople, takesAssertions } from "./resources.ts";

const NAMES = ["oauth-authorization-server", "openid-configuration"];

/**
 * The document as JSON text. The issuer comes first in what clients compare: it has no slash at its end. Where clients cannot act for people, it has no response
 * type and no grant for that, and clients register for identity assertions alone.
 */
export function metadataDocument(plan: AuthorizationServerPlan): string {
  const { issuer, resources } = plan;
  const isPeoples = isForPeople(plan);
  const mayRegister = isPeoples || resources.some(takesAssertions);
  const grants = new Set<string>(resources.flatMap((resource) => [...resource.grants, ...(takesAssertions(resource) ? [JWT_BEARER] : [])]));
  return JSON.stringify({
    issuer,
    // Also where nobody can log in: the SDK of MCP takes no metadata without it (RFC 8414, 2 would), not even for clients that act for themselves.
    authorization_endpoint: `${issuer}/authorize`,
    token_endpoint: `${issuer}/token`,
    ...(mayRegister ? { registration_endpoint: `${issuer}/register` } : {}),
    revocation_endpoint: `${issuer}/revoke`,
    introspection_endpoint: `${issuer}/introspect`,
    jwks_uri: `${issuer}/jwks`,
    scopes_supported: [...new Set([...resources.flatMap(allScopes), ...(isPeoples ? ["offline_access"] : [])])],
    response_types_supported: isPeoples ? ["code"] : [],
    ...(isPeoples ? { response_modes_supported: ["query"] } : {}),
    grant_types_supported: [...(isPeoples ? ["authorization_code", "refresh_token"] : []), "client_credentials", JWT_BEARER].filter((grant) =>
      grants.has(grant),
    ),
    ...(grants.has(JWT_BEARER) ? { authorization_grant_profiles_supported: [ASSERTION_PROFILE] } : {}),
    token_endpoint_auth_methods_supported: AUTH_METHODS,
    token_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    revocation_endpoint_auth_methods_supported: AUTH_METHODS,
    revocation_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    introspection_endpoint_auth_methods_supported: AUTH_METHODS,
    introspection_endpoint_auth_signing_alg_values_supported: ASSERTION_ALGORITHMS,
    ...(isPeoples ? { code_challenge_methods_supported: ["S256"], authorization_response_iss_parameter_supported: true } : {}),
    ...(mayRegister ? { client_id_metadata_document_supported: true } : {}),
    // OpenID Connect Discovery 1.0, 3 wants these to be there.
    subject_types_supported: ["public"],
    id_token_signing_alg_values_supported: ["RS256"],
  });
}

/**
 * The paths of the document: at the root, and, for clients that take the URL of a resource for an issuer, with its path behind (RFC 8414, 3.1) or before
 * (OpenID Connect Discovery 1.0, 4).
 */
export function metadataPaths({ issuer, resources }: AuthorizationServerPlan): ReadonlySet<string> {
  const paths = new Set(NAMES.map((name) => `/.well-known/${name}`));
  for (const { url } of resources) {
    const { origin, pathname } = new URL(url);
    const path = pathname.replace(/\/$/, "");
    if (origin !== issuer || path === "") continue;
    for (const name of NAMES) paths.add(`/.well-known/${name}${path}`).add(`${path}/.well-known/${name}`);
  }
  return paths;
}
