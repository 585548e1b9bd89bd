// Authorization requests that wait for a person, and what becomes of them.
import { errors, type OidcClient, type Provider } from "oidc-provider";
import { matchesPeople } from "../identity/person.ts";
import { mayHave } from "../identity/scopes.ts";
import { printable } from "../lib/printable.ts";
import type { AuthorizationServerPlan, OAuthResourcePlan } from "../plan/auth-model.ts";
import type { ServerState } from "./adapter.ts";
import { findBrowser } from "./browser.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";
import { forRequest } from "./inject.ts";
import { errorPage, redirect } from "./pages.ts";
import type { PendingAuthorization, PendingAuthorizations } from "./pending-authorization.ts";
import { allScopes, findResource, NO_SCOPE } from "./resources.ts";

const MAX_NAME_CHARS = 100;

type Waiting = { readonly pending: PendingAuthorization; readonly interaction: InstanceType<Provider["Interaction"]> };
type Result = Record<string, unknown>;

/** @param provider that of now: it changes with its keys */
export function createApprovals(plan: AuthorizationServerPlan, state: ServerState, provider: () => Provider, now: () => number): PendingAuthorizations {
  return {
    find: async (request, uid) => (await findWaiting(request, uid))?.pending ?? null,
    async approve(request, uid, person, scopes) {
      const waiting = await takeWaiting(request, uid);
      if (waiting === null) return over(request);
      const { resource, clientId, clientName, clientKind, redirectUri } = waiting.pending;
      const possible = waiting.pending.scopes.filter((scope) => scopes.includes(scope) && mayHave(person, scope, plan.scopes));
      const granted = resource.scopes.length === 0 ? [...possible, NO_SCOPE] : possible;
      if (!resource.allow.some((match) => matchesPeople(person, match)))
        return finish(waiting, { error: "access_denied", error_description: "the person is not admitted to the resource" });
      if (granted.length === 0) return finish(waiting, { error: "access_denied", error_description: "no scope was granted" });
      const accountId = await state.savePerson(person, plan.login);
      const { Grant } = provider();
      const expiresIn = Math.ceil(Math.max(resource.refreshTokenMs, resource.accessTokenMs) / 1000);
      const grant = new Grant({ accountId, clientId, expiresIn });
      grant.addResourceScope(resource.url, granted.join(" "));
      const grantId = await grant.save();
      await state.saveAbout(grantId, { clientName, clientKind, redirectUri, createdAtMs: now() });
      return finish(waiting, { login: { accountId, remember: false }, consent: { grantId }, select_account: {} });
    },
    async deny(request, uid, error, description) {
      const waiting = await takeWaiting(request, uid);
      return waiting === null ? over(request) : finish(waiting, { error, error_description: description });
    },
  };

  async function findWaiting(request: EndpointRequest, uid: string): Promise<Waiting | null> {
    const browser = findBrowser(request);
    if (browser.isNew || !(await state.isWaiting(uid, browser.id))) return null;
    const interaction = await provider().Interaction.find(uid);
    if (interaction === undefined || interaction.result !== undefined) return null;
    const { client_id: clientId, redirect_uri: redirectUri, resource: url, scope } = interaction.params;
    const resource = typeof url === "string" ? findResource(plan, url) : null;
    const client = typeof clientId === "string" ? await findClient(request, clientId) : undefined;
    if (resource === null || client === undefined || typeof redirectUri !== "string") return null;
    const asked = String(scope ?? "").split(" ");
    return { interaction, pending: describe(uid, client, redirectUri, resource, asked) };
  }

  /** Undefined also when its document is gone, or cannot be fetched now. */
  async function findClient(request: EndpointRequest, id: string): Promise<OidcClient | undefined> {
    try {
      return await forRequest(request, () => provider().Client.find(id));
    } catch (error) {
      if (error instanceof errors.OIDCProviderError) return undefined;
      throw error;
    }
  }

  async function takeWaiting(request: EndpointRequest, uid: string): Promise<Waiting | null> {
    const waiting = await findWaiting(request, uid);
    return waiting !== null && (await state.takeWaiting(uid, findBrowser(request).id)) ? waiting : null;
  }

  function describe(uid: string, client: OidcClient, redirectUri: string, resource: OAuthResourcePlan, asked: readonly string[]): PendingAuthorization {
    return {
      uid,
      clientId: client.clientId,
      ...describeClient(plan, client),
      redirectUri,
      scopes: allScopes(resource).filter((name) => asked.includes(name)),
      resource,
    };
  }

  /** The browser goes to the endpoint that it came from, which does what was decided. */
  async function finish({ interaction }: Waiting, result: Result): Promise<EndpointAnswer> {
    interaction.result = result;
    await interaction.save(Math.max(1, interaction.exp - Math.floor(now() / 1000)));
    return redirect(interaction.returnTo);
  }

  function over({ requestId }: EndpointRequest): EndpointAnswer {
    return errorPage({
      status: 400,
      title: "This request is over",
      message: "It was answered already, is too old, or was begun in another browser. Begin again where you came from.",
      host: new URL(plan.issuer).host,
      requestId,
    });
  }
}

/** What people are told of a client. */
export function describeClient(
  { clients }: AuthorizationServerPlan,
  { clientId, clientName, clientIdMetadataDocument }: OidcClient,
): Pick<PendingAuthorization, "clientName" | "clientKind"> {
  return {
    clientName: printable(clientName ?? "", MAX_NAME_CHARS) || clientId,
    clientKind: clients.some(({ id }) => id === clientId) ? "static" : clientIdMetadataDocument === true ? "document" : "registered",
  };
}
