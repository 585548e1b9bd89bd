// One authorization server: its endpoints on the origin of its issuer.
import type { Provider } from "oidc-provider";
import { printable } from "../lib/printable.ts";
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";
import type { IdentityProvider } from "../identity/provider-health.ts";
import type { StateStore } from "../state/store.ts";
import type { Log } from "../telemetry/log.ts";
import { idHash, ServerState } from "./adapter.ts";
import { createApprovals } from "./approvals.ts";
import { FETCH_DEPS, fetchClientDocument, type FetchDeps } from "./client-document.ts";
import type { AuthorizationServer } from "./endpoint.ts";
import { notAdmittedPage } from "./session-pages.ts";
import { Endpoints } from "./endpoints.ts";
import {
  listClients,
  listGrants,
  listSessions,
  revoke,
  type BrowserSessionInfo,
  type OAuthClientInfo,
  type OAuthGrantInfo,
  type Revocation,
} from "./grants.ts";
import type { FindIssuer } from "./identity-assertion.ts";
import { currentCall } from "./inject.ts";
import { JwtTokens } from "./jwt-tokens.ts";
import { openKeys, type ServerKeys } from "./keys.ts";
import { createLimit, forAll, joinLimits, type Limit } from "./limit.ts";
import { openLoginFlow } from "./login-flow.ts";
import { LoginThrottle } from "./login-throttle.ts";
import { createNewest } from "./newest.ts";
import { createProvider } from "./provider.ts";
import { TokenLookup } from "./tokens.ts";

export type ServerDeps = {
  readonly store: StateStore;
  readonly log: Log;
  /** How documents of clients are fetched. Default: from public addresses alone; there is no option for it. */
  readonly documents?: FetchDeps;
  /** Counts wrong passwords, for all servers of the gateway. Default: one of its own. */
  readonly throttle?: LoginThrottle;
  /** Whose identity assertions are read. Default: nobody's. */
  readonly issuers?: FindIssuer;
  /** Milliseconds since 1970. Default: Date.now. */
  readonly now?: () => number;
  /** Who asks people. Default: the pages of logins. */
  readonly openFlow?: typeof openLoginFlow;
};

export type LiveServer = AuthorizationServer & {
  clients(): Promise<OAuthClientInfo[]>;
  grants(): Promise<OAuthGrantInfo[]>;
  /** Of browsers. */
  sessions(): Promise<BrowserSessionInfo[]>;
  /** Resolves with how many grants and sessions are gone. */
  revoke(what: Revocation): Promise<number>;
  /** Those at which people log in. */
  providers(): IdentityProvider[];
  close(): void;
};

const SWEEP_MS = 6 * 3_600_000;
const REGISTRATIONS = { most: 30, spanMs: 600_000 };
// Each is kept for a month at least.
const REGISTRATIONS_A_DAY = { most: 200, spanMs: 86_400_000 };
// Of all addresses together: an IPv6 network has very many.
const ALL_REGISTRATIONS = { most: 5_000, spanMs: SWEEP_MS };
const FETCHES = { most: 20, spanMs: 600_000 };
const ALL_FETCHES = { most: 600, spanMs: 600_000 };
// A client that is known by a document has its keys fetched at each request for tokens.
const KEY_FETCHES = { most: 60, spanMs: 600_000 };

/**
 * Opens the server of a plan on its state, where it goes on with what was granted before.
 * @throws {StateError}
 */
