// A TCP listener: takes accepted sockets, through TLS where it is asked for, to tcp/handle.ts.
import type { Socket } from "node:net";
import type { ListenerTls } from "../certificates/select.ts";
import { splitCertificates } from "../lib/pem.ts";
import { peerAddress, peerOf, rememberPeer, type TailnetPeer } from "../lib/tailnet-peer.ts";
import type { TcpListenerPlan } from "../plan/model.ts";
import type { EndReason, TcpState } from "../tcp/connection.ts";
import { handleConnection, isAllowed, rateRefusal, refusal, refuse } from "../tcp/handle.ts";
import type { Log } from "../telemetry/log.ts";
import type { ConnectionStats } from "../telemetry/metrics.ts";
import { drained } from "./drain.ts";
import { TailnetGate } from "./tailnet.ts";
import type { TailnetListener, TailnetPeers } from "./tailnet-peers.ts";
import { createTlsTerminator, type TlsParts, type TlsTerminator } from "./tls.ts";

/** What a plan gives a TCP listener; all of it is prepared, so that applying it cannot fail. */
export type TcpUpdate = { readonly protocol: "tcp"; readonly plan: TcpListenerPlan; readonly state: TcpState; readonly certificates: ListenerTls | null };

export class TcpListener implements TailnetListener {
  readonly protocol = "tcp";
  readonly stats: ConnectionStats;
  readonly #tls: TlsParts;
  readonly #gate: TailnetGate;
  readonly #log: Log;
  #update: TcpUpdate;
  #terminator: TlsTerminator | null = null;
  /** Accepted sockets that are open, by client: during a TLS handshake they are no connections yet, and must count all the same. */
  #open = 0;
  readonly #sockets = new Map<string, Set<Socket>>();

  constructor(update: TcpUpdate, stats: ConnectionStats, tls: TlsParts, peers: TailnetPeers, log: Log) {
    this.#update = update;
    this.stats = stats;
    this.#tls = tls;
    this.#gate = new TailnetGate(peers, this, log);
    this.#log = log;
    this.apply(update);
  }

  get plan(): TcpListenerPlan {
    return this.#update.plan;
  }

  get state(): TcpState {
    return this.#update.state;
  }

  /** Connections open now. */
  get active(): number {
    return this.#update.state.live.connections.size;
  }

  /** Takes a new plan. Open connections go on, but for those that it may not admit any more: by their address, their node of the tailnet, or a certificate that they would need. */
  apply(update: TcpUpdate): void {
    const { plan, certificates } = update;
    if (certificates === null) this.#terminator = null;
    else if (this.#terminator === null || this.#update.certificates !== certificates || this.plan.timeouts.expectMs !== plan.timeouts.expectMs) {
      this.#terminator = createTlsTerminator({
        ...this.#tls,
        listener: plan.name,
        certificates,
        alpnProtocols: [],
        handshakeTimeoutMs: plan.timeouts.expectMs,
        onSecure: (socket) => {
          const rules = this.#update.certificates?.protocol ?? certificates.protocol;
          // Its handshake began before a reload: what it showed then, or did not, proves nothing under the rules of now.
          if (rules.clientAuth !== null && rules.key !== certificates.protocol.key) return refuse(this.#update.state, socket, "denied");
          handleConnection(this.#update.state, socket, true);
        },
        onPlain: (socket) => {
          socket.destroy();
          return "other";
        },
        log: this.#log,
      });
    }
    const isUnproven = asksForMore(this.#update.certificates, certificates);
    this.#update = update;
    for (const connection of update.state.live.connections) {
      if (isUnproven || !isAllowed(plan, connection.client, peerOf(connection.socket))) connection.close("denied");
    }
  }

  /** Takes a socket that was just accepted. */
  accept(socket: Socket): void {
    if (this.plan.listen.kind === "tailnet") void this.#gate.take(socket);
    else this.onKnown(socket);
  }

  onPeerChanged(sockets: ReadonlySet<Socket>, peer: TailnetPeer | null): void {
    if (peer !== null) for (const socket of sockets) rememberPeer(socket, peer);
    for (const connection of this.#update.state.live.connections) {
      if (sockets.has(below(connection.socket)) && (peer === null || !isAllowed(this.plan, connection.client, peer))) connection.close("denied");
    }
    // Those whose handshake is under way are judged after it.
    if (peer === null) for (const socket of sockets) socket.destroy();
  }

  onRefused(socket: Socket, reason: EndReason): void {
    this.#count(socket);
    this.stats.refused += 1;
    refuse(this.#update.state, socket, reason);
  }

  onKnown(socket: Socket): void {
    const { state } = this.#update;
    const client = peerAddress(socket);
    const ofClient = this.#sockets.get(client) ?? new Set();
    // Whoever would be refused is refused before the handshake, which costs more than the refusal.
    const refused = refusal(state, client, peerOf(socket), this.#open, ofClient.size) ?? rateRefusal(state, client);
    if (refused !== null) return this.onRefused(socket, refused);
    this.#count(socket);
    this.#open += 1;
    this.#sockets.set(client, ofClient.add(socket));
    socket.once("close", () => {
      this.#open -= 1;
      ofClient.delete(socket);
      if (ofClient.size === 0) this.#sockets.delete(client);
    });
    if (this.#terminator === null) handleConnection(state, socket, true);
    else this.#terminator.accept(socket);
  }

  #count(socket: Socket): void {
    this.stats.accepted += 1;
    this.stats.active += 1;
    socket.once("close", () => {
      this.stats.active -= 1;
    });
  }

  /** Lets connections end until the deadline, then cuts them. No socket is accepted any more. */
  async drain(timeoutMs: number): Promise<void> {
    const { connections } = this.#update.state.live;
    this.#gate.close();
    await drained(() => connections.size, timeoutMs);
    if (connections.size > 0) this.#log.warn({ listener: this.plan.name, connections: connections.size }, "Drain deadline passed: connections are cut");
    for (const connection of connections) connection.close("drained");
    for (const sockets of this.#sockets.values()) for (const socket of sockets) socket.destroy();
  }
}

/** The socket under TLS, or the socket itself. */
function below(socket: Socket & { readonly _parent?: Socket }): Socket {
  return socket._parent ?? socket;
}

/** Whether clients who got in under the rules of before may lack what is required now: a certificate at all, or one whose CA is still there. */
function asksForMore(before: ListenerTls | null, now: ListenerTls | null): boolean {
  const wanted = now?.protocol.clientAuth;
  if (wanted?.mode !== "require") return false;
  const had = before?.protocol.clientAuth;
  if (had?.mode !== "require") return true;
  return !new Set(splitCertificates(had.ca)).isSubsetOf(new Set(splitCertificates(wanted.ca)));
}
