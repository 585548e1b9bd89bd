// The names that a certificate gives to its holder: distinguished name, common name and subject alternative names.
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

/** `value` is in the form in which names are compared: see `parseAltName`. */
export type AltName = { readonly kind: "dns" | "ip" | "email" | "uri"; readonly value: string };

const KINDS: Readonly<Record<string, AltName["kind"]>> = { DNS: "dns", "IP Address": "ip", email: "email", URI: "uri" };

/**
 * The subject alternative names in Node.js' text form (`DNS:a.example, URI:"urn:a\u002c b"`), without kinds that are not known here.
 * A text that is not wholly understood has none: half of it might be taken for what another part says (CVE-2021-44532).
 */
export function parseAltNames(text: string): { readonly kind: AltName["kind"]; readonly value: string }[] {
  const names: { kind: AltName["kind"]; value: string }[] = [];
  // Node.js quotes a value that holds a comma, a quote or a character beyond ASCII as JSON.
  const entry = /([A-Za-z ]+):("(?:[^"\\]|\\.)*"|[^",\\]*)(?:, |$)/y;
  while (entry.lastIndex < text.length) {
    const match = entry.exec(text);
    if (match === null) return [];
    const [, label = "", raw = ""] = match;
    const kind = Object.hasOwn(KINDS, label) ? KINDS[label] : undefined;
    if (kind === undefined) continue;
    const value = raw.startsWith('"') ? unquote(raw) : raw;
    if (value === null) return [];
    names.push({ kind, value });
  }
  return names;
}

function unquote(json: string): string | null {
  try {
    return String(JSON.parse(json));
  } catch {
    return null;
  }
}

/**
 * Which kind of alternative name a text is, and how it is compared: DNS names and the domains of e-mail addresses in lower case,
 * IP addresses in their canonical form (RFC 5952), URIs as they are. Null: it is none, or has white space or is not ASCII.
 */
export function parseAltName(text: string): AltName | null {
  if (!/^[!-~]+$/.test(text)) return null;
  if (isIP(text) !== 0) return text.includes("%") ? null : { kind: "ip", value: ipaddr.parse(text).toString() };
  if (/^[a-z][a-z0-9+.-]*:/i.test(text)) return { kind: "uri", value: text };
  const [local = "", domain, ...more] = text.split("@");
  if (domain !== undefined) return local === "" || domain === "" || more.length > 0 ? null : { kind: "email", value: `${local}@${domain.toLowerCase()}` };
  return /^[a-z0-9*_.-]+$/i.test(text) ? { kind: "dns", value: text.toLowerCase() } : null;
}

/**
 * The distinguished name as `openssl x509 -nameopt RFC2253` prints it (`CN=trader,O=Acme`), in printable ASCII.
 * Values of attributes that OpenSSL has no name for stand as text, where openssl prints their bytes.
 * @param subject the subject of an X509Certificate: an attribute a line, escaped as in RFC 2253 but for characters beyond ASCII
 */
export function distinguishedName(subject: string): string {
  const names = subject.split("\n").map((line) => line.split(" + ").toReversed().join("+"));
  return escapeUnicode(names.toReversed().join(","));
}

/** The one common name of a subject (see `distinguishedName`), as text and escaped as in RFC 2253; null when there is none, or several. */
export function commonName(subject: string): { readonly text: string; readonly escaped: string } | null {
  const attributes = subject.split("\n").flatMap((line) => line.split(" + "));
  const [name, ...more] = attributes.filter((attribute) => attribute.startsWith("CN="));
  if (name === undefined || more.length > 0) return null;
  const value = name.slice("CN=".length);
  return { text: unescape(value), escaped: escapeUnicode(value) };
}

function escapeUnicode(text: string): string {
  return text.replace(/[^ -~]+/g, (some) => Buffer.from(some).toString("hex").toUpperCase().replace(/../g, "\\$&"));
}

/** `\,` and the like are characters, `\0A` is a control character. */
function unescape(text: string): string {
  return text.replace(/\\([0-9A-F]{2}|.)/g, (_all, what: string) => (what.length === 2 ? String.fromCharCode(Number.parseInt(what, 16)) : what));
}
