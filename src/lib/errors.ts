// The base of every error that the gateway raises on purpose.

/**
 * An error with a literal code. `message` is a sentence for people that may reach a client or a terminal;
 * `detail` is for the log alone. Neither ever holds a secret.
 */
export class GatewayError extends Error {
  readonly code: string;
  readonly detail: string | undefined;

  constructor(code: string, message: string, options: { detail?: string; cause?: unknown } = {}) {
    super(message, "cause" in options ? { cause: options.cause } : undefined);
    this.name = new.target.name;
    this.code = code;
    this.detail = options.detail;
  }
}

const SYSTEM_REASONS: Record<string, string> = {
  ECONNREFUSED: "connection refused",
  ECONNRESET: "connection reset",
  EPIPE: "connection closed",
  ETIMEDOUT: "timed out",
  EHOSTUNREACH: "host unreachable",
  ENETUNREACH: "network unreachable",
  ENOTFOUND: "host name not found",
  EAI_AGAIN: "host name lookup failed",
  EADDRINUSE: "address already in use",
  EADDRNOTAVAIL: "address not available on this machine",
  EACCES: "permission denied",
  EPERM: "operation not permitted",
  ENOENT: "no such file or directory",
  EISDIR: "is a directory",
  ENOTDIR: "a part of the path is not a directory",
  ENOSPC: "no space left on the device",
  EROFS: "read-only file system",
  EMFILE: "too many open files",
  ENAMETOOLONG: "name too long",
  ELOOP: "too many symbolic links",
  UNABLE_TO_VERIFY_LEAF_SIGNATURE: "its certificate is signed by an unknown CA: name it in 'ca_file'",
  UNABLE_TO_GET_ISSUER_CERT_LOCALLY: "its certificate is signed by an unknown CA: name it in 'ca_file'",
  SELF_SIGNED_CERT_IN_CHAIN: "its certificate is signed by an unknown CA: name it in 'ca_file'",
  DEPTH_ZERO_SELF_SIGNED_CERT: "its certificate is self-signed: name it in 'ca_file'",
  CERT_HAS_EXPIRED: "its certificate has expired",
};

/** The reason of a system error in words ("connection refused"), or its message when it has no known code. */
export function describeSystemError(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return describeSystemError(error.errors[error.errors.length - 1]);
  const code = systemErrorCode(error);
  if (code !== undefined) {
    const reason = SYSTEM_REASONS[code];
    if (reason !== undefined) return reason;
  }
  return error instanceof Error ? error.message : String(error);
}

/** The `code` of a system error such as ECONNREFUSED, or undefined. */
export function systemErrorCode(error: unknown): string | undefined {
  if (typeof error === "object" && error !== null && "code" in error && typeof error.code === "string") return error.code;
  return undefined;
}
