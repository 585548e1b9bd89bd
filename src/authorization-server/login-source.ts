// What a way to log in is to the flow that uses it: somebody elsewhere says who it is, and the browser brings the answer.
import type { Person } from "../identity/person.ts";
import type { IdentityProvider } from "../identity/provider-health.ts";
import { GatewayError } from "../lib/errors.ts";

export type LoginStart = {
  /** Where the browser goes. */
  readonly location: string;
  /** What `finish` needs again (PKCE verifier, nonce). It is kept with the state, by us, and never reaches the browser. */
  readonly memory: string;
};

/** A login at somebody else's: `start` sends the browser there, `finish` takes what it brings back. */
export type LoginSource = {
  readonly kind: "github" | "oidc";
  /** What the button says after "Continue with". */
  readonly label: string;
  /** @param redirectUri our /callback; @param state ours, unguessable and for one use. @throws {LoginError} */
  start(args: { readonly redirectUri: string; readonly state: string }): Promise<LoginStart>;
  /** @param callback the redirect URI with the query that came; its state was checked. @throws {LoginError} */
  finish(args: { readonly callback: URL; readonly redirectUri: string; readonly state: string; readonly memory: string }): Promise<Person>;
  /** How the provider fares, by what it answered to us alone: what a browser brings may be made up. */
  provider(): IdentityProvider;
  close(): void;
};

/**
 * A login that did not work. `message` is for the person: what happened and what to do; `detail` for the log alone.
 * `outage`: why everybody's login there fails, for the operator; null: it is a matter of this one.
 * `unavailable`: the provider does not answer, 503; `refused`: it, or we, said no, 403; `misconfigured`: it is not set up correctly, 403; `throttled`: too many attempts, 429; `failed`: begin anew, 400.
 */
export class LoginError extends GatewayError {
  readonly reason: "unavailable" | "refused" | "misconfigured" | "throttled" | "failed";
  /** Whole seconds; null where waiting does not help. */
  readonly retryAfterS: number | null;
  readonly outage: string | null;

  constructor(reason: LoginError["reason"], message: string, options: { detail?: string; cause?: unknown; retryAfterS?: number; outage?: string | null } = {}) {
    super("ERR_LOGIN", message, options);
    this.reason = reason;
    this.retryAfterS = options.retryAfterS ?? null;
    this.outage = options.outage ?? null;
  }
}
