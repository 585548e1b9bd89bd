// How an identity provider fares, as found whenever it was asked: what does not work, since when, and for how long that counts.

/** `error`: for the operator, and without secrets. `sinceMs`: when it was first seen, since 1970. */
export type Outage = { readonly error: string; readonly sinceMs: number };

/** What is told of a provider. `outage` null: it was well when it was asked last, or nobody has asked it in a while. */
export type IdentityProvider = {
  /** Whose tokens are taken, or at whom people log in. */
  readonly kind: "issuer" | "login";
  readonly name: string;
  readonly url: string;
  readonly outage: Outage | null;
};

export type ProviderHealthOptions<What> = {
  readonly who: Omit<IdentityProvider, "outage">;
  /** Why the provider, or what we are to it, is at fault; null: it is not. */
  readonly faultOf: (error: unknown) => string | null;
  /** Called with the error when something begins to fail, and with null when it works again; once a minute at most. */
  readonly onChange: (what: What, error: string | null) => void;
  /** Milliseconds since 1970. Default: Date.now. */
  readonly now?: () => number;
};

/**
 * How long an error counts after it was last seen. A provider is asked by those who log in or bring a token and by nobody else, so that an error would
 * stay for ever where nobody comes: one login that failed last night would have the gateway degraded in the morning, though nothing is known to be wrong.
 * Longer than the five minutes after which an issuer in use is asked for its keys again, so that one that stays down is told without a gap.
 */
const COUNTS_MS = 600_000;
// One of which half the machines are down fails and works with each request.
const TELL_MS = 60_000;

/** @template What the things that it is asked for: each fails and recovers by itself */
export class ProviderHealth<What extends string> {
  readonly #options: ProviderHealthOptions<What>;
  readonly #now: () => number;
  readonly #failing = new Map<What, Outage & { readonly seenMs: number; readonly isTold: boolean }>();
  readonly #toldAtMs = new Map<What, number>();
  #isClosed = false;

  constructor(options: ProviderHealthOptions<What>) {
    this.#options = options;
    this.#now = options.now ?? Date.now;
  }

  /** Asks, and keeps how that ended. Resolves and rejects as `ask` does. */
  async watch<T>(what: What, ask: () => Promise<T>): Promise<T> {
    try {
      const answer = await ask();
      const before = this.#failing.get(what);
      this.#failing.delete(what);
      if (before?.isTold === true) this.#tell(what, null);
      return answer;
    } catch (error) {
      const fault = this.#options.faultOf(error);
      if (fault !== null) this.#fail(what, fault);
      throw error;
    }
  }

  describe(): IdentityProvider {
    const [first] = [...this.#failing.values()].filter((one) => this.#counts(one)).toSorted((a, b) => a.sinceMs - b.sinceMs);
    return { ...this.#options.who, outage: first === undefined ? null : { error: first.error, sinceMs: first.sinceMs } };
  }

  /** What is still under way is told to nobody. */
  close(): void {
    this.#isClosed = true;
  }

  #fail(what: What, error: string): void {
    const nowMs = this.#now();
    const before = this.#failing.get(what);
    const goesOn = before !== undefined && this.#counts(before);
    const wasTold = goesOn && before.isTold;
    const isTold = wasTold || Math.abs(nowMs - (this.#toldAtMs.get(what) ?? -Infinity)) >= TELL_MS;
    this.#failing.set(what, { error, sinceMs: goesOn ? before.sinceMs : nowMs, seenMs: nowMs, isTold });
    if (wasTold || !isTold) return;
    this.#toldAtMs.set(what, nowMs);
    this.#tell(what, error);
  }

  /** Nor does it count when the clock was put back by more. */
  #counts({ seenMs }: { readonly seenMs: number }): boolean {
    return Math.abs(this.#now() - seenMs) < COUNTS_MS;
  }

  #tell(what: What, error: string | null): void {
    if (!this.#isClosed) this.#options.onChange(what, error);
  }
}
