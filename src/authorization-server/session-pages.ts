// The pages of browser sessions on the origins of routes: login, the way over from the issuer's origin, and sign-out.
import type { Identity } from "../identity/identity.ts";
import type { Person } from "../identity/person.ts";
import { cookieValue } from "../lib/cookies.ts";
import { cookie, findBrowser, formToken, queryOf, readForm, secretHash, type Browser } from "./browser.ts";
import { formRefused, providerSchemes } from "./consent.ts";
import { sessionCookieName, type EndpointAnswer, type EndpointRequest } from "./endpoint.ts";
import { failurePage, hostOf, logFailure, retryHeaders, sentence, statusOf, wrongMethod, type FlowContext } from "./flow-context.ts";
import type { SessionTarget } from "./flow-state.ts";
import { tryParseJson } from "./kept.ts";
import { LoginError } from "./login-source.ts";
import { offerOf, takeWay } from "./login-ways.ts";
import { loginPage, logoutPage, signedOutPage } from "./page-session.ts";
import { errorPage, redirect } from "./pages.ts";
import { safeReturnPath } from "./return-path.ts";
import { userOf } from "./sessions.ts";

export const LOGIN = "/.sidegate/login";
export const LOGOUT = "/.sidegate/logout";
export const SESSION = "/.sidegate/session";

// As long as somebody may take over a login page.
const REQUEST_MS = 1_800_000;

/** What the origin of a route asks of the issuer's: signed, so that nobody else can have a login end where they like. */
type LoginRequest = SessionTarget & { readonly choose: boolean; readonly untilMs: number };

/** A path with a query on the origin. @param returnTo path and query on that origin */
export function loginLocation(origin: string, returnTo: string): string {
  return `${LOGIN}?return_to=${encodeURIComponent(safeReturnPath(returnTo, origin))}`;
}

/** The page on which people choose how to log in; where there is nothing to choose, the login itself. */
export async function serveLogin(context: FlowContext, request: EndpointRequest): Promise<EndpointAnswer> {
  const wrong = wrongMethod(request, ["GET", "HEAD", "POST"]);
  if (wrong !== null) return wrong;
  const { plan } = context;
  const query = queryOf(request);
  const browser = findBrowser(request);
  const asked = loginRequest(context, request, query, browser);
  if (asked === null)
    return startPage(request, "This login is over", "It has taken too long, or its address is not whole. Go back to the page and begin again.");
  // A browser that keeps no cookie would be sent to and fro for ever.
  if (browser.isNew) {
    if (request.method === "POST") return formRefused(request, browser, "Your browser did not send the cookie of this page. Allow cookies for this site.", "/");
    if (query.has("cookie")) return noCookiesPage(request);
    query.set("cookie", "1");
    return redirect(`${LOGIN}?${query.toString()}`, browser.headers);
  }
  if (request.origin === asked.origin && request.method !== "POST" && !asked.choose) {
    const session = cookieValue(request.headers, sessionCookieName(request.origin));
    const found = session === null ? null : await context.sessions.find(session, request.origin);
    if (found?.kind === "identity") return redirect(asked.returnTo);
  }
  if (request.origin !== plan.issuer) return redirect(`${plan.issuer}${LOGIN}?request=${encodeURIComponent(seal(context, asked))}`);
  return request.method === "POST" ? takeForm(context, request, browser, asked) : offer(context, request, browser, asked);
}

/** Where a login that began on another origin ends: its code becomes a session in the browser that began. */
export async function serveHandoff(context: FlowContext, request: EndpointRequest): Promise<EndpointAnswer> {
  const wrong = wrongMethod(request, ["GET"]);
  if (wrong !== null) return wrong;
  const browser = findBrowser(request);
  const handoff = await context.sessions.takeHandoff(queryOf(request).get("code") ?? "");
  // Somebody else's login must not become this browser's.
  if (handoff === null || handoff.origin !== request.origin || browser.isNew || handoff.browser !== secretHash(browser.id))
    return startPage(request, "The login did not work", "It was used already, has taken too long, or began in another browser. Begin again.");
  return openSession(context, request, handoff.returnTo, handoff.person);
}

