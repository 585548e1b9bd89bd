// How long a server asks to wait.

// Nobody puts us to sleep until a certificate expires.
const MAX_MS = 7 * 86_400_000;

/** Milliseconds of a Retry-After header, seconds or a date (RFC 9110 section 10.2.3), at most a week; null when it asks for nothing. */
export function parseRetryAfter(value: string | string[] | null | undefined, nowMs: number): number | null {
  if (typeof value !== "string") return null;
  const ms = /^\d+$/.test(value) ? Number(value) * 1_000 : Date.parse(value) - nowMs;
  return ms > 0 ? Math.min(ms, MAX_MS) : null;
}
