// The health check that only connects. It passes on a dead process whose port still listens.
import type { Socket } from "node:net";
import { GatewayError } from "../lib/errors.ts";
import type { DialAddress } from "../plan/model.ts";
import { DialError, dial } from "./dial.ts";

/** A check that failed. The message is a part of a sentence: it follows "Upstream 'live' is unhealthy: ". */
export class ProbeError extends GatewayError {
  constructor(message: string) {
    super("ERR_PROBE", message);
  }
}

/** @throws {DialError} */
export async function probeTcp(address: DialAddress, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const socket = await connectTarget(address, timeoutMs, signal);
  socket.destroy();
}

/** A connection for a check; errors of its socket are ignored from here on.
 * @throws {DialError} and ProbeError when it is aborted */
export function connectTarget(address: DialAddress, timeoutMs: number, signal: AbortSignal): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  const cancel = dial(address, { timeoutMs, keepAliveMs: 0 }, (result) => {
    signal.removeEventListener("abort", abort);
    if (result instanceof DialError) {
      reject(result);
      return;
    }
    result.on("error", () => {});
    resolve(result);
  });
  function abort(): void {
    cancel();
    reject(new ProbeError("given up"));
  }
  signal.addEventListener("abort", abort, { once: true });
  return promise;
}
