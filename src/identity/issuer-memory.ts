// Answers that count for a while, by the hash of the token that they were given for.

type Entry<T> = { readonly value: T; readonly untilMs: number };

/** When it is full, the one that came first goes. */
export class AnswerMemory<T> {
  readonly #entries = new Map<string, Entry<T>>();
  readonly #max: number;

  constructor(max: number) {
    this.#max = max;
  }

  get(hash: string): T | null {
    const entry = this.#entries.get(hash);
    if (entry === undefined) return null;
    if (Date.now() < entry.untilMs) return entry.value;
    this.#entries.delete(hash);
    return null;
  }

  /** @param untilMs when it ends; not kept when that has passed */
  put(hash: string, value: T, untilMs: number): void {
    if (untilMs <= Date.now()) return;
    this.#entries.delete(hash);
    // Nobody may ever ask again for what has ended: it would stay, with all that its token says of somebody, until the memory is full.
    for (const [key, entry] of this.#entries) {
      if (Date.now() < entry.untilMs && this.#entries.size < this.#max) break;
      this.#entries.delete(key);
    }
    this.#entries.set(hash, { value, untilMs });
  }

  get size(): number {
    return this.#entries.size;
  }

  clear(): void {
    this.#entries.clear();
  }
}
