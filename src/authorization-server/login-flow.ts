// People who log in, for a client or for pages: which page or endpoint a request is for, and the way back from an identity provider.
import type { Authentication } from "../identity/authenticate.ts";
import type { IdentityProvider } from "../identity/provider-health.ts";
import type { Person } from "../identity/person.ts";
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";
import { StateError } from "../state/state-error.ts";
import type { StateStore } from "../state/store.ts";
import type { Log } from "../telemetry/log.ts";
import { createSigner, findBrowser, queryOf } from "./browser.ts";
import { CONSENT, consentLocation, finishConsent, serveConsent } from "./consent.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";
import { failurePage, hostOf, wrongMethod, type FlowContext } from "./flow-context.ts";
import { createLoginStates, type LoginUnderWay } from "./flow-state.ts";
import { LoginError } from "./login-source.ts";
import { LoginThrottle } from "./login-throttle.ts";
import { openLoginWays } from "./open-login-ways.ts";
import type { LoginWays } from "./login-ways.ts";
import { errorPage, redirect } from "./pages.ts";
import type { PendingAuthorizations } from "./pending-authorization.ts";
import { finishSession, LOGIN, loginLocation, LOGOUT, serveHandoff, serveLogin, serveLogout, SESSION } from "./session-pages.ts";
import { Sessions, type SessionAbout } from "./sessions.ts";

export type LoginFlowDeps = {
  readonly store: StateStore;
  /** Secrets for what browsers keep or bring back; the first one signs, all are taken. Asked for each time: they change. */
  readonly keys: { readonly cookieKeys: readonly string[] };
  readonly log: Log;
  readonly pending: PendingAuthorizations;
  /** Counts wrong passwords. Default: one of its own. */
  readonly throttle?: LoginThrottle;
  /** Default: Date.now. */
  readonly now?: () => number;
  /** Default: those of the plan. They are closed with the flow. */
  readonly ways?: LoginWays & { close(): void };
};

export type LoginFlow = {
  /** Whether the path (normal form) on that origin is one of ours: /callback on the issuer's, and what is below /.sidegate/. */
  serves(origin: string, path: string): boolean;
  /** Rejects only for what is nobody's fault but ours. */
  handle(request: EndpointRequest): Promise<EndpointAnswer>;
  /** Never rejects. */
  findSession(cookie: string, origin: string): Authentication | Promise<Authentication>;
  /** A path with a query on that origin. @param returnTo path and query of that origin */
  loginLocation(origin: string, returnTo: string): string;
  /** Those that count, of everybody. */
  sessions(): Promise<SessionAbout[]>;
  /** False when there was none. @param id as `sessions` has it */
  endSession(id: string): Promise<boolean>;
  /** Ends the sessions of the person (`github:octocat`), and logins under way that are as good as one; null: of everybody. Resolves with their number. */
  revokeUser(user: string | null): Promise<number>;
  /** Those at which people log in. */
  providers(): IdentityProvider[];
  close(): void;
};

const PAGES = "/.sidegate/";
const CALLBACK = "/callback";

export function openLoginFlow(plan: AuthorizationServerPlan, { store, keys, log, pending, now = Date.now, ...rest }: LoginFlowDeps): LoginFlow {
  const ways = rest.ways ?? openLoginWays(plan.login, log, rest.throttle ?? new LoginThrottle());
  const sessions = new Sessions({ issuer: plan.issuer, lifetimesMs: plan.sessionLifetimesMs, login: plan.login, store, log, now });
  const context: FlowContext = {
    plan,
    ways,
    sessions,
    states: createLoginStates(plan.issuer, store),
    signer: createSigner(keys),
    pending,
    log,
    now,
  };
  return {
    serves: (origin, path) =>
      (path.startsWith(PAGES) && (origin === plan.issuer || plan.sessionOrigins.has(origin))) || (path === CALLBACK && origin === plan.issuer),
    async handle(request) {
      const answer = await serve(context, request).catch((error: unknown) => stateFailed(context, request, error));
      return request.method === "HEAD" ? { ...answer, body: "" } : answer;
    },
    findSession: (cookie, origin) => sessions.find(cookie, origin),
    loginLocation,
    sessions: () => sessions.list(),
    endSession: (id) => sessions.endById(id),
    revokeUser: (user) => sessions.revoke(user),
    providers: () => ways.external.map((source) => source.provider()),
    close: () => ways.close(),
  };
}

