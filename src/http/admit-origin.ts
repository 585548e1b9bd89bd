// Whether the page that makes a browser call may do so: the guard against DNS rebinding and pages of strangers.
import type { Authentication } from "../identity/authenticate.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { LiveRoute } from "./state.ts";

/**
 * Programs that are no browsers send no Origin and pass. The Host is judged by `host`, or by the public URL where the route has none: a name that a
 * stranger's DNS lets point here is not ours. A trusted proxy may call us by any name.
 * @throws {RequestError} 403 for an origin that is not allowed, 421 for a host that is not ours
 */
export function admitOrigin(x: Exchange, { plan, publicHost }: LiveRoute): void {
  const { origins, host } = plan;
  if (origins === null) return;
  if (host === null && publicHost !== null && !x.trusted && publicHost !== x.host) throw new RequestError(421, "ERR_HOST", "This host is not served here");
  // A top-level navigation of a browser by GET has no Origin; "null" is that of sandboxed pages, redirects among origins and files.
  if (x.origin !== null && origins !== "*" && !origins.has(x.origin)) throw new RequestError(403, "ERR_ORIGIN", "Pages of this origin may not call here");
}

/**
 * A browser sends a session's cookie by itself, whoever made it send the request: what changes something must come from a page of ours, or of an origin that
 * is named; a `*` names nobody. Browsers say where from by Origin or by Sec-Fetch-Site; programs that are no browsers say neither.
 * @throws {RequestError} 403
 */
export function admitSessionUse(x: Exchange, { plan, publicOrigin }: LiveRoute, authentication: Authentication): void {
  if (authentication.kind !== "identity" || authentication.by !== "session") return;
  if (x.origin !== null) {
    if (plan.origins === "*" && publicOrigin !== x.origin) throw foreignPage();
    return;
  }
  if (x.method === "GET" || x.method === "HEAD" || x.method === "OPTIONS") return;
  const site = x.header("sec-fetch-site");
  if (site !== null && site !== "same-origin" && site !== "none") throw foreignPage();
}

function foreignPage(): RequestError {
  return new RequestError(403, "ERR_ORIGIN", "Pages of another site may not call here");
}
