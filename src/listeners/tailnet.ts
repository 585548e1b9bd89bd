// Lets connections in from the tailnet: whose each one is must be known before a byte of it is read.
import type { Socket } from "node:net";
import { plainIp } from "../lib/address.ts";
import { rememberPeer } from "../lib/tailnet-peer.ts";
import type { Log } from "../telemetry/log.ts";
import type { TailnetListener, TailnetPeers, TailnetRefusal } from "./tailnet-peers.ts";

// Each is asked about for 190 ms when tailscaled does not know it (seen): a flood must not take the descriptors of those who are known.
const MAX_PENDING = 256;
const WARN_EVERY_MS = 60_000;

/** The gate of one listener. */
export class TailnetGate {
  readonly #peers: TailnetPeers;
  readonly #listener: TailnetListener;
  readonly #log: Log;
  readonly #pending = new Set<Socket>();
  #warnedAt = -Infinity;
  #unsaid = 0;

  constructor(peers: TailnetPeers, listener: TailnetListener, log: Log) {
    this.#peers = peers;
    this.#listener = listener;
    this.#log = log;
  }

  /**
   * Takes a socket that was accepted paused, and gives it to `onKnown` or `onRefused` of the listener, as it would be without a pause; or closes it, when
   * the listener drains meanwhile. A client that goes away meanwhile is seen when its first bytes are read.
   */
  async take(socket: Socket): Promise<void> {
    // Afterwards it may be gone, and its address with it.
    const { remoteAddress, remotePort, localPort = 0 } = socket;
    if (remoteAddress === undefined || remotePort === undefined) return this.#refuse(socket, "not_on_tailnet");
    const address = plainIp(remoteAddress);
    const claim = this.#peers.claim(socket, address, remotePort);
    if (claim === "taken") return this.#refuse(socket, "not_on_tailnet");
    if (this.#pending.size >= MAX_PENDING) return this.#refuse(socket, "too_many_connections");
    const onError = (): void => void socket.destroy();
    socket.on("error", onError);
    this.#pending.add(socket);
    const peer = await this.#peers.whois(address, remotePort, localPort, claim === "doubtful");
    if (!this.#pending.delete(socket) || socket.destroyed) return;
    socket.off("error", onError);
    if (peer === undefined) return this.#refuse(socket, "not_on_tailnet: no answer from tailscaled");
    if (peer === null || this.#peers.isDoubted(socket)) return this.#refuse(socket, "not_on_tailnet");
    rememberPeer(socket, peer);
    this.#peers.add(socket, peer, this.#listener);
    beginReading(socket);
    this.#listener.onKnown(socket);
  }

  /** Closes what waits: the listener takes no more. */
  close(): void {
    for (const socket of this.#pending) socket.destroy();
    this.#pending.clear();
  }

  #refuse(socket: Socket, reason: TailnetRefusal): void {
    const now = performance.now();
    const fields = { listener: this.#listener.plan.name, client: plainIp(socket.remoteAddress ?? ""), reason };
    const words = `Connection refused: ${reason === "too_many_connections" ? "too many wait for tailscaled to know them" : "tailscaled does not know whose it is"}`;
    if (now - this.#warnedAt < WARN_EVERY_MS) {
      this.#unsaid += 1;
      this.#log.debug(fields, words);
    } else {
      this.#log.warn({ ...fields, ...(this.#unsaid === 0 ? {} : { refused_before: this.#unsaid }) }, words);
      this.#warnedAt = now;
      this.#unsaid = 0;
    }
    this.#listener.onRefused(socket, reason);
  }
}

/** Brings a socket that was accepted with `pauseOnConnect` to the state in which net.Server hands others over. */
function beginReading(socket: Socket): void {
  (socket as { readableFlowing: boolean | null }).readableFlowing = null;
  socket.read(0);
}
