// Addresses: those that the file names, and sets of networks that client addresses are looked up in.
import { BlockList, isIP, isIPv4 } from "node:net";

export type TcpAddress = { readonly kind: "tcp"; readonly host: string; readonly port: number };
export type UnixAddress = { readonly kind: "unix"; readonly path: string };
/** A port of the node in the tailnet; which socket that is, is for tailscaled's mode to say. */
export type TailnetAddress = { readonly kind: "tailnet"; readonly port: number };

// A socket address is limited to 107 bytes by Linux (sockaddr_un).
const MAX_UNIX_PATH_BYTES = 107;

function parsePort(text: string | undefined): number | null {
  if (text === undefined || !/^\d{1,5}$/.test(text)) return null;
  const port = Number(text);
  return port <= 65_535 ? port : null;
}

function parseUnix(text: string): UnixAddress | null {
  const path = text.slice("unix:".length);
  return path.startsWith("/") && !path.includes("\0") && Buffer.byteLength(path) <= MAX_UNIX_PATH_BYTES ? { kind: "unix", path } : null;
}

/**
 * `":8443"` (host null: all interfaces), `127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`, `unix:/path` or `tailnet:4003`.
 * Port 0 asks the system for a free one; the tailnet has none. Null when the text is none of them.
 */
export function parseListenAddress(
  text: string,
): { readonly kind: "tcp"; readonly host: string | null; readonly port: number } | UnixAddress | TailnetAddress | null {
  if (text.startsWith("unix:")) return parseUnix(text);
  if (text.startsWith("tailnet:")) {
    const tailnetPort = parsePort(text.slice("tailnet:".length));
    return tailnetPort === null || tailnetPort === 0 ? null : { kind: "tailnet", port: tailnetPort };
  }
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^[\]:/\s]*)):(\d+)$/.exec(text);
  const port = parsePort(match?.[3]);
  if (match === null || port === null) return null;
  const host = match[1] ?? match[2] ?? "";
  if (match[1] !== undefined && isIP(host) !== 6) return null;
  if (host === "") return { kind: "tcp", host: null, port };
  return isIP(host) !== 0 || host === "localhost" ? { kind: "tcp", host, port } : null;
}

const HOST_NAME = /^(?=.{1,253}$)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*$/i;

/** Whether the text is a host name of letters, digits, hyphens and dots, without a port. */
export function isHostName(text: string): boolean {
  // All digits and dots would be a mistyped IPv4 address.
  return HOST_NAME.test(text) && !/^[\d.]+$/.test(text);
}

/** `host:port`, `[::1]:port` or `unix:/path`, for a connection that we make; null when the text is neither. */
export function parseDialAddress(text: string): TcpAddress | UnixAddress | null {
  if (text.startsWith("unix:")) return parseUnix(text);
  const match = /^(?:\[([0-9a-fA-F:.]+)\]|([^[\]:/\s]+)):(\d+)$/.exec(text);
  const port = parsePort(match?.[3]);
  if (match === null || port === null || port === 0) return null;
  const host = match[1] ?? match[2] ?? "";
  if (match[1] !== undefined ? isIP(host) !== 6 : !isIPv4(host) && !isHostName(host)) return null;
  return { kind: "tcp", host: host.toLowerCase(), port };
}

/** `127.0.0.1:80`, `[::1]:80`, `*:80` (all interfaces), `unix:/path` or `tailnet:80`. */
export function formatAddress(address: { readonly kind: "tcp"; readonly host: string | null; readonly port: number } | UnixAddress | TailnetAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  if (address.kind === "tailnet") return `tailnet:${address.port}`;
  return `${address.host === null ? "*" : address.host.includes(":") ? `[${address.host}]` : address.host}:${address.port}`;
}

/** Whether only this machine reaches the address: 127.0.0.0/8, ::1, localhost or a unix socket. */
export function isLoopback(address: { readonly kind: "tcp"; readonly host: string | null } | { readonly kind: "unix" | "tailnet" }): boolean {
  if (!("host" in address)) return address.kind === "unix";
  const host = address.host;
  return host !== null && (host === "localhost" || (isIPv4(host) && host.startsWith("127.")) || (isIP(host) === 6 && LOOPBACK6.check(host, "ipv6")));
}

