// The ways in of all routes, each with its place, and what they say of scopes, servers and people that other checks need.
import { routePublicUrl } from "../lib/public-url.ts";
import type { CheckContext } from "./check-context.ts";
import type { Path } from "./problem.ts";
import type { AuthServer, AuthWay, Client, Route } from "./types.ts";

export type WayPlace = {
  /** Of the way: `routes[0].auth[1]`. */
  readonly path: Path;
  readonly way: AuthWay;
  readonly route: Route;
  readonly routePath: Path;
};

/** The ways that are sound. Nobody knows whether these are all: see `areWaysSound`. */
export function soundWays(check: CheckContext): WayPlace[] {
  return soundRoutes(check).flatMap(([routePath, route]) => {
    const ways: unknown = route.auth;
    if (!Array.isArray(ways)) return [];
    return (ways as AuthWay[]).flatMap((way, i): WayPlace[] => {
      const path = [...routePath, "auth", i];
      return check.isSound(path) ? [{ path, way, route, routePath }] : [];
    });
  });
}

export function areWaysSound(check: CheckContext): boolean {
  const routes: unknown = check.config.routes;
  return Array.isArray(routes) && check.isThere(["routes"]) && routes.every((_route, i) => check.isSound(["routes", i, "auth"]));
}

/** The routes that are objects; what is in them may be wrong. */
export function soundRoutes(check: CheckContext): [Path, Route][] {
  const routes: unknown = check.config.routes;
  if (!Array.isArray(routes)) return [];
  return (routes as unknown[]).flatMap((route, i): [Path, Route][] =>
    typeof route === "object" && route !== null && !Array.isArray(route) ? [[["routes", i], route as Route]] : [],
  );
}

/** Whether all that makes the public URL of a route is sound. */
export function isAddressSound(check: CheckContext, routePath: Path): boolean {
  return (["host", "path", "path_prefix", "path_regex", "public_url"] as const).every((key) => check.isSound([...routePath, key]));
}

/** The origin at which a route's pages or tokens are; null when there is none, or it cannot be told. */
export function originOf(check: CheckContext, { routePath, route }: WayPlace): string | null {
  const url = isAddressSound(check, routePath) ? routePublicUrl(route) : null;
  return url === null ? null : (URL.parse(url)?.origin ?? null);
}

/** Whether people come in by it whom an issuer vouches for. */
export function takesAssertions({ way: { oauth } }: Pick<WayPlace, "way">): boolean {
  return oauth !== undefined && oauth.identity_assertions.length > 0;
}

/** The scopes with all that they include. */
export function includedScopes(check: CheckContext, names: Iterable<string>): ReadonlySet<string> {
  const { scopes } = check.config.auth;
  const all = new Set<string>();
  const add = (name: string): void => {
    if (all.has(name)) return;
    all.add(name);
    if (check.isSound(["auth", "scopes"]) && Object.hasOwn(scopes, name)) for (const next of scopes[name]?.includes ?? []) add(next);
  };
  for (const name of names) add(name);
  return all;
}

/** `routes[2]` */
export function routeText(routePath: Path): string {
  return `routes[${routePath.at(-1)}]`;
}

/** Whether a client can show who it is without a person. */
export function canActForItself(client: Client): boolean {
  return client.secret !== undefined || client.secret_file !== undefined || client.jwks_file !== undefined;
}

/** The server that all share; null when there is none, it does nothing, or it is this machine over plain HTTP. */
export function sharedServer(check: CheckContext): AuthServer | null {
  const { server } = check.config.auth ?? {};
  if (server === undefined || !check.isSound(["auth", "server"]) || !soundWays(check).some(({ way }) => way.oauth !== undefined || way.session !== undefined))
    return null;
  return server.public_url?.startsWith("http:") === true ? null : server;
}
