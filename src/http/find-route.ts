// Finds the route, and says what is wrong when there is none.
import { withSlashes } from "../plan/match-path.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { LiveRoute } from "./state.ts";

/** @throws {RequestError} 404, 405 with Allow when only the method differs, 400 when an escaped slash would lead to another route */
export function findRoute(x: Exchange): LiveRoute {
  const { routes } = x.state;
  const route = find(x, x.path);
  // An upstream that decodes %2F sees another path: both readings must lead to the same route, or one would be a way round its auth.
  if (x.path.includes("%2F")) {
    const decoded = withSlashes(x.path);
    if (decoded === null || find(x, decoded) !== route) throw new RequestError(400, "ERR_BAD_REQUEST", "Path is ambiguous: it has an escaped slash");
  }
  if (route !== null) {
    x.setRoute(route);
    return route;
  }
  const methods = routes.methodsFor(x.host, x.path, x);
  if (methods.size === 0) throw new RequestError(404, "ERR_NO_ROUTE", "Nothing is served here");
  throw new RequestError(405, "ERR_METHOD", `Method ${x.method} is not served here`, { headers: ["Allow", [...methods].join(", ")] });
}

/** A preflight belongs to the route of the request that it announces, if that route answers preflights; else it is a request like others. */
function find(x: Exchange, path: string): LiveRoute | null {
  const { routes } = x.state;
  const announced = preflightMethod(x);
  const route = announced === null ? null : routes.find(x.host, path, announced, x);
  return route !== null && route.plan.cors !== null ? route : routes.find(x.host, path, x.method, x);
}

/** The method that a CORS preflight asks for; null when the request is no preflight. */
function preflightMethod(x: Exchange): string | null {
  return x.method === "OPTIONS" && x.origin !== null ? x.header("access-control-request-method") : null;
}
