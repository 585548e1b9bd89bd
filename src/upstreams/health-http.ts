// The health check of HTTP targets: a GET on a connection of its own, which must be answered with a 2xx status.
import type { Dispatcher } from "undici";
import { formatAddress } from "../lib/address.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { describeSystemError } from "../lib/errors.ts";
import type { HealthPlan, TargetPlan, UpstreamPlan } from "../plan/model.ts";
import { ProbeError } from "./health-tcp.ts";

type HttpHealthPlan = Extract<HealthPlan, { kind: "http" }>;

/** @throws {ProbeError} "GET /health was answered with status 503 at 127.0.0.1:8080", "GET /health: connection refused at 127.0.0.1:8080" */
export async function probeHttp(upstream: UpstreamPlan, target: TargetPlan, health: HttpHealthPlan, signal: AbortSignal): Promise<void> {
  const where = formatAddress(target.address);
  const client = await createClient(upstream, target);
  const timeout = AbortSignal.timeout(timerMs(health.timeoutMs));
  try {
    const headers = { "user-agent": "sidegate-health", ...(upstream.authorization === null ? {} : { authorization: upstream.authorization }) };
    const { statusCode } = await client.request({ method: "GET", path: health.path, headers, signal: AbortSignal.any([signal, timeout]) });
    if (statusCode < 200 || statusCode > 299) throw new ProbeError(`GET ${health.path} was answered with status ${statusCode} at ${where}`);
  } catch (error) {
    if (error instanceof ProbeError) throw error;
    const reason = timeout.aborted ? `timed out after ${formatDuration(health.timeoutMs)}` : describeSystemError(error);
    throw new ProbeError(`GET ${health.path}: ${reason} at ${where}`);
  } finally {
    void client.destroy();
  }
}

/** The library is loaded by the first check: nothing on the way to the first request needs it. */
async function createClient(upstream: UpstreamPlan, { scheme, address }: TargetPlan): Promise<Dispatcher> {
  const { Client, H2CClient } = await import("undici");
  const origin = `${scheme === "https" ? "https" : "http"}://${address.kind === "unix" ? "localhost" : formatAddress(address)}`;
  if (scheme === "h2c") return new H2CClient(origin);
  return new Client(origin, {
    allowH2: false,
    connect: { ...(upstream.ca === null ? {} : { ca: upstream.ca }), ...(address.kind === "unix" ? { socketPath: address.path } : {}) },
  });
}
