// What the credentials of a request prove on its route: a bearer token, or a browser's session where the route has a way in for it.
import { authenticate, type Authentication } from "../identity/authenticate.ts";
import { sessionCookieName } from "../authorization-server/endpoint.ts";
import { cookieValue } from "../lib/cookies.ts";
import type { Exchange } from "./exchange.ts";
import type { LiveRoute } from "./state.ts";

/** At once unless somebody must be asked. Never rejects. */
export function identify(x: Exchange, route: LiveRoute): Authentication | Promise<Authentication> {
  const { sessions } = route;
  if (x.authorization !== null || sessions === null) return authenticate(x.authorization, x.state.tokens, route.tokenSources);
  const cookie = cookieValue(x.raw, sessionCookieName(sessions.origin));
  return cookie === null ? { kind: "none" } : sessions.server.findSession(cookie, sessions.origin);
}
