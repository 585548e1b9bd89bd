// An HTTP listener: takes accepted sockets through TLS to the HTTP/1.1 or HTTP/2 parser, and requests to http/handle.ts.
import type { Server } from "node:http";
import { createServer as createHttp2Server, type Http2Server, type ServerHttp2Session } from "node:http2";
import type { Socket } from "node:net";
import type { ListenerTls } from "../certificates/select.ts";
import { isAdmittedPeer } from "../http/client-address.ts";
import { rememberHandshake } from "../http/connection.ts";
import { handleExpect, handleRequest, handleUpgrade } from "../http/handle.ts";
import { answerParserError } from "../http/rescue.ts";
import type { HttpState } from "../http/state.ts";
import { wantsUpgrade } from "../http/upgrade.ts";
import { createHttpServer } from "../lib/node-http.ts";
import { peerAddress, peerOf } from "../lib/tailnet-peer.ts";
import type { HttpListenerPlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import type { ConnectionStats } from "../telemetry/metrics.ts";
import { drained } from "./drain.ts";
import { watchIdle } from "./http2-idle.ts";
import { TailnetGate } from "./tailnet.ts";
import type { TailnetListener, TailnetPeers } from "./tailnet-peers.ts";
import { createTlsTerminator, refusePlain, type TlsParts, type TlsTerminator } from "./tls.ts";

// The header deadline of slow clients is looked at this often; Node's default of 30 s would triple a 10 s deadline.
const CHECK_CONNECTIONS_MS = 1_000;
const CLOSE_TIMEOUT_MS = 1_000;
// Whom 'allow' and 'deny' keep out is told so with 403, but takes no place of those who are admitted.
const MAX_STRANGERS = 64;
const MAX_CONCURRENT_STREAMS = 128;
// A client that vanished without a word would hold its silent event stream or WebSocket for ever.
const KEEP_ALIVE_PROBES_MS = 60_000;

/** What a plan gives an HTTP listener; all of it is prepared, so that applying it cannot fail. */
export type HttpUpdate = { readonly protocol: "http"; readonly plan: HttpListenerPlan; readonly state: HttpState; readonly certificates: ListenerTls | null };

export class HttpListener implements TailnetListener {
  readonly protocol = "http";
  readonly stats: ConnectionStats;
  readonly #tls: TlsParts;
  readonly #gate: TailnetGate;
  readonly #log: Log;
  #update: HttpUpdate;
  #terminator: TlsTerminator | null = null;
  readonly #http1: Server;
  readonly #http2: Http2Server;
  readonly #sockets = new Set<Socket>();
  /** Those of them whose peer is not admitted. */
  #strangers = 0;
  readonly #sessions = new Set<ServerHttp2Session>();

  constructor(update: HttpUpdate, stats: ConnectionStats, tls: TlsParts, peers: TailnetPeers, log: Log) {
    this.#update = update;
    this.stats = stats;
    this.#tls = tls;
    this.#gate = new TailnetGate(peers, this, log);
    this.#log = log;
    this.#http1 = createHttpServer({
      insecureHTTPParser: false,
      requestTimeout: 0,
      // Checked in http/read-head.ts, where the answer has a request id and a line in the access log.
      requireHostHeader: false,
      connectionsCheckingInterval: CHECK_CONNECTIONS_MS,
      optimizeEmptyRequests: true,
      shouldUpgradeCallback: wantsUpgrade,
    });
    // The parsers are fed sockets by 'connection' events; the check of slow clients is otherwise started by listen().
    this.#http1.emit("listening");
    this.#http1.on("request", (request, response) => handleRequest(this.#update.state, request, response));
    this.#http1.on("checkContinue", (request, response) => handleExpect(this.#update.state, request, response));
    this.#http1.on("checkExpectation", (request, response) => handleExpect(this.#update.state, request, response));
    this.#http1.on("upgrade", (request, socket, head) => handleUpgrade(this.#update.state, request, socket as Socket, head));
    this.#http1.on("clientError", (error, socket) => answerParserError(this.#update.state, error, socket as Socket));
    // A response with two Content-Type passes over HTTP/1.1 too; of its trailers Node.js would complain where nobody can catch it.
    this.#http2 = createHttp2Server({ strictSingleValueFields: false });
    this.#http2.on("request", (request, response) => handleRequest(this.#update.state, request, response));
    this.#http2.on("checkContinue", (request, response) => handleExpect(this.#update.state, request, response));
    this.#http2.on("session", (session) => {
      // Its TLS handshake was under way when the drain began.
      if (this.#update.state.drain.draining) return session.close();
      this.#sessions.add(session);
      session.once("close", () => this.#sessions.delete(session));
    });
    this.#http2.on("sessionError", (error) => this.#log.debug({ err: error }, "HTTP/2 session failed"));
    this.apply(update);
  }

  get plan(): HttpListenerPlan {
    return this.#update.plan;
  }

  get state(): HttpState {
    return this.#update.state;
  }

  /** Connections open now. */
  get active(): number {
    return this.#sockets.size;
  }

  /** Takes a new plan: requests under way keep the old one. */
  apply(update: HttpUpdate): void {
    const { plan, certificates } = update;
    if (certificates === null) this.#terminator = null;
    else if (this.#terminator === null || this.#update.certificates !== certificates || this.plan.timeouts.handshakeMs !== plan.timeouts.handshakeMs) {
      this.#terminator = createTlsTerminator({
        ...this.#tls,
        listener: plan.name,
        certificates,
        alpnProtocols: ["h2", "http/1.1"],
        handshakeTimeoutMs: plan.timeouts.handshakeMs,
        onSecure: (socket) => {
          rememberHandshake(socket, certificates.protocol);
          if (socket.alpnProtocol !== "h2") return void this.#http1.emit("connection", socket);
          this.#http2.once("session", (session) => watchIdle(session, socket, () => this.#update.plan.timeouts));
          this.#http2.emit("connection", socket);
        },
        onPlain: (socket, bytes) => {
          // The mode of now: a reload may have changed it while nothing had come yet.
          if (this.#update.plan.tls.mode === "application") return refusePlain(socket, bytes);
          this.#http1.emit("connection", socket);
          socket.resume();
          return null;
        },
        log: this.#log,
      });
    }
    // A certificate that was shown under other rules counts no more: who waits for the next request should come again before it.
    if (certificates !== null && this.#update.certificates !== null && this.#update.certificates.protocol.key !== certificates.protocol.key) {
      for (const session of this.#sessions) session.close();
      this.#http1.closeIdleConnections();
    }
    this.#update = update;
    update.state.live.current = update.state;
    // Read at each new connection, by the parsers and the check of slow clients, so they may be assigned at any time.
    this.#http2.updateSettings({ maxConcurrentStreams: MAX_CONCURRENT_STREAMS, maxHeaderListSize: plan.maxHeaderBytes });
    Object.assign(this.#http1, { maxHeaderSize: plan.maxHeaderBytes, headersTimeout: plan.timeouts.headersMs, keepAliveTimeout: plan.timeouts.idleMs });
  }

  /** Takes a socket that was just accepted. */
  accept(socket: Socket): void {
    if (this.plan.listen.kind === "tailnet") void this.#gate.take(socket);
    else this.onKnown(socket);
  }

  onRefused(socket: Socket): void {
    this.stats.refused += 1;
    socket.destroy();
  }

  /** Long streams and upgraded connections end, too: their requests were permitted to somebody else. */
  onPeerChanged(sockets: ReadonlySet<Socket>): void {
    for (const socket of sockets) socket.destroy();
  }

  onKnown(socket: Socket): void {
    const { plan, state } = this.#update;
    const peer = peerAddress(socket);
    const admitted = isAdmittedPeer(state, peer, peerOf(socket));
    const limit = admitted ? plan.maxConnections : MAX_STRANGERS;
    if (limit > 0 && (admitted ? this.#sockets.size - this.#strangers : this.#strangers) >= limit) {
      this.stats.refused += 1;
      socket.destroy();
      this.#log.debug({ listener: plan.name, client: peer }, "Connection refused: too many");
      return;
    }
    if (!admitted) this.#strangers += 1;
    socket.setKeepAlive(true, KEEP_ALIVE_PROBES_MS);
    this.stats.accepted += 1;
    this.stats.active += 1;
    this.#sockets.add(socket);
    socket.once("close", () => {
      this.stats.active -= 1;
      this.#sockets.delete(socket);
      if (!admitted) this.#strangers -= 1;
    });
    if (this.#terminator === null) this.#http1.emit("connection", socket);
    else this.#terminator.accept(socket);
  }

  /** Lets requests, streams and upgraded connections end until the deadline, then cuts them. No socket is accepted any more. */
  async drain(timeoutMs: number): Promise<void> {
    const { drain, live } = this.#update.state;
    drain.draining = true;
    this.#gate.close();
    for (const session of this.#sessions) session.close();
    // Connections that wait for their next request are closed at each look: an answer may just have ended on one.
    await drained(() => {
      if (live.active === 0) this.#http1.closeIdleConnections();
      return live.active;
    }, timeoutMs);
    if (live.active > 0) this.#log.warn({ listener: this.plan.name, requests: live.active }, "Drain deadline passed: requests are cut");
    drain.cut = true;
    this.#http1.close();
    for (const socket of this.#sockets) socket.destroy();
    // Their requests end with them, before anything else ends that they need.
    await drained(() => this.#sockets.size, CLOSE_TIMEOUT_MS);
  }
}
