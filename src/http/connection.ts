// What is known of a client's connection, kept from one of its requests to the next.
import type { IncomingMessage } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { TLSSocket } from "node:tls";
import { clientCertificateOf, type ClientCertificate } from "../identity/client-certificate.ts";
import { peerAddress, peerOf, type TailnetPeer } from "../lib/tailnet-peer.ts";
import type { TlsProtocolPlan } from "../plan/model.ts";

const CONNECTION = Symbol("connection");
const HANDSHAKE = Symbol("handshake");
type Handshake = { readonly protocolKey: string; readonly certificate: ClientCertificate | null };
type Marked = { [CONNECTION]?: ClientConnection; [HANDSHAKE]?: Handshake };

export class ClientConnection {
  /** The address at the other end, plain, that of its node on the tailnet; empty on a unix socket. */
  readonly peer: string;
  /** Whose it is in the tailnet; null when it did not come from there. The connection ends when that changes. */
  readonly tailnet: TailnetPeer | null;
  readonly secure: boolean;
  /** The rules of TLS under which its handshake was made (`TlsProtocolPlan.key`); null when that is not known, and on plain connections. */
  readonly protocolKey: string | null;
  /** What it proved in that handshake: see client-certificate.ts for what that is worth now. */
  readonly certificate: ClientCertificate | null;
  /** Requests under way. */
  requests = 0;
  /** When the last request ended (performance.now); 0 before. */
  endedMs = 0;
  /** Whether the rest of a request that was answered is read away. */
  discarding = false;

  constructor(socket: IncomingMessage["socket"]) {
    this.peer = peerAddress(socket);
    this.tailnet = peerOf(socket);
    this.secure = "encrypted" in socket && socket.encrypted === true;
    const handshake = this.secure ? (socket as Marked)[HANDSHAKE] : undefined;
    this.protocolKey = handshake?.protocolKey ?? null;
    this.certificate = handshake?.certificate ?? null;
  }
}

/**
 * Notes, as soon as the TLS handshake of a socket has ended, under which rules it was made and what was proved in it: nothing that comes
 * later counts, and the certificate counts under these rules alone.
 */
export function rememberHandshake(socket: TLSSocket, { key, clientAuth }: TlsProtocolPlan): void {
  (socket as Marked)[HANDSHAKE] = { protocolKey: key, certificate: clientAuth === null ? null : clientCertificateOf(socket) };
}

/** Since when no request is under way on an HTTP/2 session (performance.now; `openedMs` when there was none yet); null while one is. */
export function idleSinceMs(session: object, openedMs: number): number | null {
  const connection = (session as Marked)[CONNECTION];
  if (connection === undefined) return openedMs;
  return connection.requests > 0 ? null : connection.endedMs;
}

/** Whether what comes on the socket belongs to a request that was answered already. */
export function isDiscarding(socket: object): boolean {
  return (socket as Marked)[CONNECTION]?.discarding === true;
}

/** The connection of a request; made at its first one. */
export function connectionOf(req: IncomingMessage, stream: ServerHttp2Stream | null): ClientConnection {
  const owner = (stream?.session ?? req.socket) as Marked;
  return (owner[CONNECTION] ??= new ClientConnection(req.socket));
}