export async function openServer(
  plan: AuthorizationServerPlan,
  { store, log, documents = FETCH_DEPS, throttle = new LoginThrottle(), issuers = () => null, now = Date.now, openFlow = openLoginFlow }: ServerDeps,
): Promise<LiveServer> {
  const state = new ServerState(store, plan.issuer, now);
  const limitOf = ({ most, spanMs }: { readonly most: number; readonly spanMs: number }): Limit => createLimit(most, spanMs, now);
  const allFetches = forAll(limitOf(ALL_FETCHES));
  const fetches = joinLimits(limitOf(FETCHES), allFetches);
  const keyFetches = joinLimits(limitOf(KEY_FETCHES), allFetches);
  const begun = createNewest();
  const open = async (): Promise<Opened> => {
    const signedMs = plan.resources.map(({ accessTokenFormat, accessTokenMs }) => (accessTokenFormat === "jwt" ? accessTokenMs : 0));
    const keys = await openKeys(store, idHash(plan.issuer).slice(0, 22), now(), Math.max(0, ...signedMs));
    const jwts = new JwtTokens(plan.issuer, state, keys, now);
    const tokens = new TokenLookup(plan, state, jwts, log, now);
    const provider = createProvider(plan, {
      state,
      keys,
      jwts,
      begun,
      log,
      issuers,
      now,
      isActive: async (token) => (await tokens.find(token))?.kind === "identity",
      fetch: async (url) => {
        const call = currentCall();
        // Documents are counted before; all else is keys of clients, which may register with any address.
        if (call?.isDocumentNext === true) call.isDocumentNext = false;
        else if (call === null || keyFetches.take(call.request.client) > 0) throw new Error("Keys are fetched too often for this address");
        return await fetchClientDocument(url, documents).catch((error: unknown) => {
          // The library tells nobody why.
          log.warn({ server: plan.issuer, url: printable(String(url), 200), err: error }, "What a client names cannot be fetched");
          throw error;
        });
      },
      mayFetch: () => {
        const call = currentCall();
        if (call === null || call.hasFetched) return false;
        call.hasFetched = true;
        call.isDocumentNext = fetches.take(call.request.client) === 0;
        return call.isDocumentNext;
      },
    });
    provider.on("server_error", (_ctx, error) =>
      log.error({ server: plan.issuer, request_id: currentCall()?.request.requestId, err: error }, "an OAuth request failed"),
    );
    return { keys, provider, tokens };
  };
  let current = await open();
  state.onGone = () => current.tokens.clear();
  const pending = createApprovals(plan, state, () => current.provider, now);
  const keys = {
    get cookieKeys() {
      return current.keys.cookieKeys;
    },
  };
  const flow = openFlow(plan, { store, keys, log, pending, throttle, now });
  const endpoints =
    plan.resources.length === 0
      ? null
      : new Endpoints(plan, () => current.provider, joinLimits(limitOf(REGISTRATIONS), limitOf(REGISTRATIONS_A_DAY), forAll(limitOf(ALL_REGISTRATIONS))));
  // One timer for what is done now and then: unused things go, keys change.
  let isClosed = false;
  let timer = setTimeout(tend, SWEEP_MS / 100).unref();
  return {
    issuer: plan.issuer,
    serves: (origin, path) => flow.serves(origin, path) || (origin === plan.issuer && endpoints?.serves(path) === true),
    handle: (request) =>
      flow.serves(request.origin, request.path) ? flow.handle(request) : (endpoints?.handle(request) ?? Promise.reject(new Error("Not an endpoint"))),
    tokens: { find: (token) => current.tokens.find(token), isOwn: true },
    findSession: (cookie, origin) => flow.findSession(cookie, origin),
    loginLocation: (origin, returnTo) => flow.loginLocation(origin, returnTo),
    notAdmitted: notAdmittedPage,
    clients: () => listClients(plan, state),
    grants: () => listGrants(plan, state),
    sessions: () => listSessions(plan, flow),
    revoke: (what) => revoke(plan, state, flow, what),
    providers: () => flow.providers(),
    close() {
      isClosed = true;
      clearTimeout(timer);
      flow.close();
    },
  };

  function tend(): void {
    void (async () => {
      try {
        await state.sweep();
        if (now() >= current.keys.changesAtMs) current = await open();
      } catch (error) {
        if (!isClosed) log.warn({ server: plan.issuer, err: error }, "cannot tidy up the state of the authorization server; it is tried again");
      }
      const next = Math.min(SWEEP_MS, Math.max(60_000, current.keys.changesAtMs - now()));
      if (!isClosed) timer = setTimeout(tend, next).unref();
    })();
  }
}

type Opened = { readonly keys: ServerKeys; readonly provider: Provider; readonly tokens: TokenLookup };