function serve(context: FlowContext, request: EndpointRequest): Promise<EndpointAnswer> {
  const { path, origin } = request;
  const isIssuer = origin === context.plan.issuer;
  if (isIssuer && path === CALLBACK) return serveCallback(context, request);
  if (isIssuer && path.startsWith(CONSENT)) return serveConsent(context, request);
  if (path === LOGIN) return serveLogin(context, request);
  if (context.plan.sessionOrigins.has(origin)) {
    if (path === SESSION) return serveHandoff(context, request);
    if (path === LOGOUT) return serveLogout(context, request);
  }
  return Promise.resolve(
    errorPage({ status: 404, title: "There is no such page", message: "Check the address.", host: hostOf(origin), requestId: request.requestId }),
  );
}

/** A browser comes back from an identity provider. */
async function serveCallback(context: FlowContext, request: EndpointRequest): Promise<EndpointAnswer> {
  const wrong = wrongMethod(request, ["GET"]);
  if (wrong !== null) return wrong;
  const query = queryOf(request);
  const state = query.get("state") ?? "";
  const underWay = await context.states.take(state, findBrowser(request));
  if (underWay === null) {
    return errorPage({
      status: 400,
      title: "This login is over",
      message:
        "It was finished already, has taken longer than 10 minutes, or began in another browser. Go back to the application or the page and begin again.",
      host: hostOf(request.origin),
      requestId: request.requestId,
    });
  }
  const { target } = underWay;
  const back = target.kind === "consent" ? consentLocation(target.uid) : `${target.origin}${loginLocation(target.origin, target.returnTo)}&choose=1`;
  try {
    const person = await finishAt(context, query, state, underWay);
    return target.kind === "consent" ? await finishConsent(context, request, target, person) : await finishSession(context, request, target, person);
  } catch (error) {
    // The person has cancelled there, as the source has found, and may choose again (RFC 6749, 4.1.2.1).
    const isCancelled = error instanceof LoginError && error.reason === "refused" && query.get("error") === "access_denied";
    if (isCancelled && target.kind === "consent") return redirect(`${back}?notice=cancelled`);
    return failurePage(context, request, error, { href: back, text: "Try again" });
  }
}

/** What came, an error too, is for the source to judge: it knows whose answer it is (RFC 9207) and what its provider means. */
function finishAt({ plan, ways }: FlowContext, query: URLSearchParams, state: string, { source: kind, memory }: LoginUnderWay): Promise<Person> {
  const source = ways.external.find((one) => one.kind === kind);
  if (source === undefined) throw new LoginError("failed", "This way to log in is not offered any more");
  const redirectUri = `${plan.issuer}${CALLBACK}`;
  return source.finish({ callback: new URL(`${redirectUri}?${query.toString()}`), redirectUri, state, memory });
}

/** A disk that is full, for example: people get a page that says so, as from all else here. @throws what is no error of the state */
function stateFailed({ log }: FlowContext, request: EndpointRequest, error: unknown): EndpointAnswer {
  if (!(error instanceof StateError)) throw error;
  log.error({ request_id: request.requestId, err: error }, "A login stopped, as the state cannot be used");
  return errorPage({
    status: 503,
    title: "This did not work",
    message: "The gateway cannot keep what it has to at the moment. It is no fault of yours: try again in a while, and tell whoever runs it when it stays so.",
    host: hostOf(request.origin),
    requestId: request.requestId,
    headers: ["Retry-After", "30"],
  });
}
