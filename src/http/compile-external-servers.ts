// On which hosts the metadata of an authorization server elsewhere is told.
import type { LiveIssuer } from "../identity/issuer.ts";
import type { RoutePlan } from "../plan/model.ts";

export type ExternalServer = Pick<LiveIssuer, "metadata">;
/** By host name, lower case; null where it is in doubt which one is meant. `anyHost`: for hosts that no route names. */
export type ExternalServers = { readonly byHost: ReadonlyMap<string, ExternalServer | null>; readonly anyHost: ExternalServer | null };

/** Null when no host has one. Only where there is no doubt: one issuer, and no server of our own. @param routes of one listener */
export function compileExternalServers(routes: readonly RoutePlan[], issuers: ReadonlyMap<string, ExternalServer>): ExternalServers | null {
  const described = routes.flatMap(({ host, resource, auth }) =>
    resource === null ? [] : [{ key: host === null ? "" : new URL(resource.url).hostname.toLowerCase(), resource, ways: auth ?? [] }],
  );
  const byHost = new Map<string, ExternalServer | null>();
  for (const [key, members] of Map.groupBy(described, (one) => one.key)) {
    const ways = members.flatMap((member) => member.ways);
    const servers = new Set(members.flatMap(({ resource }) => resource.authorizationServers));
    const names = ways.flatMap((way) => (way.kind === "issuer" ? way.issuer : []));
    const issuer = issuers.get(names[0] ?? "");
    byHost.set(key, issuer !== undefined && servers.size === 1 && !ways.some(({ kind }) => kind === "oauth") ? issuer : null);
  }
  const anyHost = byHost.get("") ?? null;
  byHost.delete("");
  return anyHost === null && [...byHost.values()].every((issuer) => issuer === null) ? null : { byHost, anyHost };
}
