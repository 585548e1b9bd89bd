// The open connections from the tailnet, whose they are, and whether they still may be: tailscaled is asked again for as long as they last.
import type { Socket } from "node:net";
import { isDeepStrictEqual } from "node:util";
import { isLoopback } from "../lib/address.ts";
import type { TailnetAccess, TailnetPeer } from "../lib/tailnet-peer.ts";
import { within } from "../lib/within.ts";
import type { Log } from "../telemetry/log.ts";

/** `askMs`: what tailscaled gets for an answer. `recheckMs`: how often open connections are asked about. `silenceMs`: how long they live without an answer. */
export type TailnetTiming = { readonly askMs: number; readonly recheckMs: number; readonly silenceMs: number };
const TIMING: TailnetTiming = { askMs: 5_000, recheckMs: 20_000, silenceMs: 60_000 };

/** Why a connection got no further, as the access log says it. Words may follow a colon. */
export type TailnetRefusal = "not_on_tailnet" | "not_on_tailnet: no answer from tailscaled" | "too_many_connections";

/** What a listener does with its connections from the tailnet. */
export type TailnetListener = {
  readonly plan: { readonly name: string };
  /** Its peer is remembered with the socket. */
  onKnown(socket: Socket): void;
  /** Closes it. */
  onRefused(socket: Socket, reason: TailnetRefusal): void;
  /** Whose these are is told otherwise now, which is to be remembered with those that go on; null: their node is gone, and they must be closed. */
  onPeerChanged(sockets: ReadonlySet<Socket>, peer: TailnetPeer | null): void;
};

/** A device with connections to a listener, as `status` shows it. */
export type TailnetClient = Readonly<Record<"listener" | "address" | "node", string>> & {
  readonly user: string | null;
  readonly tags: readonly string[];
  readonly connections: number;
};

// Rechecks that are under way at once: enough for thousands of nodes in a minute.
const WORKERS = 16;
const MAX_CLIENTS = 1_000;
// Each takes 180 ms of tailscaled.
const MAX_FORGETTING = 20;
// tailscaled forgets a connection at once when both its sides have ended.
const FORGETTING_MS = 5_000;

type Entry = { readonly socket: Socket; readonly listener: TailnetListener; peer: TailnetPeer; confirmedAt: number };

/** One for all listeners. */
export class TailnetPeers {
  readonly #access: TailnetAccess;
  readonly #log: Log;
  readonly #timing: TailnetTiming;
  /** By address of the node. */
  readonly #open = new Map<string, Set<Entry>>();
  /** Connections over loopback by where they come from, also while it is asked whose they are. */
  readonly #origins = new Map<string, Socket>();
  readonly #doubted = new WeakSet<Socket>();
  /**
   * Where connections came from that are closed: of those that did not end on tailscaled's side it may still think when another process comes from there
   * (seen), for as long as the peer is silent.
   */
  readonly #left = new Map<string, { readonly address: string; readonly port: number; readonly isEnded: boolean; readonly atMs: number }>();
  #timer: NodeJS.Timeout | null = null;
  #checking = false;

  constructor(access: TailnetAccess, log: Log, timing: Partial<TailnetTiming> = {}) {
    this.#access = access;
    this.#log = log;
    this.#timing = { ...TIMING, ...timing };
  }

  /**
   * Notes where a connection comes from, before it is asked whose it is. `taken`: refuse it, and `isDoubted` is true of the other one from there. `doubtful`:
   * tailscaled may still think of the one that came from there before.
   * Over loopback tailscaled tells connections apart by their local port alone, which several may share that go to different ports: a local process takes
   * that of somebody's connection to one listener, and is told to be them at another (seen, with IP_LOCAL_PORT_RANGE).
   */
  claim(socket: Socket, address: string, port: number): "fresh" | "doubtful" | "taken" {
    if (!isLoopback({ kind: "tcp", host: address })) return "fresh";
    const origin = `${address} ${port}`;
    const other = this.#origins.get(origin);
    if (other !== undefined) {
      this.#doubted.add(other);
      return "taken";
    }
    const left = this.#left.get(origin);
    const isDoubtful = left !== undefined && (!left.isEnded || performance.now() - left.atMs < FORGETTING_MS);
    if (!isDoubtful) this.#left.delete(origin);
    this.#origins.set(origin, socket);
    socket.once("close", () => {
      this.#origins.delete(origin);
      this.#left.set(origin, { address, port, isEnded: socket.readableEnded, atMs: performance.now() });
      this.#startTimer();
    });
    return isDoubtful ? "doubtful" : "fresh";
  }

  /** Whether another connection came from where this one does: what tailscaled said since then may be meant for that one. */
  isDoubted(socket: Socket): boolean {
    return this.#doubted.has(socket);
  }

