// A TCP listener: takes accepted sockets, through TLS where it is asked for, to tcp/handle.ts.
import type { Socket } from "node:net";
import type { ListenerTls } from "../certificates/select.ts";
import { splitCertificates } from "../lib/pem.ts";
import type { TcpListenerPlan } from "../plan/model.ts";
import type { TcpState } from "../tcp/connection.ts";
import { clientAddress, handleConnection, isAllowed, rateRefusal, refusal, refuse } from "../tcp/handle.ts";
import type { Log } from "../telemetry/log.ts";
import type { ConnectionStats } from "../telemetry/metrics.ts";
import { drained } from "./drain.ts";
import { createTlsTerminator, type TlsParts, type TlsTerminator } from "./tls.ts";

/** What a plan gives a TCP listener; all of it is prepared, so that applying it cannot fail. */
export type TcpUpdate = { readonly protocol: "tcp"; readonly plan: TcpListenerPlan; readonly state: TcpState; readonly certificates: ListenerTls | null };

export class TcpListener {
  readonly protocol = "tcp";
  readonly stats: ConnectionStats;
  readonly #tls: TlsParts;
  readonly #log: Log;
  #update: TcpUpdate;
  #terminator: TlsTerminator | null = null;
  /** Accepted sockets that are open, by client: during a TLS handshake they are no connections yet, and must count all the same. */
  #open = 0;
  readonly #sockets = new Map<string, Set<Socket>>();

  constructor(update: TcpUpdate, stats: ConnectionStats, tls: TlsParts, log: Log) {
    this.#update = update;
    this.stats = stats;
    this.#tls = tls;
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

  /** Takes a new plan. Open connections go on, but for those that it may not admit any more: by their address, or by a certificate that they would need. */
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
      if (isUnproven || !isAllowed(plan, connection.client)) connection.close("denied");
    }
  }

  /** Takes a socket that was just accepted. */
  accept(socket: Socket): void {
    const { state } = this.#update;
    const client = clientAddress(socket);
    const ofClient = this.#sockets.get(client) ?? new Set();
    // Whoever would be refused is refused before the handshake, which costs more than the refusal.
    const refused = refusal(state, client, this.#open, ofClient.size) ?? rateRefusal(state, client);
    this.stats.accepted += 1;
    this.stats.active += 1;
    socket.once("close", () => {
      this.stats.active -= 1;
    });
    if (refused !== null) {
      this.stats.refused += 1;
      return refuse(state, socket, refused);
    }
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

  /** Lets connections end until the deadline, then cuts them. No socket is accepted any more. */
  async drain(timeoutMs: number): Promise<void> {
    const { connections } = this.#update.state.live;
    await drained(() => connections.size, timeoutMs);
    if (connections.size > 0) this.#log.warn({ listener: this.plan.name, connections: connections.size }, "Drain deadline passed: connections are cut");
    for (const connection of connections) connection.close("drained");
    for (const sockets of this.#sockets.values()) for (const socket of sockets) socket.destroy();
  }
}

/** Whether clients who got in under the rules of before may lack what is required now: a certificate at all, or one whose CA is still there. */
function asksForMore(before: ListenerTls | null, now: ListenerTls | null): boolean {
  const wanted = now?.protocol.clientAuth;
  if (wanted?.mode !== "require") return false;
  const had = before?.protocol.clientAuth;
  if (had?.mode !== "require") return true;
  return !new Set(splitCertificates(had.ca)).isSubsetOf(new Set(splitCertificates(wanted.ca)));
}
