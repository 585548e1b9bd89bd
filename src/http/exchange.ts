// One request and its response: what the steps have found out about it.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import type { Socket } from "node:net";
import { headerValue } from "../lib/header-name.ts";
import type { Identity } from "../identity/identity.ts";
import { tailnetIdentity } from "../identity/tailnet.ts";
import type { SessionUse } from "../mcp/session-owners.ts";
import { connectionOf, type ClientConnection } from "./connection.ts";
import type { HttpState, LiveRoute } from "./state.ts";

/** Called when the response has ended, well or not. */
export type OnClose = { clientGone(): void };

/** Which headers described the request: `original` of nginx, which knows 2xx, 401 and 403 alone; `forwarded` of proxies that pass any other answer on. */
export type Asker = "original" | "forwarded";

export class Exchange {
  readonly state: HttpState;
  readonly req: IncomingMessage;
  readonly res: ServerResponse;
  /** Null over HTTP/1. */
  readonly stream: ServerHttp2Stream | null;
  readonly raw: string[];
  readonly startedMs = performance.now();
  readonly connection: ClientConnection;
  /** The address at the other end of the connection, plain; empty on a unix socket. */
  readonly peer: string;
  method: string;

  // From the head (read-head.ts)
  /** Path and query, as they go on. */
  target = "";
  /** Where the query begins in `target`, or its length. */
  pathEnd = 0;
  /** Path in the form in which routes are matched. */
  path = "";
  hostHeader = "";
  /** Lower case, without port. */
  host = "";
  authorization: string | null = null;
  origin: string | null = null;
  userAgent: string | null = null;
  /** What Connection names, lower case; null when there is nothing out of the ordinary. */
  connectionOptions: string[] | null = null;
  body: "none" | "length" | "chunked" = "none";
  takesTrailers = false;
  expectsContinue = false;
  upgrade: string | null = null;
  forwardedFor: string | null = null;
  forwardedProto: string | null = null;
  forwardedHost: string | null = null;
  forwarded: string | null = null;
  realIp: string | null = null;
  requestId = "";

  // From client-address.ts
  /** Whether the peer is a trusted proxy. */
  trusted = false;
  client: string;
  /** Trusted proxies between the client and the peer, nearest to the client first. */
  proxies: string[] | null = null;
  scheme: "http" | "https";

  /** Not null when a proxy asks about the request (verify.ts): what stands above is then that which it describes. */
  asker: Asker | null = null;

  // From the further steps
  route: LiveRoute | null = null;
  /** Who it is, for the log: at first whose connection it is in the tailnet. */
  identity: Identity | null;
  /** When what permits the request ends by itself (Date.now); null: it does not. */
  credentialExpiresAtMs: number | null = null;
  /** Permitted by a browser's session: no cache on the way knows its cookie for a credential, as it does Authorization (RFC 9111, 3.5). */
  byCookie = false;
  /** Null where sessions of MCP belong to nobody. */
  sessionUse: SessionUse | null = null;
  /** The whole body, where it was read before it goes on; null where it goes on as it comes. */
  wholeBody: Buffer | null = null;
  /** URL of the target that answered or was tried last. */
  targetUrl = "";
  status = 0;
  bytesIn = 0;
  bytesOut = 0;
  /** Why it failed, for the log: a code and words. */
  cause = "";
  /** The id that a client gave to an endpoint which refused it, for the log: it may be anybody's. */
  claimedClient: string | null = null;
  /** Set once the response was given to its end. */
  ended = false;
  onClose: OnClose | null = null;
  /** Whether the connection must not carry another request: so until its head is known to be sound. */
  lastOnConnection = true;
  /** Socket and first bytes of a request for an upgrade. */
  upgradeSocket: Socket | null = null;
  upgradeHead: Buffer | null = null;
  /** See finish.ts. */
  finished = false;

  constructor(state: HttpState, req: IncomingMessage, res: ServerResponse, stream: ServerHttp2Stream | null) {
    this.state = state;
    this.req = req;
    this.res = res;
    this.stream = stream;
    this.raw = req.rawHeaders;
    this.method = req.method ?? "";
    this.connection = connectionOf(req, stream);
    this.peer = this.client = this.connection.peer;
    const { tailnet } = this.connection;
    this.identity = tailnet === null ? null : tailnetIdentity(tailnet);
    this.scheme = this.connection.secure ? "https" : "http";
    state.live.active += 1;
    this.connection.requests += 1;
  }

  /** The first value of a request header, or null. `name` in lower case. */
  header(name: string): string | null {
    return name === "host" ? this.hostHeader : headerValue(this.raw, name);
  }

  setRoute(route: LiveRoute): void {
    this.route = route;
    route.stats.active += 1;
  }
}
