// Makes the request that goes to the upstream out of the one that came.
import { isIPv6 } from "node:net";
import { HEADER, headerName } from "../lib/header-name.ts";
import type { Permit } from "../identity/authorize.ts";
import type { Identity } from "../identity/identity.ts";
import { withoutOwnCookies } from "../lib/cookies.ts";
import { asciiName } from "../lib/printable.ts";
import type { HttpRequest } from "../upstreams/http-call.ts";
import { clientHost } from "./client-address.ts";
import type { Exchange } from "./exchange.ts";
import { applyHeaderRules } from "./header-rules.ts";
import type { ForwardedRoute } from "./state.ts";

/**
 * The headers pass in their order, but for those of one connection (RFC 9110, 7.6.1), the credentials that were for us, and what
 * only we may say: who the client is and where it came in. Via is not added (against RFC 9110, 7.6.3, as nginx, HAProxy and Envoy
 * do): servers switch compression off at its sight, and Forwarded tells the same.
 */
export function rewriteRequest(x: Exchange, route: ForwardedRoute, permit: Permit): HttpRequest {
  const { raw } = x;
  const { plan } = route.upstream.upstream;
  let headers: string[] = ["Host", x.hostHeader];
  let cookies = "";
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const name = raw[i] ?? "";
    const value = raw[i + 1] ?? "";
    const known = headerName(name);
    if (known === null) continue;
    switch (known.kind) {
      case HEADER.contentLength:
        headers.push(name, value);
        break;
      case HEADER.other:
      case HEADER.origin:
      case HEADER.accept:
      case HEADER.userAgent:
      case HEADER.trailer:
      case HEADER.date:
      case HEADER.location:
        if (x.connectionOptions === null || !x.connectionOptions.includes(known.lower)) headers.push(name, value);
        break;
      case HEADER.cookie:
        // HTTP/2 may split it into crumbs (RFC 9113, 8.2.3).
        cookies = cookies === "" ? value : `${cookies}; ${value}`;
        break;
      case HEADER.forwardedOther:
        if (x.trusted) headers.push(name, value);
        break;
      case HEADER.schemeWord:
        // A proxy that does not know it passes it on as the client sent it: it must not contradict X-Forwarded-Proto.
        if (x.trusted && x.scheme === "https") headers.push(name, value);
        break;
      default:
        break;
    }
  }
  // Ours are credentials for us, like Authorization.
  if (cookies !== "") cookies = withoutOwnCookies(cookies);
  if (cookies !== "") headers.push("Cookie", cookies);
  addForwarded(headers, x);
  if (plan.authorization !== null) headers.push("Authorization", plan.authorization);
  const { identity } = permit;
  if (route.plan.identityHeaders && identity !== null) headers.push(...identityHeaders(identity));
  if (route.requestRules !== null) headers = applyHeaderRules(headers, route.requestRules);
  return {
    method: x.method,
    path: route.plan.stripPrefix === null ? x.target : stripPrefix(x, route.plan.stripPrefix),
    headers,
    body: x.body,
    takesTrailers: x.takesTrailers,
    upgrade: x.upgrade,
  };
}

/** Who makes a request, flat. A token may be named like a certificate: the source keeps them apart. */
export function identityHeaders({ name, source, scopes, node, email, groups }: Identity): string[] {
  const headers = ["X-Forwarded-User", name, "X-Forwarded-User-Source", source, "X-Forwarded-Scopes", scopes.join(" ")];
  if (node !== undefined) headers.push("X-Forwarded-User-Node", node);
  if (email !== undefined) headers.push("X-Forwarded-Email", asciiName(email));
  // A comma in a name would make two groups of it.
  if (groups !== undefined && groups.length > 0) headers.push("X-Forwarded-Groups", groups.map((group) => asciiName(group).replaceAll(",", "\\2C")).join(","));
  return headers;
}

function addForwarded(headers: string[], x: Exchange): void {
  // Only hops that are known to be true: what a client wrote before them is cut off.
  let chain = x.client;
  if (x.proxies !== null) for (const proxy of x.proxies) chain += `, ${proxy}`;
  if (x.client !== x.peer && x.peer !== "") chain += `, ${x.peer}`;
  const host = clientHost(x);
  if (chain !== "") headers.push("X-Forwarded-For", chain, "X-Real-IP", x.client);
  headers.push("X-Forwarded-Proto", x.scheme);
  if (host !== "") headers.push("X-Forwarded-Host", host);
  let forwarded = `for=${node(x.client)}${host === "" ? "" : `;host="${host}"`};proto=${x.scheme}`;
  if (x.proxies !== null) for (const proxy of x.proxies) forwarded += `, for=${node(proxy)}`;
  if (x.client !== x.peer) forwarded += `, for=${node(x.peer)}`;
  headers.push("Forwarded", forwarded, "X-Request-Id", x.requestId);
}

/** RFC 7239, 6: IPv6 in brackets and quotes. */
function node(address: string): string {
  if (address === "") return "unknown";
  return address.includes(":") && isIPv6(address) ? `"[${address}]"` : address;
}

/** The target without the prefix, where it ends at a segment's end. Escapes in the path keep it from being cut at the wrong place. */
function stripPrefix(x: Exchange, prefix: string): string {
  const { target, pathEnd } = x;
  const path = target.slice(0, pathEnd);
  const from = prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
  // The route was matched in the normal form, in which the raw path may be spelled differently.
  const source = path.startsWith(from) ? path : x.path;
  if (!source.startsWith(from)) return target;
  const rest = source.slice(from.length);
  if (rest !== "" && !rest.startsWith("/")) return target;
  return `${rest === "" ? "/" : rest}${target.slice(pathEnd)}`;
}
