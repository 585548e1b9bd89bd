// Replaces ${VAR} in the values of the document, as compose does, after parsing: a value can never add keys.
import type { ConfigDocument } from "./document.ts";
import type { Path, Problem } from "./problem.ts";

export type Env = Readonly<Record<string, string | undefined>>;

type Interpolated = { readonly ok: true; readonly text: string } | { readonly ok: false; readonly reason: string };

const NAME = /^[A-Za-z_][A-Za-z0-9_]*/;
// Each default in a default is looked through once more.
const MAX_DEPTH = 10;

/** The end of `${...` that begins before `from`: the index of its closing brace, inner `${...}` skipped; -1 when there is none. */
function closingBrace(text: string, from: number): number {
  let depth = 0;
  for (let i = from; i < text.length; i += 1) {
    if (text.startsWith("${", i)) depth += 1;
    else if (text[i] === "}") {
      if (depth === 0) return i;
      depth -= 1;
    }
  }
  return -1;
}

/**
 * `${VAR}`, `${VAR:-default}` (also when VAR is empty), `${VAR:?message}`, and `$${` for a literal `${`. A default may hold further `${...}`.
 * Any other `$` stands for itself. The reason of a failure names the variable, never a value.
 */
export function interpolate(text: string, env: Env, depth = 0): Interpolated {
  let out = "";
  let from = 0;
  for (let at = text.indexOf("${"); at !== -1; at = text.indexOf("${", from)) {
    if (text[at - 1] === "$" && at > from) {
      out += `${text.slice(from, at - 1)}\${`;
      from = at + 2;
      continue;
    }
    out += text.slice(from, at);
    const end = closingBrace(text, at + 2);
    if (end === -1) return { ok: false, reason: "'${' has no closing '}'; write $${ for a literal ${" };
    const inner = text.slice(at + 2, end);
    const name = NAME.exec(inner)?.[0];
    const rest = inner.slice(name?.length ?? 0);
    if (name === undefined || !/^(:[-?]|$)/.test(rest)) {
      return { ok: false, reason: "Only ${VAR}, ${VAR:-default} and ${VAR:?message} are replaced; write $${ for a literal ${" };
    }
    const value = env[name];
    if (value !== undefined && (value !== "" || rest === "")) {
      out += value;
    } else if (rest.startsWith(":-")) {
      if (depth === MAX_DEPTH) return { ok: false, reason: `More than ${MAX_DEPTH} defaults stand in one another` };
      const fallback = interpolate(rest.slice(2), env, depth + 1);
      if (!fallback.ok) return fallback;
      out += fallback.text;
    } else {
      const state = value === undefined ? "not set" : "empty";
      const message = rest.slice(2);
      return {
        ok: false,
        reason: `Environment variable '${name}' is ${state}${message === "" ? "; set it, or give a default with ${" + name + ":-default}" : `: ${message}`}`,
      };
    }
    from = end + 1;
  }
  return { ok: true, text: out + text.slice(from) };
}

/** Interpolates every string value of the document in place. A value that cannot be keeps its text and is a problem. */
export function interpolateDocument(document: ConfigDocument, env: Env): { readonly problems: Problem[]; readonly paths: Path[] } {
  const problems: Problem[] = [];
  const paths: Path[] = [];
  // Aliases make the same object stand in several places: it is interpolated once.
  const seen = new Set<object>();
  const walk = (container: object, path: Path): void => {
    if (seen.has(container)) return;
    seen.add(container);
    const entries: [string | number, unknown][] = Array.isArray(container) ? [...container.entries()] : Object.entries(container);
    for (const [key, value] of entries) {
      const at = [...path, key];
      if (typeof value === "object" && value !== null) walk(value, at);
      if (typeof value !== "string" || !value.includes("${")) continue;
      const result = interpolate(value, env);
      if (result.ok) {
        document.remember(container, key, value);
        (container as Record<string | number, unknown>)[key] = result.text;
      } else {
        problems.push(document.problem(at, result.reason));
        paths.push(at);
      }
    }
  };
  if (typeof document.data === "object" && document.data !== null) walk(document.data, []);
  return { problems, paths };
}
