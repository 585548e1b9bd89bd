// Which host names clients ask a listener for: those that it needs certificates for.
import { isIP } from "node:net";
import { isHostName, isLoopback, type parseListenAddress } from "./address.ts";

/**
 * An HTTP listener. `address`: null where it is not known. `httpsPort`: the one of this machine that port 443 of its names is mapped to, as
 * `acme.https_port` says; null without `acme`.
 */
export type HttpPlace = { readonly name: string; readonly address: ReturnType<typeof parseListenAddress>; readonly httpsPort: number | null };

/** What a route, or the authorization server that all share, says of where it is: a server has no `upstream`. Without `listeners`: on all. */
export type Placed = {
  readonly host?: string | undefined;
  readonly public_url?: string | undefined;
  readonly listeners?: readonly string[] | undefined;
  readonly upstream?: string | undefined;
};

/** `isCertain`: clients come to this very listener by the name. Otherwise they may, by a proxy or a mapping of ports that the file does not tell of. */
export type ListenerHost = { readonly host: string; readonly key: "host" | "public_url"; readonly isCertain: boolean };

/**
 * The names (lower case, `*.example.com` for a wildcard) by which clients ask a listener for a route or server; none when it does not serve that.
 *
 * A `host` is always ours. An https `public_url` without one is ours where the listener has its port: TLS ends there, and clients send the name. Port 443
 * that no listener has is mapped to one of ours, since somebody must take the connections - unless there are proxies, which may be who takes them, as they
 * do with each other port that we do not have, with a route that has another host, and with one that only a proxy asks about. For those names no CA could
 * prove that they are ours, and each try would count against the limits of the account: whoever knows better writes them in `acme.domains`. The server is
 * on every listener, and its address leads to us from any port that no listener has, unless there are proxies.
 * @param listener its name; of one that is no HTTP listener nothing is certain.
 * @param all the HTTP listeners. @param hasProxies whether the file trusts any, or may.
 */
export function listenerHosts(placed: Placed, listener: string, all: readonly HttpPlace[], hasProxies: boolean): ListenerHost[] {
  const { host, public_url: publicUrl, listeners, upstream } = placed;
  if (listeners?.includes(listener) === false) return [];
  const here = all.find(({ name }) => name === listener);
  const own = host === undefined ? [] : [{ host: host.toLowerCase(), key: "host" as const, isCertain: here !== undefined }];
  const url = publicUrl === undefined ? null : URL.parse(publicUrl);
  const name = url?.protocol === "https:" ? askedName(url) : null;
  if (url === null || name === null) return own;
  const asked = url.port === "" ? 443 : Number(url.port);
  const isAsked = (place: HttpPlace): boolean => portOf(place) === asked || (asked === 443 && place.httpsPort !== null && portOf(place) === place.httpsPort);
  const isServer = upstream === undefined;
  const isUnclaimed = (): boolean =>
    (isServer || asked === 443) && !hasProxies && !all.some((place) => (listeners?.includes(place.name) ?? true) && isAsked(place));
  const canBeOurs = here !== undefined && host === undefined && upstream !== "none" && (isServer || isTcp(here));
  const isCertain = canBeOurs && (isAsked(here) || ((isServer || isOpen(here)) && isUnclaimed()));
  return [...own, { host: name, key: "public_url", isCertain }];
}

/** The name that clients of a URL send in a handshake, which has no dot at its end; an address as it stands in the URL. Null when it is neither. */
function askedName({ hostname }: URL): string | null {
  const name = hostname.replace(/\.$/, "");
  return isHostName(name) || isIP(name) === 4 || name.startsWith("[") ? name : null;
}

/** 0 on a unix socket, and where the system chooses. */
function portOf({ address }: HttpPlace): number {
  return address === null || address.kind === "unix" ? 0 : address.port;
}

/** Names of the tailnet are tailscaled's, and to a unix socket another program leads. */
function isTcp(place: HttpPlace): boolean {
  return place.address?.kind === "tcp" && portOf(place) !== 0;
}

/** Whether a port of another address can be mapped to it: to this machine's own only its programs come. */
function isOpen({ address }: HttpPlace): boolean {
  return address !== null && !isLoopback(address);
}
