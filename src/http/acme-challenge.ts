// Answers a CA that looks whether a host is ours (RFC 8555, 8.3).
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";

const PREFIX = "/.well-known/acme-challenge/";
// RFC 8555, 8.3: base64url without padding.
const TOKEN = /^[A-Za-z0-9_-]+$/;

/**
 * The key authorization that a request over plain HTTP asks for; null when it asks for none, and always while no listener has ACME.
 * All of the path is ours then: whoever answers there for a host gets certificates for it.
 * @throws {RequestError} 404 for a token that nobody waits for, 405
 */
export function keyAuthorization(x: Exchange): string | null {
  const { challenges } = x.state;
  if (challenges === null || x.connection.secure || !x.path.startsWith(PREFIX)) return null;
  if (x.method !== "GET" && x.method !== "HEAD")
    throw new RequestError(405, "ERR_METHOD", `Method ${x.method} is not served here`, { headers: ["Allow", "GET, HEAD"] });
  const token = x.path.slice(PREFIX.length);
  const found = TOKEN.test(token) ? challenges.http(token) : null;
  if (found === null) throw new RequestError(404, "ERR_NO_CHALLENGE", "No challenge with this token is under way");
  return found;
}
