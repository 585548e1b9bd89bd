// Checks the address by which clients know a route beside its listeners and its path: they must be able to connect by it, and come to the route.
import { RE2JS } from "re2js";
import { isLoopbackHost, parseListenAddress } from "../lib/address.ts";
import { routePublicUrl } from "../lib/public-url.ts";
import { isAddressSound } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import { type Path, quote } from "./problem.ts";
import { modeOf, tlsOf } from "./tls-objects.ts";
import type { AuthServer, Listener, Route } from "./types.ts";

/** A route, or the authorization server that all share, which is on every listener. */
type Addressed = Partial<Route>;
type Serving = readonly [name: string, listener: Listener];

/** The HTTP listeners of a route; none where they are not sound. */
function servingOf(check: CheckContext, route: Addressed): Serving[] {
  if (!check.isSound(["listeners"]) || !check.isSound(["tls"])) return [];
  return check.entries<Listener>("listeners").filter(([name, { protocol }]) => protocol === "http" && (route.listeners?.includes(name) ?? true));
}

/** Whether proxies are trusted, or that cannot be told. */
export function hasProxies(check: CheckContext): boolean {
  const trusted: unknown = check.config.trusted_proxies;
  return !check.isSound(["trusted_proxies"]) || !Array.isArray(trusted) || trusted.length > 0;
}

function tcpPort(listener: Listener): number | null {
  const address = parseListenAddress(listener.listen);
  return address?.kind === "tcp" && address.port !== 0 ? address.port : null;
}

/** The port of a listener at which TLS ends. Null where something else may stand before it: a proxy, a mapping of ports, the tailnet. */
function edgePort(check: CheckContext, listener: Listener): number | null {
  const port = tcpPort(listener);
  const mode = modeOf(check, listener);
  const isEdge = mode === "application" || (mode === "auto" && !hasProxies(check));
  return isEdge && tlsOf(check, listener)?.acme?.https_port !== port ? port : null;
}

/** Without 'public_url' clients are told of the port 443. Behind a proxy, or a mapping of ports, it may be the right one. `path`: of the way in, or the server. */
export function checkDefaultPort(check: CheckContext, path: Path, route: Addressed): void {
  const url = routePublicUrl(route);
  const serving = servingOf(check, route);
  const ports = serving.map(([, listener]) => edgePort(check, listener) ?? 443);
  const [port] = ports;
  // Of a route that another proxy asks about it is that proxy's address.
  if (url === null || port === undefined || ports.includes(443) || route.upstream === "none") return;
  const right = withOrigin(url, "https:", port);
  const told = `${String(path.at(-1)) === "session" ? "Browsers" : "Clients"} are told of ${url}, and listener '${serving[0]?.[0]}' is on port ${port}`;
  check.warn(path, `${told}; write 'public_url: ${right}', or 'public_url: ${url}' if port 443 is mapped to port ${port}`, "key");
}

/** Judges where clients are told that the authorization server is. */
export function checkServerAddress(check: CheckContext, path: Path, { host, public_url: url }: AuthServer): void {
  if (url !== undefined) checkOrigin(check, [...path, "public_url"], {}, url);
  else if (host !== undefined) checkDefaultPort(check, [...path, "host"], { host });
}

/** Judges the 'public_url' of a route. */
export function checkPublicUrl(check: CheckContext, routePath: Path, route: Route): void {
  const { public_url: url } = route;
  if (url === undefined || route.upstream === "none" || !isAddressSound(check, routePath)) return;
  checkOrigin(check, [...routePath, "public_url"], route, url);
  if (check.isSound([...routePath, "auth"])) checkPath(check, [...routePath, "public_url"], route, url);
}

