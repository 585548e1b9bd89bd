// Connections to the targets of an HTTP upstream, kept alive and shared by all requests to it.
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { formatAddress } from "../lib/address.ts";
import { dial, DialError } from "./dial.ts";
import { dialFailure, HttpCallError, type HttpCallHandler, type HttpRequest } from "./http-call.ts";
import { Http1Connection, type ConnectionOwner } from "./http1-connection.ts";
import { Http2Sessions } from "./http2-call.ts";
import { startTls, targetTls, type TargetTls } from "./tls.ts";
import type { Target, Upstream } from "./upstream.ts";

const SWEEP_MS = 1_000;
// A hint of the target counts from when it sent it; closing earlier than it does avoids a request that meets its close.
const HINT_MARGIN_MS = 500;
const KEEP_ALIVE_PROBES_MS = 30_000;

/** All plain sockets read into one buffer: what is in it is dealt with before the next read. */
const readBuffer = Buffer.allocUnsafeSlow(65_536);

type Waiting = { readonly request: HttpRequest; readonly handler: HttpCallHandler };

/** What takes requests for one target. */
export type TargetPool = {
  dispatch(request: HttpRequest, handler: HttpCallHandler): void;
  /** Forgets a request that was not sent yet. */
  cancel(handler: HttpCallHandler): void;
  destroy(): void;
};

class Http1Pool implements TargetPool, ConnectionOwner {
  readonly #upstream: Upstream;
  readonly #target: Target;
  readonly #idle: Http1Connection[] = [];
  readonly #all = new Set<Http1Connection>();
  readonly #waiting: Waiting[] = [];
  readonly #dialing = new Set<() => void>();
  #sweep: NodeJS.Timeout | null = null;
  #destroyed = false;
  readonly #tls: TargetTls;
  #tlsSession: Buffer | undefined;

  constructor(upstream: Upstream, target: Target) {
    this.#upstream = upstream;
    this.#target = target;
    this.#tls = targetTls(upstream.plan, target.plan, upstream.secureContext);
  }