/** Asks first, and ends the session of the browser. */
export async function serveLogout(context: FlowContext, request: EndpointRequest): Promise<EndpointAnswer> {
  const wrong = wrongMethod(request, ["GET", "HEAD", "POST"]);
  if (wrong !== null) return wrong;
  const host = hostOf(request.origin);
  const browser = findBrowser(request);
  const name = sessionCookieName(request.origin);
  const value = cookieValue(request.headers, name);
  if (request.method !== "POST") {
    const found = value === null ? null : await context.sessions.find(value, request.origin);
    const user = found?.kind === "identity" ? found.identity.name : null;
    return logoutPage({ host, user, form: { action: LOGOUT, token: formToken(browser, context.signer, ["logout"]) }, headers: browser.headers });
  }
  const form = readForm(request, browser, context.signer, ["logout"]);
  if ("refused" in form) return formRefused(request, browser, form.refused, LOGOUT);
  if (value !== null) await context.sessions.end(value);
  return signedOutPage({ host, title: "You are signed out", headers: ["Set-Cookie", cookie(name, "", request.origin, 0)] });
}

/** The person is known: a session here, or a code that becomes one on the origin where it is wanted. */
export async function finishSession(context: FlowContext, request: EndpointRequest, target: SessionTarget, person: Person): Promise<EndpointAnswer> {
  const { origin, returnTo, browser } = target;
  if (!context.plan.sessionOrigins.has(origin)) return startPage(request, "This login is over", "The page that it was for is not served any more.");
  if (origin === request.origin) return openSession(context, request, returnTo, person);
  const code = await context.sessions.handOff({ origin, returnTo, browser, person });
  return redirect(`${origin}${SESSION}?code=${code}`);
}

async function openSession({ sessions, log }: FlowContext, request: EndpointRequest, returnTo: string, person: Person): Promise<EndpointAnswer> {
  const name = sessionCookieName(request.origin);
  // The value is new with every login: one that somebody else has put there is not made good by it.
  const before = cookieValue(request.headers, name);
  if (before !== null) await sessions.end(before);
  const value = await sessions.create(request.origin, person);
  log.info({ request_id: request.requestId, client: request.client, user: userOf(person), origin: request.origin }, "A person has logged in");
  return redirect(returnTo, ["Set-Cookie", cookie(name, value, request.origin, Math.floor(sessions.lifetimeMs(request.origin) / 1_000))]);
}

async function offer(context: FlowContext, request: EndpointRequest, browser: Browser, asked: LoginRequest): Promise<EndpointAnswer> {
  const { ways, states } = context;
  if (!asked.choose) {
    const person = ways.tailnet(request.peer);
    if (person !== null) return finishSession(context, request, asked, person);
    const [only, ...others] = ways.external;
    if (only !== undefined && others.length === 0 && ways.password === null) {
      try {
        return redirect(await states.start(only, browser, targetOf(asked), request.client));
      } catch (error) {
        return failurePage(context, request, error, { href: again(context, asked), text: "Try again" });
      }
    }
  }
  return showPage(context, request, browser, asked, {});
}

async function takeForm(context: FlowContext, request: EndpointRequest, browser: Browser, asked: LoginRequest): Promise<EndpointAnswer> {
  const form = readForm(request, browser, context.signer, ["login", asked.origin, asked.returnTo]);
  if ("refused" in form) return formRefused(request, browser, form.refused, again(context, asked));
  try {
    const taken = await takeWay(context.ways, form.fields, request);
    if ("person" in taken) return await finishSession(context, request, asked, taken.person);
    return redirect(await context.states.start(taken.source, browser, targetOf(asked), request.client));
  } catch (error) {
    if (!(error instanceof LoginError) || form.fields.get("way") !== "password")
      return failurePage(context, request, error, { href: again(context, asked), text: "Try again" });
    // Wrong passwords are logged where they are counted.
    if (error.reason === "unavailable") logFailure(context.log, request, error);
    const refused = { message: sentence(error.message), name: form.fields.get("name") ?? "" };
    return showPage(context, request, browser, asked, { refused, status: error.reason === "refused" ? 401 : statusOf(error), headers: retryHeaders(error) });
  }
}

