// Listeners on a tailnet that the test tells what to say: real sockets on loopback, and no tailscaled.
import { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";
import { createListenerTls } from "../../src/certificates/select.ts";
import { createHttpLive, createHttpState } from "../../src/http/state.ts";
import { AddressSet } from "../../src/lib/address.ts";
import type { TailnetAccess, TailnetPeer } from "../../src/lib/tailnet-peer.ts";
import { Listeners, type ListenerUpdate } from "../../src/listeners/apply.ts";
import type { TailnetTiming } from "../../src/listeners/tailnet-peers.ts";
import type { HttpListenerPlan, RoutePlan, TcpListenerPlan, TlsTermination } from "../../src/plan/model.ts";
import { createTcpLive } from "../../src/tcp/connection.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { Metrics } from "../../src/telemetry/metrics.ts";
import { HttpUpstream } from "../../src/upstreams/http-pool.ts";
import { Upstream } from "../../src/upstreams/upstream.ts";
import { TCP_PLAN, tcpUpstreamPlan } from "../integration/tcp-relay.ts";
import { freePort } from "./free-port.ts";
import { certificate, httpListenerPlan, routePlan, upstreamPlan } from "./http-gateway.ts";

function node(address: string, name: string, more: Partial<TailnetPeer>): TailnetPeer {
  const own = name.endsWith(".tail1.ts.net");
  return { address, id: `n-${name}`, name, shortName: own ? (name.split(".")[0] ?? "") : name, user: null, tags: [], ...more };
}

export const ALICE = node("100.64.0.1", "laptop.tail1.ts.net", { user: "alice@example.com" });
export const EVE = node("100.64.0.2", "phone.tail1.ts.net", { user: "eve@example.com" });
export const BOT = node("100.64.0.3", "bot.tail1.ts.net", { user: "alice@example.com", tags: ["tag:bots", "tag:ci"] });
/** Of another tailnet, with our names for its device and its tags. */
export const NAMESAKE = node("100.99.0.1", "laptop.tail2.ts.net", { user: "mallory@example.org" });
export const FOREIGN_BOT = node("100.99.0.2", "bot.tail2.ts.net", { tags: ["tag:bots"] });

export const match = (of: { users?: string[]; tags?: string[]; nodes?: string[] }) => ({
  users: of.users === undefined ? null : new Set(of.users),
  tags: of.tags === undefined ? null : new Set(of.tags),
  nodes: of.nodes === undefined ? null : new Set(of.nodes),
});

export class FakeTailnet implements TailnetAccess {
  hosts: readonly string[] = ["127.0.0.1"];
  /** Whose the next connections are; null: a local process'. */
  caller: TailnetPeer | null = ALICE;
  /** What is known now of nodes by their address, where that is not what `whois` said. */
  readonly now = new Map<string, TailnetPeer | null | undefined>();
  /** Until it resolves nobody gets an answer. */
  held: Promise<unknown> = Promise.resolve();
  /** What whois was asked. */
  readonly asked: { readonly address: string; readonly port: number }[] = [];
  readonly #seen = new Map<string, TailnetPeer>();

  proves = false;

  async whois(address: string, port: number, _localPort: number, isDoubtful: boolean): Promise<TailnetPeer | null> {
    const { caller } = this;
    this.asked.push({ address, port });
    await this.held;
    if (isDoubtful) return null;
    if (caller !== null) this.#seen.set(caller.address, caller);
    return caller;
  }

  async node(address: string): Promise<TailnetPeer | null | undefined> {
    await this.held;
    return this.now.has(address) ? this.now.get(address) : (this.#seen.get(address) ?? null);
  }

  /** Nobody gets an answer until the function is called. */
  hold(): () => void {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.held = promise;
    return resolve;
  }
}

export type Story = {
  /** A TCP listener 'live' with the target of this port. */
  readonly tcp?: { readonly target: number; readonly plan?: Partial<TcpListenerPlan> };
  /** An HTTP listener 'web' with the origin at this URL. */
  readonly http?: { readonly target: string; readonly plan?: Partial<HttpListenerPlan>; readonly routes?: Partial<RoutePlan>[] };
  readonly trustedProxies?: string[];
  /** TLS ends at both. */
  readonly tls?: boolean;
};

export type TailnetListeners = AsyncDisposable & {
  readonly tailnet: FakeTailnet;
  readonly listeners: Listeners;
  readonly metrics: Metrics;
  readonly tcpPort: number;
  readonly httpPort: number;
  readonly accessLog: readonly Record<string, unknown>[];
  readonly log: readonly Record<string, unknown>[];
  reload(story: Story): Promise<void>;
};

/** Opens the listeners of the story, on ports of the tailnet that are bound on 127.0.0.1. */
export async function openTailnetListeners(first: Story, timing: Partial<TailnetTiming> = {}, tailnet = new FakeTailnet()): Promise<TailnetListeners> {
  const accessLog: Record<string, unknown>[] = [];
  const lines: Record<string, unknown>[] = [];
  const log = openLog(
    { level: "debug", format: "json" },
    { isTty: false, colors: false, write: (line) => void lines.push(JSON.parse(line) as Record<string, unknown>) },
  );
  const metrics = new Metrics();
  const listeners = new Listeners(metrics, new AcmeChallenges(), log, tailnet, timing);
  const [tcpPort, httpPort] = [await freePort(), await freePort()];
  const writer = { write: (line: string) => void accessLog.push(JSON.parse(line) as Record<string, unknown>) };
  const upstreams: HttpUpstream[] = [];

  const updates = (story: Story): ListenerUpdate[] => {
    const tls: TlsTermination = {
      mode: "application",
      certificates: [{ certFile: "c", ...certificate(), names: ["localhost"] }],
      acme: null,
      tailscale: false,
      internal: false,
      hosts: [],
      protocol: { minVersion: "TLSv1.2", ciphers: null, clientAuth: null, key: "k" },
    };
    const certificates =
      story.tls === true
        ? createListenerTls(tls, {
            listener: "l",
            listenHost: null,
            tailnetNames: () => [],
            acme: null,
            tailscale: null,
            internalCa: null,
            tickets: null,
          })
        : null;
    const shared = story.tls === true ? { tls } : {};
    const result: ListenerUpdate[] = [];
    if (story.tcp !== undefined) {
      const plan: TcpListenerPlan = { ...TCP_PLAN, listen: { kind: "tailnet", port: tcpPort }, ...shared, ...story.tcp.plan };
      const present = listeners.find("live");
      const live = present?.protocol === "tcp" ? present.state.live : createTcpLive();
      const upstream = new Upstream(tcpUpstreamPlan([`127.0.0.1:${story.tcp.target}`]));
      result.push({ protocol: "tcp", plan, state: { plan, upstream, live, stats: metrics.tcpListener("live"), accessLog: writer, log }, certificates });
    }
    if (story.http !== undefined) {
      const plan = httpListenerPlan({ listen: { kind: "tailnet", port: httpPort }, ...shared, ...story.http.plan });
      const present = listeners.find("web");
      const upstream = new HttpUpstream(new Upstream(upstreamPlan([story.http.target])));
      upstreams.push(upstream);
      const state = createHttpState({
        plan,
        gateway: {
          routes: (story.http.routes ?? [{}]).map((route, index) => routePlan({ name: `r${index}`, ...route, index })),
          tokens: [],
          scopes: new Map(),
          authorizationServers: [],
          trustedProxies: new AddressSet(story.trustedProxies ?? []),
        },
        servers: new Map(),
        issuers: new Map(),
        upstreams: new Map([["up", upstream]]),
        challenges: null,
        metrics,
        ...(present?.protocol === "http"
          ? { live: present.state.live, drain: present.state.drain }
          : { live: createHttpLive(), drain: { draining: false, cut: false } }),
        accessLog: writer,
        log,
      });
      result.push({ protocol: "http", plan, state, certificates });
    }
    return result;
  };
  const reload = async (story: Story): Promise<void> => (await listeners.prepare(updates(story))).commit(0);
  await reload(first);
  return {
    tailnet,
    listeners,
    metrics,
    tcpPort,
    httpPort,
    accessLog,
    log: lines,
    reload,
    [Symbol.asyncDispose]: async () => {
      await listeners.close(0);
      for (const upstream of upstreams) await upstream.close(0);
      metrics.close();
    },
  };
}
