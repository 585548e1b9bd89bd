// The metadata of protected resources (RFC 9728): what clients learn of each route whose tokens they can get by themselves.
import { sameResourceKey } from "../lib/public-url.ts";
import { matchPath } from "../plan/match-path.ts";
import type { ResourceMetadataPlan } from "../plan/auth-model.ts";
import type { RoutePlan } from "../plan/model.ts";

const WELL_KNOWN = "/.well-known/oauth-protected-resource";

type Documents = ReadonlyMap<string, string>;
/** Documents by path behind the well-known part, with the query of the resource; "" is the root. By host name, and for routes of any host. */
export type ResourceMetadata = { readonly byHost: ReadonlyMap<string, Documents>; readonly anyHost: Documents };

/** Null: two resources would stand at the place, and neither is meant. */
type Resources = Map<string, ResourceMetadataPlan | null>;

/** Null when no route has metadata. @param routes of one listener */
export function compileResourceMetadata(routes: readonly RoutePlan[]): ResourceMetadata | null {
  const hosts = new Map<string, Resources>();
  const anyHost: Resources = new Map();
  for (const { host, resource } of routes) {
    if (resource === null) continue;
    const { hostname, pathname, search } = new URL(resource.url);
    const name = hostname.toLowerCase();
    // Requests are matched in that form.
    const place = `${(matchPath(pathname) ?? pathname).replace(/\/$/, "")}${search}`;
    let own = hosts.get(name);
    if (own === undefined) hosts.set(name, (own = new Map()));
    own.set(place, merge(own.get(place), resource));
    // Proxies before us may write a Host of their own.
    if (host === null) anyHost.set(place, merge(anyHost.get(place), resource));
  }
  if (hosts.size === 0) return null;
  return { byHost: new Map([...hosts].map(([host, resources]) => [host, documents(resources)])), anyHost: documents(anyHost) };
}

type Asked = { readonly host: string; readonly path: string; readonly target: string; readonly pathEnd: number };

/** The document that is asked for as JSON text; undefined when the request is for none, null when there is none at that place. */
export function resourceMetadata(known: ResourceMetadata | null, x: Asked): string | null | undefined {
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
function merge(first: ResourceMetadataPlan | null | undefined, second: ResourceMetadataPlan): ResourceMetadataPlan | null {
  if (first === undefined) return second;
  if (first === null || sameResourceKey(first.url) !== sameResourceKey(second.url)) return null;
  const union = (a: readonly string[], b: readonly string[]): string[] => [...new Set([...a, ...b])];
  return {
    url: first.url,
    authorizationServers: union(first.authorizationServers, second.authorizationServers),
    scopes: union(first.scopes, second.scopes),
    baseScopes: union(first.baseScopes, second.baseScopes),
  };
}

function documents(resources: Resources): Map<string, string> {
  const texts = new Map([...resources].flatMap(([place, resource]) => (resource === null ? [] : [[place, document(resource)] as const])));
  // At the root only when there is no doubt which one is meant.
  const [only] = texts.values();
  if (resources.size === 1 && only !== undefined) texts.set("", only);
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
