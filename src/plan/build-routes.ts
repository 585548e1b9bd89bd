// Routes of the plan, in the order in which they are tried.
import type { AuthWay, Config, Cors, Route } from "../config/types.ts";
import { parseAltName } from "../lib/subject-names.ts";
import { routePublicUrl, sameResourceKey } from "../lib/public-url.ts";
import { serverUrl } from "./build-auth.ts";
import { peopleMatch } from "./build-people.ts";
import { tailnetMatch } from "./build-tailscale.ts";
import type { UpstreamPlans } from "./build-upstreams.ts";
import type { AuthWayPlan, ResourceMetadataPlan } from "./auth-model.ts";
import type { CorsPlan, HeaderRules, PathMatch, RoutePlan } from "./model.ts";
import { durationMs } from "./units.ts";

/** Higher priority first, then the more specific host, then the more specific path, then the order of the file. */
export function buildRoutes(config: Config, upstreams: UpstreamPlans): RoutePlan[] {
  const names = new Set(config.routes.flatMap((route) => route.name ?? []));
  const plans = config.routes.map((route, index): RoutePlan => {
    const host = route.host?.toLowerCase() ?? null;
    const path = pathMatch(route);
    const publicUrl = routePublicUrl(route);
    const ways = route.auth === "none" ? null : route.auth;
    const cors = route.cors === undefined ? null : corsPlan(route.cors);
    return {
      name: route.name ?? defaultName(host, path, names),
      index,
      listeners: route.listeners === undefined ? null : new Set(route.listeners),
      host,
      path,
      methods: route.methods === undefined ? null : new Set(route.methods),
      headers: Object.entries(route.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value] as const),
      priority: route.priority,
      upstream: route.upstream === "none" ? null : upstreams.addHttp(route.upstream),
      auth: ways?.map((way) => authWay(way, publicUrl)) ?? null,
      publicUrl,
      resource: publicUrl === null || ways === null ? null : resourceMetadata(config, publicUrl, ways),
      origins: isForPages(route) ? allowedOrigins(publicUrl, cors) : null,
      mcp: route.mcp === undefined ? null : { sessionBinding: route.mcp.session_binding },
      stripPrefix: route.strip_prefix === undefined || route.strip_prefix === "/" ? null : route.strip_prefix,
      requestHeaders: headerRules(route.set_headers, route.remove_headers),
      responseHeaders: headerRules(route.response_headers.set, route.response_headers.remove),
      identityHeaders: route.identity_headers,
      cors,
    };
  });
  return plans.toSorted((a, b) => b.priority - a.priority || hostRank(b.host) - hostRank(a.host) || comparePaths(a.path, b.path) || a.index - b.index);
}

function pathMatch(route: Route): PathMatch {
  if (route.path !== undefined) return { kind: "exact", path: route.path };
  if (route.path_prefix !== undefined) return { kind: "prefix", path: route.path_prefix };
  return route.path_regex === undefined ? { kind: "any" } : { kind: "regex", source: route.path_regex };
}

/** `mcp.example.com/mcp`, `*` + `/api/*`; a number is added to a name that is taken. */
function defaultName(host: string | null, path: PathMatch, taken: Set<string>): string {
  const pathName =
    path.kind === "any" ? "" : path.kind === "regex" ? `~${path.source}` : path.kind === "exact" ? path.path : `${path.path.replace(/\/$/, "")}/*`;
  const base = host === null && pathName !== "" ? pathName : `${host ?? "*"}${pathName}`;
  let name = base;
  for (let i = 2; taken.has(name); i += 1) name = `${base} #${i}`;
  taken.add(name);
  return name;
}

/** Exact hosts come first, then wildcards by their number of labels, then any host. */
function hostRank(host: string | null): number {
  if (host === null) return 0;
  return host.startsWith("*.") ? host.split(".").length : Infinity;
}

const PATH_RANKS = { exact: 3, prefix: 2, regex: 1, any: 0 } as const;

