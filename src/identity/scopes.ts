// Scopes that include others.
import type { ScopePlan } from "../plan/auth-model.ts";

/** The scopes with all that they include, each once; the given ones come first. */
export function expandScopes(scopes: readonly string[], known: ReadonlyMap<string, ScopePlan>): readonly string[] {
  if (known.size === 0) return scopes;
  const all = new Set(scopes);
  for (const scope of scopes) for (const included of known.get(scope)?.includes ?? []) all.add(included);
  return all.size === scopes.length ? scopes : [...all];
}
