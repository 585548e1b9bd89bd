// URLs of upstream targets: http://host:port, https://, h2c://, tcp:// and unix:/path.
import { isIPv4 } from "node:net";
import { type TcpAddress, type UnixAddress, parseDialAddress } from "./address.ts";

export type TargetUrl = { readonly scheme: "http" | "https" | "h2c" | "tcp" | "unix"; readonly address: TcpAddress | UnixAddress };

const DEFAULT_PORTS: Record<string, number | undefined> = { http: 80, https: 443, h2c: undefined, tcp: undefined };

/** The parts of a target's URL. The reason of a failure ends the sentence "Value 'x' ...". */
export function parseTarget(text: string): ({ readonly ok: true } & TargetUrl) | { readonly ok: false; readonly reason: string } {
  const fail = (reason: string): { ok: false; reason: string } => ({ ok: false, reason });
  if (text.startsWith("unix:")) {
    const address = parseDialAddress(text);
    return address === null ? fail("is not a socket path; write unix:/run/app.sock, absolute and of at most 107 bytes") : { ok: true, scheme: "unix", address };
  }
  const match = /^([a-z0-9+.-]+):\/\/([^/?#]*)(.*)$/i.exec(text);
  if (match === null) {
    const hint =
      parseDialAddress(text)?.kind === "tcp" ? `write http://${text}, or tcp://${text} for TCP listeners` : "write http://127.0.0.1:8080 or unix:/run/app.sock";
    return fail(`is not a URL; ${hint}`);
  }
  const [scheme = "", authority = "", rest = ""] = match.slice(1);
  if (!Object.hasOwn(DEFAULT_PORTS, scheme)) return fail("has an unknown scheme; a target is http, https, h2c, tcp or unix:");
  // Also when a password holds a slash: the text behind it must not be repeated.
  if (text.includes("@")) return fail("has a user name; what the upstream asks for goes in 'authorization' of its entry in 'upstreams'");
  if (rest !== "") return fail(`has a path or query; a target has none: write ${scheme}://${authority}`);
  const port = DEFAULT_PORTS[scheme];
  const hasPort = /:\d+$/.test(authority);
  if (!hasPort && port === undefined) return fail(`has no port; write ${scheme}://${authority}:port`);
  const address = parseDialAddress(hasPort ? authority : `${authority}:${port}`);
  if (address === null)
    return fail("has no valid host and port; write a host name, an IPv4 address or an IPv6 address in brackets, and a port from 1 to 65535");
  return { ok: true, scheme: scheme as TargetUrl["scheme"], address };
}

/** Whether a target is a neighbour: loopback, a unix socket or a single-label host name (a compose service). */
export function isNeighbour(address: TcpAddress | UnixAddress): boolean {
  if (address.kind === "unix") return true;
  return (isIPv4(address.host) && address.host.startsWith("127.")) || address.host === "::1" || (!address.host.includes(".") && !address.host.includes(":"));
}
