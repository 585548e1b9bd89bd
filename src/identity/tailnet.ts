// Who a node of the tailnet is, and which rules it meets.
import { asciiName } from "../lib/printable.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { TailnetMatch } from "../plan/auth-model.ts";
import type { ListenerPlan } from "../plan/model.ts";
import type { Identity } from "./identity.ts";

const identities = new WeakMap<TailnetPeer, Identity>();

/**
 * Whether the node is one of those meant. A tagged node has no user, whatever tailscaled says beside its tags, and the tags of a node that is shared
 * from another tailnet are that tailnet's words: they may read like ours.
 */
export function matchesTailnet(peer: TailnetPeer, { users, tags, nodes }: TailnetMatch): boolean {
  if (users === null && tags === null && nodes === null) return true;
  if (users !== null && peer.user !== null && peer.tags.length === 0 && users.has(peer.user)) return true;
  if (tags !== null && !isForeign(peer) && peer.tags.some((tag) => tags.has(tag))) return true;
  return nodes !== null && (nodes.has(peer.shortName) || nodes.has(peer.name));
}

/**
 * Whether a listener admits who is at the other end; null: nobody whom the tailnet knows. A port of the tailnet admits nobody else, and other listeners
 * nobody of the tailnet: a connection outlives the reload that takes its listener from one to the other.
 */
export function admitsPeer({ listen, allowTailnet }: Pick<ListenerPlan, "listen" | "allowTailnet">, peer: TailnetPeer | null): boolean {
  if (peer === null) return listen.kind !== "tailnet" && allowTailnet === null;
  return listen.kind === "tailnet" && (allowTailnet === null || matchesTailnet(peer, allowTailnet));
}

/** The user of the node, or the tags of a tagged one with commas between; the whole name of the node where neither is anybody of our tailnet. */
export function tailnetIdentity(peer: TailnetPeer): Identity {
  let identity = identities.get(peer);
  if (identity === undefined) {
    const name = peer.tags.length === 0 ? (peer.user ?? peer.name) : isForeign(peer) ? peer.name : peer.tags.join(",");
    identities.set(peer, (identity = { source: "tailnet", name: asciiName(name), scopes: [], node: asciiName(peer.shortName) }));
  }
  return identity;
}

/** Nodes of our own tailnet go by the first label of their name. */
function isForeign({ name, shortName }: TailnetPeer): boolean {
  return shortName === name && name.includes(".");
}
