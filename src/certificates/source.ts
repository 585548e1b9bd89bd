// What a certificate source is: something that may have a certificate for a server name.
import { X509Certificate } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { GatewayError } from "../lib/errors.ts";

/** What people may know of a certificate: it holds no key. */
export type CertificateInfo = {
  readonly source: "file" | "internal";
  /** DNS names and IP addresses, lower case. */
  readonly names: readonly string[];
  /** File of the certificate, or of the CA that issued it. */
  readonly file: string;
  /** Distinguished name on one line, as `C=US, O=Let's Encrypt, CN=R11`. */
  readonly issuer: string;
  readonly notAfter: Date;
};

/** A certificate ready to be served. */
export type ServerCertificate = {
  readonly info: CertificateInfo;
  /** For `tls.createServer` and `server.setSecureContext`; holds the key. */
  readonly options: SecureContextOptions;
  /** For SNICallback and `new TLSSocket`. */
  readonly context: SecureContext;
};

/** Where certificates come from. A listener asks its sources in turn, and the first one that answers wins. */
export type CertificateSource = {
  /**
   * The certificate for a server name (lower case, without a final dot), or null when the source has none.
   * Called in every handshake; what is not ready at once may come as a promise.
   */
  get(serverName: string): ServerCertificate | null | Promise<ServerCertificate | null>;
  /** The one for clients that send no name, or a name that no source knows; null when the source has none to offer. */
  fallback(): ServerCertificate | null;
  /** What it holds at this moment, for `status`. */
  list(): readonly CertificateInfo[];
};

/** A certificate cannot be served. */
export class CertificateError extends GatewayError {
  constructor(message: string, options: { cause?: unknown } = {}) {
    super("ERR_CERTIFICATE", message, options);
  }
}

/**
 * Makes a certificate ready to be served with TLS 1.2 and 1.3.
 * @param cert PEM, leaf first. @param key PEM.
 * @throws {CertificateError} when OpenSSL refuses the pair.
 */
export function createServerCertificate(
  source: CertificateInfo["source"],
  file: string,
  names: readonly string[],
  cert: string,
  key: string,
): ServerCertificate {
  const options: SecureContextOptions = { cert, key, minVersion: "TLSv1.2", honorCipherOrder: true };
  try {
    const context = createSecureContext(options);
    const leaf = new X509Certificate(cert);
    return { info: { source, names, file, issuer: leaf.issuer.split("\n").join(", "), notAfter: leaf.validToDate }, options, context };
  } catch (error) {
    // OpenSSL's own words, which never quote the key.
    throw new CertificateError(`Cannot use certificate '${file}': ${opensslReason(error)}`, { cause: error });
  }
}

/** OpenSSL's reason ("key values mismatch") without its library codes. */
export function opensslReason(error: unknown): string {
  if (typeof error === "object" && error !== null && "reason" in error && typeof error.reason === "string") return error.reason;
  return error instanceof Error ? error.message : String(error);
}
