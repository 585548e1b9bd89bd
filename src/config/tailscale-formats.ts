// The formats of the tailnet that the schema names, as `formats.ts` has those of the rest.
import { isIP } from "node:net";
import { isHostName } from "../lib/address.ts";

// RFC 1123 section 2.1, one label.
const LABEL = /^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/;
// A socket address is limited to 107 bytes by Linux (sockaddr_un).
const MAX_SOCKET_BYTES = 107;

/** A key in the wrong place: nothing of it may be repeated. */
const MISPLACED_KEY = "is an auth key; write it in 'auth_key', or better into a file that 'auth_key_file' names";

function isKey(text: string): boolean {
  return /[th]skey-/i.test(text);
}

function hostname(text: string): string | null {
  if (isKey(text)) return MISPLACED_KEY;
  if (LABEL.test(text)) return null;
  if (text === "") return "is empty; leave 'hostname' away for the name of the machine";
  if (text.includes("://")) return "is a URL; write one word, as ib-gateway";
  const label = (text.split(".")[0] ?? "").toLowerCase().replaceAll("_", "-");
  if (text.includes(".") && LABEL.test(label)) return `has a dot, and the tailnet adds its own domain; write ${label}`;
  if (LABEL.test(text.toLowerCase())) return `has capitals, which names of nodes do not; write ${text.toLowerCase()}`;
  if (text.length > 63) return "is longer than the 63 characters that a name of a node may have";
  return "is not a name of a node; letters, digits and hyphens within make one, as ib-gateway";
}

/** What is not from Tailscale is headscale's: any word. An empty text may be a variable that is, and is looked at elsewhere. */
function authKey(text: string): string | null {
  if (text === "") return null;
  if (text.startsWith("file:")) return "names a file; write its path in 'tailscale.auth_key_file'";
  if (text.startsWith("tskey-api-"))
    return "is an API access token, by which no node joins; make an auth key (tskey-auth-...) in the admin console under Settings, Keys";
  if (/^["'`]|["'`]$/.test(text)) return "has quotes around it that are part of the value; take them off";
  return /^[\x21-\x7e]+$/.test(text) ? null : "is not an auth key: it has spaces or letters that no key has";
}

function tag(text: string): string | null {
  if (isKey(text)) return MISPLACED_KEY;
  const name = text.replace(/^tag:/, "");
  // tailcfg.CheckTag.
  const isName = /^[A-Za-z][A-Za-z0-9-]*$/.test(name);
  if (text !== name && isName) return null;
  if (isName) return `needs its prefix; write tag:${name}`;
  if (/[,\s]/.test(text)) return "is not one tag; write a list of YAML, one tag an item";
  if (text.includes("*")) return "has a '*', and tags are compared as they are; name each of them";
  if (/^(?:group|autogroup):/.test(text)) return "is a group of the tailnet's policy, of which nodes know nothing; name its tags or people";
  return "is not a tag; tag: and a letter, then letters, digits and hyphens make one, as tag:trading";
}

function user(text: string): string | null {
  if (isKey(text)) return MISPLACED_KEY;
  if (/^(?:group|autogroup):/.test(text)) return "is a group of the tailnet's policy, of which nodes know nothing; name its people";
  if (text.startsWith("tag:")) return "is a tag; write it under 'tags'";
  if (text.includes("*")) return "has a '*', and people are compared by their whole login names; name each of them";
  if (/[,\s]/.test(text)) return "is not one login name; write a list of YAML, one an item";
  // headscale has logins without '@'.
  return /^[^@]+(?:@[^@]+)?$/.test(text) ? null : "is not a login name; write alice@example.com, or alice@github for a login by GitHub";
}

function node(text: string): string | null {
  if (isKey(text)) return MISPLACED_KEY;
  if (isIP(text) !== 0) return "is an address; write the name of the node, which it keeps: laptop";
  if (text.startsWith("tag:")) return "is a tag; write it under 'tags'";
  if (text.includes("@")) return "is a login name; write it under 'users'";
  if (text.includes("*")) return "has a '*', and nodes are compared by their whole names; name each of them, or give them a tag";
  if (text.endsWith(".") && isHostName(text.slice(0, -1))) return `has a dot at its end; write ${text.slice(0, -1)}`;
  return isHostName(text) ? null : "is not the name of a node; write laptop, or laptop.tail1234.ts.net for one of another tailnet";
}

function controlUrl(text: string): string | null {
  const url = /^https?:\/\/\S+$/i.test(text) ? URL.parse(text) : null;
  if (url === null || url.hostname === "") return "is not a URL; write https://headscale.example.com";
  if (url.username !== "" || url.password !== "") return "has a user name or password; leave them out, nodes log in by 'auth_key'";
  return /[?#]/.test(text) ? "has a query or fragment; write the address of the control server alone" : null;
}

function socketPath(text: string): string | null {
  const bare = text.replace(/^unix:(?:\/\/)?/, "");
  if (bare !== text && bare.startsWith("/")) return `needs no scheme; write ${bare}`;
  if (!text.startsWith("/")) return "is not absolute; write /var/run/tailscale/tailscaled.sock";
  return Buffer.byteLength(text) > MAX_SOCKET_BYTES ? `is longer than the ${MAX_SOCKET_BYTES} bytes that the path of a socket may have` : null;
}

/** What is wrong with a text that begins with `tailnet` and is not a port of it. */
export function explainTailnetAddress(text: string): string {
  const port = /^tailnet:?(.*)$/s.exec(text)?.[1] ?? "";
  if (port === "") return "has no port; write tailnet:4003";
  if (/^0+$/.test(port)) return "has port 0, which asks for any free one, and the tailnet gives none; write tailnet:4003";
  if (/^\d+$/.test(port)) return "has a port beyond 65535; write tailnet:4003";
  return "is not a port of the tailnet: one number stands behind the colon; write tailnet:4003";
}

export const TAILSCALE_FORMATS = {
  tailnet_hostname: hostname,
  auth_key: authKey,
  tailnet_tag: tag,
  tailnet_user: user,
  tailnet_node: node,
  control_url: controlUrl,
  socket_path: socketPath,
};