function comparePaths(a: PathMatch, b: PathMatch): number {
  const byKind = PATH_RANKS[b.kind] - PATH_RANKS[a.kind];
  if (byKind !== 0) return byKind;
  return "path" in a && "path" in b ? b.path.length - a.path.length : 0;
}

/** What clients that could get a token by themselves are told; null when no way takes one. */
function resourceMetadata({ auth }: Config, url: string, ways: readonly AuthWay[]): ResourceMetadataPlan | null {
  const own = ways.flatMap(({ oauth }) => oauth ?? []);
  const foreign = ways.flatMap(({ issuer }) => issuer ?? []);
  if (own.length + foreign.length === 0) return null;
  const servers = foreign.flatMap(({ name }) => (Object.hasOwn(auth.issuers, name) ? (auth.issuers[name]?.issuer ?? []) : []));
  const baseScopes = [...new Set((own.length > 0 ? own : foreign).flatMap(({ scopes }) => scopes))];
  return {
    url,
    authorizationServers: [...(own.length > 0 ? [serverUrl(auth.server) ?? new URL(url).origin] : []), ...new Set(servers)],
    scopes: [...new Set([...baseScopes, ...own.flatMap((way) => way.optional_scopes), ...foreign.flatMap(({ scopes }) => scopes)])],
    baseScopes,
  };
}

/** Whether a page of somebody else's could make a browser, or a program on this machine, act on the route. */
function isForPages({ auth, mcp }: Route): boolean {
  return mcp !== undefined || (auth !== "none" && auth.some(({ oauth, session }) => oauth !== undefined || session !== undefined));
}

function allowedOrigins(publicUrl: string | null, cors: CorsPlan | null): ReadonlySet<string> | "*" {
  if (cors?.origins === "*") return "*";
  return new Set([...(publicUrl === null ? [] : [new URL(publicUrl).origin]), ...(cors?.origins ?? [])]);
}

function authWay({ token, client_certificate, tailnet, oauth, issuer, session }: AuthWay, publicUrl: string | null): AuthWayPlan {
  if (oauth !== undefined)
    return {
      kind: "oauth",
      resource: sameResourceKey(publicUrl ?? ""),
      scopes: oauth.scopes,
      allow: peopleMatch(oauth.allow),
      identityAssertions: new Set(oauth.identity_assertions),
    };
  if (issuer !== undefined)
    return { kind: "issuer", issuer: issuer.name, scopes: issuer.scopes, allow: issuer.allow === undefined ? null : peopleMatch(issuer.allow) };
  if (session !== undefined) return { kind: "session", allow: peopleMatch(session.allow) };
  if (token !== undefined) return { kind: "token", names: setOf(token.names), scopes: token.scopes };
  if (tailnet !== undefined) return { kind: "tailnet", match: tailnetMatch(tailnet) };
  if (client_certificate === undefined) throw new RangeError("Not a way in");
  // In the form in which those of certificates come.
  const sans = client_certificate.sans?.map((name) => parseAltName(name)?.value ?? name);
  return { kind: "client_certificate", subjects: setOf(client_certificate.subjects), sans: setOf(sans) };
}

function setOf(texts: readonly string[] | undefined): ReadonlySet<string> | null {
  return texts === undefined ? null : new Set(texts);
}

function headerRules(set: Readonly<Record<string, string>>, remove: readonly string[]): HeaderRules {
  return { set: Object.entries(set), remove: new Set(remove.map((name) => name.toLowerCase())) };
}

function corsPlan(cors: Cors): CorsPlan {
  return {
    origins: cors.origins.includes("*") ? "*" : new Set(cors.origins),
    methods: cors.methods.join(", "),
    headers: cors.headers?.join(", ") ?? null,
    exposeHeaders: cors.expose_headers.join(", "),
    credentials: cors.credentials,
    maxAgeSeconds: Math.round(durationMs(cors.max_age) / 1_000),
  };
}
