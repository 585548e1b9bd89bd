// Cookies in request headers (RFC 6265, 4.2).

/** The value of a cookie in the flat headers of a request; null when there is none, or more than one: then somebody else has set the other. */
export function cookieValue(raw: readonly string[], name: string): string | null {
  let found: string | null = null;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (raw[i]?.length !== 6 || raw[i]?.toLowerCase() !== "cookie") continue;
    for (const pair of (raw[i + 1] ?? "").split(";")) {
      const equals = pair.indexOf("=");
      if (equals === -1 || pair.slice(0, equals).trim() !== name) continue;
      if (found !== null) return null;
      found = pair.slice(equals + 1).trim();
    }
  }
  return found;
}

// Sessions, logins and consents: all that we set begins with the word, behind a prefix or not.
const OWN = /^(?:__Host-|__Secure-)?sidegate(?:$|[^A-Za-z0-9])/i;

/** Whether a Set-Cookie header would set one of the gateway's: an upstream could put its visitor into the session of somebody else. */
export function setsOwnCookie(value: string): boolean {
  return OWN.test(value.split("=", 1)[0]?.trim() ?? "");
}

/** The value of a Cookie header without the cookies of the gateway; empty when nothing is left. */
export function withoutOwnCookies(value: string): string {
  if (!/sidegate/i.test(value)) return value;
  return value
    .split(";")
    .filter((pair) => !OWN.test(pair.split("=", 1)[0]?.trim() ?? ""))
    .join(";")
    .trim();
}
