// `npm run bench`: what Sidegate costs beside other proxies, on loopback, all in one run. Nothing here is asserted.
//   --quick         under a minute, rougher
//   --json FILE     every number, also those of single rounds
//   --only PARTS    of handshakes,http1,http2,sse,start,tailnet,tcp; with commas between
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { cpus, tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { measureHandshakes } from "./handshake-load.ts";
import { measureFirstEvent, measureHttp1, measureHttp2, measureIdleStreams, openSseOrigin, type HttpMeasure } from "./http-load.ts";
import { missingTailnet } from "../components/tailnet.ts";
import { missingPeer, openSetting, startJsonOrigin, startPeer, startRelay, type PeerName, type Proxy, type Setting } from "./peers.ts";
import { median, number, table } from "./report.ts";
import { openTailnetBench } from "./tailnet-bench.ts";
import { measureBulk, measureConnects, measureEcho, openTcpPeer, type TcpMeasure } from "./tcp-load.ts";

const PARTS = ["handshakes", "http1", "http2", "sse", "start", "tailnet", "tcp"];
const { values: options } = parseArgs({ options: { quick: { type: "boolean", default: false }, json: { type: "string" }, only: { type: "string" } } });
const parts = new Set(options.only?.split(",") ?? PARTS);
const quick = options.quick;

const results: Record<string, unknown> = {};
/** What must be undone at the end and on Ctrl-C, last first. */
const undo: (() => unknown)[] = [];
let stopping = false;

function progress(text: string): void {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001B[K${text}`);
  else process.stderr.write(`${text}\n`);
}

function say(text: string): void {
  if (process.stderr.isTTY) process.stderr.write("\r\u001B[K");
  console.log(text);
}

async function cleanUp(): Promise<void> {
  for (const step of undo.splice(0).toReversed()) await step();
}

const leftOut = new Set<string>();

/** Keeps the peers that are installed, and says once how to get each of the others. */
function present<Name extends string>(names: readonly Name[]): Name[] {
  return names.filter((name) => {
    const line = missingPeer(name);
    if (line === null) return true;
    if (!leftOut.has(name)) say(`Left out: ${name}, which is not installed: ${line}`);
    leftOut.add(name);
    return false;
  });
}

async function kept(starting: Promise<Proxy>): Promise<Proxy> {
  const proxy = await starting;
  undo.push(() => proxy.stop());
  return proxy;
}

/** Measures all in turn (A B C, A B C, ...), so that what else the machine does falls on all alike. */
async function alternate<Measure, Way extends { readonly name: string }>(
  what: string,
  rounds: number,
  proxies: readonly Way[],
  measure: (proxy: Way, round: number) => Promise<Measure>,
): Promise<Map<string, Measure[]>> {
  const measured = new Map<string, Measure[]>();
  for (let round = 0; round < rounds; round += 1) {
    for (const proxy of proxies) {
      progress(`${what}: round ${round + 1} of ${rounds}, ${proxy.name}`);
      measured.set(proxy.name, [...(measured.get(proxy.name) ?? []), await measure(proxy, round)]);
    }
  }
  results[what] = Object.fromEntries(measured);
  return measured;
}

function medianOf<Measure>(measures: readonly Measure[] | undefined, pick: (measure: Measure) => number): number {
  return median((measures ?? []).map(pick));
}

function reportHttp(title: string, measured: ReadonlyMap<string, readonly HttpMeasure[]>): void {
  const reference = medianOf(measured.get("caddy"), (measure) => measure.cpuMicros);
  const rows = [...measured].map(([name, all]) => {
    const cpu = medianOf(all, (measure) => measure.cpuMicros);
    const rest = [(measure: HttpMeasure) => measure.perSecond, (measure: HttpMeasure) => measure.p50Ms, (measure: HttpMeasure) => measure.p99Ms];
    return [name, number(cpu), number(cpu / reference), ...rest.map((pick) => number(medianOf(all, pick)))];
  });
  say(table(title, ["proxy", "CPU µs/request", "x Caddy", "requests/s", "p50 ms", "p99 ms"], rows));
}

async function benchHttp(setting: Setting): Promise<void> {
  const names = present<PeerName>(["sidegate", "sidegate-open", "sidegate-oauth", ...(quick ? [] : (["sidegate-1000"] as const)), "caddy", "nginx", "haproxy"]);
  const proxies: Proxy[] = [];
  for (const name of names) {
    progress(`starting ${name}`);
    proxies.push(await kept(startPeer(name, setting)));
  }
  results["versions"] = Object.fromEntries(proxies.map((proxy) => [proxy.name, proxy.version]));
  say(`HTTP peers: ${proxies.map((proxy) => `${proxy.name} ${proxy.version}`).join(", ")}`);
  const few = proxies.filter((proxy) => !proxy.name.startsWith("sidegate-"));

  if (parts.has("http1") && present(["wrk"]).length > 0) {
    for (const proxy of proxies) {
      progress(`warming up ${proxy.name}`);
      // Long enough for V8 to compile the hot path: a gateway runs for months.
      await measureHttp1(proxy, setting.dir, quick ? 2 : 3);
    }
    reportHttp(
      "HTTPS, HTTP/1.1, 32 connections, 250-byte JSON",
      await alternate("http1", quick ? 2 : 5, proxies, (proxy) => measureHttp1(proxy, setting.dir, quick ? 1 : 3)),
    );
  }
  if (parts.has("http2") && present(["h2load"]).length > 0) {
    for (const proxy of few) await measureHttp2(proxy, setting.dir, quick ? 5_000 : 15_000);
    reportHttp(
      "HTTPS, HTTP/2, 8 connections with 4 requests each at once",
      await alternate("http2", quick ? 2 : 3, few, (proxy) => measureHttp2(proxy, setting.dir, quick ? 5_000 : 20_000)),
    );
  }
  if (parts.has("handshakes")) await benchHandshakes(few);
  if (parts.has("sse")) await benchSse(setting, few);
  for (const proxy of proxies) await proxy.stop();
}

async function benchHandshakes(proxies: readonly Proxy[]): Promise<void> {
  const ms = quick ? 500 : 2_000;
  const rows: string[][] = [];
  for (const version of ["TLSv1.3", "TLSv1.2"] as const) {
    for (const resumed of [false, true]) {
      for (const proxy of proxies) await measureHandshakes(proxy, version, resumed, ms / 2);
      const what = `${version}, ${resumed ? "resumed" : "full"}`;
      const measured = await alternate(`handshakes ${what}`, quick ? 1 : 3, proxies, (proxy) => measureHandshakes(proxy, version, resumed, ms));
      const reference = medianOf(measured.get("caddy"), ({ cpuMicros }) => cpuMicros);
      for (const { name } of proxies) {
        const cpu = medianOf(measured.get(name), ({ cpuMicros }) => cpuMicros);
        rows.push([`${what}: ${name}`, number(cpu), number(cpu / reference), number(medianOf(measured.get(name), ({ perSecond }) => perSecond))]);
      }
    }
  }
  say(table("TLS handshakes, ECDSA P-256, X25519, 8 at once", ["proxy", "CPU µs/handshake", "x Caddy", "handshakes/s"], rows));
}

async function benchSse(setting: Setting, proxies: readonly Proxy[]): Promise<void> {
  progress("sse: direct");
  const count = quick ? 20 : 50;
  await measureFirstEvent(false, setting.ssePort, count);
  const direct = await measureFirstEvent(false, setting.ssePort, count);
  const first = await alternate("sse first event", 3, proxies, (proxy) => measureFirstEvent(true, proxy.port, count));
  // Not the process that was under load: idle memory is that of a fresh one.
  const fresh: Proxy[] = [];
  for (const { name } of proxies) fresh.push(await kept(startPeer(name as PeerName, setting)));
  const streams = await alternate("sse idle streams", 1, fresh, (proxy) => measureIdleStreams(proxy, 1_000));
  for (const proxy of fresh) await proxy.stop();
  const mb = (bytes: number): string => number(bytes / 1e6);
  const rows = proxies.map(({ name }) => {
    const ms = median((first.get(name) ?? []).slice(1).flat());
    const [memory] = streams.get(name) ?? [];
    return [name, number(ms), number(ms - median(direct)), mb(memory?.before ?? Number.NaN), mb(memory?.during ?? Number.NaN)];
  });
  say(
    table(
      `Event streams (direct, without TLS: ${number(median(direct))} ms)`,
      ["proxy", "first event ms", "added ms", "MB idle", "MB with 1,000 streams"],
      rows,
    ),
  );
}

async function benchStart(setting: Setting): Promise<void> {
  const times = new Map<string, number[]>();
  for (let round = 0; round < (quick ? 2 : 10); round += 1) {
    for (const name of present<PeerName>(round === 0 ? ["sidegate", "sidegate-1000", "caddy", "nginx", "haproxy"] : ([...times.keys()] as PeerName[]))) {
      progress(`start: round ${round + 1}, ${name}`);
      const proxy = await kept(startPeer(name, setting));
      times.set(name, [...(times.get(name) ?? []), proxy.startMs]);
      await proxy.stop();
    }
  }
  results["start"] = Object.fromEntries(times);
  const rows = [...times].map(([name, all]) => [name, number(median(all)), number(Math.min(...all)), number(Math.max(...all))]);
  say(table("Start: from spawn to the first good answer over HTTPS", ["proxy", "median ms", "min", "max"], rows));
}

async function benchTcp(setting: Setting): Promise<void> {
  const peer = await openTcpPeer();
  undo.push(() => peer.close());
  const proxies: Proxy[] = [];
  for (const name of ["sidegate", ...present(["socat", "haproxy"] as const)] as const) proxies.push(await kept(startRelay(name, setting.dir, peer.port)));
  const ms = quick ? 300 : 1_000;
  const rounds = quick ? 1 : 3;
  // Warm, as a relay that has run for a while.
  for (const proxy of proxies) {
    await measureEcho(proxy.port, 16, ms, [proxy.pid]);
    await measureBulk(proxy.port, 1, ms, [proxy.pid]);
    await measureConnects(proxy.port, 16, ms, [proxy.pid]);
  }
  const kinds = [
    ["round trips/s", [1, 16, 256], measureEcho, (value: number) => number(value)],
    ["bulk GB/s", [1, 16], measureBulk, (value: number) => number(value / 1e9)],
    ["new connections/s", [1, 16, 256], measureConnects, (value: number) => number(value)],
  ] as const;
  const rows: string[][] = [];
  for (const [kind, levels, put, format] of kinds) {
    for (const level of levels) {
      const what = `tcp ${kind}, ${level} connection${level === 1 ? "" : "s"}`;
      const measured = await alternate<TcpMeasure, Proxy>(what, rounds, proxies, (proxy) => put(proxy.port, level, ms, [proxy.pid]));
      const at = (name: string, pick: (measure: TcpMeasure) => number): number => medianOf(measured.get(name), pick);
      const speed = (measure: TcpMeasure): number => measure.perSecond;
      const cpu = (measure: TcpMeasure): number => measure.cpuMicros;
      const cells = ["sidegate", "socat", "haproxy"].map((name) => format(at(name, speed)));
      rows.push([what.slice(4), ...cells, number(at("sidegate", speed) / at("socat", speed)), number(at("sidegate", cpu) / at("socat", cpu))]);
    }
  }
  for (const proxy of proxies) await proxy.stop();
  say(table("TCP relay", ["measure", "sidegate", "socat", "haproxy", "speed x socat", "CPU x socat"], rows));
}

/** From a node of a tailnet to a service: through the gateway, and through a tailscaled alone. */
async function benchTailnet(): Promise<void> {
  const missing = missingTailnet();
  if (missing !== null) return say(`Left out: tailnet, ${missing}: bash test/components/setup.sh`);
  progress("starting a tailnet");
  const tailnet = await openTailnetBench();
  undo.push(() => tailnet.close());
  const { ways } = tailnet;
  const ms = quick ? 500 : 2_000;
  const kinds = [
    ["round trips/s, 16 connections", 16, measureEcho, 1],
    ["bulk MB/s, 1 stream", 1, measureBulk, 1e6],
    ["new connections/s, 4 at once", 4, measureConnects, 1],
  ] as const;
  const rows: string[][] = [];
  for (const [kind, level, put, unit] of kinds) {
    for (const way of ways) await put(way.port, level, ms, [way.pid]);
    const measured = await alternate<TcpMeasure, (typeof ways)[number]>(`tailnet ${kind}`, quick ? 1 : 5, ways, (way) => put(way.port, level, ms, [way.pid]));
    const [behind = Number.NaN, direct = Number.NaN] = ways.map(({ name }) => medianOf(measured.get(name), ({ perSecond }) => perSecond / unit));
    const [behindCpu = Number.NaN, directCpu = Number.NaN] = ways.map(({ name }) => medianOf(measured.get(name), ({ cpuMicros }) => cpuMicros));
    rows.push(
      [kind, behind, direct, behind / direct, behindCpu, directCpu, behindCpu / directCpu].map((cell) => (typeof cell === "string" ? cell : number(cell))),
    );
  }
  await tailnet.close();
  say(
    table(
      "Through a tailnet; CPU is that of the gateway and its tailscaled, or of tailscaled alone, in µs for each (bulk: each MiB)",
      ["measure", "sidegate", "direct", "x direct", "CPU sidegate", "CPU direct", "x direct"],
      rows,
    ),
  );
}

/** All that compares proxies. */
async function benchProxies(dir: string): Promise<void> {
  if (present(["nginx"]).length === 0) return say("nginx is needed as the origin");
  const sse = await openSseOrigin();
  undo.push(() => sse.close());
  const origin = await kept(startJsonOrigin(dir));
  const setting = await openSetting(dir, { jsonPort: origin.port, ssePort: sse.port });
  if (parts.has("start")) await benchStart(setting);
  if (["handshakes", "http1", "http2", "sse"].some((part) => parts.has(part))) await benchHttp(setting);
  if (parts.has("tcp")) await benchTcp(setting);
}

async function main(): Promise<void> {
  const unknown = [...parts].find((part) => !PARTS.includes(part));
  if (unknown !== undefined) throw new Error(`Unknown part '${unknown}': ${PARTS.join(", ")}`);
  const started = performance.now();
  const dir = mkdtempSync(join(tmpdir(), "sidegate-bench-"));
  undo.push(() => rmSync(dir, { recursive: true, force: true }));
  results["machine"] = `${cpus().length} x ${cpus()[0]?.model.trim()}`;
  say(`${String(results["machine"])}, Node.js ${process.version}`);
  if ([...parts].some((part) => part !== "tailnet")) await benchProxies(dir);
  if (parts.has("tailnet")) await benchTailnet();
  if (options.json !== undefined) writeFileSync(options.json, `${JSON.stringify(results, null, 2)}\n`);
  say(`Took ${number((performance.now() - started) / 1_000)} s`);
}

for (const [signal, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.once(signal, () => {
    stopping = true;
    void cleanUp().finally(() => process.exit(code));
  });
}
try {
  await main();
} catch (error) {
  // What is under way fails when its proxy is stopped: that is no news, and the exit comes when all of them are.
  if (!stopping) throw error;
  await Promise.withResolvers<never>().promise;
} finally {
  await cleanUp();
}
