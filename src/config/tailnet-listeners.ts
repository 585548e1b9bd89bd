// Which listeners are on the tailnet, and where tailscaled brings their connections.
import { type ListenPlace, type TcpAddress, collide, parseListenAddress } from "../lib/address.ts";
import type { CheckContext } from "./check-context.ts";
import type { Listener } from "./types.ts";

/** The port of the tailnet that a listener opens; null for others, and where it cannot be told. */
export function tailnetPort(listener: unknown): number | null {
  const listen: unknown = typeof listener === "object" && listener !== null ? (listener as Partial<Listener>).listen : undefined;
  const address = typeof listen === "string" ? parseListenAddress(listen) : null;
  return address?.kind === "tailnet" ? address.port : null;
}

/** Each listener of the tailnet that is sound so far, with its port. */
export function tailnetListeners(check: CheckContext): [string, Listener, number][] {
  return check.entries<Listener>("listeners").flatMap(([name, listener]): [string, Listener, number][] => {
    const port = tailnetPort(listener);
    return port === null ? [] : [[name, listener, port]];
  });
}

/**
 * Whether tailscaled surely runs in userspace, so that a port of the tailnet is one of 127.0.0.1, too. With a kernel interface it is a port of the node's own
 * address; of a tailscaled that runs already nobody knows here.
 */
export function isUserspace(check: CheckContext): boolean {
  const section = check.config.tailscale;
  return section?.socket === undefined && section?.tun !== true;
}

/** Whether both addresses cannot be open at once, as far as that is known. */
export function excludeOneAnother(check: CheckContext, a: ListenPlace, b: ListenPlace): boolean {
  if (isUserspace(check)) return collide(a, b);
  // Some address of its own.
  const bound = (place: ListenPlace): Exclude<ListenPlace, { readonly kind: "tailnet" }> =>
    place.kind === "tailnet" ? ({ kind: "tcp", host: "100.64.0.0", port: place.port } satisfies TcpAddress) : place;
  return collide(bound(a), bound(b));
}
