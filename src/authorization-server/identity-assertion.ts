// The grant by which a client gets a token for a person whom an issuer vouches for (ID-JAG): which assertions count, and for what.
import { decodeJwt } from "jose";
import { errors, type OidcClient, type OidcContext, type Provider } from "oidc-provider";
import type { IdentityAssertion } from "../identity/identity-assertion.ts";
import type { LiveIssuer } from "../identity/issuer.ts";
import { matchesPeople, type Person } from "../identity/person.ts";
import { expandScopes, mayHave } from "../identity/scopes.ts";
import { printable } from "../lib/printable.ts";
import type { AuthorizationServerPlan, OAuthResourcePlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import { JWT_BEARER, type ServerState } from "./adapter.ts";
import { describeClient } from "./approvals.ts";
import { toldOf } from "./consent.ts";
import { currentCall } from "./inject.ts";
import { allScopes, findResource, NO_SCOPE, oauthResource, takesAssertions } from "./resources.ts";
import { userOf } from "./sessions.ts";

/** What metadata calls it (draft-ietf-oauth-identity-assertion-authz-grant-04, 7.2). */
export const ASSERTION_PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag";

/** An issuer of the plan by its name, as it is now: one that was looked up is not kept. Null: there is none. */
export type FindIssuer = (name: string) => Pick<LiveIssuer, "readAssertion"> | null;

type Deps = { readonly state: ServerState; readonly log: Log; readonly issuers: FindIssuer; readonly now: () => number };

const RETRY_S = 5;
const MAX_ISSUER_CHARS = 200;

/**
 * Adds the grant of RFC 7523, 2.1 for identity assertions (draft-ietf-oauth-identity-assertion-authz-grant-04, 4.4). It is there also where no resource takes
 * any, and refuses all: clients that registered for it stay clients when the file takes it away.
 */
export function addAssertionGrant(provider: Provider, plan: AuthorizationServerPlan, { state, log, issuers, now }: Deps): void {
  provider.registerGrantType(JWT_BEARER, (ctx) => exchange(ctx), ["assertion", "scope", "resource"]);

  async function exchange(ctx: OidcContext): Promise<void> {
    const { client, params } = ctx.oidc;
    if (!plan.resources.some(takesAssertions)) throw new errors.UnsupportedGrantType();
    if (client === undefined || client.clientAuthMethod === "none")
      throw new errors.UnauthorizedClient("identity assertions are for clients that authenticate");
    const text = params?.["assertion"];
    if (typeof text !== "string") throw new errors.CustomOIDCProviderError("invalid_request", "the parameter 'assertion' is missing");
    const issuer = issuerOf(plan, text);
    const read = (await issuers(issuer.name)?.readAssertion(text)) ?? { kind: "unavailable", retryAfterS: RETRY_S };
    if (read.kind === "unavailable") {
      ctx.status = 503;
      ctx.set("Retry-After", String(read.retryAfterS));
      ctx.body = {
        error: "temporarily_unavailable",
        error_description: "the issuer of the identity assertion cannot be asked for its keys now; try again later",
      };
      return;
    }
    if (read.kind === "invalid") throw refusal(read.reason);
    const { assertion } = read;
    const { person, audience, clientId } = assertion;
    if (audience !== plan.issuer && audience !== `${plan.issuer}/`) throw refusal(`it is for another authorization server; 'aud' must be ${plan.issuer}`);
    if (clientId !== client.clientId) throw refusal("it was given to another client ('client_id')");
    const resource = targetOf(plan, issuer.name, assertion, params?.["resource"]);
    if (!resource.assertions.some(({ issuers: names, allow }) => names.has(issuer.name) && matchesPeople(person, allow))) {
      log.warn({ ...fieldsOf(client, person, resource), ...toldOf(person) }, "A person whom an issuer vouches for is not admitted");
      throw refusal("the person is not admitted to the resource");
    }
    const scopes = scopesOf(plan, resource, assertion, params?.["scope"]);
    // At the end: one that was refused for another reason may still be of use.
    if (!(await state.useAssertion(issuer.url, assertion.id, assertion.expiresAtMs))) throw refusal("it was used before");
    await give(ctx, client, resource, person, scopes);
  }

  async function give(ctx: OidcContext, client: OidcClient, resource: OAuthResourcePlan, person: Person, scopes: readonly string[]): Promise<void> {
    const { clientId } = client;
    const accountId = await state.savePerson(person, plan.login, clientId);
    // The word of an issuer counts no longer than that of a login does.
    const info = oauthResource(resource, Math.min(resource.accessTokenMs, resource.loginLifetimeMs));
    const grant = new provider.Grant({ accountId, clientId, expiresIn: info.accessTokenTTL });
    grant.addResourceScope(resource.url, (scopes.length === 0 ? [NO_SCOPE] : scopes).join(" "));
    const grantId = await grant.save();
    await state.saveAbout(grantId, { ...describeClient(plan, client), redirectUri: "", createdAtMs: now() });
    const token = new provider.AccessToken({ accountId, client, grantId, gty: JWT_BEARER });
    token.resourceServer = new provider.ResourceServer(resource.url, info);
    const scope = scopes.length === 0 ? undefined : scopes.join(" ");
    token.scope = scope;
    const value = await token.save();
    log.info({ ...fieldsOf(client, person, resource), scopes }, "A client has exchanged an identity assertion");
    ctx.body = {
      access_token: value,
      token_type: token.tokenType,
      expires_in: token.expiration,
      resource: resource.url,
      ...(scope === undefined ? {} : { scope }),
    };
  }
}

function fieldsOf({ clientId }: OidcClient, person: Person, { url }: OAuthResourcePlan): Record<string, unknown> {
  const request = currentCall()?.request;
  return { request_id: request?.requestId, client: request?.client, user: userOf(person), oauth_client: clientId, resource: url };
}

/** Whom the assertion itself names, before anything of it is known to be true. @throws when it is none of ours */
function issuerOf({ resources }: AuthorizationServerPlan, text: string): { readonly name: string; readonly url: string } {
  let iss: unknown;
  try {
    ({ iss } = decodeJwt(text));
  } catch {
    throw refusal("it is no JWT");
  }
  for (const { assertions } of resources) for (const { issuers } of assertions) for (const [name, url] of issuers) if (url === iss) return { name, url };
  // What an error may hold (RFC 6749, 5.2).
  const told = typeof iss === "string" ? ` ('${printable(iss, MAX_ISSUER_CHARS).replaceAll(/[^ !#-[\]-~]/g, "?")}')` : "";
  throw refusal(`its issuer${told} is none of those whose identity assertions are taken here`);
}

/** What is asked for, of what the assertion is for; where neither says it, the only one (RFC 8707, 2). */
function targetOf(plan: AuthorizationServerPlan, issuer: string, { resources }: IdentityAssertion, asked: unknown): OAuthResourcePlan {
  const isTaken = (resource: OAuthResourcePlan): boolean => resource.assertions.some(({ issuers }) => issuers.has(issuer));
  const meant = resources.length === 0 ? plan.resources : resources.flatMap((url) => findResource(plan, url) ?? []);
  const wanted = asked === undefined ? null : findResource(plan, String(asked));
  if (asked !== undefined && (wanted === null || !meant.includes(wanted)))
    throw new errors.InvalidTarget(wanted === null ? "this server has no such resource" : "the identity assertion is for another resource");
  const [only, ...more] = new Set(wanted === null ? meant.filter(isTaken) : [wanted]);
  if (more.length > 0) throw new errors.InvalidTarget("the identity assertion is for several resources; name one as 'resource'");
  if (only === undefined || !isTaken(only)) throw new errors.InvalidTarget("no such resource takes identity assertions of this issuer");
  return only;
}

/** @throws when none is left of those that the assertion, or the request, asks for */
function scopesOf(plan: AuthorizationServerPlan, resource: OAuthResourcePlan, { person, scopes }: IdentityAssertion, asked: unknown): readonly string[] {
  const known = allScopes(resource).filter((scope) => mayHave(person, scope, plan.scopes));
  const vouched = scopes === null ? null : known.filter((scope) => scopes.includes(scope));
  const wanted = typeof asked === "string" ? asked.split(" ") : null;
  // One that includes others is enough for these.
  const possible = vouched === null ? known : known.filter((scope) => expandScopes(vouched, plan.scopes).includes(scope));
  const granted = wanted === null ? (vouched ?? known.filter((scope) => resource.scopes.includes(scope))) : possible.filter((scope) => wanted.includes(scope));
  const isNarrowed = scopes !== null || wanted !== null;
  if (granted.length === 0 && (resource.scopes.length > 0 || (isNarrowed && resource.optionalScopes.length > 0)))
    throw new errors.InvalidScope("none of the scopes that the identity assertion and the request name can be had for this person and resource");
  return granted;
}

/** What is wrong with the assertion itself (RFC 7521, 4.1.1). */
function refusal(reason: string): Error {
  return new errors.CustomOIDCProviderError("invalid_grant", `the identity assertion is refused: ${reason.charAt(0).toLowerCase()}${reason.slice(1)}`);
}
