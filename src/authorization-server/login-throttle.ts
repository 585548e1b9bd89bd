// How often passwords may be guessed: slower and slower, and never so that somebody else's guesses lock a person out for good.
import { isIP } from "node:net";

export type ThrottleOptions = {
  /** Monotonic milliseconds. Default: performance.now. */
  readonly now?: () => number;
  /** Of each kind that is remembered. Default 10 000. */
  readonly maxEntries?: number;
};

/** An attempt that may be made. It counts as failed until it is told otherwise. */
export type Attempt = { succeed(): void; fail(): void; /** It was not made after all. */ cancel(): void };

type Entry = { failures: number; pending: number; blockedUntilMs: number; lastMs: number };
type Limit = { readonly free: number; readonly maxDelayMs: number };

// One name from one address: the person who mistypes, or a guesser who knows the name.
const PAIR: Limit = { free: 5, maxDelayMs: 15 * 60_000 };
// One address, whatever the names: a spray. An office behind one address mistypes more often.
const ADDRESS: Limit = { free: 20, maxDelayMs: 15 * 60_000 };
// One name from anywhere: many addresses that guess together. Short, because others pay for it.
const NAME: Limit = { free: 100, maxDelayMs: 10_000 };
const FIRST_DELAY_MS = 1_000;
// Failures are forgotten when none came for so long.
const FORGET_MS = 3_600_000;
const MAX_ENTRIES = 10_000;
const BUSY_MS = 1_000;

/**
 * Counts failed logins in memory, by name and address together, by address, and by name.
 *
 * Where a person logged in before, from the same address, only what went wrong between those two counts: guesses from elsewhere do not keep them out.
 */
export class LoginThrottle {
  readonly #now: () => number;
  readonly #maxEntries: number;
  readonly #pairs = new Map<string, Entry>();
  readonly #addresses = new Map<string, Entry>();
  readonly #names = new Map<string, Entry>();
  readonly #familiar = new Set<string>();

  constructor({ now = () => performance.now(), maxEntries = MAX_ENTRIES }: ThrottleOptions = {}) {
    this.#now = now;
    this.#maxEntries = maxEntries;
  }

  /** @param address of the client, plain; those of one IPv6 network of 64 bits are one. @returns the attempt, or how many milliseconds to wait */
  begin(name: string, address: string): Attempt | number {
    const place = placeOf(address);
    const pair = `${place} ${name}`;
    const kinds: [Map<string, Entry>, string, Limit][] = [[this.#pairs, pair, PAIR]];
    if (!this.#familiar.has(pair)) kinds.push([this.#addresses, place, ADDRESS], [this.#names, name, NAME]);
    const waitMs = Math.max(...kinds.map(([map, key, limit]) => this.#waitMs(map.get(key), limit)));
    if (waitMs > 0) return waitMs;
    const entries = kinds.map(([map, key, limit]) => ({ entry: this.#entry(map, key), limit }));
    for (const { entry } of entries) entry.pending += 1;
    let isOpen = true;
    const close = (): boolean => {
      const was = isOpen;
      isOpen = false;
      if (was) for (const { entry } of entries) entry.pending -= 1;
      return was;
    };
    return {
      cancel: () => {
        // Nothing was tried, so nothing is remembered: it cost nothing to ask.
        if (close()) for (const [map, key] of kinds) if (isEmpty(map.get(key))) map.delete(key);
      },
      succeed: () => {
        if (!close()) return;
        // Not the address: whoever has a password of their own would start anew with each guess.
        this.#pairs.delete(pair);
        this.#familiar.delete(pair);
        this.#familiar.add(pair);
        trim(this.#familiar, this.#maxEntries);
      },
      fail: () => {
        if (!close()) return;
        const now = this.#now();
        for (const { entry, limit } of entries) {
          entry.failures += 1;
          entry.lastMs = now;
          const over = entry.failures - limit.free;
          if (over >= 0) entry.blockedUntilMs = now + Math.min(FIRST_DELAY_MS * 2 ** Math.min(over, 30), limit.maxDelayMs);
        }
      },
    };
  }

  /** How many are remembered, of all kinds. */
  get size(): number {
    return this.#pairs.size + this.#addresses.size + this.#names.size + this.#familiar.size;
  }

  #waitMs(entry: Entry | undefined, { free }: Limit): number {
    if (entry === undefined) return 0;
    const now = this.#now();
    if (now - entry.lastMs > FORGET_MS && entry.pending === 0) return 0;
    if (entry.blockedUntilMs > now) return entry.blockedUntilMs - now;
    // Those that are under way may all fail: a hundred at once are no way round, and past the limit there is one at a time.
    return entry.pending > 0 && entry.failures + entry.pending >= free ? BUSY_MS : 0;
  }

  /** The last one used is the last one forgotten. */
  #entry(map: Map<string, Entry>, key: string): Entry {
    const now = this.#now();
    let entry = map.get(key);
    map.delete(key);
    if (entry === undefined || (now - entry.lastMs > FORGET_MS && entry.pending === 0)) entry = { failures: 0, pending: 0, blockedUntilMs: 0, lastMs: now };
    map.set(key, entry);
    trim(map, this.#maxEntries);
    return entry;
  }
}

function isEmpty(entry: Entry | undefined): boolean {
  return entry?.failures === 0 && entry.pending === 0;
}

function trim(kept: Map<string, unknown> | Set<string>, max: number): void {
  for (const key of kept.keys()) {
    if (kept.size <= max) return;
    kept.delete(key);
  }
}

/** Whoever has one IPv6 address has a network of them. */
function placeOf(address: string): string {
  if (isIP(address) !== 6) return address;
  const [head = "", tail] = address.split("::");
  const groups = head.split(":");
  const rest = tail === undefined ? [] : tail.split(":");
  while (tail !== undefined && groups.length + rest.length < 8) groups.push("0");
  return [...groups, ...rest]
    .slice(0, 4)
    .map((group) => (Number.parseInt(group, 16) || 0).toString(16))
    .join(":");
}
