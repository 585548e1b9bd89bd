// What happens to each connection of a TCP listener, in order.
import type { Socket } from "node:net";
import { admitsPeer } from "../identity/tailnet.ts";
import { peerAddress, peerOf, type TailnetPeer } from "../lib/tailnet-peer.ts";
import type { TcpListenerPlan } from "../plan/model.ts";
import { DialError, dial, keepAliveDelayMs } from "../upstreams/dial.ts";
import type { Target } from "../upstreams/upstream.ts";
import { TcpConnection, type EndReason, type TcpState } from "./connection.ts";
import { expectIbApi, followClientId } from "./ib-api.ts";
import { readInto, splice } from "./splice.ts";

/**
 * Takes a client's socket, plain or with its TLS handshake done, through the steps below. Never throws; the connection's end is in the access log.
 *
 * Client address -> allow and deny -> limits -> expected first bytes -> dial -> relay.
 * The expected bytes come before the dial, so that a port scanner costs the upstream not even a connection. Everything else of the client is taken only
 * once the upstream is connected, so that nothing is accepted that cannot be delivered.
 * @param isRated whether `rateRefusal` was asked already
 */
export function handleConnection(state: TcpState, socket: Socket, isRated = false): void {
  socket.pause();
  socket.allowHalfOpen = true;
  const client = peerAddress(socket);
  const refused = refusal(state, client, peerOf(socket)) ?? (isRated ? null : rateRefusal(state, client));
  if (refused !== null) return refuse(state, socket, refused);
  const connection = new TcpConnection(state, socket, client);
  connection.admit();
  tune(socket, state.plan);
  if (state.plan.expect === null) dialUpstream(connection, null);
  else expectIbApi(connection, (first) => dialUpstream(connection, first));
}

/** Closes a fresh socket; the reason stands in the access log. */
export function refuse(state: TcpState, socket: Socket, reason: EndReason): void {
  new TcpConnection(state, socket, peerAddress(socket)).refuse(reason);
}

/**
 * Whether the client may connect: its address, and its node on the tailnet (null: it has none). What is no address (a unix socket's client) is in no list:
 * only a listener without `allow` admits it.
 */
export function isAllowed(plan: TcpListenerPlan, client: string, peer: TailnetPeer | null): boolean {
  return plan.deny?.has(client) !== true && plan.allow?.has(client) !== false && admitsPeer(plan, peer);
}

/**
 * Why a connection of this client would be refused now, or null. Costs nothing, so that it can be asked before a TLS handshake too.
 * @param open connections open now, and those of the client; by default the admitted ones
 */
export function refusal(
  state: TcpState,
  client: string,
  peer: TailnetPeer | null,
  open = state.live.connections.size,
  openOfClient = state.live.perClient.get(client) ?? 0,
): EndReason | null {
  const { plan } = state;
  // Without its address a TCP client, gone already, cannot be judged.
  if (!isAllowed(plan, client, peer) || (client === "" && plan.listen.kind !== "unix")) return "denied";
  if (plan.maxConnections > 0 && open >= plan.maxConnections) return "too_many_connections";
  if (plan.maxConnectionsPerClient > 0 && openOfClient >= plan.maxConnectionsPerClient) return "too_many_connections_of_client";
  return null;
}

/** Takes one of the new connections that the client may make; the reason when there is none left. */
export function rateRefusal({ plan, live }: TcpState, client: string): EndReason | null {
  return plan.connectionRate === null || live.rate.take(client, plan.connectionRate, performance.now()) ? null : "rate_limited";
}

function tune(socket: Socket, plan: TcpListenerPlan): void {
  socket.setNoDelay(true);
  if (plan.keepAliveMs > 0) socket.setKeepAlive(true, keepAliveDelayMs(plan.keepAliveMs));
}

/** Tries the upstream's targets one after another within `timeouts.connect`, each with its share of what is left of it. */
function dialUpstream(connection: TcpConnection, first: Buffer | null): void {
  const { plan, upstream, log } = connection.state;
  const deadline = performance.now() + plan.timeouts.connectMs;
  const tried = new Set<Target>();
  const onread = readInto(connection);
  next(null);

  function next(lastError: DialError | null): void {
    const target = upstream.pick(tried);
    const leftMs = deadline - performance.now();
    if (target === null || leftMs <= 0) {
      connection.refuse(`connect_failed: ${lastError?.reason ?? "no target"}`, true);
      return;
    }
    const timeoutMs = Math.ceil(leftMs / (upstream.targets.length - tried.size));
    tried.add(target);
    connection.abandon = dial(target.plan.address, { timeoutMs, keepAliveMs: plan.keepAliveMs, onread }, (result) => {
      connection.abandon = null;
      if (result instanceof DialError) {
        upstream.failed(target, result.reason);
        // Once for each outage; every connection that it costs has its line in the access log.
        if (target.connectFailures === 1)
          log.warn({ listener: plan.name, upstream: upstream.plan.name }, `Cannot connect to upstream '${upstream.plan.name}': ${result.reason}`);
        next(result);
        return;
      }
      upstream.connected(target);
      connection.connected(result, target);
      if (first !== null) followClientId(connection, first);
      splice(connection, result, first);
    });
  }
}
