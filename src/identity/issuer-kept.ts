// Something that was fetched from an issuer and is kept: looked at anew from time to time, by one fetch at a time, and still there while the issuer is not.

export type KeptOptions<T> = {
  /** Gives `before` itself back when nothing has changed. */
  readonly fetch: (before: T | null) => Promise<T>;
  /** How long nobody waits for a new one; from half of that on it is fetched in the background. */
  readonly freshMs: number;
};

/** Least time between two attempts while there is a value, and between two that are asked for by `renew`. */
export const COOL_DOWN_MS = 30_000;
/** The same while there is none, so that a gateway that started before its issuer serves soon. */
export const RETRY_MS = 5_000;
const STALE_MS = 86_400_000;

export class Kept<T> {
  readonly #options: KeptOptions<T>;
  #held: { readonly value: T; readonly atMs: number } | null = null;
  #isOutdated = false;
  #triedAtMs = Number.NEGATIVE_INFINITY;
  #renewedAtMs = Number.NEGATIVE_INFINITY;
  #error: Error | null = null;
  #pending: Promise<void> | null = null;

  constructor(options: KeptOptions<T>) {
    this.#options = options;
  }

  /** Whether the last attempt failed. */
  get isFailing(): boolean {
    return this.#error !== null;
  }

  /** At once when there is one that is good. Rejects or throws with why there is none, also when it is older than a day. */
  get(): T | Promise<T> {
    const held = this.#held;
    const age = held === null ? Number.POSITIVE_INFINITY : passed(held.atMs);
    if (held === null || age >= STALE_MS) {
      if (this.#pending === null && this.#error !== null && passed(this.#triedAtMs) < RETRY_MS) throw this.#error;
      return this.#attempt().then(() => this.#heldOrThrow());
    }
    const { freshMs } = this.#options;
    if (age < freshMs / 2 && !this.#isOutdated) return held.value;
    const mayTry = this.#pending !== null || passed(this.#triedAtMs) >= COOL_DOWN_MS;
    if (!mayTry) return held.value;
    const attempt = this.#attempt();
    // Nobody waits for an issuer that is known to be down.
    return (age < freshMs && !this.#isOutdated) || this.#error !== null ? held.value : attempt.then(() => this.#heldOrThrow());
  }

  /** Looks for a newer one than `than`, unless that was done a moment ago. Never rejects. */
  async renew(than: T): Promise<T> {
    // Its own count: what was fetched a moment ago for its age does not hold up the first token of a new key.
    const isDue = passed(this.#renewedAtMs) >= COOL_DOWN_MS;
    if (this.#held?.value === than && (isDue || this.#pending !== null)) {
      if (isDue) this.#renewedAtMs = Date.now();
      await this.#attempt();
    }
    return this.#held?.value ?? than;
  }

  /** It has turned out to be of no use, and the next who asks looks for a newer one. */
  outdate(): void {
    this.#isOutdated = true;
  }

  #heldOrThrow(): T {
    const held = this.#held;
    if (held !== null && passed(held.atMs) < STALE_MS) return held.value;
    throw this.#error ?? new Error("Nothing was fetched");
  }

  #attempt(): Promise<void> {
    return (this.#pending ??= this.#fetch().finally(() => (this.#pending = null)));
  }

  async #fetch(): Promise<void> {
    this.#triedAtMs = Date.now();
    try {
      const value = await this.#options.fetch(this.#held?.value ?? null);
      this.#held = { value, atMs: Date.now() };
      this.#isOutdated = false;
      this.#error = null;
    } catch (error) {
      this.#error = error instanceof Error ? error : new Error(String(error));
    } finally {
      // From its end: one that took long is not followed by another at once.
      this.#triedAtMs = Date.now();
    }
  }
}

/** A clock that was put back has passed any time. */
function passed(sinceMs: number): number {
  const ms = Date.now() - sinceMs;
  return ms < 0 ? Number.POSITIVE_INFINITY : ms;
}
