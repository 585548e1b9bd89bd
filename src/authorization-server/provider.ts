// oidc-provider, set up for a plan: what it may do, for whom, and where it asks us.
import { errors, interactionPolicy, Provider, type OidcClient, type OidcContext, type Token } from "oidc-provider";
import { personNow } from "../identity/person.ts";
import type { AuthorizationServerPlan, ClientPlan, OAuthResourcePlan } from "../plan/auth-model.ts";
import { GRANT_CLAIM, idHash, JWT_BEARER, type ServerState } from "./adapter.ts";
import { addAssertionGrant } from "./identity-assertion.ts";
import { currentCall } from "./inject.ts";
import { unshapedToken, type JwtTokens } from "./jwt-tokens.ts";
import type { ServerKeys } from "./keys.ts";
import { consentLocation } from "./consent.ts";
import type { Newest } from "./newest.ts";
import { allScopes, findResource, isEnough, NO_SCOPE, oauthResource, seconds } from "./resources.ts";

const CODE_S = 60;
// A person may have to find a second factor.
export const INTERACTION_S = 900;
export const RESUME_COOKIE = "sidegate-authorization";
export const AUTH_METHODS = ["none", "client_secret_basic", "client_secret_post", "private_key_jwt"];
export const ASSERTION_ALGORITHMS = ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"];
const MAX_ASSERTION_S = 3_600;
const MAX_DOCUMENT_BYTES = 65_536;

export type ProviderDeps = {
  readonly state: ServerState;
  readonly keys: ServerKeys;
  readonly jwts: JwtTokens;
  /** In place of fetch, for what clients name: metadata documents and keys. */
  readonly fetch: (url: string | URL) => Promise<Response>;
  /** Authorizations that wait for a person. */
  readonly begun: Newest;
  /** Whether the client that is served may have a document fetched. */
  readonly mayFetch: () => boolean;
  /** Whether the access token would be taken now. */
  readonly isActive: (token: string) => Promise<boolean>;
} & Parameters<typeof addAssertionGrant>[2];

