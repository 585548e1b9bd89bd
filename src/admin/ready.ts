// Whether the gateway does its work, and if not, what is unwell.
import type { GatewayStatus, StatusProblem } from "./status.ts";

export type Unwell = { readonly what: "gateway" | "config" | "listener" | "upstream" | "certificate"; readonly name: string; readonly reason: string };

/** `degraded`: it serves, but somebody should look. Only `unready` is answered with 503. */
export type Readiness = { readonly status: "ready" | "degraded" | "unready"; readonly problems: readonly Unwell[] };

/**
 * A refused configuration is only degraded: the last good one serves, and an orchestrator that took the gateway out of service for it
 * would turn a slip of the pen into an outage. An upstream is unready when no target of it is left.
 */
export function buildReadiness(status: GatewayStatus, now = new Date()): Readiness {
  const severe: Unwell[] = [];
  const mild: Unwell[] = [];
  if (status.stopping) severe.push({ what: "gateway", name: "sidegate", reason: "stopping" });
  for (const { name, down } of status.listeners) if (down !== "") severe.push({ what: "listener", name, reason: down });
  for (const { name, targets } of status.upstreams) {
    const isDown = targets.length > 0 && targets.every(({ health }) => health === "unhealthy");
    for (const { url, health, reason } of targets) {
      // Not judged yet, or not checked at all: what went wrong last is worth a look.
      if (health === "healthy" || (health === "unknown" && reason === "")) continue;
      const unwell: Unwell = { what: "upstream", name, reason: `${targets.length > 1 ? `${url}: ` : ""}${reason === "" ? health : reason}` };
      (isDown ? severe : mild).push(unwell);
    }
  }
  for (const { names, file, expires_at } of status.certificates) {
    if (Date.parse(expires_at) < now.getTime()) mild.push({ what: "certificate", name: names.join(" ") || (file ?? "?"), reason: `expired at ${expires_at}` });
  }
  const { refused, file } = status.config;
  if (refused !== null) mild.push({ what: "config", name: file, reason: describeProblems(refused.problems) });
  return { status: severe.length > 0 ? "unready" : mild.length > 0 ? "degraded" : "ready", problems: [...severe, ...mild] };
}

function describeProblems(problems: readonly StatusProblem[]): string {
  const [first] = problems;
  if (first === undefined) return "refused";
  const column = first.column === undefined ? "" : `, column ${first.column}`;
  const place = first.line === undefined || first.line === 0 ? "" : `line ${first.line}${column}: `;
  const more = problems.length - 1;
  return `refused, the last good one serves: ${place}${first.message}${more > 0 ? ` (and ${more} more ${more === 1 ? "problem" : "problems"})` : ""}`;
}
