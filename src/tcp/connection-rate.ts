// How many new connections a client address may make in a time, remembered for a bounded number of addresses.

const MAX_CLIENTS = 10_000;
const SWEEP_EVERY_MS = 1_000;

/**
 * A token bucket for each client, kept as one number: the time at which its bucket is full again (the generic cell rate algorithm).
 * A bucket that is full again needs no memory. When there is no room left, the client that was added first is forgotten.
 */
export class ConnectionRate {
  readonly #fullAt = new Map<string, number>();
  #sweptAt = -Infinity;

  /** Clients remembered now. */
  get size(): number {
    return this.#fullAt.size;
  }

  /** Takes a token of the client's bucket, if there is one. `now` is in milliseconds of a clock that never goes back. */
  take(client: string, rate: { readonly connections: number; readonly perMs: number }, now: number): boolean {
    const fullAt = Math.max(this.#fullAt.get(client) ?? 0, now) + rate.perMs / rate.connections;
    // The slack is for the rounding of sums of fractions.
    if (fullAt - now > rate.perMs + 1e-6) return false;
    if (this.#fullAt.size >= MAX_CLIENTS && !this.#fullAt.has(client)) this.#makeRoom(now);
    this.#fullAt.set(client, fullAt);
    return true;
  }

  #makeRoom(now: number): void {
    // Looking at all of them for each newcomer would make a flood of addresses dear.
    if (now - this.#sweptAt >= SWEEP_EVERY_MS) {
      this.#sweptAt = now;
      for (const [client, fullAt] of this.#fullAt) if (fullAt <= now) this.#fullAt.delete(client);
    }
    if (this.#fullAt.size < MAX_CLIENTS) return;
    for (const client of this.#fullAt.keys()) {
      this.#fullAt.delete(client);
      return;
    }
  }
}
