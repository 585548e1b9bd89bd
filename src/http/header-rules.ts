// The header rules of a route, compiled so that a route without any costs nothing.
import { headerName } from "../lib/header-name.ts";
import type { HeaderRules } from "../plan/model.ts";

/** `drop`: lower-case names of what was there before; `set`: flat names and values put in its place. */
export type CompiledRules = { readonly drop: ReadonlySet<string>; readonly set: readonly string[] };

/** Null when there is nothing to do. */
export function compileHeaderRules(rules: HeaderRules): CompiledRules | null {
  if (rules.set.length === 0 && rules.remove.size === 0) return null;
  const drop = new Set(rules.remove);
  for (const [name] of rules.set) drop.add(name.toLowerCase());
  return { drop, set: rules.set.flat() };
}

export function applyHeaderRules(headers: string[], rules: CompiledRules): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? "";
    if (!rules.drop.has(headerName(name)?.lower ?? name)) kept.push(name, headers[i + 1] ?? "");
  }
  for (const text of rules.set) kept.push(text);
  return kept;
}
