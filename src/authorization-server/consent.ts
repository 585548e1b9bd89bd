// Consent: the page before any login for a client, what its forms do, and how a login ends there. Only its POST sends anybody to an identity provider.
import { matchesPeople, unverifiedEmail, type Person } from "../identity/person.ts";
import { mayHave } from "../identity/scopes.ts";
import { isLoopbackHost } from "../lib/address.ts";
import { findBrowser, formToken, queryOf, readForm, type Browser } from "./browser.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";
import { accountOf, failurePage, hostOf, logFailure, retryHeaders, sentence, statusOf, wrongMethod, type FlowContext } from "./flow-context.ts";
import type { ConsentTarget } from "./flow-state.ts";
import { html } from "./html.ts";
import { LoginError } from "./login-source.ts";
import { offerOf, takeWay } from "./login-ways.ts";
import { clientLabel, consentPage, type ConsentPage } from "./page-consent.ts";
import { button, type Refused } from "./page-ways.ts";
import { errorPage, redirect } from "./pages.ts";
import type { PendingAuthorization } from "./pending-authorization.ts";
import { isEnough } from "./resources.ts";
import { userOf } from "./sessions.ts";

export const CONSENT = "/.sidegate/consent/";

const MAX_TOLD = 20;
const NOTICES: Readonly<Record<string, string>> = { cancelled: "The login was cancelled. Choose again, or cancel the whole request." };

/** Where the page stands that asks a person for consent. @param uid of the PendingAuthorization */
export function consentLocation(uid: string): string {
  return `${CONSENT}${encodeURIComponent(uid)}`;
}

/** Shows the page and takes its forms. */
export async function serveConsent(context: FlowContext, request: EndpointRequest): Promise<EndpointAnswer> {
  const wrong = wrongMethod(request, ["GET", "HEAD", "POST"]);
  if (wrong !== null) return wrong;
  const uid = uidOf(request.path);
  const pending = uid === null ? null : await context.pending.find(request, uid);
  if (pending === null) return overPage(request);
  const browser = findBrowser(request);
  if (request.method !== "POST") return showPage(context, request, browser, pending, { notice: NOTICES[queryOf(request).get("notice") ?? ""] ?? null });
  const form = readForm(request, browser, context.signer, ["consent", pending.uid]);
  if ("refused" in form) return formRefused(request, browser, form.refused, consentLocation(pending.uid));
  if (form.fields.get("way") === "cancel") return context.pending.deny(request, pending.uid, "access_denied", "The person did not consent");
  if (form.fields.get("way") === "leave") return context.pending.deny(request, pending.uid, "access_denied", "The account is not admitted");
  try {
    const taken = await takeWay(context.ways, form.fields, request);
    const target = targetOf(pending);
    if ("person" in taken) return await finishConsent(context, request, target, taken.person);
    return redirect(await context.states.start(taken.source, browser, target, request.client), browser.headers);
  } catch (error) {
    // A password may be typed again at once; all else is no matter of this page.
    if (!(error instanceof LoginError) || form.fields.get("way") !== "password")
      return failurePage(context, request, error, { href: consentLocation(pending.uid), text: "Try again" });
    // Wrong passwords are logged where they are counted.
    if (error.reason === "unavailable") logFailure(context.log, request, error);
    const refused = { message: sentence(error.message), name: form.fields.get("name") ?? "" };
    return showPage(context, request, browser, pending, {
      refused,
      status: error.reason === "refused" ? 401 : statusOf(error),
      headers: retryHeaders(error),
    });
  }
}

/** The person is known and has consented: a grant when the resource admits them, otherwise a page that says so. */
export async function finishConsent(context: FlowContext, request: EndpointRequest, target: ConsentTarget, person: Person): Promise<EndpointAnswer> {
  const { plan, log } = context;
  const resource = plan.resources.find(({ url }) => url === target.resource);
  if (resource === undefined) return overPage(request);
  const scopes = target.scopes.filter((scope) => mayHave(person, scope, plan.scopes));
  // Without a scope that the resource asks of everybody, the client would only be sent here again.
  const lacksScope =
    (isEnough(context.plan, resource, target.scopes) && !isEnough(context.plan, resource, scopes)) || (target.scopes.length > 0 && scopes.length === 0);
  const fields = { request_id: request.requestId, client: request.client, user: userOf(person), oauth_client: target.clientId, resource: resource.url };
  if (!resource.allow.some((allow) => matchesPeople(person, allow)) || lacksScope) {
    log.warn(
      { ...fields, ...toldOf(person) },
      lacksScope ? "A person who logged in may not have the scopes that are needed" : "A person who logged in is not admitted",
    );
    return notAdmittedPage(context, request, target, person);
  }
  log.info({ ...fields, scopes }, "A person has consented");
  return context.pending.approve(request, target.uid, person, scopes);
}

