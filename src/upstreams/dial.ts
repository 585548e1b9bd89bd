// One connection to one address of an upstream, over TCP or a unix socket.
import { connect, type OnReadOpts, type Socket } from "node:net";
import { formatAddress } from "../lib/address.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { GatewayError, describeSystemError } from "../lib/errors.ts";
import type { DialAddress } from "../plan/model.ts";

/** A connection that could not be made. `reason` says it without the sentence: "connection refused at 127.0.0.1:4001". */
export class DialError extends GatewayError {
  readonly reason: string;

  constructor(address: DialAddress, words: string, cause?: unknown) {
    const reason = `${words} at ${formatAddress(address)}`;
    super("ERR_UPSTREAM_CONNECT", `Cannot connect: ${reason}`, { cause });
    this.reason = reason;
  }
}

export type DialOptions = {
  /** Name look-up and connect together, all addresses of a name included. */
  readonly timeoutMs: number;
  /** Silence after which keepalive probes begin; 0 = none. */
  readonly keepAliveMs: number;
  /** Gives received bytes to a callback in place of 'data' events. */
  readonly onread?: OnReadOpts;
};

/** How `setKeepAlive` wants the delay: whole seconds, at most what Linux takes (tcp(7), TCP_KEEPIDLE). */
export function keepAliveDelayMs(keepAliveMs: number): number {
  return Math.min(Math.max(keepAliveMs, 1_000), 32_767_000);
}

/**
 * Connects; a name with several addresses is tried over IPv6 and IPv4 (RFC 8305, as Node.js does by itself).
 * `onDone` is called once, with the connected socket (half-open allowed, no delay) or a DialError; never after the returned function has cancelled the attempt.
 */
export function dial(address: DialAddress, options: DialOptions, onDone: (result: Socket | DialError) => void): () => void {
  const socket = connect({
    ...(address.kind === "unix" ? { path: address.path } : { host: address.host, port: address.port }),
    allowHalfOpen: true,
    noDelay: true,
    keepAlive: options.keepAliveMs > 0,
    keepAliveInitialDelay: keepAliveDelayMs(options.keepAliveMs),
    ...(options.onread === undefined ? {} : { onread: options.onread }),
  });
  const timer = setTimeout(() => {
    finish(new DialError(address, `timed out after ${formatDuration(options.timeoutMs)}`));
  }, timerMs(options.timeoutMs));

  function onConnect(): void {
    finish(socket);
  }
  function onError(error: Error): void {
    finish(new DialError(address, describeSystemError(error), error));
  }
  function finish(result: Socket | DialError | null): void {
    clearTimeout(timer);
    socket.off("connect", onConnect);
    socket.off("error", onError);
    if (result !== socket) {
      // A socket that is given up may still report an error, which nobody waits for.
      socket.on("error", ignore);
      socket.destroy();
    }
    if (result !== null) onDone(result);
  }
  socket.on("connect", onConnect);
  socket.on("error", onError);
  return () => {
    finish(null);
  };
}

function ignore(): void {}
