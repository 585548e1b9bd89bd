// Follows tailscaled's bus, and keeps what only the bus tells.
import type { BusMessage, LocalApi } from "./local-api-types.ts";

const FIRST_MESSAGE_MS = 3_000;
const AGAIN_MS = 1_000;
const STEADY_MS = 10_000;

export class Bus {
  readonly #onMessage: (message: BusMessage | null) => void;
  #stop: AbortController | null = null;
  #sessionId: string | null = null;
  #said = "";

  /** @param onMessage called for each message, and with null when the stream ended */
  constructor(onMessage: (message: BusMessage | null) => void) {
    this.#onMessage = onMessage;
  }

  /** Under which a serve config lasts as long as the stream; null before the first message. */
  get sessionId(): string | null {
    return this.#sessionId;
  }

  /** What the control server, or tailscaled, complained of last; empty when it did not since `forget`. */
  get said(): string {
    return this.#said;
  }

  forget(): void {
    this.#said = "";
  }

  /** Follows the bus unless that is done already; resolves with its first message, or a little later without it. */
  async follow(api: LocalApi): Promise<void> {
    if (this.#stop !== null) return;
    const stop = new AbortController();
    this.#stop = stop;
    this.#sessionId = null;
    const began = performance.now();
    const { promise: first, resolve } = Promise.withResolvers<void>();
    const timer = setTimeout(resolve, FIRST_MESSAGE_MS);
    const take = (message: BusMessage): void => {
      if (stop.signal.aborted) return;
      this.#sessionId = message.sessionId ?? this.#sessionId;
      if (message.error !== undefined && message.error !== "") this.#said = message.error;
      resolve();
      this.#onMessage(message);
    };
    void api
      .watch(take, stop.signal)
      .catch(() => {}) // Whatever it is, `status` tells it in words.
      .finally(() => {
        resolve();
        if (this.#stop !== stop) return;
        this.#sessionId = null;
        this.#onMessage(null);
        // One that ends soon, each time, must not become a hot loop.
        const againMs = performance.now() - began < STEADY_MS ? AGAIN_MS : 0;
        setTimeout(() => {
          if (this.#stop !== stop) return;
          this.#stop = null;
          this.#onMessage(null);
        }, againMs).unref();
      });
    await first;
    clearTimeout(timer);
  }

  /** Ends the stream, and with it what was set under its session. */
  cut(): void {
    this.#stop?.abort();
    this.#stop = null;
    this.#sessionId = null;
  }
}
