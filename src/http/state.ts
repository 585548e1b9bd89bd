// What the requests of an HTTP listener need: one immutable object for each plan, and the live counts that outlast it.
import type { AuthorizationServer } from "../authorization-server/endpoint.ts";
import { sameResourceKey } from "../lib/public-url.ts";
import type { AuthWayPlan } from "../plan/auth-model.ts";
import type { Plan, HttpListenerPlan, RoutePlan } from "../plan/model.ts";
import { compileRoutes, type RouteTable } from "../plan/match.ts";
import type { LiveIssuer } from "../identity/issuer.ts";
import { buildTokenIndex, type TokenIndex, type TokenSource } from "../identity/authenticate.ts";
import type { AcmeChallenges } from "../certificates/acme-challenges.ts";
import { GatewayError } from "../lib/errors.ts";
import type { AddressSet } from "../lib/address.ts";
import type { AccessLogWriter } from "../telemetry/access-log.ts";
import type { Log } from "../telemetry/log.ts";
import { NO_ROUTE, type HttpRouteStats, type Metrics } from "../telemetry/metrics.ts";
import { SessionOwners } from "../mcp/session-owners.ts";
import type { HttpUpstream } from "../upstreams/http-pool.ts";
import { compileAnswerHeaders, type AnswerHeaders } from "./answer-headers.ts";
import { compileExternalServers, type ExternalServers } from "./compile-external-servers.ts";
import { compileHeaderRules, type CompiledRules } from "./header-rules.ts";
import { compileServers, type ServerPlace, type ServerPlaces } from "./server-places.ts";
import { compileResourceMetadata, type ResourceMetadata } from "./resource-metadata.ts";

/** A route with all that serving it needs. */
export type LiveRoute = {
  readonly plan: RoutePlan;
  /** Its name as JSON, for the access log. */
  readonly nameJson: string;
  readonly auth: readonly AuthWayPlan[] | null;
  /** Null: the route is only asked about at /verify. */
  readonly upstream: HttpUpstream | null;
  /** Of the public URL, so that no request parses it: lower case without port, and the origin. */
  readonly publicHost: string | null;
  readonly publicOrigin: string | null;
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

/**
 * What a listener keeps from plan to plan. `active`: requests, streams and upgraded connections under way. `current`: the state that serves new requests; null
 * until there is one. `sessions`: whose those of MCP are, the same for all listeners.
 */
export type HttpLive = { active: number; current: HttpState | null; readonly sessions: SessionOwners };

// A session goes on when its caller comes by another listener, and belongs to nobody else there.
const SESSIONS = new SessionOwners();

/** `draining` when the listener takes no new connections: answers then end theirs. `cut` when the deadline has passed and ours is the end of what is left. */
export type Drain = { draining: boolean; cut: boolean };

export type HttpState = {
  readonly plan: HttpListenerPlan;
  readonly nameJson: string;
  readonly routes: RouteTable<LiveRoute>;
  readonly tokens: TokenIndex;
  /** Null: no authorization server is reached by this listener. */
  readonly servers: ServerPlaces | null;
  /** Null: no host tells of an authorization server elsewhere. */
  readonly externalServers: ExternalServers | null;
  /** Null: no route has metadata. */
  readonly resourceMetadata: ResourceMetadata | null;
  /** How long the answer about a credential may take. */
  readonly identifyMs: number;
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

const IDENTIFY_MS = 10_000;

export function createHttpLive(): HttpLive {
  return { active: 0, current: null, sessions: SESSIONS };
}

/**
 * Compiles what the requests of a listener need from the plan.
 * @param args.upstreams live upstreams by the names of `Plan.upstreams`
 * @param args.servers live authorization servers, by their issuers
 * @param args.issuers live issuers elsewhere, by their names in the plan
 * @param args.challenges null when no listener of the plan has ACME
 * @param args.identifyMs default 10 s
 * @param args.drain false again for each new HttpListener, kept over its plans
 * @throws when a route names an upstream that is not there
 */
export function createHttpState(args: {
  plan: HttpListenerPlan;
  gateway: Pick<Plan, "routes" | "tokens" | "scopes" | "trustedProxies" | "authorizationServers">;
  upstreams: ReadonlyMap<string, HttpUpstream>;
  servers: ReadonlyMap<string, AuthorizationServer>;
  issuers: ReadonlyMap<string, LiveIssuer>;
  challenges: AcmeChallenges | null;
  metrics: Metrics;
  live: HttpLive;
  drain: Drain;
  accessLog: AccessLogWriter | null;
  log: Log;
  identifyMs?: number | undefined;
}): HttpState {
  const { plan, gateway, metrics, upstreams, servers, issuers } = args;
  // Made once: a search for each route among the resources of all would grow with the square of the file.
  const byResource = new Map(
    gateway.authorizationServers.flatMap(({ issuer, resources }) => resources.map(({ url }) => [sameResourceKey(url), issuer] as const)),
  );
  const bySession = new Map(
    gateway.authorizationServers.flatMap(({ issuer, sessionOrigins }) => [...sessionOrigins].map((origin) => [origin, issuer] as const)),
  );
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
    externalServers: compileExternalServers(routes, issuers),
    resourceMetadata: compileResourceMetadata(routes),
    identifyMs: args.identifyMs ?? IDENTIFY_MS,
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
      publicHost: route.publicUrl === null ? null : new URL(route.publicUrl).hostname.toLowerCase(),
      publicOrigin: route.publicUrl === null ? null : new URL(route.publicUrl).origin,
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
    const issuer = kind === "oauth" ? byResource.get(sameResourceKey(publicUrl)) : bySession.get(new URL(publicUrl).origin);
    return issuer === undefined ? null : (servers.get(issuer) ?? null);
  }

  function tokenSources(route: RoutePlan): TokenSource[] {
    const own = serverFor(route, "oauth");
    const foreign = (route.auth ?? []).map((way) => (way.kind === "issuer" ? issuers.get(way.issuer) : undefined)).filter((source) => source !== undefined);
    // Whoever may ask an issuer about a token asks our own servers first, those of other routes too: their tokens are nobody else's business.
    const ours = foreign.length > 0 ? [...servers.values()].map(({ tokens }) => tokens) : own === null ? [] : [own.tokens];
    return [...ours, ...new Set(foreign)];
  }

  function sessionPlace(route: RoutePlan): ServerPlace | null {
    const server = serverFor(route, "session");
    return server === null || route.publicUrl === null ? null : { server, origin: new URL(route.publicUrl).origin };
  }
}
