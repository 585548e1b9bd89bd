// What the credentials of a request prove on its route: a bearer token, or a browser's session where the route has a way in for it.
import { authenticate, type Authentication } from "../identity/authenticate.ts";
import { sessionCookieName } from "../authorization-server/endpoint.ts";
import { cookieValue } from "../lib/cookies.ts";
import type { Exchange } from "./exchange.ts";
import type { HttpState, LiveRoute } from "./state.ts";

const NONE: Authentication = { kind: "none" };
const RETRY_AFTER_S = 5;

/** At once unless somebody must be asked. Never rejects. @param state that of the request, or a later one when it is asked again */
export function identify(x: Exchange, route: LiveRoute, state: HttpState = x.state): Authentication | Promise<Authentication> {
  const { sessions } = route;
  if (x.authorization !== null || sessions === null) return authenticate(x.authorization, state.tokens, route.tokenSources);
  const cookie = cookieValue(x.raw, sessionCookieName(sessions.origin));
  if (cookie === null) return NONE;
  const found = sessions.server.findSession(cookie, sessions.origin);
  return found instanceof Promise ? found.then(sessionOrNone) : sessionOrNone(found);
}

/** Browsers keep cookies of sessions that are over: whoever comes with one has yet to log in, and has shown no wrong token. */
function sessionOrNone(found: Authentication): Authentication {
  return found.kind === "invalid" ? NONE : found;
}

/** What was asked for, or `unavailable` when there is no answer within the state's `identifyMs`. The wait ends with the client, too. */
export function inTime(x: Exchange, asked: Promise<Authentication>): Promise<Authentication> {
  const { promise, resolve, reject } = Promise.withResolvers<Authentication>();
  const timer = setTimeout(
    () => leave({ kind: "unavailable", message: "No answer about the credentials in time", retryAfterS: RETRY_AFTER_S }),
    x.state.identifyMs,
  );
  function leave(found: Authentication): void {
    clearTimeout(timer);
    if (x.onClose === waiting) x.onClose = null;
    resolve(found);
  }
  const waiting = { clientGone: () => leave(NONE) };
  x.onClose = waiting;
  asked.then(leave, (error: unknown) => {
    clearTimeout(timer);
    if (x.onClose === waiting) x.onClose = null;
    reject(error);
  });
  return promise;
}
