// The last bytes of a response, when the client does not take them at once: it may be slow, but it must not stand still for ever.
import { formatDuration } from "../lib/duration.ts";
import { startTicking, stopTicking, type Ticking } from "../lib/ticker.ts";
import type { Exchange, OnClose } from "./exchange.ts";
import { cut } from "./cut.ts";

/** Cuts a response that was given to its end when no byte of it leaves for the listener's `timeouts.write`. Nothing to do is the usual case. */
export function watchTail(x: Exchange): void {
  if (x.res.writableLength > 0 && x.state.plan.timeouts.writeMs > 0) new Tail(x).start();
}

class Tail implements Ticking, OnClose {
  tickIndex = -1;
  readonly #x: Exchange;
  #unsent = -1;
  #movedAt = 0;

  constructor(x: Exchange) {
    this.#x = x;
    x.onClose = this;
  }

  start(): void {
    startTicking(this);
  }

  tick(now: number): void {
    const { res, state } = this.#x;
    // Behind a response that goes on (pipelining), it has no socket yet: the client is not to blame.
    if (res.writableLength !== this.#unsent || res.socket === null) {
      this.#unsent = res.writableLength;
      this.#movedAt = now;
    } else if (now - this.#movedAt >= state.plan.timeouts.writeMs) {
      stopTicking(this);
      this.#x.cause ||= `ERR_CLIENT_WRITE_TIMEOUT: The client took no byte for ${formatDuration(state.plan.timeouts.writeMs)}`;
      cut(this.#x);
    }
  }

  clientGone(): void {
    stopTicking(this);
  }
}
