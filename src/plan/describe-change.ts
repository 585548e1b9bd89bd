// What an edit did to a plan, in names.
import type { Plan } from "./model.ts";

/** Names of the listeners and routes that came and went, for the log: `routes_added: [a, b]`; nothing came or went: no keys. */
export function describeChange(before: Plan, after: Plan): Record<string, readonly string[]> {
  const names = (plan: Plan, kind: "listeners" | "routes"): Set<string> =>
    new Set(kind === "routes" ? plan.routes.map(({ name }) => name) : plan.listeners.keys());
  const change: Record<string, readonly string[]> = {};
  for (const kind of ["listeners", "routes"] as const) {
    const [had, has] = [names(before, kind), names(after, kind)];
    if (!has.isSubsetOf(had)) change[`${kind}_added`] = [...has.difference(had)];
    if (!had.isSubsetOf(has)) change[`${kind}_removed`] = [...had.difference(has)];
  }
  return change;
}
