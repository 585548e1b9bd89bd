// Cross-origin requests of browsers (the Fetch standard's CORS protocol), for routes that have `cors`.
import type { CorsPlan } from "../plan/model.ts";
import type { Exchange } from "./exchange.ts";

function allowedOrigin(cors: CorsPlan, origin: string | null): string | null {
  if (origin === null) return null;
  if (cors.origins === "*") return cors.credentials ? null : "*";
  return cors.origins.has(origin) ? origin : null;
}

/** The headers that answer a preflight, or null when the request is none or the route has no CORS. */
export function preflightAnswer(x: Exchange, cors: CorsPlan | null): string[] | null {
  if (cors === null || x.method !== "OPTIONS" || x.origin === null || x.header("access-control-request-method") === null) return null;
  const headers = ["Vary", "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"];
  const origin = allowedOrigin(cors, x.origin);
  // Without Access-Control-Allow-Origin the browser refuses, whatever else is said.
  if (origin === null) return headers;
  headers.push("Access-Control-Allow-Origin", origin, "Access-Control-Allow-Methods", cors.methods);
  const asked = cors.headers ?? x.header("access-control-request-headers");
  if (asked !== null && asked !== "") headers.push("Access-Control-Allow-Headers", asked);
  if (cors.credentials) headers.push("Access-Control-Allow-Credentials", "true");
  headers.push("Access-Control-Max-Age", String(cors.maxAgeSeconds));
  return headers;
}

/** Adds what lets a script read the response, in place of what the upstream says of it. Answers of our own get it too, so that a client sees its 401. */
export function addCors(headers: string[], x: Exchange, cors: CorsPlan): string[] {
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const name = headers[i] ?? "";
    if (!name.toLowerCase().startsWith("access-control-")) kept.push(name, headers[i + 1] ?? "");
  }
  kept.push("Vary", "Origin");
  const origin = allowedOrigin(cors, x.origin);
  if (origin === null) return kept;
  kept.push("Access-Control-Allow-Origin", origin);
  if (cors.credentials) kept.push("Access-Control-Allow-Credentials", "true");
  if (cors.exposeHeaders !== "") kept.push("Access-Control-Expose-Headers", cors.exposeHeaders);
  return kept;
}
