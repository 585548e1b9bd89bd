// What the requests of an HTTP listener need: one immutable object for each plan, and the live counts that outlast it.
import type { Plan, HttpListenerPlan, RoutePlan, AuthWayPlan } from "../plan/model.ts";
import { compileRoutes, type RouteTable } from "../plan/match.ts";
import { buildTokenIndex, type TokenIndex } from "../identity/authenticate.ts";
import type { AcmeChallenges } from "../certificates/acme-challenges.ts";
import { GatewayError } from "../lib/errors.ts";
import type { AddressSet } from "../lib/address.ts";
import type { AccessLogWriter } from "../telemetry/access-log.ts";
import type { Log } from "../telemetry/log.ts";
import { NO_ROUTE, type HttpRouteStats, type Metrics } from "../telemetry/metrics.ts";
import type { HttpUpstream } from "../upstreams/http-pool.ts";
import { compileAnswerHeaders, type AnswerHeaders } from "./answer-headers.ts";
import { compileHeaderRules, type CompiledRules } from "./header-rules.ts";

/** A route with all that serving it needs. */
export type LiveRoute = {
  readonly plan: RoutePlan;
  /** Its name as JSON, for the access log. */
  readonly nameJson: string;
  readonly auth: readonly AuthWayPlan[] | null;
  readonly upstream: HttpUpstream;
  readonly requestRules: CompiledRules | null;
  readonly responseRules: CompiledRules | null;
  readonly stats: HttpRouteStats;
};

/** Counts of a listener, made once and handed from plan to plan. `active`: requests, streams and upgraded connections under way. */
export type HttpLive = { active: number };

/** `draining` when the listener takes no new connections: answers then end theirs. `cut` when the deadline has passed and ours is the end of what is left. */
export type Drain = { draining: boolean; cut: boolean };

export type HttpState = {
  readonly plan: HttpListenerPlan;
  readonly nameJson: string;
  readonly routes: RouteTable<LiveRoute>;
  readonly tokens: TokenIndex;
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
 * @param args.challenges null when no listener of the plan has ACME
 * @param args.drain false again for each new HttpListener, kept over its plans
 * @throws when a route names an upstream that is not there
 */
export function createHttpState(args: {
  plan: HttpListenerPlan;
  gateway: Pick<Plan, "routes" | "tokens" | "trustedProxies">;
  upstreams: ReadonlyMap<string, HttpUpstream>;
  challenges: AcmeChallenges | null;
  metrics: Metrics;
  live: HttpLive;
  drain: Drain;
  accessLog: AccessLogWriter | null;
  log: Log;
}): HttpState {
  const { plan, gateway, metrics, upstreams } = args;
  const routes = gateway.routes.filter(({ listeners }) => listeners === null || listeners.has(plan.name));
  return {
    plan,
    nameJson: JSON.stringify(plan.name),
    routes: compileRoutes(routes.map((route) => ({ route, value: liveRoute(route) }))),
    tokens: buildTokenIndex(gateway.tokens),
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
    const upstream = upstreams.get(route.upstream);
    if (upstream === undefined) throw new GatewayError("ERR_INTERNAL", `No upstream was opened for route '${route.name}'`);
    return {
      plan: route,
      nameJson: JSON.stringify(route.name),
      auth: route.auth,
      upstream,
      requestRules: compileHeaderRules(route.requestHeaders),
      responseRules: compileHeaderRules(route.responseHeaders),
      stats: metrics.httpRoute(plan.name, route.name),
    };
  }
}