/** What a login that goes on elsewhere brings back with it. */
function targetOf(pending: PendingAuthorization): ConsentTarget {
  const { uid, clientId, redirectUri, resource, scopes } = pending;
  return { kind: "consent", uid, clientId, clientName: clientLabel(pending), redirectUri, resource: resource.url, scopes };
}

function showPage(
  context: FlowContext,
  request: EndpointRequest,
  browser: Browser,
  pending: PendingAuthorization,
  told: Partial<Pick<ConsentPage, "status" | "headers" | "notice">> & { readonly refused?: Refused },
): EndpointAnswer {
  const { plan, ways, signer } = context;
  return consentPage({
    host: hostOf(plan.issuer),
    pending,
    scopes: plan.scopes,
    offer: offerOf(ways, request.peer),
    form: { action: consentLocation(pending.uid), token: formToken(browser, signer, ["consent", pending.uid]) },
    leadsTo: [...providerSchemes(context), redirectScheme(pending.redirectUri)],
    notice: told.notice ?? null,
    refused: told.refused ?? null,
    status: told.status ?? 200,
    headers: [...(told.headers ?? []), ...browser.headers],
  });
}

/** By what an operator finds out what to write in 'allow'. */
export function toldOf(person: Person): Record<string, unknown> {
  const { subject, email, orgs, teams, groups } = person;
  const unverified = unverifiedEmail(person);
  return {
    subject,
    email,
    ...(unverified === null ? {} : { email_unverified: unverified }),
    orgs: orgs.slice(0, MAX_TOLD),
    teams: teams.slice(0, MAX_TOLD),
    groups: groups.slice(0, MAX_TOLD),
  };
}

function notAdmittedPage(context: FlowContext, request: EndpointRequest, target: ConsentTarget, person: Person): EndpointAnswer {
  const browser = findBrowser(request);
  const account = accountOf(context, person);
  const label = context.ways.external.find(({ kind }) => kind === person.source)?.label;
  const how =
    label === undefined ? "Log in as somebody else" : `To log in as somebody else, sign out of ${label} first, or use a private window, and begin again`;
  const form = { action: consentLocation(target.uid), token: formToken(browser, context.signer, ["consent", target.uid]) };
  return errorPage({
    status: 403,
    title: "This account is not admitted",
    message: `You logged in as ${account}. The operator of ${hostOf(target.resource)} has not admitted this account, so ${target.clientName} got no access.`,
    advice: `${how}, or ask the operator to admit you.`,
    host: hostOf(request.origin),
    requestId: request.requestId,
    link: { href: consentLocation(target.uid), text: "Log in as somebody else" },
    more: html`${button("leave", "Cancel and go back", "plain", form)}`,
    leadsTo: [redirectScheme(target.redirectUri)],
    headers: browser.headers,
  });
}

/** The page when nothing waits any more. */
function overPage(request: EndpointRequest): EndpointAnswer {
  return errorPage({
    status: 400,
    title: "This request is over",
    message: "It has taken too long, was answered already, or began in another browser. Go back to the application and connect again.",
    host: hostOf(request.origin),
    requestId: request.requestId,
  });
}

export function formRefused(request: EndpointRequest, browser: Browser, reason: string, again: string): EndpointAnswer {
  return errorPage({
    status: 403,
    title: "The form was not accepted",
    message: reason,
    host: hostOf(request.origin),
    requestId: request.requestId,
    link: { href: again, text: "Back to the page" },
    headers: browser.headers,
  });
}

/** What the forms that lead to a provider may go on to: it hands over to hosts of its own choice. */
export function providerSchemes({ ways, plan }: FlowContext): string[] {
  if (ways.external.length === 0) return [];
  const urls = [plan.login.github?.baseUrl, plan.login.oidc?.issuer].filter((url) => url !== undefined);
  // In the lab a provider may be without TLS, on this machine.
  return urls.some((url) => isLoopbackHost(new URL(url).hostname)) ? ["https:", "http:"] : ["https:"];
}

function redirectScheme(redirectUri: string): string {
  const protocol = URL.parse(redirectUri)?.protocol ?? "";
  // It was checked when the client came to be known; what is no scheme must not become a part of the policy.
  return /^[a-z][a-z0-9+.-]*:$/.test(protocol) && !["javascript:", "data:", "blob:", "file:", "about:"].includes(protocol) ? protocol : "https:";
}

function uidOf(path: string): string | null {
  const uid = path.slice(CONSENT.length);
  return /^[A-Za-z0-9_-]{1,128}$/.test(uid) ? uid : null;
}
