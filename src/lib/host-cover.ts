// Which host names a certificate covers, and which ones a CA can be asked for.
import { isIP } from "node:net";

/** The wildcard that covers a name: `*` stands for exactly one label (RFC 9525 section 6.3). Empty when the name has one label alone. */
export function wildcardOf(name: string): string {
  const dot = name.indexOf(".");
  return dot === -1 ? "" : `*${name.slice(dot)}`;
}

/** Whether a certificate with these names covers a host: exact or `*.example.com`, both lower case. */
export function isCovered(host: string, names: ReadonlySet<string>): boolean {
  const name = bareAddress(host);
  if (isIP(name) === 0) return names.has(host) || names.has(wildcardOf(host));
  // A certificate tells IPv6 addresses in full, a file in any form.
  return names.has(name) || (isIP(name) === 6 && Array.from(names).some((other) => isIP(other) === 6 && canonical(other) === canonical(name)));
}

function bareAddress(host: string): string {
  return host.startsWith("[") ? host.slice(1, -1) : host;
}

function canonical(address: string): string {
  return new URL(`http://[${address}]`).hostname;
}

/** Whether a host (lower case) is one of a tailnet, for which tailscaled gets the certificate: `node.tail1234.ts.net`. */
export function isTailnetName(host: string): boolean {
  return /^[^*.]+\.[^.]+\.ts\.net$/.test(host);
}

// RFC 2606, 6761, 6762, 7686, 8375 and ICANN's reservation of .internal; the others are used in networks at home and at work.
const RESERVED = /\.(local|internal|lan|home\.arpa|test|example|invalid|localhost|onion)$/;

/** What a CA is known to take. */
export type OrderRules = {
  /** It issues for names of the public DNS alone. */
  readonly isPublic: boolean;
  /** The challenge dns-01 is taken. */
  readonly hasDns01: boolean;
};

/** The rules for the `acme` of a configuration. Of other CAs than Let's Encrypt we do not know what they issue. */
export function orderRules(acme: { readonly directory: string; readonly challenge?: string; readonly dns?: unknown }): OrderRules {
  const isPublic = acme.directory.startsWith("letsencrypt") || URL.parse(acme.directory)?.hostname.endsWith(".api.letsencrypt.org") === true;
  return { isPublic, hasDns01: acme.challenge === "dns-01" || (acme.challenge === undefined && acme.dns !== undefined) };
}

/**
 * Why a CA cannot be asked for a certificate for the host (lower case; `*.example.com` for a wildcard), as the end of the sentence "Host 'x' ...";
 * null when it can.
 */
export function whyNotOrdered(host: string, ca: OrderRules): string | null {
  if (isIP(bareAddress(host)) !== 0) return "is an IP address, and 'acme' is for names";
  if (host.startsWith("*.") && !ca.hasDns01) return "is a wildcard, for which CAs ask for the challenge dns-01: give 'dns'";
  if (!ca.isPublic) return null;
  const name = host.startsWith("*.") ? host.slice(2) : host;
  if (!name.includes(".")) return "has one label alone, so that no public CA issues a certificate for it";
  const reserved = RESERVED.exec(name)?.[0];
  if (reserved !== undefined) return `ends with '${reserved}', for which no public CA issues certificates`;
  return name.includes("_") ? "has an underscore, for which no public CA issues certificates" : null;
}
