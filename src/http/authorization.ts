// The endpoints of authorization servers: which requests are theirs, and how their answers reach the client.
import type { AuthorizationServer } from "../authorization-server/endpoint.ts";
import { HEADER, headerName } from "../lib/header-name.ts";
import { answer } from "./answer.ts";
import type { Exchange } from "./exchange.ts";
import { readBody } from "./read-body.ts";
import { rescue } from "./rescue.ts";

/** A server, and the public origin under which it is reached by a host name. */
export type ServerPlace = { readonly server: AuthorizationServer; readonly origin: string };

/** By host name, lower case. `anyHost`: for requests whose Host says nothing, where there is but one server. */
export type ServerPlaces = { readonly byHost: ReadonlyMap<string, ServerPlace>; readonly anyHost: ServerPlace | null };

// Requests to the token endpoint with a signed assertion and a long list of scopes are a few KiB.
const MAX_BODY_BYTES = 65_536;

/** Null when the request is for no endpoint. */
export function findServer(x: Exchange): ServerPlace | null {
  const { servers } = x.state;
  if (servers === null) return null;
  const place = servers.byHost.get(x.host) ?? servers.anyHost;
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
    const headers = [...given.headers, "Content-Length", String(Buffer.byteLength(given.body)), "X-Request-Id", requestId];
    answer(x, given.status, headers, given.body);
  } catch (error) {
    rescue(x, error);
  }
}

/** What may tell something of proxies, of the connection or of identities stays here: an endpoint believes what stands in the configuration. */
function passable(x: Exchange): string[] {
  const headers: string[] = [];
  for (let i = 0; i + 1 < x.raw.length; i += 2) {
    const name = headerName(x.raw[i] ?? "");
    if (name === null) continue;
    const { kind } = name;
    if (
      kind === HEADER.other ||
      kind === HEADER.authorization ||
      kind === HEADER.cookie ||
      kind === HEADER.origin ||
      kind === HEADER.accept ||
      kind === HEADER.userAgent
    )
      headers.push(name.lower, x.raw[i + 1] ?? "");
  }
  return headers;
}
