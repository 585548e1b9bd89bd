// The health check of HTTP targets: a GET on a connection of its own, which must be answered with a 2xx status.
import type { Dispatcher } from "undici";
import { formatAddress } from "../lib/address.ts";
import { createConnector } from "../lib/connector.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import type { HealthPlan, TargetPlan } from "../plan/model.ts";
import { ProbeError } from "./health-tcp.ts";
import { describeTlsError, targetTls } from "./tls.ts";
import type { Upstream } from "./upstream.ts";

type HttpHealthPlan = Extract<HealthPlan, { kind: "http" }>;

/** @throws {ProbeError} "GET /health was answered with status 503 at 127.0.0.1:8080", "GET /health: connection refused at 127.0.0.1:8080" */
export async function probeHttp(upstream: Upstream, target: TargetPlan, health: HttpHealthPlan, signal: AbortSignal): Promise<void> {
  const { authorization } = upstream.plan;
  const where = formatAddress(target.address);
  let broke: Error | null = null;
  const timeout = AbortSignal.timeout(timerMs(health.timeoutMs));
  // Not the library's own signal, which counts only from the end of the handshake on.
  const stop = AbortSignal.any([signal, timeout]);
  const client = await createClient(upstream, target, stop, (error) => (broke ??= error));
  const end = (): void => void client.destroy();
  stop.addEventListener("abort", end);
  if (stop.aborted) end();
  try {
    const headers = { "user-agent": "sidegate-health", ...(authorization === null ? {} : { authorization }) };
    const { statusCode, body } = await client.request({ method: "GET", path: health.path, headers });
    // The status says it all: the body is not read, and ends with its connection.
    body.on("error", () => {});
    if (statusCode < 200 || statusCode > 299) throw new ProbeError(`GET ${health.path} was answered with status ${statusCode} at ${where}`);
  } catch (error) {
    if (error instanceof ProbeError) throw error;
    const reason = timeout.aborted ? `timed out after ${formatDuration(health.timeoutMs)}` : describeTlsError(broke ?? error);
    throw new ProbeError(`GET ${health.path}: ${reason} at ${where}`);
  } finally {
    stop.removeEventListener("abort", end);
    end();
  }
}

/**
 * The library is loaded by the first check: nothing on the way to the first request needs it.
 * @param stop ends a connection that is still being made, which the library would wait for
 * @param onError gets what the socket said: an alert of TLS comes with the end of the connection, which is all that the library tells
 */
async function createClient({ plan, secureContext }: Upstream, target: TargetPlan, stop: AbortSignal, onError: (error: Error) => void): Promise<Dispatcher> {
  const undici = await import("undici");
  const { scheme, address } = target;
  const origin = `${scheme === "https" ? "https" : "http"}://${address.kind === "unix" ? "localhost" : formatAddress(address)}`;
  if (scheme === "h2c") return new undici.H2CClient(origin);
  const options = {
    allowH2: false,
    // The check as a whole has one.
    timeoutMs: 0,
    ...(scheme === "https" ? targetTls(plan, target, secureContext) : {}),
    ...(address.kind === "unix" ? { socketPath: address.path } : {}),
  };
  const connect = createConnector(undici, options, stop);
  return new undici.Client(origin, {
    connect: (to, callback) =>
      connect(to, (...result) => {
        result[1]?.on("error", onError);
        callback(...result);
      }),
  });
}
