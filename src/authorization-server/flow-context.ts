// What the parts of the login flow share.
import type { Person } from "../identity/person.ts";
import { printable } from "../lib/printable.ts";
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Signer } from "./browser.ts";
import type { EndpointAnswer, EndpointRequest } from "./endpoint.ts";
import type { LoginStates } from "./flow-state.ts";
import { LoginError } from "./login-source.ts";
import type { LoginWays } from "./login-ways.ts";
import { errorPage } from "./pages.ts";
import type { PendingAuthorizations } from "./pending-authorization.ts";
import type { Sessions } from "./sessions.ts";

export type FlowContext = {
  readonly plan: AuthorizationServerPlan;
  readonly ways: LoginWays;
  readonly states: LoginStates;
  readonly sessions: Sessions;
  readonly signer: Signer;
  readonly pending: PendingAuthorizations;
  readonly log: Log;
  readonly now: () => number;
};

type Link = { readonly href: string; readonly text: string };

const STATUSES: Readonly<Record<LoginError["reason"], number>> = { unavailable: 503, refused: 403, misconfigured: 403, throttled: 429, failed: 400 };
const TITLES: Readonly<Record<LoginError["reason"], string>> = {
  unavailable: "The login is not available at the moment",
  refused: "You were not let in",
  misconfigured: "The login does not work",
  throttled: "Too many attempts",
  failed: "The login did not work",
};
const RETRY_AFTER_S = 30;

export function hostOf(origin: string): string {
  return new URL(origin).host;
}

export function statusOf({ reason }: LoginError): number {
  return STATUSES[reason];
}

/** Retry-After where waiting helps. */
export function retryHeaders({ reason, retryAfterS }: LoginError): string[] {
  const seconds = retryAfterS ?? (reason === "unavailable" || reason === "throttled" ? RETRY_AFTER_S : null);
  return seconds === null ? [] : ["Retry-After", String(seconds)];
}

/** The page for a login that did not work. @throws what is no LoginError */
export function failurePage(
  { log }: FlowContext,
  request: EndpointRequest,
  error: unknown,
  link: Link | null,
  headers: readonly string[] = [],
): EndpointAnswer {
  if (!(error instanceof LoginError)) throw error;
  logFailure(log, request, error);
  return errorPage({
    status: statusOf(error),
    title: TITLES[error.reason],
    message: sentence(error.message),
    host: hostOf(request.origin),
    requestId: request.requestId,
    link,
    headers: [...retryHeaders(error), ...headers],
  });
}

export function logFailure(log: Log, { requestId, client }: EndpointRequest, error: LoginError): void {
  const fields = { request_id: requestId, client, reason: error.reason, detail: printable(error.detail ?? error.message) };
  // An outage was told to the operator when it began: its line is for whoever asks about one request.
  if (error.outage === null) log.warn(fields, "A login did not work");
  else log.info(fields, "A login did not work");
}

export function sentence(text: string): string {
  return /[.!?]$/.test(text) ? text : `${text}.`;
}

/** The account in words: "octocat (GitHub)". */
export function accountOf({ ways }: FlowContext, person: Person): string {
  const name = printable(person.name, 100);
  const label = ways.external.find(({ kind }) => kind === person.source)?.label ?? (person.source === "tailnet" ? "tailnet" : null);
  return label === null ? name : `${name} (${label})`;
}

/** What is answered to a method that a page does not know; null when it does. */
export function wrongMethod(request: EndpointRequest, methods: readonly string[]): EndpointAnswer | null {
  if (methods.includes(request.method)) return null;
  return errorPage({
    status: 405,
    title: "This is not possible here",
    message: `Method ${printable(request.method, 20)} is not served at this address.`,
    host: hostOf(request.origin),
    requestId: request.requestId,
    headers: ["Allow", methods.join(", ")],
  });
}
