// Who may talk to the admin interface: programs of this machine, but no web page that a browser on it shows.
import type { IncomingHttpHeaders } from "node:http";
import type { BindAddress } from "../plan/model.ts";

const LOCAL_HOSTS = new Set(["localhost", "127.0.0.1", "[::1]"]);

/**
 * Why the request is refused, or null. A page that was rebound to 127.0.0.1 by DNS names itself in Host; any other page that makes a
 * browser send something names itself in Origin or Sec-Fetch-Site.
 */
export function refusal(headers: IncomingHttpHeaders, address: BindAddress): string | null {
  if (!isLocalHost(headers.host, address)) return "Host is not a local name";
  if (headers.origin !== undefined) return "Requests of web pages are refused";
  const site = headers["sec-fetch-site"];
  if (site !== undefined && site !== "none" && site !== "same-origin") return "Requests of web pages are refused";
  return null;
}

function isLocalHost(host: string | undefined, address: BindAddress): boolean {
  // A client of a unix socket has no host to name.
  if (host === undefined || host === "") return address.kind === "unix";
  const name = host.toLowerCase().replace(/:\d+$/, "");
  if (LOCAL_HOSTS.has(name)) return true;
  return address.kind === "tcp" && address.host !== null && name === (address.host.includes(":") ? `[${address.host}]` : address.host).toLowerCase();
}
