// What the requests of an HTTP listener need: one immutable object for each plan, and the live counts that outlast it.
import type { AuthorizationServer } from "../authorization-server/endpoint.ts";
import { sameResourceKey } from "../lib/public-url.ts";
import type { AuthorizationServerPlan, Plan, HttpListenerPlan, RoutePlan, AuthWayPlan } from "../plan/model.ts";
import { compileRoutes, type RouteTable } from "../plan/match.ts";
import { buildTokenIndex, type TokenIndex, type TokenSource } from "../identity/authenticate.ts";
import type { AcmeChallenges } from "../certificates/acme-challenges.ts";
import { GatewayError } from "../lib/errors.ts";
import type { AddressSet } from "../lib/address.ts";
import type { AccessLogWriter } from "../telemetry/access-log.ts";
import type { Log } from "../telemetry/log.ts";
import { NO_ROUTE, type HttpRouteStats, type Metrics } from "../telemetry/metrics.ts";
import type { HttpUpstream } from "../upstreams/http-pool.ts";
import { compileAnswerHeaders, type AnswerHeaders } from "./answer-headers.ts";
import type { ServerPlace, ServerPlaces } from "./authorization.ts";
import { compileHeaderRules, type CompiledRules } from "./header-rules.ts";
import { compileResourceMetadata, type ResourceMetadata } from "./resource-metadata.ts";

/** A route with all that serving it needs. */
export type LiveRoute = {
  readonly plan: RoutePlan;
  /** Its name as JSON, for the access log. */
  readonly nameJson: string;
  readonly auth: readonly AuthWayPlan[] | null;
  /** Null: the route is only asked about at /verify. */
  readonly upstream: HttpUpstream | null;
  /** Who knows the tokens that the route takes, beside static ones. */
  readonly tokenSources: readonly TokenSource[];
  /** Null: browsers have no way in by a session. */
  readonly sessions: ServerPlace | null;
  readonly requestRules: CompiledRules | null;
  readonly responseRules: CompiledRules | null;
  readonly stats: HttpRouteStats;
};

/** A route that leads to an upstream. */
export type ForwardedRoute = LiveRoute & { readonly upstream: HttpUpstream };

/** Counts of a listener, made once and handed from plan to plan. `active`: requests, streams and upgraded connections under way. */
export type HttpLive = { active: number };

/** `draining` when the listener takes no new connections: answers then end theirs. `cut` when the deadline has passed and ours is the end of what is left. */
export type Drain = { draining: boolean; cut: boolean };

export type HttpState = {
  readonly plan: HttpListenerPlan;
  readonly nameJson: string;
  readonly routes: RouteTable<LiveRoute>;
  readonly tokens: TokenIndex;
  /** Null: no authorization server is reached by this listener. */
  readonly servers: ServerPlaces | null;
  /** Null: no route has metadata. */
  readonly resourceMetadata: ResourceMetadata | null;
  readonly trustedProxies: AddressSet;
  /** Null: no listener has ACME, and the paths of its challenges are like others. */
  readonly challenges: AcmeChallenges | null;
  /** Null: nothing is added to answers. */
  readonly answerHeaders: AnswerHeaders | null;
  readonly live: HttpLive;
  readonly drain: Drain;
  /** For requests that no route takes. */
  readonly noRoute: HttpRouteStats;
  /** Null: no access log. */
  readonly accessLog: AccessLogWriter | null;
  readonly log: Log;
};

export function createHttpLive(): HttpLive {
  return { active: 0 };
}

/**
 * Compiles what the requests of a listener need from the plan.
 * @param args.upstreams live upstreams by the names of `Plan.upstreams`
 * @param args.servers live authorization servers, by their issuers
 * @param args.issuers who knows the tokens of other issuers, by their names in the plan
 * @param args.challenges null when no listener of the plan has ACME
 * @param args.drain false again for each new HttpListener, kept over its plans
 * @throws when a route names an upstream that is not there
 */
