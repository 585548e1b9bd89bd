// What a certificate source is: something that may have a certificate for a server name.
import { X509Certificate } from "node:crypto";
import { GatewayError } from "../lib/errors.ts";

/** What people may know of a certificate: it holds no key. */
export type CertificateInfo = {
  readonly source: "file" | "acme" | "tailscale" | "internal";
  /** DNS names and IP addresses, lower case. */
  readonly names: readonly string[];
  /** File of the certificate, or of the CA that issued it; null when the state, or tailscaled, holds it. */
  readonly file: string | null;
  /** Distinguished name on one line, as `C=US, O=Let's Encrypt, CN=R11`; empty when it was not issued yet. */
  readonly issuer: string;
  /** Null when it was not issued yet. */
  readonly notBefore: Date | null;
  readonly notAfter: Date | null;
  /** When it will be renewed or ordered by itself; null when somebody else does that. */
  readonly renewAt: Date | null;
  /** Why the last attempt to get it failed; empty when it did not. */
  readonly error: string;
};

/** A certificate ready to be served: PEM, leaf first, and the PEM of its key. */
export type ServerCertificate = { readonly info: CertificateInfo; readonly cert: string; readonly key: string };

/** Where certificates come from. A listener asks its sources in turn, and the first one that answers wins. */
export type CertificateSource = {
  /** The certificate for a server name (lower case, without a final dot), or null when the source has none. Called in every handshake. */
  get(serverName: string): ServerCertificate | null;
  /** The one for clients that send no name, or a name that no source knows; null when the source has none to offer. */
  fallback(): ServerCertificate | null;
  /** What it holds or is to get, for `status`. */
  list(): readonly CertificateInfo[];
};

/** A certificate cannot be served. */
export class CertificateError extends GatewayError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super("ERR_CERTIFICATE", message, options);
  }
}

/**
 * Reads what is told of a certificate.
 * @param cert PEM, leaf first. @param key PEM. @param leaf of `cert`, where it is decoded already.
 * @throws {CertificateError} when the certificate cannot be decoded.
 */
export function createServerCertificate(
  source: CertificateInfo["source"],
  file: string | null,
  names: readonly string[],
  cert: string,
  key: string,
  leaf: X509Certificate | null = null,
): ServerCertificate {
  try {
    const { issuer, validFromDate: notBefore, validToDate: notAfter } = leaf ?? new X509Certificate(cert);
    return { info: { source, names, file, issuer: issuer.split("\n").join(", "), notBefore, notAfter, renewAt: null, error: "" }, cert, key };
  } catch (error) {
    throw new CertificateError(`Cannot read certificate '${file ?? names.join(" ")}': ${opensslReason(error)}`, { cause: error });
  }
}

/** OpenSSL's reason ("key values mismatch") without its library codes. */
export function opensslReason(error: unknown): string {
  if (typeof error === "object" && error !== null && "reason" in error && typeof error.reason === "string") return error.reason;
  return error instanceof Error ? error.message : String(error);
}
