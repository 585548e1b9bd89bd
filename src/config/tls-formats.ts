// The formats of TLS, ACME and alerts that the schema names, as `formats.ts` has those of the rest.
import { isIP } from "node:net";
import { isHostName, isLoopbackHost, parseDialAddress } from "../lib/address.ts";
import { cipherSuiteNames, explainRefusedSuite, parseCipherSuite } from "../lib/cipher-suites.ts";
import { nearest } from "../lib/nearest.ts";

const DIRECTORIES = ["letsencrypt", "letsencrypt_staging"];

function cipherSuite(text: string): string | null {
  if (parseCipherSuite(text) !== null) return null;
  const refused = explainRefusedSuite(text);
  if (refused !== null) return refused;
  if (text.includes(":")) return "is a list of OpenSSL; write a list of YAML, one name an item";
  const meant = nearest(text, cipherSuiteNames());
  return `is not a cipher suite that is spoken here; ${meant === null ? `known: ${cipherSuiteNames().join(", ")}` : `did you mean '${meant}'?`}`;
}

function email(text: string): string | null {
  if (text.startsWith("mailto:")) return "has a scheme; write the address alone";
  const [, host = ""] = /^[^\s@<>(),;:"]+@([^\s@]+)$/.exec(text) ?? [];
  return isHostName(host) && host.includes(".") ? null : "is not an e-mail address; write admin@example.com";
}

/** What is wrong with the text as an http or https URL; null when nothing is. */
function httpUrl(text: string): string | null {
  const url = /^https?:\/\/[^\s]+$/i.test(text) ? URL.parse(text) : null;
  if (url === null || url.hostname === "") return "is not a URL; write https://host/path";
  if (url.username !== "" || url.password !== "") return "has a user name or password; leave them out";
  return text.includes("#") ? "has a fragment ('#...'), which no server sees; leave it out" : null;
}

function acmeDirectory(text: string): string | null {
  if (DIRECTORIES.includes(text)) return null;
  const choices = "write 'letsencrypt', 'letsencrypt_staging' or the https URL of a CA's directory";
  if (!text.includes(":")) {
    const meant = nearest(text, DIRECTORIES);
    return `is not a CA that is known by name; ${meant === null ? choices : `did you mean '${meant}'?`}`;
  }
  const wrong = httpUrl(text);
  if (wrong !== null) return wrong.startsWith("is ") ? `is not the URL of a directory; ${choices}` : wrong;
  const url = new URL(text);
  const isHere = isLoopbackHost(url.hostname);
  return url.protocol === "https:" || isHere ? null : "must be https: whoever is in between could have certificates issued to themselves";
}

/** Why the text is not a bare host name, for what people write instead. */
function notAHost(text: string, example: string): string {
  if (text.includes("://")) return "is a URL; write the host name alone";
  if (isIP(text.replace(/^\[(.*)\]$/, "$1")) !== 0) return "is an IP address; a host name must stand here";
  if (/:\d+$/.test(text)) return "has a port; write the host name alone";
  // oxlint-disable-next-line no-control-regex -- everything that is not ASCII
  if (/[^\x00-\x7f]/.test(text)) return "has letters that host names on the wire do not have; write its xn-- form";
  return `is not a host name; write ${example}`;
}

function acmeName(text: string): string | null {
  return isHostName(text.startsWith("*.") ? text.slice(2) : text) ? null : notAHost(text, "mcp.example.com or *.example.com");
}

function hostName(text: string): string | null {
  return isHostName(text) ? null : notAHost(text, "db.example.com");
}

function base64url(text: string): string | null {
  if (/^[A-Za-z0-9_-]+={0,2}$/.test(text)) return null;
  return /^[A-Za-z0-9+/]+={0,2}$/.test(text) ? "must be base64url: write '-' for '+' and '_' for '/'" : "must be base64url: letters, digits, '-' and '_'";
}

function dnsServer(text: string): string | null {
  if (isIP(text.replace(/^\[(.*:.*)\]$/, "$1")) !== 0) return null;
  const address = parseDialAddress(text);
  if (address?.kind === "tcp" && isIP(address.host) !== 0) return null;
  return "is not the address of a DNS server; write 1.1.1.1, 127.0.0.1:5353 or [2606:4700:4700::1111]:53";
}

export const TLS_FORMATS = {
  cipher_suite: cipherSuite,
  email,
  acme_directory: acmeDirectory,
  acme_name: acmeName,
  base64url,
  dns_server: dnsServer,
  http_url: httpUrl,
  host_name: hostName,
};
