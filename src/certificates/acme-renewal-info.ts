// When a CA wants a certificate renewed: ACME Renewal Information (RFC 9773).
import { splitCertificates } from "../lib/pem.ts";
import { AcmeError, type RenewalWindow } from "./acme-issuer.ts";
import type { AcmeConnection } from "./acme-transport.ts";

const HOUR_MS = 3_600_000;
/** RFC 9773, 4.3.3: where the CA does not say, it is asked again after six hours, and its wishes have bounds. */
const RETRY_MS = { least: HOUR_MS, usual: 6 * HOUR_MS, most: 24 * HOUR_MS };

/**
 * The name of a certificate at its CA: key identifier of the CA and serial number (RFC 9773, 4.1).
 * @param cert PEM, leaf first. @returns null when it has none, because it does not tell the key of its CA.
 */
export async function renewalInfoId(cert: string): Promise<string | null> {
  const { AuthorityKeyIdentifierExtension, X509Certificate } = await import("@peculiar/x509");
  const [pem] = splitCertificates(cert);
  if (pem === undefined) return null;
  const leaf = new X509Certificate(pem);
  const keyId = leaf.getExtension(AuthorityKeyIdentifierExtension)?.keyId;
  if (keyId === undefined) return null;
  // DER, where a number whose first bit is set begins with a zero, which the library takes away.
  const serial = Buffer.from(leaf.serialNumber, "hex");
  const encoded = (serial[0] ?? 0) > 0x7f ? Buffer.concat([Buffer.of(0), serial]) : serial;
  return `${Buffer.from(keyId, "hex").toString("base64url")}.${encoded.toString("base64url")}`;
}

/** Where the CA tells it; null when it does not. @throws {AcmeError} */
export async function renewalInfoUrl(connection: AcmeConnection): Promise<string | null> {
  const { value } = await connection.getJson(connection.directoryUrl);
  const url = typeof value === "object" && value !== null && "renewalInfo" in value ? value.renewalInfo : null;
  return typeof url === "string" ? url : null;
}

/** @param cert PEM, leaf first. @returns null when the CA does not offer it. @throws {AcmeError} */
export async function fetchRenewalWindow(connection: AcmeConnection, cert: string): Promise<RenewalWindow | null> {
  const [url, id] = [await renewalInfoUrl(connection), await renewalInfoId(cert)];
  if (url === null || id === null) return null;
  const { value, retryAfterMs } = await connection.getJson(`${url.replace(/\/$/, "")}/${id}`);
  const window = typeof value === "object" && value !== null && "suggestedWindow" in value ? value.suggestedWindow : null;
  const start = timeOf(window, "start");
  const end = timeOf(window, "end");
  if (!(start < end)) throw new AcmeError(`CA '${connection.ca}' gave a time of renewal that cannot be used`);
  return {
    start: new Date(start),
    end: new Date(end),
    retryAfterMs: Math.min(Math.max(retryAfterMs ?? RETRY_MS.usual, RETRY_MS.least), RETRY_MS.most),
  };
}

/** Milliseconds of a date of RFC 3339; NaN when it is none. */
function timeOf(window: unknown, name: string): number {
  const text = typeof window === "object" && window !== null ? (window as Record<string, unknown>)[name] : null;
  return typeof text === "string" ? Date.parse(text) : Number.NaN;
}
