// Checks `auth`: logins that nobody can use, issuers and clients that contradict one another or do nothing, and where the authorization server stands.
import { nearest } from "../lib/nearest.ts";
import { sameResourceKey } from "../lib/public-url.ts";
import { type WayPlace, areWaysSound, canActForItself, originOf, routeText, soundRoutes, soundWays, takesAssertions } from "./auth-ways.ts";
import type { CheckContext } from "./check-context.ts";
import { checkWays } from "./check-auth-ways.ts";
import { checkPeople } from "./check-people.ts";
import { checkServerAddress } from "./check-public-url.ts";
import { checkScopes, isReserved } from "./check-scopes.ts";
import { formatPath, type Path, quote } from "./problem.ts";
import { tailnetPort } from "./tailnet-listeners.ts";
import type { Client, Issuer, Listener, Token } from "./types.ts";

// The endpoints of an authorization server; /.sidegate/ holds its pages.
const ENDPOINTS = ["/authorize", "/token", "/register", "/revoke", "/introspect", "/callback", "/jwks", "/verify"];
const WELL_KNOWN = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/.well-known/oauth-protected-resource"];
const PAGES = "/.sidegate";
const ASSERTION_TYPE = "oauth-id-jag+jwt";
/** What an issuer has for its access tokens, and not for its identity assertions. */
const TOKEN_KEYS = ["introspection", "scopes_claim", "grants"] as const;

export function checkAuth(check: CheckContext): void {
  const ways = soundWays(check);
  const own = ways.filter(({ way }) => way.oauth !== undefined || way.session !== undefined);
  checkTokens(check, ways);
  checkLogin(check, own);
  checkIssuers(check, ways, own);
  checkClients(check, own);
  checkServer(check, own);
  checkAddresses(check, own);
  checkShadowed(check, own);
  checkWays(check, ways);
  checkScopes(check, ways);
}

/** What is said of OAuth at all does nothing where no route has it. */
function isForNothing(check: CheckContext, own: readonly WayPlace[]): boolean {
  return own.length === 0 && areWaysSound(check);
}

function checkTokens(check: CheckContext, ways: readonly WayPlace[]): void {
  const tokens: unknown = check.config.auth?.tokens;
  if (!Array.isArray(tokens) || tokens.length === 0 || !areWaysSound(check)) return;
  const users = ways.flatMap(({ way }) => way.token ?? []);
  if (users.length === 0) check.warn(["auth", "tokens"], "'tokens' does nothing: no route has 'token' in its 'auth'", "key");
  if (users.length === 0 || users.some(({ names }) => names === undefined)) return;
  const named = new Set(users.flatMap(({ names }) => names ?? []));
  // A name that no token has may be meant for one of them.
  if (!named.isSubsetOf(new Set((tokens as (Token | null)[]).map((token) => token?.name)))) return;
  for (const [i, token] of (tokens as Token[]).entries()) {
    const path = ["auth", "tokens", i];
    if (check.isSound(path) && !named.has(token.name))
      check.warn(path, `Token ${quote(check.text([...path, "name"], token.name))} does nothing: no route has it in 'names' of a 'token'`, "key");
  }
}

function checkLogin(check: CheckContext, own: readonly WayPlace[]): void {
  const path = ["auth", "login"];
  if (!check.isSound(path)) return;
  const { github, oidc, password, tailnet } = check.config.auth.login;
  const isLogin = github !== undefined || oidc !== undefined || password !== undefined || tailnet;
  if (isLogin && isForNothing(check, own)) check.warn(path, "'login' does nothing: no route has 'oauth' or 'session' in its 'auth'", "key");
  if (oidc !== undefined && !oidc.scopes.includes("openid"))
    check.report([...path, "oidc", "scopes"], "'scopes' lacks openid, without which an OpenID provider does not say who logs in", "key");
  const listeners = check.entries<Listener>("listeners");
  if (tailnet && check.isSound(["listeners"]) && !listeners.some(([, listener]) => listener?.protocol === "http" && tailnetPort(listener) !== null))
    check.warn([...path, "tailnet"], "'tailnet: true' does nothing: no HTTP listener is on the tailnet, with 'listen: tailnet:PORT'", "key");
}

