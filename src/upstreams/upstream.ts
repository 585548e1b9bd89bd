// A live upstream: its targets, which of them is well, and which one the next request or connection goes to.
import type { SecureContext } from "node:tls";
import type { TargetPlan, UpstreamPlan } from "../plan/model.ts";
import { createUpstreamContext } from "./tls.ts";

export type TargetHealth = "unknown" | "healthy" | "degraded" | "unhealthy";

/** One target and what is known of it. Only `Upstream`, the health checks and the dialers write here. */
export class Target {
  readonly plan: TargetPlan;
  /** Requests or connections under way. */
  active = 0;
  /** Failed connections in a row. */
  connectFailures = 0;
  /** Time (performance.now) until which it is left out; 0 = it is not. */
  ejectedUntil = 0;
  health: TargetHealth = "unknown";
  /** Why it is not healthy, in words; empty when it is. */
  reason = "";

  constructor(plan: TargetPlan) {
    this.plan = plan;
  }
}

export class Upstream {
  readonly plan: UpstreamPlan;
  readonly targets: readonly Target[];
  /** Of its https targets; null without any. */
  readonly secureContext: SecureContext | null;
  #next = 0;

  /** @throws {GatewayError} when OpenSSL refuses a CA or a certificate */
  constructor(plan: UpstreamPlan) {
    this.plan = plan;
    this.secureContext = createUpstreamContext(plan);
    this.targets = plan.targets.map((target) => new Target(target));
  }

  /**
   * The target for the next request: of those that are well the one with the fewest under way, in turn among equals.
   * When none is well, any: the attempt then gives the true error, and the first one after a recovery succeeds.
   * `except` leaves out targets that were just tried; null when nothing is left.
   */
  pick(except?: ReadonlySet<Target>): Target | null {
    const count = this.targets.length;
    const now = count > 1 ? performance.now() : 0;
    let best: Target | null = null;
    let bestWell = false;
    const start = this.#next++;
    for (let i = 0; i < count; i += 1) {
      const target = this.targets[(start + i) % count];
      if (target === undefined || except?.has(target) === true) continue;
      const well = target.health !== "unhealthy" && target.ejectedUntil <= now;
      if (best === null || (well && !bestWell) || (well === bestWell && target.active < best.active)) {
        best = target;
        bestWell = well;
      }
    }
    return best;
  }

  /** A connection to the target was made. */
  connected(target: Target): void {
    target.connectFailures = 0;
    target.ejectedUntil = 0;
    if (this.plan.health === null) target.reason = "";
  }

  /**
   * A connection to the target could not be made, for a reason in words: after some in a row it is left out for a while, when there are others.
   * Where no health check tells why the target is unwell, this does.
   */
  failed(target: Target, reason: string): void {
    target.connectFailures += 1;
    if (this.plan.health === null) target.reason = reason;
    if (this.targets.length > 1 && target.connectFailures >= this.plan.ejection.failures) {
      target.ejectedUntil = performance.now() + this.plan.ejection.durationMs;
    }
  }
}
