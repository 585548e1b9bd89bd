// Clients that register themselves (RFC 7591): what of their metadata is taken, and how it is read.
import { isLoopbackHost } from "../lib/address.ts";
import type { OAuthResourcePlan } from "../plan/auth-model.ts";
import { JWT_BEARER } from "./adapter.ts";
import { allScopes } from "./resources.ts";

type Metadata = Record<string, unknown>;
export type Shaped = { readonly metadata: Metadata } | { readonly error: "invalid_redirect_uri" | "invalid_client_metadata"; readonly description: string };

const MAX_REDIRECT_URIS = 50;
const MAX_TEXT = 2_000;
const NO_REDIRECT = "https://localhost/";
const AUTH_METHODS: ReadonlySet<unknown> = new Set(["none", "client_secret_basic", "client_secret_post", "private_key_jwt"]);
const GRANTS = ["authorization_code", "refresh_token"];
// Of those that authenticate.
const OWN_GRANTS = [...GRANTS, JWT_BEARER];
// A browser would run or open what stands behind these, instead of giving it to an application.
const FORBIDDEN_SCHEMES = new Set(
  [
    "javascript data vbscript blob file filesystem about view-source ws wss ftp intent mailto tel sms",
    "chrome edge brave opera resource jar shell search search-ms itms-services x-apple.systempreferences",
    "ssh sftp smb cifs afp nfs ldap ldaps telnet rdp vnc magnet webcal feed facetime sip sips",
  ].flatMap((line) => line.split(" ").map((scheme) => `${scheme}:`)),
);
// Parts of Windows and Office, some of which install or run what the rest of the address names; and its drives.
const SYSTEM_SCHEME = /^(?:ms-.*|.):$/;

/**
 * The metadata of a client as oidc-provider takes it. What clients that matter get wrong is put right: the type of application is told by the redirect URIs
 * (Cursor calls itself `web` and has `cursor://`), grants and scopes that we do not have are left out, and what we do not use is.
 * @param given of a registration, or of a metadata document
 */
export function shapeClient(given: Metadata): Shaped {
  const uris = given["redirect_uris"];
  if (!Array.isArray(uris) || uris.length === 0 || uris.length > MAX_REDIRECT_URIS)
    return { error: "invalid_redirect_uri", description: `redirect_uris must be a list of 1 to ${MAX_REDIRECT_URIS} URIs` };
  for (const uri of uris) {
    const problem = explainRedirectUri(uri);
    if (problem !== null) return { error: "invalid_redirect_uri", description: `redirect_uris: ${problem}` };
  }
  const method = given["token_endpoint_auth_method"];
  if (method !== undefined && !AUTH_METHODS.has(method))
    return { error: "invalid_client_metadata", description: `token_endpoint_auth_method must be one of ${[...AUTH_METHODS].join(", ")}` };
  const types = given["response_types"];
  if (types !== undefined && !(Array.isArray(types) && types.includes("code")))
    return { error: "invalid_client_metadata", description: "response_types must include 'code'" };
  const grants = given["grant_types"];
  if (grants !== undefined && !(Array.isArray(grants) && grants.includes("authorization_code")))
    return { error: "invalid_client_metadata", description: "grant_types must include 'authorization_code'" };
  const name = text(given["client_name"]);
  const uri = text(given["client_uri"]);
  const isKeyed = method === "private_key_jwt";
  return {
    metadata: {
      redirect_uris: uris,
      application_type: uris.every((one) => typeof one === "string" && /^https:/i.test(one)) ? "web" : "native",
      response_types: ["code"],
      grant_types: Array.isArray(grants) ? (method === "none" ? GRANTS : OWN_GRANTS).filter((grant) => grants.includes(grant)) : GRANTS,
      ...(method === undefined ? {} : { token_endpoint_auth_method: method }),
      ...(name === null ? {} : { client_name: name }),
      ...(uri !== null && URL.parse(uri)?.protocol === "https:" ? { client_uri: uri } : {}),
      ...(isKeyed && given["jwks"] !== undefined ? { jwks: given["jwks"] } : {}),
      ...(isKeyed && typeof given["jwks_uri"] === "string" ? { jwks_uri: given["jwks_uri"] } : {}),
    },
  };
}

/** Those of the scopes that a client names at its registration which some resource has. It may ask for others later. */
export function registeredScope(given: unknown, resources: readonly OAuthResourcePlan[]): string {
  if (typeof given !== "string") return "";
  const known = new Set([...resources.flatMap(allScopes), "offline_access"]);
  return [...new Set(given.split(" "))].filter((scope) => known.has(scope)).join(" ");
}

/** The same where clients cannot act for people: what is left is to show identity assertions, which no redirect is part of. */
export function shapeAssertionClient(given: Metadata): Shaped {
  const grants = given["grant_types"];
  const method = given["token_endpoint_auth_method"];
  if (!Array.isArray(grants) || !grants.includes(JWT_BEARER) || method === "none")
    return {
      error: "invalid_client_metadata",
      description: `nobody can log in here: only clients that authenticate can register, with the grant '${JWT_BEARER}'`,
    };
  const shaped = shapeClient({ ...given, grant_types: ["authorization_code", JWT_BEARER], response_types: ["code"], redirect_uris: [NO_REDIRECT] });
  return "error" in shaped ? shaped : { metadata: { ...shaped.metadata, grant_types: [JWT_BEARER], response_types: [], redirect_uris: [] } };
}

function explainRedirectUri(uri: unknown): string | null {
  if (typeof uri !== "string" || uri.length > MAX_TEXT || /[^!-~]/.test(uri)) return "each must be a URI";
  const url = URL.parse(uri);
  if (url === null || uri.includes("#")) return "each must be an absolute URI without a fragment";
  if (url.username !== "" || url.password !== "") return "none may have a user name in it";
  if (url.protocol === "http:") return isLoopbackHost(url.hostname) ? null : "http is for loopback addresses alone; use https";
  if (url.protocol === "https:" && url.hostname === "") return "each must have a host";
  return FORBIDDEN_SCHEMES.has(url.protocol) || SYSTEM_SCHEME.test(url.protocol) ? `the scheme '${url.protocol.slice(0, -1)}' leads to no application` : null;
}

function text(value: unknown): string | null {
  return typeof value === "string" && value !== "" && value.length <= MAX_TEXT ? value : null;
}
