// Finds the route, and says what is wrong when there is none.
import { withSlashes } from "../plan/match-path.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { LiveRoute } from "./state.ts";

/** @throws {RequestError} 404, 405 with Allow when only the method differs, 400 when an escaped slash would lead to another route */
export function findRoute(x: Exchange): LiveRoute {
  const { routes } = x.state;
  // The method of a preflight is OPTIONS; the route is that of the request which it announces.
  const method = preflightMethod(x) ?? x.method;
  const route = routes.find(x.host, x.path, method, x);
  // An upstream that decodes %2F sees another path: both readings must lead to the same route, or one would be a way round its auth.
  if (x.path.includes("%2F")) {
    const decoded = withSlashes(x.path);
    if (decoded === null || routes.find(x.host, decoded, method, x) !== route) throw new RequestError(400, "ERR_BAD_REQUEST", "Path is ambiguous: it has an escaped slash");
  }
  if (route !== null) {
    x.setRoute(route);
    return route;
  }
  const methods = routes.methodsFor(x.host, x.path, x);
  if (methods.size === 0) throw new RequestError(404, "ERR_NO_ROUTE", "Nothing is served here");
  throw new RequestError(405, "ERR_METHOD", `Method ${x.method} is not served here`, { headers: ["Allow", [...methods].join(", ")] });
}

/** The method that a CORS preflight asks for; null when the request is no preflight. */
function preflightMethod(x: Exchange): string | null {
  return x.method === "OPTIONS" && x.origin !== null ? x.header("access-control-request-method") : null;
}
