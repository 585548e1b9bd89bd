// A node of the tailnet as a person: whose connection it is, is the login.
import type { Person } from "../identity/person.ts";
import { tailnetIdentity } from "../identity/tailnet.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";

/** The user of the node; a node without one is itself. */
export function tailnetPerson(peer: TailnetPeer): Person {
  const { name } = tailnetIdentity(peer);
  return {
    source: "tailnet",
    // Login names have an '@', ids of nodes have none.
    subject: peer.tags.length === 0 && peer.user !== null ? peer.user : peer.id,
    name,
    // Tailscale's word for an address of the tailnet's own provider is not ours to repeat; 'tailnet' rules match login names.
    email: null,
    domain: null,
    orgs: [],
    teams: [],
    groups: [],
    claims: {},
    peer,
  };
}
