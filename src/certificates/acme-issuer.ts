// What the renewals need of an ACME CA: one order, and when the CA wants a certificate renewed.
import { GatewayError } from "../lib/errors.ts";
import type { AcmeAccountPlan, AcmeChallengeType, DnsPlan } from "../plan/model.ts";

export type OrderRequest = {
  readonly account: AcmeAccountPlan;
  /** Lower case; a wildcard as `*.example.com`. */
  readonly names: readonly string[];
  readonly challenge: AcmeChallengeType;
  /** Needed for dns-01. */
  readonly dns: DnsPlan | null;
  /** PEM of the certificate that the new one replaces (RFC 9773, 5); null when there is none. */
  readonly replaces: string | null;
  readonly signal: AbortSignal;
};

/** PEM: the chain, leaf first, and its private key (P-256). */
export type IssuedCertificate = { readonly cert: string; readonly key: string };

/** When the CA wants a certificate renewed (RFC 9773, 4.2), and how long this answer is good for. */
export type RenewalWindow = { readonly start: Date; readonly end: Date; readonly retryAfterMs: number };

export type AcmeIssuer = {
  /** @throws {AcmeError} */
  order(request: OrderRequest): Promise<IssuedCertificate>;
  /** Null when the CA does not offer it. @throws {AcmeError} */
  renewalWindow(account: AcmeAccountPlan, cert: string, signal: AbortSignal): Promise<RenewalWindow | null>;
};

/** An order failed. The message is for people: what the CA said, and what to do where that is known. */
export class AcmeError extends GatewayError {
  /** How long the CA asks us to wait (Retry-After); null when it does not say. */
  readonly retryAfterMs: number | null;
  /** The type of the CA's problem document without its prefix, as `rateLimited` (RFC 8555, 6.7); null when the CA sent none. */
  readonly problem: string | null;

  constructor(message: string, options: { cause?: unknown; retryAfterMs?: number | null; problem?: string | null } = {}) {
    super("ERR_ACME", message, { cause: options.cause });
    this.retryAfterMs = options.retryAfterMs ?? null;
    this.problem = options.problem ?? null;
  }
}
