// Why tailscaled cannot be started, in words for people.
import { GatewayError } from "../lib/errors.ts";

/** The message says what is wrong, where, and what to do. */
export class DaemonError extends GatewayError {
  constructor(message: string, options?: { cause?: unknown }) {
    super("tailscaled_not_started", message, options);
  }
}
