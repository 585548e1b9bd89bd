// Authorization servers, issuers and scopes of the plan.
import type * as Language from "../config/types.ts";
import { parseJwks } from "../lib/jwks.ts";
import { parsePasswordFile } from "../lib/password-file.ts";
import { routePublicUrl, sameResourceKey } from "../lib/public-url.ts";
import { claimPath, peopleMatch } from "./build-people.ts";
import type { AuthorizationServerPlan, ClientPlan, IssuerPlan, LoginPlan, OAuthResourcePlan, PeopleMatch, ScopePlan } from "./auth-model.ts";
import { planHash } from "./plan-hash.ts";
import { durationMs } from "./units.ts";

type Route = Language.Route;
type Files = ReadonlyMap<string, string>;

/** The scopes that are spoken of, each with all that it includes. */
export function buildScopes({ auth }: Language.Config): ReadonlyMap<string, ScopePlan> {
  const own = (name: string): readonly string[] => (Object.hasOwn(auth.scopes, name) ? (auth.scopes[name]?.includes ?? []) : []);
  const all = (name: string, found = new Set<string>()): Set<string> => {
    for (const next of own(name)) {
      if (found.has(next)) continue;
      found.add(next);
      all(next, found);
    }
    return found;
  };
  return new Map(
    Object.entries(auth.scopes).map(([name, scope]) => [
      name,
      { name, description: scope.description ?? null, includes: all(name), allow: scope.allow === undefined ? null : peopleMatch(scope.allow) },
    ]),
  );
}

