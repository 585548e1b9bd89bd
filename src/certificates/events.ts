// What happens to certificates and is worth telling: logs, metrics and alerts are made of it.

export type CertificateEvent = {
  /** `renewed`: a certificate was got, the first one or the next. `expiring`: a threshold of its end was passed. */
  readonly kind: "renewed" | "renewal_failed" | "expiring" | "expired";
  readonly source: "file" | "acme" | "tailscale" | "internal";
  readonly names: readonly string[];
  /** Of the certificate that serves now; null when there is none yet. */
  readonly notAfter: Date | null;
  /** Why a renewal failed and when it is tried again, one sentence; empty otherwise. */
  readonly reason: string;
};