/** Scheme and port. A proxy may have other ones. */
function checkOrigin(check: CheckContext, path: Path, route: Addressed, url: string): void {
  const { protocol, hostname, port: written } = new URL(url);
  const asked = written === "" ? (protocol === "http:" ? 80 : 443) : Number(written);
  const serving = servingOf(check, route);
  const there = serving.filter(([, listener]) => tcpPort(listener) === asked);
  const meant = there.length > 0 ? there : serving;
  const [first] = meant;
  if (first === undefined) return;
  const isTlsAlone = meant.every(([, listener]) => modeOf(check, listener) === "application");
  if (protocol === "http:" && isTlsAlone && (there.length > 0 || !hasProxies(check))) {
    const who = `listener '${first[0]}' takes TLS alone`;
    const remedy = `write ${withOrigin(url, "https:", tcpPort(first[1]) ?? asked)}`;
    check.warn(path, `Clients would speak plain HTTP to ${shown(check, path, url)}, and ${who}: they could not connect; ${remedy}`);
    return;
  }
  if (there.length > 0 || hasProxies(check)) return;
  const isHere = isLoopbackHost(hostname);
  // Port 443 of a name may be mapped to any, which is what the address without a port says.
  if (!isHere && asked === 443) return;
  const ports = serving.map(([, listener]) => (isHere ? tcpPort(listener) : edgePort(check, listener)));
  const [port] = ports;
  if (port === undefined || port === null || ports.includes(null)) return;
  const where = ports.length === 1 ? `listener '${first[0]}' is on port ${port}` : `the listeners are on ports ${ports.join(", ")}`;
  const remedy = `write ${withOrigin(url, protocol, port)}, unless port ${asked} is mapped to ${ports.length === 1 ? "it" : "one of them"}`;
  check.warn(path, `Clients are told of ${shown(check, path, url)}, and ${where}: they could not connect; ${remedy}`);
}

/** A proxy may change paths. Of the pages of a session the origin alone is an address, too. */
function checkPath(check: CheckContext, path: Path, route: Route, url: string): void {
  const ways = Array.isArray(route.auth) ? route.auth : [];
  const isResource = ways.some((way) => way.oauth !== undefined || way.issuer !== undefined);
  const { origin, pathname, search } = new URL(url);
  if (hasProxies(check) || !(isResource || (pathname !== "/" && ways.some((way) => way.session !== undefined)))) return;
  const asked = plainPath(pathname);
  // A slash at the end of 'path_prefix' was told of already.
  const own = plainPath(route.path ?? route.path_prefix?.replace(/(?<=.)\/+$/, "") ?? "/");
  const isTaken =
    route.path_regex !== undefined
      ? RE2JS.compile(route.path_regex).matcher(pathname).find()
      : route.path !== undefined
        ? asked === own
        : own === "/" || asked === own || asked.startsWith(`${own}/`);
  if (isTaken) return;
  const key = route.path_regex !== undefined ? "path_regex" : route.path !== undefined ? "path" : "path_prefix";
  const taken = quote(check.text([...path.slice(0, -1), key], route[key] ?? ""));
  const what = key === "path" ? `${taken} alone` : key === "path_prefix" ? `${taken} and what is below it` : `what matches ${taken}`;
  const remedy = key === "path_regex" ? "write an address that the route has" : `write ${origin}${new URL(route[key] ?? "", origin).pathname}${search}`;
  check.warn(
    path,
    `${isResource ? "Clients" : "Browsers"} ask for path ${quote(asked)} by ${shown(check, path, url)}, and the route takes ${what}, so that none comes to it; ${remedy}`,
  );
}

function shown(check: CheckContext, path: Path, url: string): string {
  return quote(check.text(path, url));
}

/** A path as both spellings of it have it. */
function plainPath(path: string): string {
  try {
    return decodeURIComponent(path);
  } catch {
    return path;
  }
}

/** The URL with another scheme and port, in its normal form. */
function withOrigin(url: string, protocol: string, port: number): string {
  const { hostname, pathname, search } = new URL(url);
  const { origin } = new URL(`${protocol}//${hostname}:${port}`);
  return `${origin}${pathname === "/" && !url.endsWith("/") ? "" : pathname}${search}`;
}