export function createProvider(plan: AuthorizationServerPlan, deps: ProviderDeps): Provider {
  const { state, keys, jwts, begun, fetch, mayFetch } = deps;
  const off = { enabled: false };
  const provider = new Provider(plan.issuer, {
    adapter: (model: string) => (model === "AccessToken" ? jwts.adapter(state.adapter(model)) : state.adapter(model)),
    jwks: keys.jwks,
    clients: plan.clients.map((client) => clientMetadata(client)),
    cookies: {
      keys: keys.cookieKeys,
      names: { session: "sidegate-unused", interaction: "sidegate-unused-interaction", resume: RESUME_COOKIE },
      long: { httpOnly: true, sameSite: "lax", signed: true },
      short: { httpOnly: true, sameSite: "lax", signed: true },
    },
    routes: { authorization: "/authorize", token: "/token", registration: "/register", revocation: "/revoke", introspection: "/introspect", jwks: "/jwks" },
    features: {
      devInteractions: off,
      dPoP: off,
      rpInitiatedLogout: off,
      pushedAuthorizationRequests: off,
      userinfo: off,
      clientCredentials: { enabled: true },
      introspection: {
        enabled: true,
        // A client that anybody can register learns of its own tokens alone.
        allowedPolicy: (ctx: OidcContext, client: OidcClient, token: Token) =>
          (token.clientId === client.clientId || (client.clientAuthMethod !== "none" && plan.clients.some(({ id }) => id === client.clientId))) &&
          isActive(ctx, token),
      },
      revocation: { enabled: true, allowedPolicy: (_ctx: OidcContext, client: OidcClient, token: Token) => token.clientId === client.clientId },
      registration: { enabled: true, issueRegistrationAccessToken: false },
      resourceIndicators: {
        enabled: true,
        // Requests come with the resource in them; whoever comes here without one gets nothing.
        defaultResource: (_ctx: OidcContext, _client: OidcClient, oneOf?: readonly string[]) => (oneOf?.length === 1 ? oneOf[0] : "urn:sidegate:no-resource"),
        useGrantedResource: () => true,
        getResourceServerInfo: (ctx: OidcContext, url: string, client: OidcClient) => resourceInfo(plan, ctx, url, client),
      },
      clientIdMetadataDocument: { enabled: true, ack: "draft-02", cacheDuration: { min: 300, max: 86_400 }, allowFetch: mayFetch, allowClient: () => true },
    },
    responseTypes: ["code"],
    pkce: { required: () => true },
    scopes: ["offline_access"],
    clientAuthMethods: AUTH_METHODS,
    enabledJWA: { clientAuthSigningAlgValues: ASSERTION_ALGORITHMS },
    // Each is remembered until its end, so that it counts once: strangers who register must not choose how long that is (RFC 7523, 3).
    assertJwtClientAuthClaimsAndHeader: (_ctx: OidcContext, { exp }: { readonly exp?: unknown }) => {
      if (typeof exp !== "number" || exp > Date.now() / 1000 + MAX_ASSERTION_S) throw new errors.InvalidClientAuth("the client assertion lives too long");
    },
    clientBasedCORS: () => true,
    expiresWithSession: () => false,
    issueRefreshToken: (_ctx: OidcContext, client: OidcClient, token: Token) =>
      client.grantTypeAllowed("refresh_token") && resourceOf(plan, token)?.grants.has("refresh_token") === true,
    rotateRefreshToken: (ctx: OidcContext) => mustBeWorth(plan, ctx),
    // An access token that is revoked takes nothing along, unless its grant has no other; all else does (RFC 7009, 2.1).
    revokeGrantPolicy: ({ oidc: { route, entities } }: OidcContext) => {
      const token = entities["AccessToken"] as { readonly gty?: unknown } | undefined;
      return route !== "revocation" || token === undefined || token.gty === JWT_BEARER;
    },
    findAccount: async (_ctx: OidcContext, accountId: string) => ((await isKnown(accountId)) ? { accountId, claims: () => ({ sub: accountId }) } : undefined),
    extraTokenClaims: (_ctx: OidcContext, { resourceServer, grantId }: Token) =>
      resourceServer?.accessTokenFormat === "jwt" && grantId !== undefined ? { [GRANT_CLAIM]: idHash(grantId) } : undefined,
    interactions: { policy: createPolicy(), url: (_ctx: OidcContext, { uid }: { uid: string }) => startInteraction(state, begun, uid) },
    loadExistingGrant: (ctx: OidcContext) => loadGrant(ctx),
    ttl: {
      AccessToken: (_ctx: OidcContext, { resourceServer }: Token) => resourceServer?.accessTokenTTL ?? CODE_S,
      ClientCredentials: (_ctx: OidcContext, { resourceServer }: Token) => resourceServer?.accessTokenTTL ?? CODE_S,
      RefreshToken: (ctx: OidcContext, token: Token) => {
        const resource = resourceOf(plan, token);
        return resource === null ? 1 : seconds(Math.min(resource.refreshTokenMs, loginLeftMs(resource, ctx)));
      },
      AuthorizationCode: CODE_S,
      Interaction: INTERACTION_S,
      Session: INTERACTION_S,
      Grant: INTERACTION_S,
      IdToken: CODE_S,
    },
    renderError: (ctx: OidcContext, out: { readonly error: string; readonly error_description?: string }) => {
      const call = currentCall();
      if (call !== null) call.failure = out;
      ctx.type = "json";
      ctx.body = out;
    },
    fetch: (url: string | URL) => fetch(url),
    fetchResponseBodyLimits: { "client_id metadata document": MAX_DOCUMENT_BYTES, jwks_uri: MAX_DOCUMENT_BYTES, sector_identifier_uri: 0 },
  });
  addAssertionGrant(provider, plan, deps);
  for (const event of ["grant.error", "introspection.error", "revocation.error", "registration_create.error"] as const)
    provider.on(event, (_ctx, error) => {
      const call = currentCall();
      // The words of what is behind it may hold a part of what came.
      if (call !== null && error.cause === undefined) call.detail = error.error_detail ?? null;
    });
  // What `inject` says of the scheme and the host is ours.
  provider.proxy = true;
  return provider;

  async function isKnown(accountId: string): Promise<boolean> {
    return personNow(await state.findPerson(accountId, plan.login), plan.login) !== null;
  }

  /** The library knows what was given out, and not what the file says of it by now. */
  function isActive({ oidc: { params } }: OidcContext, { accountId, kind }: Token): Promise<boolean> {
    return kind === "RefreshToken" ? isKnown(accountId ?? "") : deps.isActive(unshapedToken(String(params?.["token"])));
  }

  function loadGrant(ctx: OidcContext): Promise<unknown> | undefined {
    const grantId = ctx.oidc.result?.["consent"]?.grantId;
    return grantId === undefined ? undefined : (provider.Grant as unknown as { find(id: string): Promise<unknown> }).find(grantId);
  }
}

/** How long the login behind a grant still counts. */
function loginLeftMs({ loginLifetimeMs }: OAuthResourcePlan, { oidc }: OidcContext): number {
  const begun = (oidc.entities["Grant"] as { readonly iat?: unknown } | undefined)?.iat;
  return typeof begun === "number" ? begun * 1000 + loginLifetimeMs - Date.now() : loginLifetimeMs;
}

/**
 * A refresh that gives a token with which nobody comes in would only send the client round: it is told to ask a person anew.
 * @throws when the login is too old, or the resource asks for scopes that were not granted then
 */
