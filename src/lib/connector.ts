// How the HTTP client library connects, so that a connection can be given up at any moment.
import { connect as connectTcp, type Socket } from "node:net";
import type { buildConnector } from "undici";
import { formatDuration } from "./duration.ts";

type Undici = { readonly buildConnector: typeof buildConnector };
type Options = buildConnector.BuildOptions & { readonly timeoutMs: number };

/**
 * A `connect` for undici's clients. `stop` ends a connection that is being made at once, which undici itself waits for to the end of its handshake.
 *
 * TLS is put on a TCP socket that is open already. A TLS socket that opens its own and is destroyed during the handshake can leave a handle that
 * nobody takes bytes from: when some come, Node.js 26 aborts the process ("onread->IsFunction()", seen once in some 300 aborted handshakes).
 * @param options those of undici's connector. timeoutMs: for TCP and TLS together; 0 = no limit.
 */
export function createConnector(
  { buildConnector: build }: Undici,
  { timeoutMs, socketPath, ...options }: Options,
  stop: AbortSignal,
): buildConnector.connector {
  const secure = build({ ...options, timeout: 0 });
  return (target, callback) => {
    const isTls = target.protocol === "https:";
    const port = Number(target.port || (isTls ? 443 : 80));
    const socket = connectTcp(typeof socketPath === "string" ? { path: socketPath } : { host: target.hostname, port });
    const timer = timeoutMs === 0 ? undefined : setTimeout(() => give(new Error(`timed out after ${formatDuration(timeoutMs)}`)), timeoutMs);
    let isDone = false;
    const give = (error: Error | null, connected?: Socket): void => {
      if (isDone) return;
      isDone = true;
      clearTimeout(timer);
      stop.removeEventListener("abort", onStop);
      if (error === null && connected !== undefined) return callback(null, connected);
      // Only the socket below: that of TLS ends with it.
      socket.destroy();
      callback(error ?? new Error("not connected"), null);
    };
    const onStop = (): void => give(stop.reason instanceof Error ? stop.reason : new Error("stopped"));
    stop.addEventListener("abort", onStop);
    socket.setNoDelay(true);
    socket.on("error", (error) => give(error));
    socket.once("close", () => give(new Error("connection closed")));
    socket.once("connect", () => {
      if (!isTls) return give(null, socket);
      secure({ ...target, httpSocket: socket }, (...[error, connected]) => give(error, connected ?? undefined));
    });
    if (stop.aborted) onStop();
  };
}
