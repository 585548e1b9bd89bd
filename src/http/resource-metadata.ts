// The metadata of protected resources (RFC 9728): what clients learn of each route whose tokens they can get by themselves.
import type { ResourceMetadataPlan, RoutePlan } from "../plan/model.ts";
import type { Exchange } from "./exchange.ts";

const WELL_KNOWN = "/.well-known/oauth-protected-resource";

type Documents = ReadonlyMap<string, string>;
/** Documents by path behind the well-known part, with the query of the resource; "" is the root. By host name, and for routes of any host. */
export type ResourceMetadata = { readonly byHost: ReadonlyMap<string, Documents>; readonly anyHost: Documents };

/** Null when no route has metadata. @param routes of one listener */
export function compileResourceMetadata(routes: readonly RoutePlan[]): ResourceMetadata | null {
  const hosts = new Map<string, Map<string, ResourceMetadataPlan>>();
  for (const { host, resource } of routes) {
    if (resource === null) continue;
    const { hostname, pathname, search } = new URL(resource.url);
    const key = host === null ? "" : hostname.toLowerCase();
    let resources = hosts.get(key);
    if (resources === undefined) hosts.set(key, (resources = new Map()));
    const place = `${pathname.replace(/\/$/, "")}${search}`;
    resources.set(place, merge(resources.get(place), resource));
  }
  if (hosts.size === 0) return null;
  const byHost = new Map([...hosts].map(([host, resources]) => [host, documents(resources)]));
  const anyHost = byHost.get("") ?? new Map<string, string>();
  byHost.delete("");
  return { byHost, anyHost };
}

/** The document that is asked for as JSON text; undefined when the request is for none, null when there is none at that place. */
export function resourceMetadata(x: Exchange): string | null | undefined {
  const { resourceMetadata: known } = x.state;
  if (known === null || !x.path.startsWith(WELL_KNOWN)) return undefined;
  const rest = x.path.slice(WELL_KNOWN.length);
  if (rest !== "" && !rest.startsWith("/")) return undefined;
  const query = x.target.slice(x.pathEnd);
  const found = known.byHost.get(x.host) ?? known.anyHost;
  if (found.size === 0) return undefined;
  const place = rest.replace(/\/$/, "");
  return found.get(`${place}${query}`) ?? found.get(place) ?? null;
}

/** Routes with the same address are one resource. */
function merge(first: ResourceMetadataPlan | undefined, second: ResourceMetadataPlan): ResourceMetadataPlan {
  if (first === undefined) return second;
  const union = (a: readonly string[], b: readonly string[]): string[] => [...new Set([...a, ...b])];
  return {
    url: first.url,
    authorizationServers: union(first.authorizationServers, second.authorizationServers),
    scopes: union(first.scopes, second.scopes),
    baseScopes: union(first.baseScopes, second.baseScopes),
  };
}

function documents(resources: ReadonlyMap<string, ResourceMetadataPlan>): Map<string, string> {
  const texts = new Map([...resources].map(([place, resource]) => [place, document(resource)]));
  // At the root only when there is no doubt which one is meant.
  const [only] = texts.values();
  if (texts.size === 1 && only !== undefined) texts.set("", only);
  return texts;
}

function document({ url, authorizationServers, scopes }: ResourceMetadataPlan): string {
  return JSON.stringify({
    resource: url,
    authorization_servers: authorizationServers,
    bearer_methods_supported: ["header"],
    ...(scopes.length > 0 && { scopes_supported: scopes }),
  });
}
