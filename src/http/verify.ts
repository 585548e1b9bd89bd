// /verify: another proxy asks whether a request of its client may go on (forward auth), and is answered as that request would be.
import type { Permit } from "../identity/authorize.ts";
import { cookiesOf, withoutOwnCookies } from "../lib/cookies.ts";
import { answer } from "./answer.ts";
import type { Asker, Exchange } from "./exchange.ts";
import { findRoute } from "./find-route.ts";
import { parseHost, parseTarget } from "./read-head.ts";
import { RequestError } from "./request-error.ts";
import { identityHeaders } from "./rewrite-request.ts";
import type { LiveRoute } from "./state.ts";

const PATH = "/verify";

type Described = { readonly method: string; readonly scheme: string; readonly host: string; readonly target: string };

const WORDS = ["x-original-url", "x-original-method", "x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri"] as const;
type Word = (typeof WORDS)[number];
// Proxies write the others with every request that they forward.
const TELLING: readonly Word[] = ["x-original-url", "x-original-method", "x-forwarded-method", "x-forwarded-uri"];

/**
 * Puts the request that a trusted proxy describes in the place of the one that asks, with `x.asker` set; everything after it decides about that one. Does
 * nothing for other requests: /verify is a path like others to clients, though not beside the endpoints of an authorization server.
 * @throws {RequestError} 400 for half a description, 403 for one that has not one meaning
 */
export function readQuestion(x: Exchange): void {
  if (x.path !== PATH) return;
  const words = x.trusted ? wordsOf(x) : null;
  if (words === null || !TELLING.some((word) => words.has(word))) {
    const place = x.state.servers?.byHost.get(x.host);
    if (place !== undefined && place.origin === place.server.issuer) throw new RequestError(403, "ERR_VERIFY", "Only trusted proxies may ask here");
    return;
  }
  if (x.method !== "GET" && x.method !== "HEAD") throw refusal("The question itself must be a GET request");
  const original = words.has("x-original-url") || words.has("x-original-method") ? readOriginal(words) : null;
  const forwarded = words.has("x-forwarded-uri") || words.has("x-forwarded-method") ? readForwarded(words) : null;
  // A proxy that writes one form passes the other on as its client wrote it: what they do not agree upon is nobody's request.
  if (original !== null && forwarded !== null && !isSame(original, forwarded)) throw refusal("The headers describe two different requests");
  const described = original ?? forwarded;
  if (described !== null) replace(x, described, original === null ? "forwarded" : "original");
}

function wordsOf(x: Exchange): Map<Word, string> {
  const words = new Map<Word, string>();
  for (let i = 0; i + 1 < x.raw.length; i += 2) {
    const name = (x.raw[i] ?? "").toLowerCase();
    const word = WORDS.find((known) => known === name);
    if (word === undefined) continue;
    // One of two may be the client's own. Those that proxies write with every request may be lists, which no question has.
    if (words.has(word) && TELLING.includes(word)) throw refusal(`Header '${word}' stands there twice`);
    const value = x.raw[i + 1] ?? "";
    words.set(word, words.has(word) ? `${words.get(word)},${value}` : value);
  }
  return words;
}

function readOriginal(words: ReadonlyMap<Word, string>): Described {
  const method = needed(words, "x-original-method");
  const match = /^(https?|wss?):\/\/([^/?#]+)(\/.*)$/i.exec(needed(words, "x-original-url"));
  if (match === null) throw refusal("X-Original-URL is no http or https URL with a path");
  return { method, scheme: schemeOf(match[1] ?? ""), host: match[2] ?? "", target: match[3] ?? "" };
}

function readForwarded(words: ReadonlyMap<Word, string>): Described {
  return {
    method: needed(words, "x-forwarded-method"),
    scheme: schemeOf(needed(words, "x-forwarded-proto")),
    host: needed(words, "x-forwarded-host"),
    target: needed(words, "x-forwarded-uri"),
  };
}

function needed(words: ReadonlyMap<Word, string>, word: Word): string {
  const value = words.get(word);
  if (value !== undefined && value !== "") return value;
  const all = word.startsWith("x-original")
    ? "X-Original-URL and X-Original-Method"
    : "X-Forwarded-Method, X-Forwarded-Proto, X-Forwarded-Host and X-Forwarded-Uri";
  throw new RequestError(400, "ERR_VERIFY", "The request is not described in full", { detail: `Header '${word}' is missing: the proxy must send ${all}` });
}

function schemeOf(word: string): string {
  const scheme = word.toLowerCase();
  return scheme === "wss" ? "https" : scheme === "ws" ? "http" : scheme;
}

function isSame(a: Described, b: Described): boolean {
  return a.method === b.method && a.scheme === b.scheme && a.host.toLowerCase() === b.host.toLowerCase() && a.target === b.target;
}

function replace(x: Exchange, { method, scheme, host, target }: Described, asker: Asker): void {
  const name = parseHost(host);
  const parsed = target.startsWith("/") ? parseTarget(target) : null;
  if (scheme !== "http" && scheme !== "https") throw refusal("The scheme is neither http nor https, or is a list");
  if (!/^[A-Z][A-Z-]{0,31}$/.test(method) || method === "CONNECT" || method === "TRACE") throw refusal("The method is none that is served");
  if (name === null) throw refusal("The host is not a host name");
  if (parsed === null) throw refusal("The path or the query is ambiguous or has characters that are not allowed");
  x.asker = asker;
  x.method = method;
  x.scheme = scheme;
  x.hostHeader = host;
  x.host = name;
  x.forwardedHost = null;
  x.target = target;
  x.pathEnd = parsed.pathEnd;
  x.path = parsed.path;
  // Whose connection it is in the tailnet: the proxy's.
  x.identity = null;
}

function refusal(detail: string): RequestError {
  return new RequestError(403, "ERR_VERIFY", "The described request has not one meaning", { detail });
}

/** The route of the described request. @throws {RequestError} 403 when there is none, and for endpoints of ours: the proxy must bring those here itself */
export function findAskedRoute(x: Exchange): LiveRoute {
  const place = x.state.servers?.byHost.get(x.host);
  if (place?.server.serves(place.origin, x.path) === true)
    throw new RequestError(403, "ERR_VERIFY", "This is an endpoint of the gateway", {
      detail: `The proxy must forward '${x.path}' to the gateway instead of asking about it`,
    });
  try {
    return findRoute(x);
  } catch (error) {
    if (!(error instanceof RequestError)) throw error;
    throw new RequestError(403, error.code, error.message);
  }
}

/** Lets the request go on: 200 with who it is. */
export function answerPermitted(x: Exchange, permit: Permit | null): void {
  const headers = ["Content-Length", "0", "Cache-Control", "no-store", "X-Request-Id", x.requestId];
  // For the proxy to hand on in place of what came: the session is nobody's business behind it.
  const cookies = cookiesOf(x.raw);
  if (cookies !== "") headers.push("Cookie", withoutOwnCookies(cookies));
  answer(x, 200, permit === null || permit.identity === null ? headers : [...headers, ...identityHeaders(permit.identity)]);
}
