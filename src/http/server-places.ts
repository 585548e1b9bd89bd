// Where authorization servers are reached: by which host names, and under which public origins.
import type { AuthorizationServer } from "../authorization-server/endpoint.ts";
import { GatewayError } from "../lib/errors.ts";
import type { AuthorizationServerPlan } from "../plan/auth-model.ts";

/** A server, and the public origin under which it is reached by a host name. */
export type ServerPlace = { readonly server: AuthorizationServer; readonly origin: string };

/** By host name, lower case. `anyHost`: behind trusted proxies that write a Host of their own, where there is but one server. */
export type ServerPlaces = { readonly byHost: ReadonlyMap<string, ServerPlace>; readonly anyHost: ServerPlace | null };

/** Where the servers are reached: at their own hosts, and at those of pages that their sessions are for. */
export function compileServers(plans: readonly AuthorizationServerPlan[], servers: ReadonlyMap<string, AuthorizationServer>): ServerPlaces | null {
  const byHost = new Map<string, ServerPlace>();
  for (const { issuer, sessionOrigins } of plans) {
    const server = servers.get(issuer);
    if (server === undefined) throw new GatewayError("ERR_INTERNAL", `No authorization server was opened for '${issuer}'`);
    // The server's own endpoints are more than those of sessions.
    for (const origin of [...sessionOrigins, issuer]) byHost.set(new URL(origin).hostname.toLowerCase(), { server, origin });
  }
  if (byHost.size === 0) return null;
  const [only] = plans;
  const place = plans.length === 1 && only?.anyHost === true ? byHost.get(only.host) : undefined;
  return { byHost, anyHost: place ?? null };
}
