// What the client certificate of a connection is worth to the request at hand, under the rules of now.
import { isValidAt, type ClientCertificate } from "../identity/client-certificate.ts";
import { endWithAnswer } from "./cut.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import type { LiveRoute } from "./state.ts";

/**
 * The certificate that speaks for the request; null when there is none, its time is over, or it was shown under rules that a reload has
 * replaced. It is that of the connection: behind a proxy that ends TLS it is the proxy's, and no header takes its place.
 * @throws {RequestError} 421 when another connection may do better (RFC 9110, 15.5.20): this one ends with the answer
 */
export function clientCertificate(x: Exchange, route: LiveRoute): ClientCertificate | null {
  const { connection } = x;
  const { tls } = x.state.plan;
  if (!("protocol" in tls)) return null;
  if (!connection.secure) {
    // In mode auto plain HTTP is served, too. In mode application it came before the reload that brought TLS: an answer more, where nothing must be shown.
    if (tls.mode === "auto") return null;
    endWithAnswer(x);
    if (tls.protocol.clientAuth?.mode !== "require") return null;
    throw new RequestError(421, "ERR_HTTPS", "Plain HTTP is not served here any more: use https");
  }
  const { certificate } = connection;
  const { clientAuth, key } = tls.protocol;
  if (clientAuth === null && certificate === null) return null;
  const isCurrent = connection.protocolKey === key;
  if (isCurrent && (certificate === null ? clientAuth?.mode !== "require" : isValidAt(certificate, Date.now()))) return certificate;
  endWithAnswer(x);
  // Whoever has none may still come with a token.
  const mayReturn = certificate !== null && route.auth?.some(({ kind }) => kind === "client_certificate") === true;
  if (clientAuth?.mode === "require" || (clientAuth !== null && mayReturn))
    throw new RequestError(421, "ERR_CLIENT_CERTIFICATE", "The rules for client certificates have changed, or the certificate has expired: connect again");
  return null;
}
