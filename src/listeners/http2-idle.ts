// Ends HTTP/2 connections that carry no request, whatever frames they send and whether or not they read ours.
import type { ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import { idleSinceMs } from "../http/connection.ts";
import type { HttpListenerPlan } from "../plan/model.ts";
import { startTicking, stopTicking, type Ticking } from "../lib/ticker.ts";

// For a client to take what was sent before and to close the connection from its side, when `timeouts.write` does not say.
const CLOSE_MS = 60_000;

/**
 * Closes the session when no request was under way for `timeouts.idle`, and its socket when the client does not by itself within
 * `timeouts.write`. Node's own timer for sessions starts anew with each PING, and its graceful close waits for the client without end.
 * @param timeouts those of the plan at the time of the call
 */
export function watchIdle(session: ServerHttp2Session, socket: Socket, timeouts: () => HttpListenerPlan["timeouts"]): void {
  const watch = new IdleWatch(session, socket, timeouts);
  startTicking(watch);
  socket.once("close", () => stopTicking(watch));
}

class IdleWatch implements Ticking {
  tickIndex = -1;
  readonly #session: ServerHttp2Session;
  readonly #socket: Socket;
  readonly #timeouts: () => HttpListenerPlan["timeouts"];
  readonly #openedAt = performance.now();
  #closedAt: number | null = null;

  constructor(session: ServerHttp2Session, socket: Socket, timeouts: () => HttpListenerPlan["timeouts"]) {
    this.#session = session;
    this.#socket = socket;
    this.#timeouts = timeouts;
  }

  tick(now: number): void {
    const since = idleSinceMs(this.#session, this.#openedAt);
    if (since === null) return;
    const { idleMs, writeMs } = this.#timeouts();
    if (this.#session.closed || this.#session.destroyed) {
      this.#closedAt ??= now;
      if (now - this.#closedAt >= (writeMs || CLOSE_MS)) this.#socket.destroy();
      return;
    }
    if (idleMs > 0 && now - since >= idleMs) this.#session.close();
  }
}