export function createHttpState(args: {
  plan: HttpListenerPlan;
  gateway: Pick<Plan, "routes" | "tokens" | "scopes" | "trustedProxies" | "authorizationServers">;
  upstreams: ReadonlyMap<string, HttpUpstream>;
  servers: ReadonlyMap<string, AuthorizationServer>;
  issuers: ReadonlyMap<string, TokenSource>;
  challenges: AcmeChallenges | null;
  metrics: Metrics;
  live: HttpLive;
  drain: Drain;
  accessLog: AccessLogWriter | null;
  log: Log;
}): HttpState {
  const { plan, gateway, metrics, upstreams, servers, issuers } = args;
  const routes = gateway.routes.filter(({ listeners }) => listeners === null || listeners.has(plan.name));
  return {
    plan,
    nameJson: JSON.stringify(plan.name),
    routes: compileRoutes(routes.map((route) => ({ route, value: liveRoute(route) }))),
    tokens: buildTokenIndex(gateway.tokens, gateway.scopes),
    servers: compileServers(
      gateway.authorizationServers.filter(({ listeners }) => listeners === null || listeners.has(plan.name)),
      servers,
    ),
    resourceMetadata: compileResourceMetadata(routes),
    trustedProxies: gateway.trustedProxies,
    challenges: args.challenges,
    answerHeaders: compileAnswerHeaders(plan),
    live: args.live,
    drain: args.drain,
    noRoute: metrics.httpRoute(plan.name, NO_ROUTE),
    accessLog: args.accessLog,
    log: args.log,
  };

  function liveRoute(route: RoutePlan): LiveRoute {
    const upstream = route.upstream === null ? null : upstreams.get(route.upstream);
    if (upstream === undefined) throw new GatewayError("ERR_INTERNAL", `No upstream was opened for route '${route.name}'`);
    return {
      plan: route,
      nameJson: JSON.stringify(route.name),
      auth: route.auth,
      upstream,
      tokenSources: tokenSources(route),
      sessions: sessionPlace(route),
      requestRules: compileHeaderRules(route.requestHeaders),
      responseRules: compileHeaderRules(route.responseHeaders),
      stats: metrics.httpRoute(plan.name, route.name),
    };
  }

  /** The server of a route: that which has its resource, or gives sessions to its origin. */
  function serverFor(route: RoutePlan, kind: "oauth" | "session"): AuthorizationServer | null {
    const { publicUrl } = route;
    if (publicUrl === null || route.auth?.some((way) => way.kind === kind) !== true) return null;
    const { origin } = new URL(publicUrl);
    const key = sameResourceKey(publicUrl);
    const found = gateway.authorizationServers.find((server) =>
      kind === "oauth" ? server.resources.some(({ url }) => sameResourceKey(url) === key) : server.sessionOrigins.has(origin),
    );
    return found === undefined ? null : (servers.get(found.issuer) ?? null);
  }

  function tokenSources(route: RoutePlan): TokenSource[] {
    const own = serverFor(route, "oauth");
    const foreign = (route.auth ?? []).map((way) => (way.kind === "issuer" ? issuers.get(way.issuer) : undefined)).filter((source) => source !== undefined);
    return [...(own === null ? [] : [own.tokens]), ...new Set(foreign)];
  }

  function sessionPlace(route: RoutePlan): ServerPlace | null {
    const server = serverFor(route, "session");
    return server === null || route.publicUrl === null ? null : { server, origin: new URL(route.publicUrl).origin };
  }
}

/** Where the servers are reached: at their own hosts, and at those of pages that their sessions are for. */
function compileServers(plans: readonly AuthorizationServerPlan[], servers: ReadonlyMap<string, AuthorizationServer>): ServerPlaces | null {
  const byHost = new Map<string, ServerPlace>();
  for (const { issuer, sessionOrigins } of plans) {
    const server = servers.get(issuer);
    if (server === undefined) throw new GatewayError("ERR_INTERNAL", `No authorization server was opened for '${issuer}'`);
    // The server's own endpoints are more than those of sessions.
    for (const origin of [...sessionOrigins, issuer]) byHost.set(new URL(origin).hostname.toLowerCase(), { server, origin });
  }
  if (byHost.size === 0) return null;
  const [only] = plans;
  const place = plans.length === 1 && only?.anyHost === true ? byHost.get(only.host) : undefined;
  return { byHost, anyHost: place ?? null };
}