  /** As `TailnetAccess.whois`; undefined when there is no answer in time. Never rejects. */
  whois(address: string, port: number, localPort: number, isDoubtful: boolean): Promise<TailnetPeer | null | undefined> {
    return within(this.#access.whois(address, port, localPort, isDoubtful), this.#timing.askMs, { ref: false });
  }

  /** Watches over a connection until it closes. */
  add(socket: Socket, peer: TailnetPeer, listener: TailnetListener): void {
    const { address } = peer;
    const entry: Entry = { socket, listener, peer, confirmedAt: performance.now() };
    const entries = this.#open.get(address) ?? new Set();
    this.#open.set(address, entries.add(entry));
    socket.once("close", () => {
      entries.delete(entry);
      if (entries.size === 0 && this.#open.get(address) === entries) this.#open.delete(address);
    });
    this.#startTimer();
  }

  #startTimer(): void {
    this.#timer ??= setInterval(() => this.#tick(), this.#timing.recheckMs).unref();
  }

  /** Who is connected now, once for each listener; at most 1,000. */
  clients(): TailnetClient[] {
    const found: { -readonly [K in keyof TailnetClient]: TailnetClient[K] }[] = [];
    for (const [address, entries] of this.#open) {
      const byListener = new Map<TailnetListener, (typeof found)[number]>();
      for (const { listener, peer } of entries) {
        const known = byListener.get(listener);
        if (known !== undefined) known.connections += 1;
        else if (found.length === MAX_CLIENTS) return found;
        else {
          const client = { listener: listener.plan.name, address, node: peer.shortName, user: peer.user, tags: peer.tags, connections: 1 };
          byListener.set(listener, client);
          found.push(client);
        }
      }
    }
    return found;
  }

  #tick(): void {
    if (this.#open.size === 0 && (this.#left.size === 0 || this.#access.proves) && this.#timer !== null) {
      clearInterval(this.#timer);
      this.#timer = null;
      return;
    }
    const now = performance.now();
    for (const entries of this.#open.values()) {
      const silent = [...entries].filter(({ confirmedAt }) => now - confirmedAt > this.#timing.silenceMs);
      if (silent.length > 0) this.#tell(silent, null, "tailscaled does not answer");
    }
    if (!this.#checking) void this.#checkAll();
  }

  async #checkAll(): Promise<void> {
    this.#checking = true;
    const addresses = [...this.#open.keys()].values();
    const work = async (): Promise<void> => {
      for (const address of addresses) await this.#check(address);
    };
    await Promise.all(Array.from({ length: WORKERS }, work));
    const now = performance.now();
    for (const [origin, { isEnded, atMs }] of this.#left) if (isEnded && now - atMs >= FORGETTING_MS) this.#left.delete(origin);
    // Where it can be proven, it is when somebody comes from there.
    const asked = this.#access.proves ? [] : [...this.#left].slice(0, MAX_FORGETTING);
    for (const [origin, { address, port }] of asked) if ((await this.whois(address, port, 0, false)) === null) this.#left.delete(origin);
    this.#checking = false;
  }

  async #check(address: string): Promise<void> {
    // Those that come while the answer is on its way know better.
    const entries = [...(this.#open.get(address) ?? [])];
    if (entries.length === 0) return;
    const peer = await within(this.#access.node(address), this.#timing.askMs, { ref: false });
    if (peer === undefined) return;
    const now = performance.now();
    const lost: Entry[] = [];
    const changed: Entry[] = [];
    for (const entry of entries) {
      if (entry.socket.destroyed) continue;
      entry.confirmedAt = now;
      if (peer === null || peer.id !== entry.peer.id || peer.address !== address) lost.push(entry);
      else if (!isDeepStrictEqual(peer, entry.peer)) changed.push(entry);
    }
    if (lost.length > 0) this.#tell(lost, null, peer === null ? "its node is gone or its key has expired" : "its address is another node's now");
    if (changed.length > 0 && peer !== null) this.#tell(changed, peer, "its user, tags or name changed");
  }

  #tell(entries: readonly Entry[], peer: TailnetPeer | null, reason: string): void {
    const sockets = new Map<TailnetListener, Set<Socket>>();
    for (const entry of entries) {
      if (peer !== null) entry.peer = peer;
      sockets.set(entry.listener, (sockets.get(entry.listener) ?? new Set()).add(entry.socket));
    }
    const { address: client, shortName: node } = entries[0]?.peer ?? {};
    for (const [listener, ofListener] of sockets) {
      const fields = { listener: listener.plan.name, client, node, reason, connections: ofListener.size };
      this.#log.info(fields, peer === null ? "Connections from the tailnet are closed" : "Connections from the tailnet are judged anew");
      listener.onPeerChanged(ofListener, peer);
    }
  }
}
