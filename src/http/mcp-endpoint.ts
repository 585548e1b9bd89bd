// Event streams that may begin with the endpoint event of the older transport: which they are, and what is done with it.
import { clientEndpoint, EndpointWatch, sessionIdsOf } from "../mcp/endpoint-event.ts";
import type { HttpRequest } from "../upstreams/http-call.ts";
import { headerValue } from "../lib/header-name.ts";
import type { Exchange } from "./exchange.ts";
import { isEventStream } from "./rewrite-response.ts";
import type { ForwardedRoute } from "./state.ts";

/**
 * Null for all but event streams in answer to GET on routes where something depends on the endpoint.
 * @param headers of the response; Content-Length goes, because the event may become longer
 */
export function watchEndpoint(
  x: Exchange,
  route: ForwardedRoute,
  request: HttpRequest,
  status: number,
  targetUrl: string,
  headers: string[],
): EndpointWatch | null {
  const { stripPrefix } = route.plan;
  const use = x.sessionUse;
  if (x.method !== "GET" || status !== 200 || (stripPrefix === null && use === null)) return null;
  const encoding = headerValue(headers, "content-encoding");
  if (!isEventStream(headers) || (encoding !== null && encoding.toLowerCase() !== "identity")) return null;
  for (let i = headers.length - 2; i >= 0; i -= 2) if (headers[i]?.toLowerCase() === "content-length") headers.splice(i, 2);
  const base = (stripPrefix ?? "").replace(/\/$/, "");
  const origins = [`http://${x.hostHeader}`, `https://${x.hostHeader}`, targetUrl].flatMap((url) => URL.parse(url)?.origin ?? []);
  return new EndpointWatch((uri) => {
    if (use !== null) for (const id of sessionIdsOf(uri)) x.state.live.sessions.bind(use.place, id, use.owner);
    return clientEndpoint(uri, { base, path: request.path, target: x.target, origins });
  });
}
