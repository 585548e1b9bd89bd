// The formats of strings that the schema names: what is wrong with a text, as the end of the sentence "Value 'x' at y ...".
import ipaddr from "ipaddr.js";
import { RE2JS } from "re2js";
import { isHostName, parseDialAddress, parseListenAddress, parseNetwork } from "../lib/address.ts";
import { parseDurationMs, parseSizeBytes } from "../lib/duration.ts";
import { nearest } from "../lib/nearest.ts";
import { parseTarget } from "../lib/target.ts";
import { isTimeZone, parseMaintenance } from "../lib/maintenance.ts";
import { firstAddress, hasHostBits } from "../lib/network.ts";
import { TAILSCALE_FORMATS, explainTailnetAddress } from "./tailscale-formats.ts";
import { AUTH_FORMATS } from "./auth-formats.ts";
import { TLS_FORMATS } from "./tls-formats.ts";

/** Null when the text is right; otherwise what is wrong and what to write. It never quotes the text. */
type Format = (text: string) => string | null;

const NAME = /^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$/;
// RFC 9110 section 5.6.2.
const TOKEN = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
// RFC 6749 section 3.3.
const SCOPE = /^[\x21\x23-\x5b\x5d-\x7e]+$/;
// RFC 3986 section 3.3, without the empty segments and dot segments that are normalised away before routes are looked up.
const PATH = /^(?:\/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})*)+$/;

function duration(text: string): string | null {
  if (parseDurationMs(text) !== null) return null;
  return `is not a duration; write a number and a unit: 250ms, 30s, 5m, 24h or 90d`;
}

function positiveDuration(text: string): string | null {
  return duration(text) ?? (parseDurationMs(text) === 0 ? "must be longer than 0s" : null);
}

function size(text: string): string | null {
  return parseSizeBytes(text) === null ? "is not a size; write a number and a unit: 512B, 64KiB or 10MB" : null;
}

function network(text: string): string | null {
  const parsed = parseNetwork(text);
  if (parsed === null) return tailnetIdentity(text) ?? "is not an IP address or network; write 10.0.0.0/8, 192.168.1.7 or fd00::/8";
  return hasHostBits(parsed) ? `is not the beginning of its network; write ${firstAddress(parsed)}/${parsed.prefix}, or the address alone` : null;
}

/** Of a text that 'allow' takes in another form. */
function tailnetIdentity(text: string): string | null {
  const { tailnet_tag: tag, tailnet_user: user } = TAILSCALE_FORMATS;
  if (tag(text) === null) return `is a tag of the tailnet and no network; on a 'tailnet:' listener write allow: { tailnet: { tags: [${text}] } }`;
  if (/^[\w.+-]+@[\w.-]+$/.test(text) && user(text) === null)
    return `is a person of the tailnet and no network; on a 'tailnet:' listener write allow: { tailnet: { users: [${text}] } }`;
  return null;
}

function listenAddress(text: string): string | null {
  if (parseListenAddress(text) !== null) return null;
  if (/^\d{1,5}$/.test(text)) return `has no colon; write ":${text}" for all interfaces or 127.0.0.1:${text} for this machine alone`;
  if (text.startsWith("unix:")) return "is not a socket path; write unix:/run/sidegate/x.sock, absolute and of at most 107 bytes";
  if (/^tailnet(?::|$)/.test(text)) return explainTailnetAddress(text);
  return 'is not an address to listen on; write ":8443" (all interfaces), 127.0.0.1:8080, "[::1]:8080", unix:/path or tailnet:4003 (the tailnet alone)';
}

function target(text: string): string | null {
  const parsed = parseTarget(text);
  return parsed.ok ? null : parsed.reason;
}

function upstream(text: string): string | null {
  if (!text.includes(":") && !text.includes("/")) return NAME.test(text) ? null : "is neither a URL nor a name of an entry of 'upstreams'";
  if (parseDialAddress(text)?.kind === "tcp") return `has no scheme; write http://${text}`;
  return text.startsWith("tcp://") ? "is for TCP listeners; a route needs http, https, h2c or unix:" : target(text);
}

