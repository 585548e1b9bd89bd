// The health check of HTTP targets: a GET on a connection of its own, which must be answered with a 2xx status.
import { request as requestHttp, type ClientRequest, type IncomingMessage } from "node:http";
import { connect as connectHttp2 } from "node:http2";
import { request as requestHttps } from "node:https";
import { formatAddress } from "../lib/address.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { describeSystemError } from "../lib/errors.ts";
import type { HealthPlan, TargetPlan, UpstreamPlan } from "../plan/model.ts";
import { ProbeError } from "./health-tcp.ts";

type HttpHealthPlan = Extract<HealthPlan, { kind: "http" }>;
type Outcome = (result: number | Error) => void;

/** @throws {ProbeError} "GET /health was answered with status 503", "GET /health: connection refused at 127.0.0.1:8080" */
export async function probeHttp(upstream: UpstreamPlan, target: TargetPlan, health: HttpHealthPlan, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<number | Error>();
  const timer = setTimeout(() => resolve(new Error(`timed out after ${formatDuration(health.timeoutMs)}`)), timerMs(health.timeoutMs));
  const onAbort = (): void => resolve(new Error("given up"));
  signal.addEventListener("abort", onAbort);
  const destroy = target.scheme === "h2c" ? askHttp2(upstream, target, health.path, resolve) : askHttp1(upstream, target, health.path, resolve);
  const result = await promise;
  clearTimeout(timer);
  signal.removeEventListener("abort", onAbort);
  destroy();
  if (typeof result !== "number") throw new ProbeError(`GET ${health.path}: ${describeSystemError(result)} at ${formatAddress(target.address)}`);
  if (result < 200 || result > 299) throw new ProbeError(`GET ${health.path} was answered with status ${result} at ${formatAddress(target.address)}`);
}

function askHttp1(upstream: UpstreamPlan, target: TargetPlan, path: string, done: Outcome): () => void {
  const { address } = target;
  const options = {
    ...(address.kind === "unix" ? { socketPath: address.path } : { host: address.host, port: address.port }),
    path,
    agent: false,
    headers: headers(upstream),
    ...(upstream.ca === null ? {} : { ca: upstream.ca }),
  };
  const request: ClientRequest = target.scheme === "https" ? requestHttps(options) : requestHttp(options);
  request.on("response", (response: IncomingMessage) => done(response.statusCode ?? 0));
  request.on("error", done);
  request.end();
  return () => request.destroy();
}

function askHttp2(upstream: UpstreamPlan, target: TargetPlan, path: string, done: Outcome): () => void {
  const session = connectHttp2(`http://${formatAddress(target.address)}`);
  session.on("error", done);
  const stream = session.request({ ":path": path, ...headers(upstream) }, { endStream: true });
  stream.on("response", (fields) => done(Number(fields[":status"])));
  stream.on("error", done);
  stream.on("close", () => done(new Error("closed without an answer")));
  return () => session.destroy();
}

function headers(upstream: UpstreamPlan): Record<string, string> {
  return { "user-agent": "sidegate-health", ...(upstream.authorization === null ? {} : { authorization: upstream.authorization }) };
}
