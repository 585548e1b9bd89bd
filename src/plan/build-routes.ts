// Routes of the plan, in the order in which they are tried.
import type { AuthWay, Config, Cors, Route } from "../config/types.ts";
import { parseAltName } from "../lib/subject-names.ts";
import { tailnetMatch } from "./build-tailscale.ts";
import type { UpstreamPlans } from "./build-upstreams.ts";
import type { AuthWayPlan, CorsPlan, HeaderRules, PathMatch, RoutePlan } from "./model.ts";
import { durationMs } from "./units.ts";

/** Higher priority first, then the more specific host, then the more specific path, then the order of the file. */
export function buildRoutes(config: Config, upstreams: UpstreamPlans): RoutePlan[] {
  const names = new Set(config.routes.flatMap((route) => route.name ?? []));
  const plans = config.routes.map((route, index): RoutePlan => {
    const host = route.host?.toLowerCase() ?? null;
    const path = pathMatch(route);
    return {
      name: route.name ?? defaultName(host, path, names),
      index,
      listeners: route.listeners === undefined ? null : new Set(route.listeners),
      host,
      path,
      methods: route.methods === undefined ? null : new Set(route.methods),
      headers: Object.entries(route.headers ?? {}).map(([name, value]) => [name.toLowerCase(), value] as const),
      priority: route.priority,
      upstream: upstreams.addHttp(route.upstream),
      auth: route.auth === "none" ? null : route.auth.map(authWay),
      stripPrefix: route.strip_prefix === undefined || route.strip_prefix === "/" ? null : route.strip_prefix,
      requestHeaders: headerRules(route.set_headers, route.remove_headers),
      responseHeaders: headerRules(route.response_headers.set, route.response_headers.remove),
      identityHeaders: route.identity_headers,
      cors: route.cors === undefined ? null : corsPlan(route.cors),
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

function authWay({ token, client_certificate, tailnet }: AuthWay): AuthWayPlan {
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
