// The first address of a network: what stands before the slash when it is written in order.
import ipaddr from "ipaddr.js";
import type { parseNetwork } from "./address.ts";

/** Of `10.0.0.5/8` the text `10.0.0.0`; equal to the address itself, in its canonical form, when no bits are set below the prefix. */
export function firstAddress({ address, prefix, family }: NonNullable<ReturnType<typeof parseNetwork>>): string {
  const cidr = `${address}/${prefix}`;
  return (family === "ipv4" ? ipaddr.IPv4.networkAddressFromCIDR(cidr) : ipaddr.IPv6.networkAddressFromCIDR(cidr)).toString();
}

/** Whether bits are set below the prefix length. */
export function hasHostBits(network: NonNullable<ReturnType<typeof parseNetwork>>): boolean {
  return firstAddress(network) !== ipaddr.parse(network.address).toString();
}
