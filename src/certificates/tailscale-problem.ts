// Why tailscaled gives no certificate, as text for people.
import { describeSystemError } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";

/** What asking tailscaled for a certificate rejects with, as far as it is looked at. */
type TailscaleFailure = {
  /** Of tailscaled's answer; 0 = there was none. */
  readonly status?: unknown;
  /** What a CA asked for that limits orders; null = it did not say. */
  readonly retryAfterMs?: unknown;
};

/** Why there are no names that tailscaled gives certificates for. */
export const NO_DOMAINS =
  "the tailnet gives no HTTPS certificates: switch on MagicDNS and then HTTPS Certificates at https://login.tailscale.com/admin/dns (Headscale has none)";

// Of a CA that limits orders and does not say for how long.
const UNTOLD_LIMIT_MS = 3_600_000;

/** By what tailscaled says (feature/acme/cert.go, ipn/localapi/cert.go of 1.102): its words alone would not tell what to do. */
const KNOWN: readonly (readonly [RegExp, string])[] = [
  [/does not support getting TLS certs/i, NO_DOMAINS],
  [/invalid domain/i, "it is not, or no longer, the node's name in the tailnet"],
  [/no netmap available/i, "the node is not on the tailnet yet"],
  [
    /cert access denied/i,
    "tailscaled does not let this user have certificates: start tailscaled with TS_PERMIT_CERT_UID set to this user's id, or make it the operator",
  ],
  [/cert support not compiled/i, "this tailscaled was built without certificates: install an official one"],
  [/context (?:deadline exceeded|canceled)/i, "tailscaled got no certificate in time: it must reach its control server and Let's Encrypt"],
];

/** Whether tailscaled gave no answer at all. */
export function isUnanswered(error: unknown): boolean {
  return failureOf(error).status === 0;
}

/** How long the CA wants no orders, in milliseconds; null when it limits nothing. */
export function heldBackMs(error: unknown): number | null {
  const { status, retryAfterMs } = failureOf(error);
  if (status !== 429) return null;
  return typeof retryAfterMs === "number" ? retryAfterMs : UNTOLD_LIMIT_MS;
}

/** The end of a sentence, with what to do where that is known. */
export function describeTailscaleFailure(error: unknown): string {
  const message = describeSystemError(error);
  const known = KNOWN.find(([pattern]) => pattern.test(message));
  if (known !== undefined) return known[1];
  const said = printable(message);
  return failureOf(error).status === 429 ? `Let's Encrypt limits how many certificates are issued: ${said}` : said;
}

function failureOf(error: unknown): TailscaleFailure {
  return typeof error === "object" && error !== null ? error : {};
}
