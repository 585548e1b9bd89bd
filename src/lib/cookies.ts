// Cookies in request headers (RFC 6265, 4.2).

/** The value of a cookie in the flat headers of a request; null when there is none, or more than one: then somebody else has set the other. */
export function cookieValue(raw: readonly string[], name: string): string | null {
  let found: string | null = null;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (raw[i]?.length !== 6 || raw[i]?.toLowerCase() !== "cookie") continue;
    for (const pair of (raw[i + 1] ?? "").split(";")) {
      const equals = pair.indexOf("=");
      if (equals === -1 || withoutSpace(pair.slice(0, equals)) !== name) continue;
      if (found !== null) return null;
      found = withoutSpace(pair.slice(equals + 1));
    }
  }
  return found;
}

/** Spaces and tabs alone (RFC 6265, 4.2.1): a name with another kind of space before it has no prefix for browsers, and must be another name for us. */
function withoutSpace(text: string): string {
  // No regular expression: at a long run of spaces it would look again from each of them.
  let [from, to] = [0, text.length];
  while (text[from] === " " || text[from] === "\t") from += 1;
  while (to > from && (text[to - 1] === " " || text[to - 1] === "\t")) to -= 1;
  return text.slice(from, to);
}

/** All cookies of a request in one text, also when HTTP/2 has split them into crumbs (RFC 9113, 8.2.3); empty without any. */
export function cookiesOf(raw: readonly string[]): string {
  const values: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) if (raw[i]?.length === 6 && raw[i]?.toLowerCase() === "cookie") values.push(raw[i + 1] ?? "");
  return values.join("; ");
}

// Sessions, logins and consents: all that we set begins with the word, behind a prefix or not.
const OWN = /^(?:__Host-|__Secure-)?sidegate(?:$|[^A-Za-z0-9])/i;

/** Whether a Set-Cookie header would set one of the gateway's: an upstream could put its visitor into the session of somebody else. */
export function setsOwnCookie(value: string): boolean {
  // Without a name the value alone is sent back, and reads like a cookie then (RFC 6265bis, 5.6 and 5.8.3).
  const [name = ""] = value.replace(/^[\s=]+/, "").split(/[=;]/, 1);
  return OWN.test(name.trim());
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
