// Load for HTTP proxies: wrk for HTTP/1.1, h2load for HTTP/2, and event streams opened from here.
import { execFile } from "node:child_process";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, Agent as PlainAgent, request as plainRequest, type IncomingMessage, type RequestOptions } from "node:http";
import { Agent, request } from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { promisify } from "node:util";
import { findProgram } from "../components/require.ts";
import { HOST, TOKEN, type Proxy } from "./peers.ts";
import { cpuSeconds } from "./tcp-load.ts";

export type HttpMeasure = {
  /** Microseconds of the proxy's CPU time for each request. */
  readonly cpuMicros: number;
  readonly perSecond: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
};

const run = promisify(execFile);
const CONNECTIONS = 32;
const REPORT = `done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('{"requests":%d,"micros":%d,"p50":%d,"p99":%d,"errors":%d}\\n', summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`;

/** 32 kept-alive HTTP/1.1 connections over TLS. @throws when a request failed. */
export async function measureHttp1(proxy: Proxy, dir: string, seconds: number): Promise<HttpMeasure> {
  const script = join(dir, "report.lua");
  writeFileSync(script, REPORT);
  const cpuBefore = cpuSeconds([proxy.pid]);
  const args = [
    "-t1",
    `-c${CONNECTIONS}`,
    `-d${seconds}s`,
    "-s",
    script,
    "-H",
    `Host: ${HOST}`,
    "-H",
    `Authorization: Bearer ${proxy.token}`,
    `https://127.0.0.1:${proxy.port}/mcp`,
  ];
  const { stdout } = await run(findProgram("wrk") ?? "wrk", args);
  const cpu = cpuSeconds([proxy.pid]) - cpuBefore;
  const report = JSON.parse(stdout.slice(stdout.lastIndexOf('{"requests"'))) as { requests: number; micros: number; p50: number; p99: number; errors: number };
  if (report.errors > 0) throw new Error(`${proxy.name}: ${report.errors} of ${report.requests} requests failed`);
  return { cpuMicros: (cpu * 1e6) / report.requests, perSecond: (report.requests * 1e6) / report.micros, p50Ms: report.p50 / 1_000, p99Ms: report.p99 / 1_000 };
}

/** 32 requests at once over 8 HTTP/2 connections. @throws when a request failed. */
export async function measureHttp2(proxy: Proxy, dir: string, requests: number): Promise<HttpMeasure> {
  const log = join(dir, "h2load.log");
  writeFileSync(log, "");
  const cpuBefore = cpuSeconds([proxy.pid]);
  const started = performance.now();
  const headers = ["-H", `:authority: ${HOST}`, "-H", `authorization: Bearer ${proxy.token}`];
  const { stdout } = await run(findProgram("h2load") ?? "h2load", [
    "-t1",
    "-c8",
    "-m4",
    `-n${requests}`,
    `--log-file=${log}`,
    ...headers,
    `https://127.0.0.1:${proxy.port}/mcp`,
  ]);
  const seconds = (performance.now() - started) / 1_000;
  const cpu = cpuSeconds([proxy.pid]) - cpuBefore;
  const succeeded = Number(/status codes: (\d+) 2xx/.exec(stdout)?.[1]);
  if (succeeded !== requests) throw new Error(`${proxy.name}: ${requests - succeeded} of ${requests} HTTP/2 requests failed`);
  // Start time, status, microseconds.
  const times = Float64Array.from(readFileSync(log, "utf8").trim().split("\n"), (line) => Number(line.split("\t")[2])).toSorted();
  const at = (share: number): number => (times[Math.floor(share * (times.length - 1))] ?? Number.NaN) / 1_000;
  return { cpuMicros: (cpu * 1e6) / requests, perSecond: requests / seconds, p50Ms: at(0.5), p99Ms: at(0.99) };
}

/** Answers /sse with one event at once and then stays silent until the client goes, everything else with a short text. */
export async function openSseOrigin(): Promise<{ readonly port: number; close(): void }> {
  const server = createServer((incoming, response) => {
    if (incoming.url !== "/sse") return void response.end("ok");
    response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    response.write("data: first\n\n");
  });
  server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 });
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function get(secure: boolean, port: number, path: string, agent: Agent | PlainAgent): Promise<IncomingMessage> {
  const options: RequestOptions = { host: "127.0.0.1", port, path, agent, headers: { host: HOST, authorization: `Bearer ${TOKEN}` } };
  const going = secure ? request(options) : plainRequest(options);
  going.end();
  const [response] = (await once(going, "response")) as [IncomingMessage];
  if (response.statusCode !== 200) throw new Error(`Status ${response.statusCode} for ${path}`);
  response.on("error", () => {});
  return response;
}

/** Opens a stream and waits for its first event. */
async function openStream(secure: boolean, port: number, agent: Agent | PlainAgent): Promise<IncomingMessage> {
  const response = await get(secure, port, "/sse", agent);
  await once(response, "data");
  return response;
}

/** Milliseconds to the first event of `count` streams, each on a connection that is open already. */
export async function measureFirstEvent(secure: boolean, port: number, count: number): Promise<number[]> {
  const times: number[] = [];
  for (let i = 0; i < count; i += 1) {
    const options = { keepAlive: true, maxSockets: 1 };
    const agent = secure ? new Agent({ ...options, rejectUnauthorized: false }) : new PlainAgent(options);
    const warm = await get(secure, port, "/mcp", agent);
    warm.resume();
    await once(warm, "end");
    // The agent takes the connection back in the next turn of the loop.
    await new Promise(setImmediate);
    const started = performance.now();
    const stream = await openStream(secure, port, agent);
    times.push(performance.now() - started);
    stream.destroy();
    agent.destroy();
  }
  return times;
}

/** Opens `count` streams that then say nothing, and reads the memory. @returns bytes resident before and with them. */
export async function measureIdleStreams(proxy: Proxy, count: number): Promise<{ readonly before: number; readonly during: number }> {
  const before = residentBytes(proxy.pid);
  const agent = new Agent({ keepAlive: true, rejectUnauthorized: false });
  const streams: IncomingMessage[] = [];
  for (let i = 0; i < count; i += 50) {
    streams.push(...(await Promise.all(Array.from({ length: Math.min(50, count - i) }, () => openStream(true, proxy.port, agent)))));
  }
  const during = residentBytes(proxy.pid);
  for (const stream of streams) stream.destroy();
  agent.destroy();
  return { before, during };
}

/** Resident bytes of a process and its children. */
function residentBytes(pid: number): number {
  const kib = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1] ?? 0);
  const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "latin1").trim();
  return children.split(" ").reduce((sum, child) => sum + (child === "" ? 0 : residentBytes(Number(child))), kib * 1024);
}
