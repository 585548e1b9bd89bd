// Listening sockets by address: they outlive configurations, so that a reload never closes a port that stays in use.
import { createServer, type Server, type Socket } from "node:net";
import { collide, formatAddress } from "../lib/address.ts";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { listen } from "../lib/listen.ts";
import type { BindAddress, ListenAddress } from "../plan/model.ts";

/** A port or path cannot be had. */
export class ListenError extends GatewayError {
  constructor(name: string, address: ListenAddress, cause: unknown) {
    const host = address.kind === "tailnet" ? hostOf(cause) : null;
    const place = host === null || address.kind !== "tailnet" ? "" : ` (${formatAddress({ kind: "tcp", host, port: address.port })})`;
    super(
      "ERR_LISTEN",
      `Cannot listen on ${formatAddress(address)}${place} for listener '${name}': ${describeSystemError(cause)}${advice(address, systemErrorCode(cause))}`,
      { cause },
    );
  }
}

function advice(address: ListenAddress, code: string | undefined): string {
  if (code === "EACCES" && address.kind === "tcp" && address.port < 1024)
    return "; ports below 1024 need root, or 'sysctl net.ipv4.ip_unprivileged_port_start=80'";
  return code === "EADDRINUSE" && address.kind === "tailnet" ? "; another program of this machine or container has that port" : "";
}

/** Where a port of the tailnet was about to be bound. */
function hostOf(cause: unknown): string | null {
  return cause instanceof Error && "address" in cause && typeof cause.address === "string" ? cause.address : null;
}

// Everybody in the group may connect: a neighbour container runs under another user.
const SOCKET_FILE_MODE = 0o660;

// Of a node whose addresses are not known yet, or not there.
const WAITING = "waiting for the tailnet";

/**
 * One listening address; on the tailnet a socket for each host where that is. Its connections go to `onConnection`; those that come before it is set wait
 * for it, unread.
 */
export class BoundSocket {
  readonly address: ListenAddress;
  /** Why it does not listen; empty when it does. */
  down = "";
  /** By host on the tailnet, otherwise one. */
  readonly #servers = new Map<string, Server>();
  /** Grows when it is closed: what was being bound meanwhile is not wanted any more. */
  #closings = 0;
  #binding: Promise<unknown> = Promise.resolve();
  #onConnection: ((socket: Socket) => void) | null = null;
  #waiting: Socket[] = [];
  /** Whether it takes the place of a port of the tailnet: until that is sealed, tailscaled brings connections here that would pass for local ones. */
  #afterTailnet = false;

  constructor(address: ListenAddress) {
    this.address = address;
  }

  /** To be told before it listens: what comes before `serve` is closed. */
  replaces(other: BoundSocket): void {
    if (other.address.kind === "tailnet") this.#afterTailnet = true;
  }

