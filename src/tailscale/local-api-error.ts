// What can go wrong between the gateway and tailscaled's LocalAPI.
import { GatewayError } from "../lib/errors.ts";

/**
 * `unreachable`: nobody answers, or the answer broke off. `timeout`: it was asked and is silent. `refused`: it answered with an error status. `bad_answer`: it
 * answered with what cannot be understood. `closed`: the gateway gave up on its own.
 */
export type LocalApiFailure = "unreachable" | "timeout" | "refused" | "bad_answer" | "closed";

/** `code` is `local_api_` and the failure. */
export class LocalApiError extends GatewayError {
  readonly failure: LocalApiFailure;
  /** HTTP status; 0 = no answer. */
  readonly status: number;
  /** How long to wait before the next attempt, where tailscaled says so (rate limits of certificates). */
  readonly retryAfterMs: number | null;

  constructor(failure: LocalApiFailure, message: string, { status = 0, retryAfterMs = null }: { status?: number; retryAfterMs?: number | null } = {}) {
    super(`local_api_${failure}`, message);
    this.failure = failure;
    this.status = status;
    this.retryAfterMs = retryAfterMs;
  }
}
