// Scopes that include others, and scopes that are for some.
import type { ScopePlan } from "../plan/auth-model.ts";
import { matchesPeople, type Person } from "./person.ts";

/** The scopes with all that they include, each once; the given ones come first. */
export function expandScopes(scopes: readonly string[], known: ReadonlyMap<string, ScopePlan>): readonly string[] {
  if (known.size === 0) return scopes;
  const all = new Set(scopes);
  for (const scope of scopes) for (const included of known.get(scope)?.includes ?? []) all.add(included);
  return all.size === scopes.length ? scopes : [...all];
}

/** Whether the person may have the scope at all, whoever grants it. */
export function mayHave(person: Person, scope: string, known: ReadonlyMap<string, ScopePlan>): boolean {
  const allow = known.get(scope)?.allow ?? null;
  return allow === null || matchesPeople(person, allow);
}