/** The same of the host name of a URL, which has IPv6 addresses in brackets. */
export function isLoopbackHost(hostname: string): boolean {
  return isLoopback({ kind: "tcp", host: hostname.replace(/^\[(.*)\]$/, "$1") });
}

const LOOPBACK6 = new BlockList();
LOOPBACK6.addAddress("::1", "ipv6");

/** An address to listen on; `host` null means all interfaces. */
export type ListenPlace = NonNullable<ReturnType<typeof parseListenAddress>>;

/** Whether two addresses cannot be open at once. Port 0 is a different one each time. */
export function collide(a: ListenPlace, b: ListenPlace): boolean {
  if (a.kind === "unix" || b.kind === "unix") return a.kind === "unix" && b.kind === "unix" && a.path === b.path;
  if (a.port !== b.port || a.port === 0) return false;
  const [hostA, hostB] = [plainHost(hostOf(a)), plainHost(hostOf(b))];
  if (hostA === hostB || hostA === "*" || hostB === "*") return true;
  const isV4 = (host: string): boolean => !host.includes(":");
  return (hostA === "0.0.0.0" && isV4(hostB)) || (hostB === "0.0.0.0" && isV4(hostA));
}

/** In userspace mode tailscaled brings connections to loopback. */
function hostOf(address: Exclude<ListenPlace, UnixAddress>): string | null {
  return address.kind === "tailnet" ? "127.0.0.1" : address.host;
}

/** "*" for all interfaces: `::` takes IPv4 too, as Node.js opens it. */
function plainHost(host: string | null): string {
  if (host === null) return "*";
  if (host === "localhost") return "127.0.0.1";
  const plain = host.includes(":") ? new URL(`http://[${host}]`).hostname.slice(1, -1) : host;
  return plain === "::" ? "*" : plain;
}

/** An IPv4-mapped IPv6 address as IPv4, and a zone taken off: the form in which addresses are compared and logged. */
export function plainIp(address: string): string {
  if (address.startsWith("::ffff:") && address.includes(".")) return address.slice(7);
  const zone = address.indexOf("%");
  return zone === -1 ? address : address.slice(0, zone);
}

/** `10.0.0.0/8`, `::1` or `fd00::/8`; null when the text is not a network or has bits set below its prefix length. */
export function parseNetwork(text: string): { readonly address: string; readonly prefix: number; readonly family: "ipv4" | "ipv6" } | null {
  const slash = text.indexOf("/");
  const address = slash === -1 ? text : text.slice(0, slash);
  const version = isIP(address);
  if (version === 0 || address.includes("%")) return null;
  const bits = version === 4 ? 32 : 128;
  if (slash !== -1 && !/^\d{1,3}$/.test(text.slice(slash + 1))) return null;
  const prefix = slash === -1 ? bits : Number(text.slice(slash + 1));
  return prefix <= bits ? { address, prefix, family: version === 4 ? "ipv4" : "ipv6" } : null;
}

/** A set of networks. Look-ups are cached for the last addresses seen, because the same few clients come again and again. */
export class AddressSet {
  readonly networks: readonly string[];
  readonly #list = new BlockList();
  #cache = new Map<string, boolean>();

  /** @throws {RangeError} when a text is not a network (the configuration was checked before). */
  constructor(networks: readonly string[]) {
    this.networks = networks;
    for (const text of networks) {
      const network = parseNetwork(text);
      if (network === null) throw new RangeError(`Not a network: '${text}'`);
      this.#list.addSubnet(network.address, network.prefix, network.family);
    }
  }

  /** Whether the set holds the address, which is plain (see `plainIp`). An empty set holds nothing; a text that is no address is in no set. */
  has(address: string): boolean {
    if (this.networks.length === 0) return false;
    const cached = this.#cache.get(address);
    if (cached !== undefined) return cached;
    const version = isIP(address);
    const held = version !== 0 && this.#list.check(address, version === 4 ? "ipv4" : "ipv6");
    if (this.#cache.size >= 1024) this.#cache = new Map();
    this.#cache.set(address, held);
    return held;
  }
}
