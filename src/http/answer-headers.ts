// The headers that every answer of a listener has because its TLS settings ask for them.
import type { HttpListenerPlan } from "../plan/model.ts";
import { applyHeaderRules, type CompiledRules } from "./header-rules.ts";

/** `hsts`: value of Strict-Transport-Security; null = the upstream's own passes. `security`: the three headers that browsers heed. */
export type AnswerHeaders = { readonly hsts: string | null; readonly security: boolean };

const WITHOUT_HSTS: CompiledRules = { drop: new Set(["strict-transport-security"]), set: [] };

/** Null when there is nothing to add, so that a listener without any pays nothing. */
export function compileAnswerHeaders({ hsts, securityHeaders }: Pick<HttpListenerPlan, "hsts" | "securityHeaders">): AnswerHeaders | null {
  return hsts === null && !securityHeaders ? null : { hsts, security: securityHeaders };
}

/**
 * Strict-Transport-Security in place of the upstream's, over https alone (RFC 6797, 7.2), and the others where they are not there yet.
 * @param headers flat; may be changed
 * @param scheme what the client used
 */
export function addAnswerHeaders(headers: string[], scheme: "http" | "https", { hsts, security }: AnswerHeaders): string[] {
  let [sniffs, framed, refers] = [security, security, security];
  let result = headers;
  for (let i = 0; i < headers.length; i += 2) {
    const name = headers[i] ?? "";
    // The length first: it rules nearly every header out without a copy of its name.
    switch (name.length) {
      case 15: {
        const lower = name.toLowerCase();
        if (lower === "x-frame-options") framed = false;
        else if (lower === "referrer-policy") refers = false;
        break;
      }
      case 22:
        if (name.toLowerCase() === "x-content-type-options") sniffs = false;
        break;
      case 25:
        if (hsts !== null && result === headers && name.toLowerCase() === "strict-transport-security") result = applyHeaderRules(headers, WITHOUT_HSTS);
        break;
      default:
        break;
    }
  }
  if (hsts !== null && scheme === "https") result.push("Strict-Transport-Security", hsts);
  if (sniffs) result.push("X-Content-Type-Options", "nosniff");
  if (framed) result.push("X-Frame-Options", "DENY");
  if (refers) result.push("Referrer-Policy", "no-referrer");
  return result;
}
