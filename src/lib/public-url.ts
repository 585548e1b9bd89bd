// The addresses by which clients know us: what is written in tokens and metadata.

/** A URL as resources are compared: host in lower case, and the trailing slash taken off (RFC 8707 tells clients to do either). */
export function sameResourceKey(url: string): string {
  const parsed = URL.parse(url);
  if (parsed === null || parsed.hash !== "") return "";
  const path = parsed.pathname.replace(/\/$/, "");
  return `${parsed.origin}${path}${parsed.search}`;
}

/** Where the metadata of a resource or a server stands (RFC 9728, 3.1; RFC 8414, 3.1): the well-known part comes before its path and query. */
export function wellKnownUrl(url: string, name: string): string {
  const { origin, pathname, search } = new URL(url);
  return `${origin}/.well-known/${name}${pathname === "/" ? "" : pathname}${search}`;
}

/** The address at which clients reach a route: what it says itself, else https with its host and path. Null when neither can be one. */
export function routePublicUrl(route: {
  readonly public_url?: string | undefined;
  readonly host?: string | undefined;
  readonly path?: string | undefined;
  readonly path_prefix?: string | undefined;
}): string | null {
  if (route.public_url !== undefined) return route.public_url;
  if (route.host === undefined || route.host.startsWith("*.")) return null;
  const path = route.path ?? route.path_prefix ?? "/";
  const url = URL.parse(`https://${route.host.toLowerCase()}${path}`);
  return url === null ? null : url.pathname === "/" ? url.origin : url.href;
}