function checkIssuers(check: CheckContext, ways: readonly WayPlace[], own: readonly WayPlace[]): void {
  const issuers: unknown = check.config.auth?.issuers;
  if (typeof issuers !== "object" || issuers === null || Array.isArray(issuers)) return;
  const servers = new Set(serverOrigins(check, own));
  const named = new Set(ways.flatMap(({ way }) => [way.issuer?.name ?? [], way.oauth?.identity_assertions ?? []].flat()));
  // A name that no issuer has may be meant for this one.
  const isSure = areWaysSound(check) && named.isSubsetOf(new Set(Object.keys(issuers)));
  const seen = new Map<string, string>();
  for (const [name, issuer] of Object.entries(issuers as Record<string, Issuer>)) {
    const path = ["auth", "issuers", name];
    if (typeof issuer !== "object" || issuer === null) continue;
    if (check.isSound([...path, "issuer"])) {
      const first = seen.get(issuer.issuer);
      const shown = quote(check.text([...path, "issuer"], issuer.issuer));
      if (first === undefined) seen.set(issuer.issuer, name);
      else check.report([...path, "issuer"], `Issuer ${shown} is already that of '${first}'; one entry may have a list as 'audience'`);
      if (servers.has(issuer.issuer.replace(/\/$/, "")))
        check.report([...path, "issuer"], `Issuer ${shown} is this gateway itself: its own tokens are taken by 'oauth'`);
    }
    checkAudience(check, path, name, issuer, ways);
    const isForAssertionsAlone = isSure && named.has(name) && !ways.some(({ way }) => way.issuer?.name === name);
    for (const key of isForAssertionsAlone ? TOKEN_KEYS : [])
      if (check.isThere([...path, key]) && check.isWritten([...path, key]))
        check.warn([...path, key], `'${key}' does nothing: it is for access tokens of issuer ${quote(name)}, which no route takes by 'issuer'`, "key");
    for (const [at, type] of check.items([...path, "types"], issuer.types))
      if (type.toLowerCase().replace(/^application\//, "") === ASSERTION_TYPE)
        check.report(
          at,
          `Type ${quote(check.text(at, type))} is that of identity assertions, which open no route themselves: they are taken by 'identity_assertions' of 'oauth'`,
        );
    if (check.isSound([...path, "grants"]))
      for (const [i, grant] of (issuer.grants ?? []).entries()) checkPeople(check, [...path, "grants", i, "allow"], grant.allow, "issuer");
    if (isSure && check.isSound(path) && !named.has(name))
      check.warn(
        path,
        `Issuer ${quote(name)} does nothing: no route has it in its 'auth', as { issuer: { name: ${name} } } or in 'identity_assertions' of 'oauth'`,
        "key",
      );
  }
}

/** Access tokens that were meant for others open nothing; identity assertions are for our authorization server in any case. */
function checkAudience(check: CheckContext, path: Path, name: string, { audience }: Issuer, ways: readonly WayPlace[]): void {
  const user = ways.find(({ way }) => way.issuer?.name === name);
  if (audience !== undefined || user === undefined || !check.isThere(path)) return;
  check.report(
    path,
    `Missing key 'audience' in ${formatPath(path)}: ${routeText(user.routePath)} takes its tokens by 'issuer', and one that was meant for another service must open nothing; write the audience that its tokens have for this one, or a list of which one is enough`,
    "key",
  );
}

function checkClients(check: CheckContext, own: readonly WayPlace[]): void {
  const clients: unknown = check.config.auth?.clients;
  if (!Array.isArray(clients)) return;
  const isSure = areWaysSound(check);
  const oauth = own.flatMap(({ way }) => way.oauth ?? []);
  const offered = new Set(oauth.flatMap((way) => [...way.scopes, ...way.optional_scopes]));
  // A name that no client has may be meant for one of them.
  const named = new Set(oauth.flatMap((way) => way.allow?.clients ?? []));
  const isEachKnown = named.isSubsetOf(new Set((clients as (Client | null)[]).map((client) => client?.id)));
  const ids = new Map<string, number>();
  if (clients.length > 0 && isSure && oauth.length === 0) check.warn(["auth", "clients"], "'clients' does nothing: no route has 'oauth' in its 'auth'", "key");
  for (const [i, client] of (clients as Client[]).entries()) {
    const path = ["auth", "clients", i];
    if (typeof client !== "object" || client === null) continue;
    if (check.isSound([...path, "id"])) {
      const first = ids.get(client.id);
      if (first === undefined) ids.set(client.id, i);
      else check.report([...path, "id"], `Client ${quote(check.text([...path, "id"], client.id))} is already auth.clients[${first}]`);
    }
    if (!check.isSound(path)) continue;
    checkClient(check, path, client);
    for (const [at, scope] of check.items([...path, "scopes"], client.scopes)) {
      if (!isSure || oauth.length === 0 || offered.has(scope) || isReserved(scope)) continue;
      const meant = nearest(scope, offered);
      const remedy = meant === null ? "offer it in 'optional_scopes' of an 'oauth'" : `did you mean '${meant}'?`;
      check.report(at, `Scope ${quote(check.text(at, scope))} is offered by no route; ${remedy}`);
    }
    if (!isSure || oauth.length === 0 || !canActForItself(client) || named.has(client.id) || !isEachKnown) continue;
    if (client.scopes.length > 0) check.warn(path, `Client '${client.id}' gets no token for itself: no 'oauth' names it in 'clients' of its 'allow'`, "key");
    else if (client.redirect_uris.length === 0 && !own.some(takesAssertions))
      check.warn(
        path,
        `Client '${client.id}' gets no token: no 'oauth' names it in 'clients' of its 'allow', and it has no 'redirect_uris'; it can only ask about the tokens of others (introspection)`,
        "key",
      );
  }
}

function checkClient(check: CheckContext, path: Path, client: Client): void {
  const isSecret = client.secret !== undefined || client.secret_file !== undefined;
  if (!canActForItself(client) && client.redirect_uris.length === 0) {
    const remedy = "give 'secret_file' or 'jwks_file' to a machine, 'redirect_uris' to an application that people use";
    check.report(path, `Client '${client.id}' can do nothing; ${remedy}`, "key");
  } else if (!canActForItself(client) && client.scopes.length > 0) {
    check.report([...path, "scopes"], "'scopes' are what a client may get for itself, for which it needs 'secret_file' or 'jwks_file'", "key");
  } else if (isSecret && client.jwks_file !== undefined) {
    check.report([...path, "jwks_file"], "Both a secret and 'jwks_file' are given; a client shows who it is in one way, so keep one", "key");
  }
}

/** Origins of the servers as far as they are known: the one that all share, or one for each origin of routes. */
function serverOrigins(check: CheckContext, own: readonly WayPlace[]): string[] {
  const { server } = check.config.auth ?? {};
  if (server === undefined) return [...new Set(own.map((place) => originOf(check, place)).filter((origin) => origin !== null))];
  if (!check.isSound(["auth", "server"])) return [];
  const central = server.public_url ?? (server.host === undefined ? null : `https://${server.host.toLowerCase()}`);
  return central === null ? [] : [central];
}

function checkServer(check: CheckContext, own: readonly WayPlace[]): void {
  const path = ["auth", "server"];
  const { server } = check.config.auth ?? {};
  if (server === undefined || !check.isSound(path)) return;
  if (isForNothing(check, own)) check.warn(path, "'server' does nothing: no route has 'oauth' or 'session' in its 'auth'", "key");
  else checkServerAddress(check, path, server);
  if (server.host === undefined || server.public_url === undefined) return;
  const { hostname } = new URL(server.public_url);
  if (hostname.toLowerCase() !== server.host.toLowerCase()) {
    const shown = quote(check.text([...path, "public_url"], server.public_url));
    check.report([...path, "host"], `Host ${quote(check.text([...path, "host"], server.host))} contradicts 'public_url', which is ${shown}; keep one of them`);
  }
}

/** A request tells its host, not under which port a client knows it: there is one server for a host name. And one resource has one form of tokens. */
function checkAddresses(check: CheckContext, own: readonly WayPlace[]): void {
  const { server } = check.config.auth ?? {};
  const origins = new Map<string, { readonly origin: string; readonly owner: string }>();
  if (server !== undefined) for (const origin of serverOrigins(check, own)) origins.set(new URL(origin).hostname, { origin, owner: "auth.server" });
  const formats = new Map<string, { readonly format: string; readonly owner: string }>();
  for (const place of own) {
    const origin = originOf(check, place);
    if (origin === null) continue;
    const { route, routePath, way, path } = place;
    const owner = routeText(routePath);
    const at = [...routePath, route.public_url === undefined ? "host" : "public_url"];
    if (server === undefined || way.session !== undefined) {
      const { hostname } = new URL(origin);
      const other = origins.get(hostname);
      if (other === undefined) origins.set(hostname, { origin, owner });
      else if (other.origin !== origin)
        check.report(
          at,
          `Host '${hostname}' has two addresses, ${other.origin} by ${other.owner} and ${origin} by ${owner}, and clients must know it by one; let 'public_url' begin with the same in both`,
        );
    }
    const format = way.oauth?.access_token_format;
    if (format === undefined) continue;
    const key = sameResourceKey(route.public_url ?? `${origin}${route.path ?? route.path_prefix ?? ""}`);
    const first = formats.get(key);
    if (first === undefined) formats.set(key, { format, owner });
    else if (first.format !== format)
      check.report(
        [...path, "oauth", "access_token_format"],
        `${owner} has the same public URL as ${first.owner}, whose tokens are '${first.format}'; give both the same format`,
        "key",
      );
  }
}

/** Routes whose path belongs to the authorization server: they would never serve. */
function checkShadowed(check: CheckContext, own: readonly WayPlace[]): void {
  const hosts = new Set(serverOrigins(check, own).map((origin) => new URL(origin).hostname.toLowerCase()));
  const isAnyHost = hosts.size === 1 && own.some(({ route }) => route.host === undefined);
  for (const [routePath, route] of soundRoutes(check)) {
    if (!check.isSound([...routePath, "host"])) continue;
    if (!(route.host === undefined ? isAnyHost : hosts.has(route.host.toLowerCase()))) continue;
    for (const key of ["path", "path_prefix"] as const) {
      const at = [...routePath, key];
      const value = check.isSound(at) ? route[key] : undefined;
      if (value === undefined) continue;
      const isBelow = [PAGES, ...WELL_KNOWN].some((place) => value === place || value.startsWith(`${place}/`));
      if (isBelow || (key === "path" && ENDPOINTS.includes(value)))
        check.report(at, `Path ${quote(check.text(at, value))} belongs to the authorization server of this host, which comes before any route; take another`);
      else if (ENDPOINTS.includes(value))
        check.warn(at, `${quote(check.text(at, value))} itself belongs to the authorization server of this host; the route serves what is below it alone`);
    }
  }
}