  /** Sends present and future connections to `onConnection`. */
  serve(onConnection: (socket: Socket) => void): void {
    this.#onConnection = onConnection;
    // One that is gone already would be counted for ever: its end was told before.
    for (const socket of this.#waiting.splice(0)) if (!socket.destroyed) onConnection(socket);
  }

  /** The address that the system gave, which tells the port where 0 was asked for. */
  get boundAddress(): string {
    const bound = this.#servers.get("")?.address();
    if (typeof bound !== "object" || bound === null || this.address.kind !== "tcp") return formatAddress(this.address);
    return formatAddress({ ...this.address, port: bound.port });
  }

  /**
   * A port of the tailnet whose hosts are not known, or have no such address yet, is down for now, and that is no error: see `move`.
   * @throws the system's error when the address cannot be had.
   */
  async open(tailnetHosts: readonly string[]): Promise<void> {
    const { address } = this;
    if (address.kind === "tailnet") {
      const failure = await this.move(tailnetHosts);
      if (failure === null || systemErrorCode(failure) === "EADDRNOTAVAIL") return;
      this.close();
      throw failure;
    }
    try {
      this.#servers.set("", await this.#listen(address));
    } catch (error) {
      this.down = describeSystemError(error);
      throw error;
    }
    this.down = "";
  }

  /**
   * Binds a port of the tailnet on all of these hosts, then leaves others; with none, all stays as it is. Resolves with the error of a host that could not
   * be bound, or null; never rejects.
   */
  move(hosts: readonly string[]): Promise<unknown> {
    const closings = this.#closings;
    const moved = this.#binding.then(() => this.#bind(hosts, closings));
    this.#binding = moved;
    return moved;
  }

  async #bind(hosts: readonly string[], closings: number): Promise<unknown> {
    const { address } = this;
    if (address.kind !== "tailnet" || closings !== this.#closings) return null;
    let failure: unknown = null;
    for (const host of hosts) {
      if (this.#servers.has(host)) continue;
      try {
        const server = await this.#listen({ kind: "tcp", host, port: address.port });
        if (closings === this.#closings) this.#servers.set(host, server);
        else server.close();
      } catch (error) {
        failure ??= error;
      }
      if (closings !== this.#closings) return null;
    }
    if (hosts.some((host) => this.#servers.has(host))) {
      for (const [host, server] of this.#servers) {
        if (hosts.includes(host)) continue;
        server.close();
        this.#servers.delete(host);
      }
    }
    const reason = failure === null || systemErrorCode(failure) === "EADDRNOTAVAIL" ? WAITING : describeSystemError(failure);
    this.down = this.#servers.size > 0 ? "" : reason;
    return failure;
  }

  async #listen(address: BindAddress): Promise<Server> {
    // Half-open sockets: a TCP client that sent its FIN still gets the rest of the answer; http.Server asks for the same.
    // Nothing is read from the tailnet before it is known whose it is (listeners/tailnet.ts).
    const server = createServer({ allowHalfOpen: true, noDelay: true, pauseOnConnect: this.address.kind === "tailnet" }, (socket) => {
      if (this.#onConnection !== null) return this.#onConnection(socket);
      if (this.#afterTailnet) return void socket.destroy();
      socket.on("error", () => socket.destroy());
      this.#waiting.push(socket);
    });
    await listen(server, address, SOCKET_FILE_MODE);
    return server;
  }

  /** Stops accepting; connections that were handed over live on. */
  close(): void {
    this.#closings += 1;
    for (const server of this.#servers.values()) server.close();
    this.#servers.clear();
    for (const socket of this.#waiting.splice(0)) socket.destroy();
  }
}

/** What a socket is known by over reloads. Port 0 is a new port each time, so there the listener's name counts too. */
export function socketKey(name: string, address: ListenAddress): string {
  return address.kind === "tcp" && address.port === 0 ? `${name}@${formatAddress(address)}` : formatAddress(address);
}

/** Sockets of the next plan, by key; one of the two functions is called, once. */
export type PreparedSockets = { readonly sockets: ReadonlyMap<string, BoundSocket>; readonly commit: () => void; readonly abort: () => Promise<void> };

/** The sockets that the next plan needs: opened beside the present ones, then taken over or given back as a whole. */
export class SocketPool {
  #sockets = new Map<string, BoundSocket>();

  get(key: string): BoundSocket | undefined {
    return this.#sockets.get(key);
  }

  /**
   * Opens what is missing. Nothing that serves now is touched, with one exception: a present socket that is not wanted any
   * more and holds the port of a wanted one (":80" became "127.0.0.1:80") is closed just before that one is opened.
   * @param tailnetHosts where ports of the tailnet are bound now
   * @throws {ListenError} with everything as it was before.
   */
  async prepare(wanted: readonly { readonly name: string; readonly address: ListenAddress }[], tailnetHosts: readonly string[] = []): Promise<PreparedSockets> {
    const next = new Map<string, BoundSocket>();
    const opened: BoundSocket[] = [];
    const paused: BoundSocket[] = [];
    const keys = new Set(wanted.map(({ name, address }) => socketKey(name, address)));
    const abort = async (): Promise<void> => {
      for (const socket of opened) socket.close();
      // The port was ours a moment ago; should another process have taken it, the socket says that it is down.
      for (const socket of paused) await socket.open(tailnetHosts).catch(() => {});
    };
    for (const { name, address } of wanted) {
      const key = socketKey(name, address);
      const present = this.#sockets.get(key);
      if (present?.down === "") {
        next.set(key, present);
        continue;
      }
      const socket = present ?? new BoundSocket(address);
      try {
        for (const [otherKey, other] of this.#sockets) {
          if (keys.has(otherKey) || paused.includes(other) || !collide(other.address, address)) continue;
          other.close();
          socket.replaces(other);
          paused.push(other);
        }
        await socket.open(tailnetHosts);
      } catch (error) {
        await abort();
        throw new ListenError(name, address, error);
      }
      if (present === undefined) opened.push(socket);
      next.set(key, socket);
    }
    const commit = (): void => {
      for (const [key, socket] of this.#sockets) if (!next.has(key)) socket.close();
      this.#sockets = next;
    };
    return { sockets: next, commit, abort };
  }

  /** Ports of the tailnet go where it is now. Resolves with the errors of those that could not wholly, by address; never rejects. */
  async moveTailnet(hosts: readonly string[]): Promise<Map<string, unknown>> {
    const failures = new Map<string, unknown>();
    for (const socket of this.#sockets.values()) {
      const failure = await socket.move(hosts);
      if (failure !== null) failures.set(formatAddress(socket.address), failure);
    }
    return failures;
  }

  /** Stops accepting everywhere. */
  close(): void {
    for (const socket of this.#sockets.values()) socket.close();
    this.#sockets = new Map();
  }
}
