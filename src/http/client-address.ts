// Who the client is: the peer, or whom trusted proxies say they speak for.
import { isIP } from "node:net";
import { parseHost } from "./read-head.ts";
import { plainIp } from "../lib/address.ts";
import { admitsPeer } from "../identity/tailnet.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import { challenge } from "./challenge.ts";
import { makeRequestId } from "./read-head.ts";
import { endWithAnswer } from "./cut.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { HttpState } from "./state.ts";

// More than these in a chain are no proxies of ours.
const MAX_HOPS = 32;
const SANE_REQUEST_ID = /^[A-Za-z0-9._:@=+/-]{8,128}$/;

/** Sets client, proxies, scheme and request id. From a peer that is not trusted, nothing that it says of others is believed. */
export function identifyClient(x: Exchange): void {
  x.trusted = isTrustedPeer(x.state, x.peer);
  if (!x.trusted || !SANE_REQUEST_ID.test(x.requestId)) x.requestId = makeRequestId();
  if (!x.trusted) return;
  followChain(x);
  x.scheme = forwardedScheme(x) ?? x.scheme;
  // The last one is what the nearest proxy says; those before it may be the client's own words.
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
    if (i < hops.length - 1) (proxies ??= []).unshift(x.client);
    x.client = address;
    if (!x.state.trustedProxies.has(address)) break;
  }
  x.proxies = proxies;
}

function walkForwarded(x: Exchange, value: string): void {
  const elements = splitOutsideQuotes(value, ",");
  walk(x, elements, (element) => parseHop(forwardedParameter(element, "for") ?? ""));
  x.forwardedHost = forwardedParameter(elements.at(-1) ?? "", "host") ?? x.forwardedHost;
}

/**
 * What the client used, as the proxy says; null when it says nothing. Every word of X-Forwarded-Proto and Forwarded must say https:
 * a proxy may have added its own word to the client's, or passed one of the two on as the client sent it.
 */
function forwardedScheme({ forwardedProto, forwarded, forwardedFor }: Exchange): "http" | "https" | null {
  const elements = forwarded === null ? [] : splitOutsideQuotes(forwarded, ",").map((element) => forwardedParameters(element, "proto"));
  // Of Forwarded, too, the nearest proxy's element counts, and only where nothing else tells of the client.
  if (forwardedProto === null && (forwardedFor !== null || (elements.at(-1) ?? []).length === 0)) return null;
  const words = [...(forwardedProto === null ? [] : forwardedProto.split(",")), ...elements.flat()];
  // Traefik calls the scheme of a WebSocket "wss".
  return words.every((word) => /^\s*(?:https|wss)\s*$/i.test(word)) ? "https" : "http";
}

function forwardedParameter(element: string, name: string): string | null {
  return forwardedParameters(element, name)[0] ?? null;
}

function forwardedParameters(element: string, name: string): string[] {
  const found: string[] = [];
  for (const pair of splitOutsideQuotes(element, ";")) {
    const equals = pair.indexOf("=");
    if (equals === -1 || pair.slice(0, equals).trim().toLowerCase() !== name) continue;
    const text = pair.slice(equals + 1).trim();
    found.push(text.startsWith('"') && text.endsWith('"') && text.length >= 2 ? text.slice(1, -1).replace(/\\(.)/g, "$1") : text);
  }
  return found;
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

/** The host that the client asked for, with its port; empty when it named none. */
export function clientHost(x: Exchange): string {
  return x.trusted && x.forwardedHost !== null ? x.forwardedHost : x.hostHeader;
}

/**
 * Whether the peer is believed about others. A peer on a unix socket has no address to be listed: it is the proxy where the listener
 * is said to be behind one, since only those reach the socket whom its file lets in, and is not anywhere else.
 */
function isTrustedPeer({ plan, trustedProxies }: HttpState, peer: string): boolean {
  return trustedProxies.has(peer) || (peer === "" && plan.listen.kind === "unix" && plan.tls.mode === "behind_proxy");
}

/** Whether the peer of a connection is admitted itself, or speaks for others who may be. @param tailnet who that is in the tailnet */
export function isAdmittedPeer(state: HttpState, peer: string, tailnet: TailnetPeer | null): boolean {
  const { plan } = state;
  if (!admitsPeer(plan, tailnet)) return false;
  if (isTrustedPeer(state, peer)) return true;
  return plan.tls.mode !== "behind_proxy" && plan.deny?.has(peer) !== true && plan.allow?.has(peer) !== false;
}

/** In mode behind_proxy nobody speaks to the listener but trusted proxies. @throws {RequestError} 403 */
export function admitPeer(x: Exchange): void {
  if (x.trusted || x.state.plan.tls.mode !== "behind_proxy") return;
  endWithAnswer(x);
  const detail = `${x.peer === "" ? "A peer without an address" : `'${x.peer}'`} is not in 'trusted_proxies'`;
  throw new RequestError(403, "ERR_NOT_PROXY", "Only trusted proxies are served here", { detail });
}

/** Whether the listener admits the connection's node of the tailnet, and the client's address; `deny` is stronger. @throws {RequestError} 403 */
export function admitAddress(x: Exchange): void {
  const { allow, deny, listen } = x.state.plan;
  const { tailnet } = x.connection;
  // Also where the connection is older than the reload that brought the listener to the tailnet.
  if (!admitsPeer(x.state.plan, tailnet)) {
    endWithAnswer(x);
    throw challenge({ denied: tailnet === null ? "not_on_tailnet" : "tailnet_not_admitted" }, null);
  }
  // A TCP client that reset its connection has no address any more, but its request may have come: it would be on no `deny` list.
  if (x.peer === "" && listen.kind !== "unix") throw new RequestError(403, "ERR_ADDRESS", "Your address is not known");
  if (deny?.has(x.client) !== true && allow?.has(x.client) !== false) return;
  // Strangers have few places, which a CA that looks for a challenge needs, too. A proxy speaks for others as well.
  if (!x.trusted) endWithAnswer(x);
  throw new RequestError(403, "ERR_ADDRESS", "Your address is not admitted");
}
