// Who the client is: the peer, or whom trusted proxies say they speak for.
import { isIP } from "node:net";
import { parseHost } from "./read-head.ts";
import { plainIp } from "../lib/address.ts";
import { makeRequestId } from "./read-head.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { HttpState } from "./state.ts";

// More than these in a chain are no proxies of ours.
const MAX_HOPS = 32;
const SANE_REQUEST_ID = /^[A-Za-z0-9._:@=+/-]{8,128}$/;

/** Sets client, proxies, scheme and request id. From a peer that is not trusted, nothing that it says of others is believed. */
export function identifyClient(x: Exchange): void {
  x.trusted = x.state.trustedProxies.has(x.peer);
  if (!x.trusted || !SANE_REQUEST_ID.test(x.requestId)) x.requestId = makeRequestId();
  if (!x.trusted) return;
  followChain(x);
  // The last one is what the nearest proxy says; those before it may be the client's own words.
  const proto = lastMember(x.forwardedProto)?.toLowerCase();
  if (proto === "http" || proto === "https") x.scheme = proto;
  const host = lastMember(x.forwardedHost);
  x.forwardedHost = host !== null && parseHost(host) !== null ? host : null;
}

/**
 * X-Forwarded-For is looked at first, since nearly every proxy writes it; then Forwarded (RFC 7239), then X-Real-IP. Only one is
 * believed: a proxy that writes one of them passes the others on as the client sent them.
 */
function followChain(x: Exchange): void {
  if (x.forwardedFor !== null) walk(x, x.forwardedFor.split(","), parseHop);
  else if (x.forwarded !== null) walkForwarded(x, x.forwarded);
  else if (x.realIp !== null) walk(x, [x.realIp], parseHop);
}

/** From right to left, as long as the address that says the next one is trusted. */
function walk(x: Exchange, hops: readonly string[], parse: (hop: string) => string | null): void {
  let proxies: string[] | null = null;
  for (let i = hops.length - 1; i >= 0 && hops.length - i <= MAX_HOPS; i -= 1) {
    const address = parse(hops[i] ?? "");
    // "unknown" and obfuscated names (RFC 7239, 6.3) end what can be known: the proxy before them is the client then.
    if (address === null) break;
    if (x.client !== x.peer) (proxies ??= []).unshift(x.client);
    x.client = address;
    if (!x.state.trustedProxies.has(address)) break;
  }
  x.proxies = proxies;
}

function walkForwarded(x: Exchange, value: string): void {
  const elements = splitOutsideQuotes(value, ",");
  walk(x, elements, (element) => parseHop(forwardedParameter(element, "for") ?? ""));
  const last = elements[elements.length - 1] ?? "";
  x.forwardedProto ??= forwardedParameter(last, "proto");
  x.forwardedHost ??= forwardedParameter(last, "host");
}

function forwardedParameter(element: string, name: string): string | null {
  for (const pair of splitOutsideQuotes(element, ";")) {
    const equals = pair.indexOf("=");
    if (equals === -1 || pair.slice(0, equals).trim().toLowerCase() !== name) continue;
    const text = pair.slice(equals + 1).trim();
    return text.startsWith('"') && text.endsWith('"') && text.length >= 2 ? text.slice(1, -1).replace(/\\(.)/g, "$1") : text;
  }
  return null;
}

function splitOutsideQuotes(text: string, separator: string): string[] {
  const parts: string[] = [];
  let quoted = false;
  let start = 0;
  for (let i = 0; i < text.length; i += 1) {
    const character = text[i];
    if (quoted && character === "\\") i += 1;
    else if (character === '"') quoted = !quoted;
    else if (!quoted && character === separator) {
      parts.push(text.slice(start, i));
      start = i + 1;
    }
  }
  parts.push(text.slice(start));
  return parts;
}

/** `1.2.3.4`, `1.2.3.4:80`, `::1`, `[::1]` or `[::1]:80` as a plain address; null when it is none. */
function parseHop(text: string): string | null {
  const hop = text.trim();
  const bracketed = /^\[([^\]]+)\](?::\d{1,5})?$/.exec(hop)?.[1];
  const address = bracketed ?? /^([\d.]+):\d{1,5}$/.exec(hop)?.[1] ?? hop;
  return isIP(address) === 0 ? null : plainIp(address);
}

function lastMember(value: string | null): string | null {
  if (value === null) return null;
  const comma = value.lastIndexOf(",");
  return (comma === -1 ? value : value.slice(comma + 1)).trim();
}

/** Whether the peer of a connection is admitted itself, or speaks for others who may be. */
export function isAdmittedPeer({ plan, trustedProxies }: HttpState, peer: string): boolean {
  return trustedProxies.has(peer) || (plan.deny?.has(peer) !== true && plan.allow?.has(peer) !== false);
}

/** Whether the listener admits the client's address; `deny` is stronger. @throws {RequestError} 403 */
export function admitAddress(x: Exchange): void {
  const { allow, deny, listen } = x.state.plan;
  // A TCP client that reset its connection has no address any more, but its request may have come: it would be on no `deny` list.
  if (x.peer === "" && listen.kind === "tcp") throw new RequestError(403, "ERR_ADDRESS", "Your address is not known");
  if (deny?.has(x.client) === true || allow?.has(x.client) === false) throw new RequestError(403, "ERR_ADDRESS", "Your address is not admitted");
}