function tcpUpstream(text: string): string | null {
  if ((!text.includes(":") && NAME.test(text)) || parseDialAddress(text) !== null) return null;
  const bare = text.replace(/^tcp:\/\//, "");
  if (bare !== text && parseDialAddress(bare) !== null) return `needs no scheme; write ${bare}`;
  return "is neither host:port, unix:/path nor a name of an entry of 'upstreams'";
}

function hostPattern(text: string): string | null {
  const host = text.startsWith("*.") ? text.slice(2) : text;
  if (isHostName(host) || (host === text && (ipaddr.IPv4.isValidFourPartDecimal(text) || (/^\[.*\]$/.test(text) && ipaddr.IPv6.isValid(text.slice(1, -1))))))
    return null;
  if (/^https?:\/\//.test(text)) return "is a URL; write the host name alone";
  if (/:\d+$/.test(text)) return "has a port; write the host name alone, any port matches";
  if (text === "*") return "is not needed; leave 'host' away for any host";
  if (text.includes("*")) return "has its star in the wrong place; only *.example.com is possible";
  // oxlint-disable-next-line no-control-regex -- everything that is not ASCII
  if (/[^\x00-\x7f]/.test(text)) return "has letters that host names on the wire do not have; write its xn-- form";
  return "is not a host name; write mcp.example.com or *.example.com";
}

function path(text: string): string | null {
  if (!text.startsWith("/")) return "must begin with '/'";
  if (/[?#]/.test(text)) return "must be a path alone, without query or fragment";
  if (!PATH.test(text)) return "has characters that a path on the wire does not have; percent-encode them";
  if (/\/\.{1,2}(?:\/|$)/.test(text)) return "has '.' or '..' as a part, which no request can match";
  return text.includes("//") ? "has an empty part ('//')" : null;
}

function requestPath(text: string): string | null {
  return /^\/[\x21\x22\x24-\x7e]*$/.test(text) ? null : "must begin with '/' and be ASCII without spaces and '#'";
}

function linearRegex(text: string): string | null {
  try {
    RE2JS.compile(text);
    return null;
  } catch (error) {
    const reason = error instanceof Error ? error.message.replace(/^error parsing regexp: /, "") : "";
    const lookaround =
      /\(\?<?[=!]/.test(text) || /\\[1-9]/.test(text) ? "; RE2 has no lookaround and no backreferences, because matching is linear in time" : "";
    return `is not a regular expression of RE2 (${reason})${lookaround}`;
  }
}

function method(text: string): string | null {
  if (text === "CONNECT" || text === "TRACE") return "is never served";
  if (/^[A-Z][A-Z-]*$/.test(text)) return null;
  return /^[A-Za-z-]+$/.test(text) ? `must be in capitals: ${text.toUpperCase()}` : "is not a method such as GET or POST";
}

function headerName(text: string): string | null {
  return TOKEN.test(text) ? null : "is not a header name; letters, digits and hyphens make one";
}

function headerValue(text: string): string | null {
  if (/^(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?$/.test(text)) return null;
  return /^\s|\s$/.test(text) ? "begins or ends with white space" : "is not a header value; it may hold visible ASCII characters and spaces on one line";
}

function origin(text: string): string | null {
  if (text === "null") return "is what browsers send for any sandboxed page: it says nothing about who calls";
  if (text === "*" || /^(?!https?:)[a-z][a-z0-9+.-]*:\/\/[^\s/?#]+$/.test(text)) return null;
  const own = URL.parse(text)?.origin;
  if (own === text) return null;
  return own === undefined || own === "null" ? 'is not an origin; write https://app.example.com or "*"' : `is more than an origin; write ${own}`;
}

function scope(text: string): string | null {
  return SCOPE.test(text) ? null : "is not a scope; it may hold visible ASCII characters but spaces, quotes and backslashes";
}

function sha256(text: string): string | null {
  return /^[0-9a-fA-F]{64}$/.test(text) ? null : `must be 64 hexadecimal digits, but has ${text.length} characters; 'sidegate token new' prints the line`;
}

function name(text: string): string | null {
  return NAME.test(text) ? null : "is not a name; letters, digits, '-', '_' and '.' make one, at most 63, the first a letter or digit";
}

function maintenance(text: string): string | null {
  if (parseMaintenance(text) !== null) return null;
  const zone = /^\d\d:\d\d-\d\d:\d\d (\S+)$/.exec(text)?.[1];
  if (zone === undefined || isTimeZone(zone)) return 'is not a daily window; write "23:45-00:15 America/New_York"';
  const meant = nearest(zone, Intl.supportedValuesOf("timeZone"));
  return `names an unknown time zone${meant === null ? "; write its IANA name, as America/New_York" : `; did you mean '${meant}'?`}`;
}

export const FORMATS: Readonly<Record<string, Format>> = {
  duration,
  positive_duration: positiveDuration,
  size,
  network,
  listen_address: listenAddress,
  target,
  upstream,
  tcp_upstream: tcpUpstream,
  host_pattern: hostPattern,
  path,
  request_path: requestPath,
  linear_regex: linearRegex,
  method,
  header_name: headerName,
  header_value: headerValue,
  origin,
  scope,
  sha256,
  name,
  maintenance,
  ...AUTH_FORMATS,
  ...TLS_FORMATS,
  ...TAILSCALE_FORMATS,
};

/** The same as questions, for the validator. */
export const ACCEPTS: Readonly<Record<string, (text: string) => boolean>> = Object.fromEntries(
  Object.entries(FORMATS).map(([key, explain]) => [key, (text: string) => explain(text) === null]),
);
