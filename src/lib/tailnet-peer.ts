// Who is at the other end of a connection from the tailnet: told by tailscaled, kept with the socket.
import type { Socket } from "node:net";
import { plainIp } from "./address.ts";

/** A node of the tailnet as tailscaled knows it. All texts in lower case. */
export type TailnetPeer = {
  /** Its first address in the tailnet: what logs and limits call the client. */
  readonly address: string;
  /** Stable id of the node. */
  readonly id: string;
  /** Whole MagicDNS name, without the final dot. */
  readonly name: string;
  /** First label of `name` when the node is of our own tailnet; `name` when it is shared from another one. */
  readonly shortName: string;
  /** Login name of its user; null for a tagged node, which has none. */
  readonly user: string | null;
  /** Empty for a node of a user. */
  readonly tags: readonly string[];
};

/** What listeners ask of the tailnet. Nothing here rejects. */
export type TailnetAccess = {
  /** Where `tailnet:` listeners are bound: 127.0.0.1 in userspace mode, the node's addresses with a kernel interface; empty while those are not known. */
  readonly hosts: readonly string[];
  /** Whether it can be proven that tailscaled itself holds the other end of a connection over loopback: `whois` alone goes by ports. */
  readonly proves: boolean;
  /**
   * Whose connection it is, by its remote address and port, and our port. Null: nobody's of the tailnet (a local process, our own node), or tailscaled does not say:
   * the connection is refused.
   * @param isDoubtful the port may be remembered for somebody else: nobody, unless it is proven that tailscaled holds the connection
   */
  whois(address: string, port: number, localPort: number, isDoubtful: boolean): Promise<TailnetPeer | null>;
  /** The node that has this address of the tailnet, as it is known now; null when it is gone or expired, undefined when tailscaled does not answer. */
  node(address: string): Promise<TailnetPeer | null | undefined>;
};

const PEER = Symbol("tailnet peer");
type Marked = { [PEER]?: TailnetPeer; readonly _parent?: Socket };

/** Notes whose connection it is. A TLS socket over it is the same peer's. */
export function rememberPeer(socket: Socket, peer: TailnetPeer): void {
  (socket as Marked)[PEER] = peer;
}

/** Whose connection it is; null when it did not come from the tailnet. */
export function peerOf(socket: Socket): TailnetPeer | null {
  const marked = socket as Marked;
  return marked[PEER] ?? (marked._parent as Marked | undefined)?.[PEER] ?? null;
}

/** The client's address as it is compared and logged: that of its node in the tailnet, otherwise the socket's; empty on a unix socket. */
export function peerAddress(socket: Socket): string {
  return peerOf(socket)?.address ?? plainIp(socket.remoteAddress ?? "");
}