function mustBeWorth(plan: AuthorizationServerPlan, ctx: OidcContext): boolean {
  const token = ctx.oidc.entities["RefreshToken"] as Token | undefined;
  const resource = token === undefined ? null : resourceOf(plan, token);
  if (resource === null) throw new errors.InvalidGrant("the resource is not served any more");
  if (loginLeftMs(resource, ctx) <= 0) throw new errors.InvalidGrant("the login is too old");
  if (!resource.grants.has("refresh_token")) throw new errors.InvalidGrant("the resource gives no refreshes any more");
  // No refresh widens a grant (RFC 6749, 6), and clients refresh before they ask a person.
  if (!isEnough(plan, resource, (token?.scope ?? "").split(" "))) throw new errors.InvalidGrant("the resource needs scopes that were not granted");
  return true;
}

/** The browser that began an authorization is the one that may go on with it. */
async function startInteraction(state: ServerState, begun: Newest, uid: string): Promise<string> {
  const call = currentCall();
  if (call === null) throw new Error("An authorization was begun outside of a request");
  for (const old of begun.keep(uid, call.request.client)) await state.dropInteraction(old);
  await state.saveWaiting(uid, call.browser.id, INTERACTION_S * 1000);
  call.hasBegun = true;
  return consentLocation(uid);
}

/** Every authorization asks a person who logs in for it: nothing that happened before counts. */
function createPolicy(): object {
  const { Check, Prompt } = interactionPolicy;
  const policy = interactionPolicy.base();
  policy.clear();
  const login = new Check("no_login", "a person has to log in", "login_required", ({ oidc }) => oidc.result?.["login"] === undefined);
  const consent = new Check("no_consent", "a person has to consent", "consent_required", ({ oidc }) => oidc.result?.["consent"] === undefined);
  policy.add(new Prompt({ name: "login", requestable: true }, login));
  policy.add(new Prompt({ name: "consent", requestable: true }, consent));
  policy.add(new Prompt({ name: "select_account", requestable: true }));
  return policy;
}

function resourceInfo(plan: AuthorizationServerPlan, ctx: OidcContext, url: string, client: OidcClient): object {
  const resource = findResource(plan, url);
  const { params, route } = ctx.oidc;
  const grant = route === "token" ? params?.["grant_type"] : "authorization_code";
  if (resource === null) throw new errors.InvalidTarget("ask for a token with the 'resource' of one of the resources of this server");
  if (!(resource.grants as ReadonlySet<unknown>).has(grant)) throw new errors.InvalidTarget(`the resource is not for the grant '${String(grant)}'`);
  if (grant === "client_credentials" && !resource.allow.some(({ clients }) => clients?.has(client.clientId)))
    throw new errors.UnauthorizedClient("the client is not admitted to the resource for itself");
  const known = allScopes(resource);
  const asked = String(params?.["scope"] ?? "").split(" ");
  const machine = grant === "client_credentials" ? plan.clients.find(({ id }) => id === client.clientId) : undefined;
  const own = machine === undefined ? known : known.filter((scope) => machine.scopes.includes(scope));
  const isRefused = grant === "client_credentials" ? known.length > 0 && !own.some((scope) => asked.includes(scope)) : false;
  if (isRefused || (route === "authorization" && ![...known, NO_SCOPE].some((scope) => asked.includes(scope))))
    throw new errors.InvalidScope("none of the scopes can be had for this resource", asked.join(" "));
  return oauthResource(resource, machine === undefined ? Math.min(resource.accessTokenMs, loginLeftMs(resource, ctx)) : resource.accessTokenMs, own);
}

function resourceOf(plan: AuthorizationServerPlan, { resource }: Token): OAuthResourcePlan | null {
  const url = typeof resource === "string" ? resource : resource?.[0];
  return url === undefined ? null : findResource(plan, url);
}

function clientMetadata({ id, name, secret, jwks, redirectUris }: ClientPlan): Record<string, unknown> {
  const people = redirectUris.length > 0 ? ["authorization_code", "refresh_token"] : [];
  const machines = secret !== null || jwks !== null ? ["client_credentials", JWT_BEARER] : [];
  return {
    client_id: id,
    client_name: name,
    redirect_uris: redirectUris,
    response_types: people.length > 0 ? ["code"] : [],
    grant_types: [...people, ...machines],
    application_type: redirectUris.every((uri) => uri.startsWith("https:")) ? "web" : "native",
    token_endpoint_auth_method: jwks !== null ? "private_key_jwt" : secret === null ? "none" : "client_secret_basic",
    ...(jwks === null ? {} : { jwks: { keys: jwks } }),
    ...(jwks === null && secret !== null ? { client_secret: secret } : {}),
  };
}