function showPage(
  context: FlowContext,
  request: EndpointRequest,
  browser: Browser,
  asked: LoginRequest,
  told: { readonly refused?: { readonly message: string; readonly name: string }; readonly status?: number; readonly headers?: readonly string[] },
): EndpointAnswer {
  const schemes = [...context.plan.sessionOrigins].map((origin) => new URL(origin).protocol);
  return loginPage({
    host: hostOf(request.origin),
    forHost: hostOf(asked.origin),
    offer: offerOf(context.ways, request.peer),
    form: { action: again(context, asked), token: formToken(browser, context.signer, ["login", asked.origin, asked.returnTo]) },
    leadsTo: [...providerSchemes(context), ...schemes],
    notice: null,
    refused: told.refused ?? null,
    status: told.status ?? 200,
    headers: told.headers ?? [],
  });
}

/** The login that an address asks for; null when the address is none of ours. */
function loginRequest(context: FlowContext, request: EndpointRequest, query: URLSearchParams, browser: Browser): LoginRequest | null {
  const { plan, now } = context;
  const sealed = query.get("request");
  if (sealed !== null && request.origin === plan.issuer) return unseal(context, sealed);
  if (!plan.sessionOrigins.has(request.origin)) return null;
  return {
    kind: "session",
    origin: request.origin,
    returnTo: safeReturnPath(query.get("return_to"), request.origin),
    browser: secretHash(browser.id),
    choose: query.has("choose"),
    untilMs: now() + REQUEST_MS,
  };
}

/** The address of the login on the issuer's origin, once more. */
function again({ plan, signer }: Pick<FlowContext, "plan" | "signer">, asked: LoginRequest): string {
  if (asked.origin !== plan.issuer) return `${LOGIN}?request=${encodeURIComponent(seal({ signer }, asked))}`;
  return `${loginLocation(asked.origin, asked.returnTo)}${asked.choose ? "&choose=1" : ""}`;
}

function targetOf({ kind, origin, returnTo, browser }: LoginRequest): SessionTarget {
  return { kind, origin, returnTo, browser };
}

function seal({ signer }: Pick<FlowContext, "signer">, asked: LoginRequest): string {
  const text = Buffer.from(JSON.stringify(asked)).toString("base64url");
  return `${text}.${signer.sign(["login request", text])}`;
}

function unseal({ signer, plan, now }: FlowContext, sealed: string): LoginRequest | null {
  const [text = "", signature = ""] = sealed.split(".", 2);
  if (!signer.verify(signature, ["login request", text])) return null;
  const asked = tryParseJson(Buffer.from(text, "base64url").toString("utf8")) as LoginRequest | null;
  return asked !== null && asked.untilMs > now() && plan.sessionOrigins.has(asked.origin) ? asked : null;
}

function noCookiesPage(request: EndpointRequest): EndpointAnswer {
  return errorPage({
    status: 400,
    title: "Cookies are needed",
    message: `Your browser keeps no cookie of ${hostOf(request.origin)}, and nobody can stay logged in without one. Allow cookies for this site, then open the page again.`,
    host: hostOf(request.origin),
    requestId: request.requestId,
  });
}

function startPage(request: EndpointRequest, title: string, message: string): EndpointAnswer {
  return errorPage({
    status: 400,
    title,
    message,
    host: hostOf(request.origin),
    requestId: request.requestId,
  });
}

/** Of the gateway itself, in place of a page of the route. */
export function notAdmittedPage(origin: string, { name, source }: Identity, requestId: string): EndpointAnswer {
  const host = hostOf(origin);
  return errorPage({
    status: 403,
    title: "This account is not admitted",
    message: `You are logged in as ${name} (${source}). The operator of ${host} has not admitted this account here.`,
    advice: "Sign out to log in as somebody else, or ask the operator to admit you.",
    host,
    requestId,
    link: { href: LOGOUT, text: "Sign out" },
  });
}
