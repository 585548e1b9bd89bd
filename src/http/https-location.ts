// Where a request over plain HTTP should have gone.
import { clientHost } from "./client-address.ts";
import type { Exchange } from "./exchange.ts";
import { parseHost } from "./read-head.ts";
import { RequestError } from "./request-error.ts";

/**
 * The https address of what was asked for; null when the client used https already, or the listener does not insist on it.
 * It leads to no other host than the one that was asked: host, path and query are the request's own, and were checked with its head.
 * @throws {RequestError} 400 when the request names no host
 */
export function httpsLocation(x: Exchange): string | null {
  const { plan } = x.state;
  if (!plan.redirectToHttps || x.scheme === "https") return null;
  const authority = clientHost(x);
  const host = parseHost(authority);
  if (host === null) throw new RequestError(400, "ERR_HTTPS", "Plain HTTP is not served here: use https");
  const asked = Number(/:(\d+)$/.exec(authority)?.[1] ?? 80);
  // In mode auto TLS is spoken on the port that the client came to, whatever number a port mapping gives it.
  const port = asked === 80 ? 443 : plan.tls.mode === "auto" && !x.trusted ? asked : plan.httpsPort;
  // RFC 9112, 3.2.4: an address without a path is what stands for "*".
  return `https://${host}${port === 443 ? "" : `:${port}`}${x.target === "*" ? "" : x.target}`;
}
