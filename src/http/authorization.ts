// The endpoints of authorization servers: which requests are theirs, and how their answers reach the client.
import type { EndpointAnswer } from "../authorization-server/endpoint.ts";
import { cookiesOf } from "../lib/cookies.ts";
import { HEADER, headerName } from "../lib/header-name.ts";
import { answer } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import { readBody } from "./read-body.ts";
import { rescue } from "./rescue.ts";
import type { ServerPlace } from "./server-places.ts";

// Requests to the token endpoint with a signed assertion and a long list of scopes are a few KiB.
const MAX_BODY_BYTES = 65_536;

/**
 * Null when the request is for no endpoint. A Host that is not the server's is believed from a trusted proxy alone: a page whose name its owner's DNS points at
 * us would have the server, with what it knows of its visitor's connection, as its own origin.
 */
export function findServer(x: Exchange): ServerPlace | null {
  const { servers } = x.state;
  if (servers === null) return null;
  const place = servers.byHost.get(x.host) ?? (x.trusted ? servers.anyHost : null);
  return place !== null && place.server.serves(place.origin, x.path) ? place : null;
}

/** Whatever happens, the exchange gets an answer or its end. */
export async function serveAuthorization(x: Exchange, { server, origin }: ServerPlace): Promise<void> {
  try {
    const body = await readBody(x, MAX_BODY_BYTES);
    if (body === null) return;
    const { method, target, path, client, requestId } = x;
    const given = await server.handle({ method, target, path, origin, headers: passable(x), body, client, peer: x.connection.tailnet, requestId });
    if (x.finished) return;
    answerEndpoint(x, given);
  } catch (error) {
    rescue(x, error);
  }
}

/** Gives the client what a server answered. */
export function answerEndpoint(x: Exchange, given: EndpointAnswer): void {
  if (given.refusal !== undefined) {
    x.cause = given.refusal.cause;
    x.claimedClient = given.refusal.clientId;
  }
  // Browsers that are led on reset a stream of which more is to come.
  const body = given.status >= 300 && given.status < 400 ? "" : given.body;
  const headers = [...answerable(given.headers), "X-Request-Id", x.requestId];
  // RFC 9110, 8.6.
  if (given.status !== 204 && given.status !== 304) headers.push("Content-Length", String(Buffer.byteLength(body)));
  answer(x, given.status, headers, body);
}

/** What may tell something of proxies, of the connection or of identities stays here: an endpoint believes what stands in the configuration. */
function passable(x: Exchange): string[] {
  const headers: string[] = [];
  for (let i = 0; i + 1 < x.raw.length; i += 2) {
    const name = headerName(x.raw[i] ?? "");
    if (name === null) continue;
    const { kind } = name;
    if (kind === HEADER.other || kind === HEADER.authorization || kind === HEADER.origin || kind === HEADER.accept || kind === HEADER.userAgent)
      headers.push(name.lower, x.raw[i + 1] ?? "");
  }
  const cookies = cookiesOf(x.raw);
  return cookies === "" ? headers : [...headers, "cookie", cookies];
}

/** Without what frames a message or belongs to a connection, which HTTP/2 would not take. */
function answerable(headers: readonly string[]): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const kind = headerName(headers[i] ?? "")?.kind;
    if (kind === HEADER.other || kind === HEADER.location || kind === HEADER.date || kind === HEADER.cookie) kept.push(headers[i] ?? "", headers[i + 1] ?? "");
  }
  return kept;
}