  dispatch(request: HttpRequest, handler: HttpCallHandler): void {
    if (this.#destroyed) return handler.onError(new HttpCallError("ERR_UPSTREAM_STOPPED", "the upstream was removed", "nothing"));
    if (this.#waiting.length === 0) {
      const connection = this.#takeIdle();
      if (connection !== null) return connection.send(request, handler);
    }
    this.#waiting.push({ request, handler });
    this.#dialForWaiting();
  }

  cancel(handler: HttpCallHandler): void {
    const index = this.#waiting.findIndex((waiting) => waiting.handler === handler);
    if (index !== -1) this.#waiting.splice(index, 1);
  }

  destroy(): void {
    this.#destroyed = true;
    if (this.#sweep !== null) clearInterval(this.#sweep);
    for (const cancel of this.#dialing) cancel();
    this.#dialing.clear();
    for (const connection of this.#all) connection.destroy();
    for (const { handler } of this.#waiting.splice(0)) handler.onError(new HttpCallError("ERR_UPSTREAM_STOPPED", "the upstream was removed", "nothing"));
  }

  onIdle(connection: Http1Connection, hintMs: number | null): void {
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) return connection.send(waiting.request, waiting.handler);
    const { keepAliveMs } = this.#upstream.plan.timeouts;
    const keptMs = hintMs === null ? keepAliveMs : Math.min(keepAliveMs, hintMs - HINT_MARGIN_MS);
    if (keptMs <= 0 || this.#destroyed) return connection.destroy();
    connection.idleUntil = performance.now() + keptMs;
    this.#idle.push(connection);
    this.#sweep ??= setInterval(() => this.#sweepIdle(), SWEEP_MS).unref();
  }

  onGone(connection: Http1Connection): void {
    this.#all.delete(connection);
    const index = this.#idle.indexOf(connection);
    if (index !== -1) this.#idle.splice(index, 1);
    this.#dialForWaiting();
  }

  /** The connection that was used last, so that those which are not needed grow old. */
  #takeIdle(): Http1Connection | null {
    for (;;) {
      const connection = this.#idle.pop();
      if (connection === undefined) return null;
      if (connection.usable && connection.idleUntil > performance.now()) return connection;
      connection.destroy();
    }
  }

  #sweepIdle(): void {
    const now = performance.now();
    for (const connection of this.#idle.filter(({ idleUntil }) => idleUntil <= now)) connection.destroy();
    if (this.#idle.length > 0 || this.#sweep === null) return;
    clearInterval(this.#sweep);
    this.#sweep = null;
  }

  #dialForWaiting(): void {
    const { maxConnections } = this.#upstream.plan;
    while (!this.#destroyed && this.#waiting.length > this.#dialing.size) {
      if (maxConnections > 0 && this.#all.size + this.#dialing.size >= maxConnections) return;
      this.#dial();
    }
  }

  #dial(): void {
    const { address, scheme } = this.#target.plan;
    const where = formatAddress(address);
    let connection: Http1Connection | null = null;
    const connected = (socket: Socket): void => {
      this.#dialing.delete(cancel);
      this.#upstream.connected(this.#target);
      connection = new Http1Connection(socket, this, where);
      this.#all.add(connection);
      const made = connection;
      if (scheme === "https") socket.on("data", (chunk: Buffer) => made.read(chunk, chunk.length));
      else socket.resume();
      this.onIdle(connection, null);
    };
    const failed = (error: HttpCallError): void => {
      this.#dialing.delete(cancel);
      this.#upstream.failed(this.#target, error.message);
      this.#waiting.shift()?.handler.onError(error);
      this.#dialForWaiting();
    };
    let cancel: () => void;
    const onRead = (bytes: number): boolean => {
      connection?.read(readBuffer, bytes);
      return true;
    };
    const onread = scheme === "https" ? {} : { onread: { buffer: readBuffer, callback: onRead } };
    const { connectMs } = this.#upstream.plan.timeouts;
    const started = performance.now();
    const cancelDial = dial(address, { timeoutMs: connectMs, keepAliveMs: KEEP_ALIVE_PROBES_MS, ...onread }, (result) => {
      if (result instanceof DialError) return failed(dialFailure(result));
      if (scheme !== "https") return connected(result);
      this.#dialing.delete(cancel);
      cancel = this.#startTls(result, Math.max(1, connectMs - (performance.now() - started)), where, connected, failed);
      this.#dialing.add(cancel);
    });
    cancel = cancelDial;
    this.#dialing.add(cancel);
  }

  #startTls(socket: Socket, timeoutMs: number, where: string, connected: (socket: TLSSocket) => void, failed: (error: HttpCallError) => void): () => void {
    const { connectMs } = this.#upstream.plan.timeouts;
    const onSession = (session: Buffer): void => void (this.#tlsSession = session);
    return startTls(socket, { tls: this.#tls, session: this.#tlsSession, onSession, timeoutMs, connectMs }, (result) => {
      if ("words" in result) {
        const { words, timedOut, cause } = result;
        return failed(new HttpCallError(timedOut ? "ERR_UPSTREAM_TIMEOUT" : "ERR_UPSTREAM_CONNECT", `${words} at ${where}`, "nothing", cause));
      }
      connected(result);
    });
  }
}

/** A live HTTP upstream: its choice of targets and the connections to each. Kept over reloads as long as its plan's key stays. */
export class HttpUpstream {
  readonly upstream: Upstream;
  readonly #pools: Map<Target, TargetPool>;
  #closed = false;

  constructor(upstream: Upstream) {
    this.upstream = upstream;
    this.#pools = new Map(
      upstream.targets.map((target) => [target, target.plan.scheme === "h2c" ? new Http2Sessions(upstream, target) : new Http1Pool(upstream, target)]),
    );
  }

  /** Sends the request to a target; the handler hears what becomes of it. */
  dispatch(target: Target, request: HttpRequest, handler: HttpCallHandler): void {
    this.#pools.get(target)?.dispatch(request, handler);
  }

  /** Forgets a request that waits for a connection. */
  cancel(target: Target, handler: HttpCallHandler): void {
    this.#pools.get(target)?.cancel(handler);
  }

  /** Requests under way, to all targets. */
  get active(): number {
    let active = 0;
    for (const target of this.upstream.targets) active += target.active;
    return active;
  }

  /** Closes every connection when its requests have ended, or at the deadline. */
  async close(deadlineMs: number): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const deadline = performance.now() + deadlineMs;
    while (this.active > 0 && performance.now() < deadline) {
      await new Promise((resolve) => setTimeout(resolve, 50).unref());
    }
    for (const pool of this.#pools.values()) pool.destroy();
  }
}
