// The ways to log in that a page offers, and what happens when a person takes one.
import type { Person } from "../identity/person.ts";
import { personName } from "../identity/person.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";
import type { EndpointRequest } from "./endpoint.ts";
import { LoginError, type LoginSource } from "./login-source.ts";

/** The ways of one server. */
export type LoginWays = {
  /** At somebody else's, at most one of a kind. */
  readonly external: readonly LoginSource[];
  /** `check` @throws {LoginError} for a password that is not the person's, and for too many attempts */
  readonly password: { check(name: string, password: string, request: Pick<EndpointRequest, "client" | "requestId">): Promise<Person> } | null;
  /** Who makes the request, by the tailnet; null when it is nobody of it, a device without a user, or that is no way to log in. */
  tailnet(peer: TailnetPeer | null): Person | null;
};

/** What a page offers to one request. */
export type Offer = {
  readonly external: readonly { readonly kind: LoginSource["kind"]; readonly label: string }[];
  readonly password: boolean;
  /** Name of the person of the tailnet. */
  readonly tailnet: string | null;
};

export function offerOf(ways: LoginWays, peer: TailnetPeer | null): Offer {
  const person = ways.tailnet(peer);
  return {
    external: ways.external.map(({ kind, label }) => ({ kind, label })),
    password: ways.password !== null,
    tailnet: person === null ? null : personName(person),
  };
}

/** What a form chose: a person who is known now, or a source at which the login goes on. @throws {LoginError} */
export async function takeWay(
  ways: LoginWays,
  fields: URLSearchParams,
  request: Pick<EndpointRequest, "peer" | "client" | "requestId">,
): Promise<{ readonly person: Person } | { readonly source: LoginSource }> {
  const way = fields.get("way");
  if (way === "password" && ways.password !== null) {
    return { person: await ways.password.check(fields.get("name") ?? "", fields.get("password") ?? "", request) };
  }
  if (way === "tailnet") {
    const person = ways.tailnet(request.peer);
    if (person === null) throw new LoginError("failed", "Your connection does not come from the tailnet any more");
    return { person };
  }
  const source = ways.external.find(({ kind }) => kind === way);
  if (source === undefined) throw new LoginError("failed", "The page does not offer this way to log in");
  return { source };
}
