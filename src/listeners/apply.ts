// Applies a plan's listeners to the sockets: prepare (all that can fail) -> commit (assignments only) -> drain.
import type { Socket } from "node:net";
import type { AcmeChallenges } from "../certificates/acme-challenges.ts";
import { describeSystemError, GatewayError } from "../lib/errors.ts";
import type { TailnetAccess } from "../lib/tailnet-peer.ts";
import type { Log } from "../telemetry/log.ts";
import type { Metrics } from "../telemetry/metrics.ts";
import { HttpListener, type HttpUpdate } from "./http.ts";
import { SocketPool, socketKey, type BoundSocket, type PreparedSockets } from "./pool.ts";
import { TailnetPeers, type TailnetClient, type TailnetTiming } from "./tailnet-peers.ts";
import { TcpListener, type TcpUpdate } from "./tcp.ts";

export type ListenerUpdate = HttpUpdate | TcpUpdate;
type LiveListener = HttpListener | TcpListener;

/** A change that is ready: one of the two is called, once. */
export type PreparedListeners = { readonly commit: (drainTimeoutMs: number) => void; readonly abort: () => Promise<void> };

// The system gives an interface its addresses a moment after tailscaled tells them; one without IPv6 never has them all.
const REBIND_MS = 5_000;

export class Listeners {
  readonly #pool = new SocketPool();
  #live = new Map<string, { readonly listener: LiveListener; readonly socket: BoundSocket }>();
  readonly #draining = new Set<Promise<void>>();
  readonly #metrics: Metrics;
  readonly #challenges: AcmeChallenges;
  readonly #log: Log;
  readonly #tailnet: TailnetAccess;
  readonly #peers: TailnetPeers;
  #moving = Promise.resolve();
  #rebind: NodeJS.Timeout | undefined;
  /** Why a port of the tailnet could not be bound when it was last tried, by its address: said once. */
  #unbound = new Map<string, string>();
  /** Those of them that a warning was written about, with its reason. */
  readonly #told = new Map<string, string>();
  #closed = false;

  /** @param challenges answered on listeners that end TLS. @param tailnet asked about each connection to a port of the tailnet */
  constructor(metrics: Metrics, challenges: AcmeChallenges, log: Log, tailnet: TailnetAccess, timing: Partial<TailnetTiming> = {}) {
    this.#metrics = metrics;
    this.#challenges = challenges;
    this.#log = log;
    this.#tailnet = tailnet;
    this.#peers = new TailnetPeers(tailnet, log, timing);
  }

  /** The live listeners with the address that each really has; `down` says why one does not listen, empty when it does. */
  get all(): { readonly listener: LiveListener; readonly address: string; readonly down: string }[] {
    return [...this.#live.values()].map(({ listener, socket }) => ({ listener, address: socket.boundAddress, down: socket.down }));
  }

  /** The live listener of that name. */
  find(name: string): LiveListener | undefined {
    return this.#live.get(name)?.listener;
  }

  /** How many listeners that are gone from the plan still drain. */
  get draining(): number {
    return this.#draining.size;
  }

  /** Who of the tailnet is connected, also to listeners that drain; at most 1,000. */
  tailnetClients(): TailnetClient[] {
    return this.#peers.clients();
  }

  /**
   * Where the tailnet is has changed: its listeners are bound there, and nothing else is touched. What cannot be bound yet is tried again. Never rejects.
   */
  tailnetMoved(): Promise<void> {
    this.#moving = this.#moving.then(async () => {
      clearTimeout(this.#rebind);
      const failures = await this.#pool.moveTailnet(this.#tailnet.hosts);
      const unbound = new Map(failures.entries().map(([address, error]) => [address, describeSystemError(error)]));
      for (const [address, reason] of unbound) {
        // The interface has its addresses a moment after they are told of: the first try may be too early.
        const isFirst = !this.#unbound.has(address);
        if (this.#told.get(address) === reason) continue;
        this.#log[isFirst ? "debug" : "warn"]({ address }, `Cannot listen on ${address}: ${reason}`);
        if (!isFirst) this.#told.set(address, reason);
      }
      for (const address of this.#told.keys()) if (!unbound.has(address)) this.#told.delete(address);
      this.#unbound = unbound;
      if (failures.size > 0 && !this.#closed) this.#rebind = setTimeout(() => void this.tailnetMoved(), REBIND_MS).unref();
    });
    return this.#moving;
  }

  /** @throws {ListenError} with everything as it was before. */
  async prepare(updates: readonly ListenerUpdate[]): Promise<PreparedListeners> {
    const sockets = await this.#pool.prepare(
      updates.map(({ plan }) => ({ name: plan.name, address: plan.listen })),
      this.#tailnet.hosts,
    );
    return { commit: (drainTimeoutMs) => this.#commit(updates, sockets, drainTimeoutMs), abort: sockets.abort };
  }

  #commit(updates: readonly ListenerUpdate[], sockets: PreparedSockets, drainTimeoutMs: number): void {
    const next = new Map<string, { listener: LiveListener; socket: BoundSocket }>();
    for (const update of updates) {
      const name = update.plan.name;
      const socket = sockets.sockets.get(socketKey(name, update.plan.listen));
      if (socket === undefined) throw new GatewayError("ERR_INTERNAL", `No socket was prepared for listener '${name}'`);
      const present = this.#live.get(name)?.listener;
      const listener = this.#applied(present, update);
      next.set(name, { listener, socket });
      socket.serve((accepted: Socket) => listener.accept(accepted));
    }
    sockets.commit();
    for (const [name, { listener }] of this.#live) if (next.get(name)?.listener !== listener) this.#drain(listener, drainTimeoutMs);
    this.#live = next;
    // It may have moved while they were prepared.
    if (updates.some(({ plan }) => plan.listen.kind === "tailnet")) void this.tailnetMoved();
  }

  #applied(present: LiveListener | undefined, update: ListenerUpdate): LiveListener {
    const stats = this.#metrics.connections(update.plan.name);
    const tls = { stats: this.#metrics.tls(update.plan.name), challenges: this.#challenges };
    if (update.protocol === "http") {
      if (present?.protocol !== "http") return new HttpListener(update, stats, tls, this.#peers, this.#log);
      present.apply(update);
      return present;
    }
    if (present?.protocol !== "tcp") return new TcpListener(update, stats, tls, this.#peers, this.#log);
    present.apply(update);
    return present;
  }

  #drain(listener: LiveListener, timeoutMs: number): void {
    const done = listener.drain(timeoutMs).finally(() => this.#draining.delete(done));
    this.#draining.add(done);
  }

  /** Stops accepting at once and resolves when every connection has ended or was cut at the deadline. */
  async close(drainTimeoutMs: number): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#rebind);
    this.#pool.close();
    for (const { listener } of this.#live.values()) this.#drain(listener, drainTimeoutMs);
    this.#live = new Map();
    await Promise.all(this.#draining);
  }
}
