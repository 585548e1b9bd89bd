// What operators see of clients, grants and sessions, and how they take them back.
import type { Payload } from "oidc-provider";
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";
import type { Kept, ServerState } from "./adapter.ts";
import type { LoginFlow } from "./login-flow.ts";
import { NO_SCOPE } from "./resources.ts";
import { userOf } from "./sessions.ts";

/** As it is shown in JSON. `created_at` and other times as ISO 8601. */
export type OAuthClientInfo = {
  readonly server: string;
  readonly id: string;
  readonly name: string;
  /** `static`: of the file; `registered`: it registered itself; `document`: its id is the address of its metadata. */
  readonly kind: "static" | "registered" | "document";
  readonly redirect_uris: readonly string[];
  readonly created_at: string | null;
};

export type OAuthGrantInfo = {
  readonly server: string;
  readonly id: string;
  readonly client: string;
  readonly client_name: string;
  /** `github:octocat`. */
  readonly user: string;
  readonly resources: readonly string[];
  readonly scopes: readonly string[];
  readonly created_at: string;
  readonly expires_at: string | null;
};

/** A browser in which somebody has logged in. */
export type BrowserSessionInfo = {
  readonly server: string;
  /** Ends it, and opens nothing. */
  readonly id: string;
  /** `github:octocat`. */
  readonly user: string;
  /** Of the pages that it is for. */
  readonly origin: string;
  readonly created_at: string;
  readonly expires_at: string;
};

/** One of them. `user`: as in OAuthGrantInfo; takes the person's sessions as well. `client`: its grants, its registration, and what it got for itself. */
export type Revocation =
  { readonly grant: string } | { readonly session: string } | { readonly client: string } | { readonly user: string } | { readonly all: true };

/** Static clients first, then those that registered themselves, then those of documents that somebody granted something to. */
export async function listClients({ issuer, clients }: AuthorizationServerPlan, state: ServerState): Promise<OAuthClientInfo[]> {
  const own = clients.map(({ id, name, redirectUris }): OAuthClientInfo => ({
    server: issuer,
    id,
    name,
    kind: "static",
    redirect_uris: redirectUris,
    created_at: null,
  }));
  const registered = (await live(state, "Client")).map(({ payload }): OAuthClientInfo => {
    const { client_id: id, client_name: name, redirect_uris: uris, client_id_issued_at: issuedAt } = payload;
    return {
      server: issuer,
      id: String(id),
      name: typeof name === "string" ? name : String(id),
      kind: "registered",
      redirect_uris: Array.isArray(uris) ? uris.map(String) : [],
      created_at: typeof issuedAt === "number" ? iso(issuedAt * 1000) : null,
    };
  });
  const documents = new Map<string, OAuthClientInfo>();
  for (const { id, payload } of await live(state, "Grant")) {
    const about = await state.findAbout(id);
    if (about?.clientKind !== "document") continue;
    const client = String(payload["clientId"]);
    const before = documents.get(client);
    const redirectUris = [...new Set([...(before?.redirect_uris ?? []), about.redirectUri])].filter((uri) => uri !== "");
    const createdAt = [before?.created_at ?? iso(about.createdAtMs), iso(about.createdAtMs)].toSorted()[0] ?? null;
    documents.set(client, { server: issuer, id: client, name: about.clientName, kind: "document", redirect_uris: redirectUris, created_at: createdAt });
  }
  return [...own, ...registered, ...documents.values()];
}

export async function listGrants({ issuer }: AuthorizationServerPlan, state: ServerState): Promise<OAuthGrantInfo[]> {
  return Promise.all(
    (await live(state, "Grant")).map(async ({ id, payload, aliveUntilMs }) => {
      const about = await state.findAbout(id);
      const client = String(payload["clientId"]);
      const resources = (payload["resources"] ?? {}) as Record<string, string>;
      const scopes = Object.values(resources).flatMap((text) => text.split(" "));
      return {
        server: issuer,
        id,
        client,
        client_name: about?.clientName ?? client,
        user: await grantedBy(state, payload),
        resources: Object.keys(resources),
        scopes: [...new Set(scopes)].filter((scope) => scope !== NO_SCOPE),
        created_at: iso(about?.createdAtMs ?? Number(payload["iat"]) * 1000),
        expires_at: aliveUntilMs === null ? null : iso(aliveUntilMs),
      };
    }),
  );
}

export async function listSessions({ issuer }: AuthorizationServerPlan, flow: LoginFlow): Promise<BrowserSessionInfo[]> {
  return (await flow.sessions()).map(({ id, person, origin, createdAtMs, expiresAtMs }) => ({
    server: issuer,
    id,
    user: userOf(person),
    origin,
    created_at: iso(createdAtMs),
    expires_at: iso(expiresAtMs),
  }));
}

/** Resolves with how many grants and sessions are gone. */
export async function revoke(plan: AuthorizationServerPlan, state: ServerState, flow: LoginFlow, what: Revocation): Promise<number> {
  let gone = 0;
  if ("grant" in what) return Number(await state.delete("Grant", what.grant));
  if ("session" in what) return Number(await flow.endSession(what.session));
  // Before the grants: who logs in meanwhile gets no session that outlasts this.
  if ("user" in what) gone += await flow.revokeUser(what.user);
  if ("all" in what) gone += await flow.revokeUser(null);
  if ("client" in what) for (const { id, payload } of await state.list("Client")) if (payload["client_id"] === what.client) await state.delete("Client", id);
  for (const { id } of plan.clients) if ("all" in what || ("client" in what && id === what.client)) await state.endClient(id);
  for (const grant of await listGrants(plan, state)) {
    const isMeant = "all" in what || ("user" in what && grant.user === what.user) || ("client" in what && grant.client === what.client);
    if (isMeant && (await state.delete("Grant", grant.id))) gone += 1;
  }
  return gone;
}

async function live(state: ServerState, model: "Grant" | "Client"): Promise<Kept[]> {
  return (await state.list(model)).filter(({ aliveUntilMs }) => aliveUntilMs !== null);
}

/** By the grant itself: what is told of one that was made just now may not stand yet. */
async function grantedBy(state: ServerState, { accountId }: Payload): Promise<string> {
  const person = await state.findPerson(String(accountId), null);
  return person === null ? "" : userOf(person);
}

function iso(ms: number): string {
  return new Date(ms).toISOString();
}
