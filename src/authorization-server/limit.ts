// How often a client address may do what costs us something.
import { isIPv6 } from "node:net";
import ipaddr from "ipaddr.js";

// So many addresses are remembered; the one that came first is forgotten.
const MAX_CLIENTS = 10_000;

export type Limit = {
  /** Counts one more. @returns 0 when it may be, else the whole seconds after which it may be tried again */
  take(client: string): number;
};

/** So many times within a span that begins with the first. @param now milliseconds */
export function createLimit(most: number, spanMs: number, now: () => number): Limit {
  const spans = new Map<string, { count: number; readonly endsAtMs: number }>();
  return {
    take(client) {
      const key = networkOf(client);
      const span = spans.get(key);
      if (span === undefined || span.endsAtMs <= now()) {
        spans.delete(key);
        if (spans.size >= MAX_CLIENTS) for (const oldest of spans.keys()) if (spans.delete(oldest)) break;
        spans.set(key, { count: 1, endsAtMs: now() + spanMs });
        return 0;
      }
      if (span.count >= most) return Math.max(1, Math.ceil((span.endsAtMs - now()) / 1000));
      span.count += 1;
      return 0;
    },
  };
}

/** The first that refuses has the word, and what it refuses counts nowhere behind it. */
export function joinLimits(...limits: readonly Limit[]): Limit {
  return {
    take(client) {
      for (const limit of limits) {
        const waitS = limit.take(client);
        if (waitS > 0) return waitS;
      }
      return 0;
    },
  };
}

/** One count for all clients together. */
export function forAll(limit: Limit): Limit {
  return { take: () => limit.take("") };
}

/** Whoever has one IPv6 address has all of its /64. */
export function networkOf(client: string): string {
  return isIPv6(client) && !client.toLowerCase().startsWith("::ffff:")
    ? ipaddr.IPv6.networkAddressFromCIDR(`${client.replace(/%.*$/, "")}/64`).toString()
    : client;
}
