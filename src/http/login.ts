// Sends browsers to the login: people's navigations alone, since no script, program or upgrade can do anything with a page.
import type { Denial } from "../identity/authorize.ts";
import type { Authentication } from "../identity/authenticate.ts";
import { answer } from "./answer.ts";
import { answerEndpoint } from "./authorization.ts";
import { describeNotAdmitted } from "./challenge.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { LiveRoute } from "./state.ts";

/**
 * Where the person behind the request can log in; null when there is none, or nothing that a login would change. Whole, since whoever passes it on may stand
 * elsewhere, and from the configuration alone.
 */
export function loginAddress(x: Exchange, { sessions }: LiveRoute, { denied }: Denial): string | null {
  if (denied !== "no_credentials" || sessions === null || !isNavigation(x)) return null;
  return new URL(sessions.server.loginLocation(sessions.origin, x.target), sessions.origin).href;
}

/** @throws {RequestError} 401 to nginx, which passes no redirect on: its configuration takes the address from Location */
export function leadToLogin(x: Exchange, location: string): void {
  if (x.asker === "original")
    throw new RequestError(401, "ERR_NO_CREDENTIALS", "A login is needed", { headers: ["WWW-Authenticate", "Cookie", "Location", location] });
  answer(x, 302, ["Location", location, "Content-Length", "0", "Cache-Control", "no-store", "X-Request-Id", x.requestId]);
}

/** Shows a page to a person who is logged in with a browser as somebody who is not admitted; false for all others, who get the plain answer. */
export function tellNotAdmitted(x: Exchange, { sessions }: LiveRoute, denial: Denial, authentication: Authentication): boolean {
  if (denial.denied !== "not_admitted" || sessions === null || authentication.kind !== "identity" || authentication.by !== "session" || !isNavigation(x))
    return false;
  x.cause = `ERR_NOT_ADMITTED: ${describeNotAdmitted(denial)}`;
  answerEndpoint(x, sessions.server.notAdmitted(sessions.origin, denial.identity, x.requestId));
  return true;
}

/** Browsers say so themselves (the Fetch standard's metadata headers); old ones ask for HTML. */
function isNavigation(x: Exchange): boolean {
  if ((x.method !== "GET" && x.method !== "HEAD") || x.upgradeSocket !== null) return false;
  const mode = x.header("sec-fetch-mode");
  if (mode !== null) return mode === "navigate";
  return x.header("accept")?.includes("text/html") === true && x.header("x-requested-with") === null && x.header("upgrade") === null;
}
