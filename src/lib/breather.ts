// Lets others have their turn during long work: a handshake waits for milliseconds, not until ten thousand certificates are decoded.
import { setImmediate as turn } from "node:timers/promises";

const WORK_MS = 10;

export class Breather {
  #since = performance.now();

  /** Call between two pieces of work: after each 10 ms of it, whatever else waits for the event loop goes first. */
  async breathe(): Promise<void> {
    if (performance.now() - this.#since >= WORK_MS) await this.rest();
  }

  /** Whatever else waits for the event loop goes first. */
  async rest(): Promise<void> {
    await turn();
    this.#since = performance.now();
  }
}