export function buildIssuers({ auth }: Language.Config, files: Files): IssuerPlan[] {
  return Object.entries(auth.issuers).map(([name, issuer]) => {
    const { introspection } = issuer;
    const plan = {
      name,
      issuer: issuer.issuer,
      audiences: new Set([issuer.audience ?? []].flat()),
      jwksUrl: issuer.jwks_url ?? null,
      algorithms: issuer.algorithms,
      types: new Set(issuer.types.map((type) => type.toLowerCase().replace(/^application\//, ""))),
      clockToleranceMs: durationMs(issuer.clock_tolerance),
      userClaim: claimPath(issuer.user_claim),
      groupsClaim: claimPath(issuer.groups_claim),
      scopesClaim: issuer.scopes_claim === undefined ? null : claimPath(issuer.scopes_claim),
      grants: issuer.grants.map(({ scopes, allow }) => ({ scopes, allow: peopleMatch(allow) })),
      introspection:
        introspection === undefined
          ? null
          : {
              url: introspection.url ?? null,
              clientId: introspection.client_id,
              clientSecret: introspection.client_secret ?? null,
              cacheMs: durationMs(introspection.cache),
            },
      ca: textOf(files, issuer.ca_file),
    };
    return { ...plan, key: planHash(plan) };
  });
}

/** One server for each origin, or the one that `auth.server` names for all. Routes without a public URL were refused before. */
export function buildAuthorizationServers(config: Language.Config, files: Files): AuthorizationServerPlan[] {
  const { auth } = config;
  const central = serverUrl(auth.server);
  const users = config.routes.flatMap((route) => {
    const url = routePublicUrl(route);
    const ways = route.auth === "none" ? [] : route.auth;
    return url !== null && usesServer(route) ? [{ route, url, ways }] : [];
  });
  const login = buildLogin(auth.login, files);
  const clients = auth.clients.map((client) => buildClient(client, files));
  const scopes = buildScopes(config);
  return [...Map.groupBy(users, ({ url }) => central ?? new URL(url).origin)].map(([issuer, members]) => {
    const resources = Map.groupBy(
      members.filter(({ ways }) => ways.some(({ oauth }) => oauth !== undefined)),
      ({ url }) => sameResourceKey(url),
    );
    const sessions = members.filter(({ ways }) => ways.some(({ session }) => session !== undefined));
    const lifetimes = new Map<string, number>();
    for (const { url, ways } of sessions) {
      const { origin } = new URL(url);
      for (const { session } of ways)
        if (session !== undefined) lifetimes.set(origin, Math.min(lifetimes.get(origin) ?? Infinity, durationMs(session.lifetime)));
    }
    const isEverywhere = central !== null || members.some(({ route }) => route.listeners === undefined);
    const plan = {
      issuer,
      host: new URL(issuer).hostname.toLowerCase(),
      resources: [...resources.values()].map((sharing) => buildResource(sharing, auth.issuers)),
      sessionOrigins: new Set(sessions.map(({ url }) => new URL(url).origin)),
      sessionLifetimesMs: lifetimes,
      listeners: isEverywhere ? null : new Set(members.flatMap(({ route }) => route.listeners ?? [])),
      anyHost: members.some(({ route }) => route.host === undefined),
      login,
      clients,
      scopes,
    };
    return { ...plan, key: planHash(plan) };
  });
}

/** Whether a route needs an authorization server. */
export function usesServer({ auth }: Route): boolean {
  return auth !== "none" && auth.some(({ oauth, session }) => oauth !== undefined || session !== undefined);
}

export function serverUrl(server: Language.AuthServer | undefined): string | null {
  if (server === undefined) return null;
  return server.public_url ?? (server.host === undefined ? null : `https://${server.host.toLowerCase()}`);
}

function buildResource(
  members: readonly { readonly route: Route; readonly url: string; readonly ways: readonly Language.AuthWay[] }[],
  issuers: Language.Auth["issuers"],
): OAuthResourcePlan {
  const ways = members.flatMap((member) => member.ways.flatMap(({ oauth }) => oauth ?? []));
  const first = ways[0];
  if (first === undefined) throw new RangeError("Not a resource");
  const scopes = [...new Set(ways.flatMap((way) => way.scopes))];
  const shortest = (key: "access_token_lifetime" | "refresh_token_lifetime" | "login_lifetime"): number => Math.min(...ways.map((way) => durationMs(way[key])));
  return {
    url: members[0]?.url ?? "",
    routes: members.map(({ route, url }) => route.name ?? url),
    scopes,
    scopeSets: ways.map((way) => way.scopes),
    optionalScopes: [...new Set(ways.flatMap((way) => way.optional_scopes))].filter((scope) => !scopes.includes(scope)),
    allow: ways.map((way): PeopleMatch => peopleMatch(way.allow)),
    assertions: ways
      .filter((way) => way.identity_assertions.length > 0)
      .map((way) => ({ issuers: new Map(way.identity_assertions.map((name) => [name, issuers[name]?.issuer ?? ""])), allow: peopleMatch(way.allow) })),
    grants: new Set(ways.flatMap((way) => way.grants)),
    accessTokenMs: shortest("access_token_lifetime"),
    refreshTokenMs: shortest("refresh_token_lifetime"),
    loginLifetimeMs: shortest("login_lifetime"),
    accessTokenFormat: first.access_token_format,
  };
}

function buildLogin({ github, oidc, password, tailnet }: Language.Login, files: Files): LoginPlan {
  return {
    github:
      github === undefined
        ? null
        : {
            clientId: github.client_id,
            clientSecret: github.client_secret ?? "",
            baseUrl: withoutSlash(github.base_url),
            apiUrl: githubApi(github.base_url),
            ca: textOf(files, github.ca_file),
          },
    oidc:
      oidc === undefined
        ? null
        : {
            issuer: oidc.issuer,
            clientId: oidc.client_id,
            clientSecret: oidc.client_secret ?? null,
            name: oidc.name ?? new URL(oidc.issuer).host,
            scopes: oidc.scopes,
            groupsClaim: claimPath(oidc.groups_claim),
            ca: textOf(files, oidc.ca_file),
          },
    password: password === undefined ? null : parsePasswordFile(textOf(files, password.users_file) ?? "").users,
    tailnet,
  };
}

function buildClient(client: Language.Client, files: Files): ClientPlan {
  const jwks = textOf(files, client.jwks_file);
  return {
    id: client.id,
    name: client.name ?? client.id,
    secret: client.secret ?? null,
    jwks: jwks === null ? null : parseJwks(jwks),
    scopes: client.scopes,
    redirectUris: client.redirect_uris,
  };
}

/** Of github.com and of data residency (acme.ghe.com) it has a host of its own, of Enterprise Server a path. */
function githubApi(baseUrl: string): string {
  const { hostname } = new URL(baseUrl);
  return hostname === "github.com" || hostname.endsWith(".ghe.com") ? `https://api.${hostname}` : `${withoutSlash(baseUrl)}/api/v3`;
}

function withoutSlash(url: string): string {
  return url.replace(/\/+$/, "");
}

function textOf(files: Files, file: string | undefined): string | null {
  return file === undefined ? null : (files.get(file) ?? null);
}
