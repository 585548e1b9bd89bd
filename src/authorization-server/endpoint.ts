// What an authorization server is to the rest of the gateway: a request in, an answer out; sockets are not its business.
import type { Authentication, TokenSource } from "../identity/authenticate.ts";
import type { Identity } from "../identity/identity.ts";
import type { TailnetPeer } from "../lib/tailnet-peer.ts";

/** A request to an endpoint, whole. Nothing in it that a client could have said of others: `origin`, `client` and `peer` are known. */
export type EndpointRequest = {
  readonly method: string;
  /** Path and query as the client wrote them. */
  readonly target: string;
  /** Path in its normal form. */
  readonly path: string;
  /** The public origin that the request came to, from the configuration. */
  readonly origin: string;
  /** Flat pairs; without those of one connection and those that tell of proxies. */
  readonly headers: readonly string[];
  readonly body: Buffer;
  /** Address of the client. */
  readonly client: string;
  /** Whose connection it is in the tailnet. */
  readonly peer: TailnetPeer | null;
  readonly requestId: string;
};

export type EndpointAnswer = {
  readonly status: number;
  /** Flat pairs, without Content-Length. */
  readonly headers: readonly string[];
  readonly body: string;
  /** Why it was refused, and the id that its client gave, which may be anybody's: for the access log alone. */
  readonly refusal?: { readonly cause: string; readonly clientId: string | null };
};

export type AuthorizationServer = {
  /** An origin. */
  readonly issuer: string;
  /** Whether the path (normal form) on that origin is one of its endpoints: no route comes before them. */
  serves(origin: string, path: string): boolean;
  /** Rejects only for what is nobody's fault but ours. */
  handle(request: EndpointRequest): Promise<EndpointAnswer>;
  /** Its access tokens. */
  readonly tokens: TokenSource;
  /** Whose session the value of the cookie is, on that origin. */
  findSession(cookie: string, origin: string): Authentication | Promise<Authentication>;
  /** Where a browser logs in and comes back from: a path with a query on that origin. @param returnTo path and query of that origin */
  loginLocation(origin: string, returnTo: string): string;
  /** What a person reads who is logged in and not admitted on that origin: as whom, and how to be somebody else. */
  notAdmitted(origin: string, identity: Identity, requestId: string): EndpointAnswer;
};

/** The cookie of sessions. The prefix makes browsers refuse it from other hosts of the domain and over plain HTTP (RFC 6265bis, 4.1.3.2). */
export function sessionCookieName(origin: string): string {
  return origin.startsWith("https:") ? "__Host-sidegate" : "sidegate";
}
