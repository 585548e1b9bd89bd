// Tokens in the address, which land in logs and histories: they prove nothing, and never go on (RFC 6750, 5.3).
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { LiveRoute } from "./state.ts";

/** Of routes whose tokens clients get by themselves. @throws {RequestError} 400 as for two ways at once (RFC 6750, 2 and 3.1) */
export function refuseTokenInQuery(x: Exchange, { plan }: LiveRoute): void {
  if (plan.resource === null || x.pathEnd === x.target.length) return;
  if (!new URLSearchParams(x.target.slice(x.pathEnd)).has("access_token")) return;
  throw new RequestError(400, "ERR_TOKEN_IN_QUERY", "A token in the query is not taken: send it in the Authorization header alone", {
    headers: ["WWW-Authenticate", 'Bearer error="invalid_request"'],
  });
}
