// Active health checks: asks each target of an upstream at an interval and keeps what it learnt on the target.
import { timerMs } from "../lib/duration.ts";
import { GatewayError } from "../lib/errors.ts";
import type { HealthPlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import { DialError } from "./dial.ts";
import { probeHttp } from "./health-http.ts";
import { probeIb } from "./health-ib-api.ts";
import { maintenanceEnd } from "./health-maintenance.ts";
import { probeTcp } from "./health-tcp.ts";
import type { Target, Upstream } from "./upstream.ts";

/** The checks of one upstream. `close` stops them at once, one under way included. */
export type Health = { close(): void };

// Part of the interval by which each pause differs, so that many gateways do not ask in step.
const JITTER = 0.1;
const SUSPICION_MS = 1_000;

/** Checks each target at once and then at the plan's interval, one check at a time; without a health plan nothing is done. `now` is the wall clock, for the maintenance window. */
export function startHealth(upstream: Upstream, log: Log, now: () => number = Date.now): Health {
  const stop = new AbortController();
  const { health } = upstream.plan;
  if (health !== null) for (const target of upstream.targets) void watch(upstream, target, health, log, now, stop.signal);
  return { close: () => stop.abort() };
}

async function watch(upstream: Upstream, target: Target, health: HealthPlan, log: Log, now: () => number, signal: AbortSignal): Promise<void> {
  let failed = 0;
  for (;;) {
    const reason = await outcome(upstream, target, health, signal);
    if (signal.aborted) return;
    failed = reason === null ? 0 : failed + 1;
    judge(upstream, target, health, reason, failed, log, now());
    // A suspicion is looked into soon: nobody should wait an interval for a verdict.
    const pauseMs = failed > 0 && failed < health.failures ? Math.min(health.intervalMs, SUSPICION_MS) : health.intervalMs;
    await pause(pauseMs * (1 - JITTER + 2 * JITTER * Math.random()), signal);
    // Another flow aborts it while this one waits.
    if (signal.aborted as boolean) return;
  }
}

/** Null when the check succeeded, otherwise why it did not. */
async function outcome(upstream: Upstream, target: Target, health: HealthPlan, signal: AbortSignal): Promise<string | null> {
  try {
    if (health.kind === "http") await probeHttp(upstream, target.plan, health, signal);
    else if (health.kind === "tcp") await probeTcp(target.plan.address, health.timeoutMs, signal);
    else await probeIb(target.plan.address, health, signal);
    return null;
  } catch (error) {
    if (error instanceof DialError) return error.reason;
    return error instanceof GatewayError ? error.message : `the check itself failed: ${String(error)}`;
  }
}

/** Writes health and reason, and logs what changed. */
function judge(upstream: Upstream, target: Target, health: HealthPlan, reason: string | null, failed: number, log: Log, nowMs: number): void {
  const before = target.health;
  const fields = { upstream: upstream.plan.name, target: target.plan.url };
  if (reason === null) {
    target.health = "healthy";
    target.reason = "";
    if (before === "unhealthy" || before === "degraded") log.info(fields, `Upstream '${upstream.plan.name}' is healthy again`);
    return;
  }
  if (failed < health.failures) {
    log.debug({ ...fields, reason }, `A health check of upstream '${upstream.plan.name}' failed`);
    if (before !== "healthy") target.reason = reason;
    return;
  }
  const until = health.kind === "http" || health.maintenance === null ? null : maintenanceEnd(health.maintenance, nowMs);
  target.health = until === null ? "unhealthy" : "degraded";
  target.reason = until === null ? reason : `maintenance until ${until}: ${reason}`;
  if (target.health !== before) log.warn(fields, `Upstream '${upstream.plan.name}' is ${target.health}: ${target.reason}`);
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(end, timerMs(ms));
  function end(): void {
    clearTimeout(timer);
    signal.removeEventListener("abort", end);
    resolve();
  }
  signal.addEventListener("abort", end);
  return promise;
}
