// Moves bytes between a client and an upstream, both ways, with backpressure and half-close.
import type { OnReadOpts, Socket } from "node:net";
import { timerMs } from "../lib/duration.ts";
import type { TcpConnection } from "./connection.ts";

// Most sessions send small messages, and a connection that only says hello should cost little; a bulk stream needs few system calls.
const SMALL_BUFFER_BYTES = 4 * 1024;
const LARGE_BUFFER_BYTES = 64 * 1024;

/**
 * How the upstream's socket reads: into one buffer that is used again and again, which spares Node.js an allocation for each read.
 * Most writes are done when `write` returns, the kernel having taken all of it; when one is not, the buffer belongs to it and the next read gets a fresh one.
 */
export function readInto(connection: TcpConnection): OnReadOpts {
  const { socket } = connection;
  let bytes = SMALL_BUFFER_BYTES;
  let buffer: Buffer | null = null;
  return {
    buffer: () => (buffer ??= Buffer.allocUnsafeSlow(bytes)),
    callback: (count) => {
      if (buffer === null) return false;
      connection.bytesOut += count;
      const more = socket.write(buffer.subarray(0, count));
      if (count === bytes && bytes < LARGE_BUFFER_BYTES) {
        bytes = LARGE_BUFFER_BYTES;
        buffer = null;
      } else if (socket.writableLength > 0) {
        buffer = null;
      }
      return more;
    },
  };
}

/** Begins the relay. `first` are bytes of the client that were read before. */
export function splice(connection: TcpConnection, upstream: Socket, first: Buffer | null): void {
  const { socket, state } = connection;
  if (first !== null) {
    connection.bytesIn += first.length;
    upstream.write(first);
  }
  socket.on("data", (chunk: Buffer) => {
    connection.bytesIn += chunk.length;
    if (!upstream.write(chunk)) socket.pause();
  });
  upstream.on("drain", () => {
    connection.progress += 1;
    socket.resume();
  });
  socket.on("drain", () => {
    connection.progress += 1;
    upstream.resume();
  });
  // A FIN goes after the bytes before it, and leaves the other direction open (RFC 9293 3.6).
  function onClientEnd(): void {
    connection.because("client_closed");
    upstream.end();
  }
  // A client may have said all that it has before the upstream was connected.
  if (socket.readableEnded) onClientEnd();
  else socket.on("end", onClientEnd);
  upstream.on("end", () => {
    connection.because("upstream_closed");
    socket.end();
  });
  if (state.plan.timeouts.idleMs > 0) watchIdle(connection, state.plan.timeouts.idleMs);
  socket.resume();
}

/** Ends a connection that is silent both ways. One coarse timer looks at the counters, so that a packet costs nothing. */
function watchIdle(connection: TcpConnection, idleMs: number): void {
  let seen = -1;
  let since = 0;
  const timer = setInterval(
    () => {
      const now = performance.now();
      const moved = connection.bytesIn + connection.bytesOut + connection.progress;
      if (moved !== seen) {
        seen = moved;
        since = now;
      } else if (now - since >= idleMs) {
        connection.close("idle_timeout");
      }
    },
    timerMs(Math.ceil(idleMs / 8)),
  );
  connection.socket.once("close", () => clearInterval(timer));
}
