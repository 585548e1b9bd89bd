// Whether tailscaled answers, how long to leave it alone after it did not, and when it has to be called hung.

const FIRST_PAUSE_MS = 250;
const MAX_PAUSE_MS = 5_000;
const HUNG_TRIES = 3;
const HUNG_TICKS = 2;

export class Pulse {
  readonly #tickMs: number;
  #answeredAt = performance.now();
  /** Failures in a row. */
  failures = 0;

  constructor(tickMs: number) {
    this.#tickMs = tickMs;
  }

  /** It said something. */
  beat(): void {
    this.#answeredAt = performance.now();
  }

  /** It did all that it was told, or it is another one. */
  reset(): void {
    this.beat();
    this.failures = 0;
  }

  /** Returns how long to wait before it is spoken to again. */
  miss(): number {
    this.failures += 1;
    return Math.min(FIRST_PAUSE_MS * 2 ** (this.failures - 1), MAX_PAUSE_MS, this.#tickMs);
  }

  /** Whether so many failures are no accident. */
  get isIll(): boolean {
    return this.failures >= HUNG_TRIES;
  }

  /** Whether it has been silent for so long that nothing more is to be expected. */
  get isHung(): boolean {
    return this.isIll && performance.now() - this.#answeredAt >= HUNG_TICKS * this.#tickMs;
  }
}
