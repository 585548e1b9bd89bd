// Lets a loop sleep until something happens: soon after it, not at each of many things at once, and not while failures are slept off.

// What comes together is looked at together.
const GATHER_MS = 100;

export class Alarm {
  #wake: (() => void) | null = null;
  #isDue = false;
  #isUrgent = false;

  /** Something changed: ends the sleep, one after a failure excepted. */
  ring(): void {
    this.#isDue = true;
    this.#wake?.();
  }

  /** Something changed that makes a failure worth another try. */
  ringUrgently(): void {
    this.#isUrgent = true;
    this.ring();
  }

  /** @param isPenance whether only an urgent ring ends it early */
  async sleep(ms: number, isPenance: boolean): Promise<void> {
    if (!this.#isUrgent && (isPenance || !this.#isDue)) await this.#pause(ms, isPenance);
    if (!this.#isUrgent) await this.#pause(GATHER_MS, true);
    this.#isDue = false;
    this.#isUrgent = false;
  }

  #pause(ms: number, isPenance: boolean): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, ms);
    this.#wake = () => {
      if (this.#isUrgent || !isPenance) resolve();
    };
    return promise.finally(() => {
      clearTimeout(timer);
      this.#wake = null;
    });
  }
}
