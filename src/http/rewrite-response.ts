// Makes the head of the response that goes to the client out of the upstream's.
import { setsOwnCookie } from "../lib/cookies.ts";
import { addAnswerHeaders } from "./answer-headers.ts";
import { addCors } from "./cors.ts";
import type { Exchange } from "./exchange.ts";
import { applyHeaderRules } from "./header-rules.ts";
import type { ForwardedRoute } from "./state.ts";

/** @param headers end-to-end headers, flat; may be changed */
export function rewriteResponse(x: Exchange, route: ForwardedRoute, headers: string[]): string[] {
  const { stripPrefix, cors } = route.plan;
  // Proxies before us would hold events back until a buffer is full.
  if (isEventStream(headers)) headers.push("X-Accel-Buffering", "no");
  dropOwnCookies(headers);
  if (x.byCookie) keepPrivate(headers);
  if (stripPrefix !== null) restorePrefix(x, headers, stripPrefix);
  let result = headers;
  if (cors !== null) result = addCors(result, x, cors);
  const { answerHeaders } = x.state;
  if (answerHeaders !== null) result = addAnswerHeaders(result, x.scheme, answerHeaders);
  // Last, because they are the operator's own words for this route.
  if (route.responseRules !== null) result = applyHeaderRules(result, route.responseRules);
  return result;
}

/** @param headers flat, of a response */
export function isEventStream(headers: readonly string[]): boolean {
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? "";
    if (name.length === 12 && name.toLowerCase() === "content-type") return /^text\/event-stream\b/i.test(headers[i + 1] ?? "");
  }
  return false;
}

/** Cookies of the gateway's own names come from nobody else. @param headers flat; changed */
export function dropOwnCookies(headers: string[]): void {
  for (let i = headers.length - 2; i >= 0; i -= 2) {
    const name = headers[i] ?? "";
    if (name.length === 10 && name.toLowerCase() === "set-cookie" && setsOwnCookie(headers[i + 1] ?? "")) headers.splice(i, 2);
  }
}

// What allows a shared cache to keep a response (RFC 9111, 5.2.2).
const SHARED = /^(?:public|s-maxage|proxy-revalidate)(?:\s*=|$)/i;

/** Of what one person may see, no cache on the way keeps a copy for all: many keep whatever does not forbid it. */
function keepPrivate(headers: string[]): void {
  const directives: string[] = [];
  for (let i = headers.length - 2; i >= 0; i -= 2) {
    const name = headers[i]?.toLowerCase();
    if (name !== "cache-control" && name !== "cdn-cache-control" && name !== "surrogate-control") continue;
    if (name === "cache-control") directives.unshift(...(headers[i + 1] ?? "").split(",").map((directive) => directive.trim()));
    headers.splice(i, 2);
  }
  const kept = directives.filter((directive) => directive !== "" && !SHARED.test(directive) && !/^private(?:\s*=|$)/i.test(directive));
  headers.push("Cache-Control", kept.some((directive) => /^no-store$/i.test(directive)) ? kept.join(", ") : ["private", ...kept].join(", "));
}

/** A redirect of an upstream that does not know of the prefix leads to the prefix again. */
function restorePrefix(x: Exchange, headers: string[], prefix: string): void {
  const base = prefix.endsWith("/") ? prefix.slice(0, -1) : prefix;
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i]?.toLowerCase() !== "location") continue;
    const location = headers[i + 1] ?? "";
    const own = /^https?:\/\/([^/?#]*)(\/.*)?$/i.exec(location);
    if (location.startsWith("/") && !location.startsWith("//")) headers[i + 1] = base + location;
    else if (own?.[1]?.toLowerCase() === x.hostHeader.toLowerCase() && own[2] !== undefined)
      headers[i + 1] = `${location.slice(0, location.length - own[2].length)}${base}${own[2]}`;
  }
}
