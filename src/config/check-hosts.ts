// By which names clients come to a listener, as far as the configuration is sound.
import { parseListenAddress } from "../lib/address.ts";
import { listenerHosts, type ListenerHost, type Placed } from "../lib/listener-hosts.ts";
import type { CheckContext } from "./check-context.ts";
import { hasProxies } from "./check-public-url.ts";
import { tlsOf } from "./tls-objects.ts";
import type { Listener } from "./types.ts";

/** Gives the names by which clients ask the listener of a name for a route or server that is sound. */
export function hostsBy(check: CheckContext): (placed: Placed, listener: string) => ListenerHost[] {
  const isSound = (name: string, key: string): boolean => check.isSound(["listeners", name, key]);
  const places = check
    .entries<Listener>("listeners")
    .filter(([name, one]) => isSound(name, "protocol") && one.protocol === "http")
    .map(([name, one]) => ({
      name,
      address: isSound(name, "listen") ? parseListenAddress(one.listen) : null,
      httpsPort: tlsOf(check, one)?.acme?.https_port ?? null,
    }));
  // A listener whose port is not known may have each port.
  const isUnknown = hasProxies(check) || !arePlacesSound(check);
  return (placed, listener) => listenerHosts(placed, listener, places, isUnknown);
}

/** Whether all is sound that says which names are certain, other than the routes and the server themselves. */
export function arePlacesSound(check: CheckContext): boolean {
  return ["listeners", "tls", "trusted_proxies"].every((key) => check.isSound([key]));
}
