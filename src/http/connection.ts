// What is known of a client's connection, kept from one of its requests to the next.
import type { IncomingMessage } from "node:http";
import type { ServerHttp2Stream } from "node:http2";
import { authenticate, type Authentication, type TokenIndex } from "../identity/authenticate.ts";
import { plainIp } from "../lib/address.ts";

const CONNECTION = Symbol("connection");
type Marked = { [CONNECTION]?: ClientConnection };

export class ClientConnection {
  /** The address at the other end, plain; empty on a unix socket. */
  readonly peer: string;
  readonly secure: boolean;
  /** Whether the rest of a request that was answered is read away. */
  discarding = false;
  #authorization: string | null = null;
  #tokens: TokenIndex | null = null;
  #found: Authentication | null = null;

  constructor(socket: IncomingMessage["socket"]) {
    this.peer = plainIp(socket.remoteAddress ?? "");
    this.secure = "encrypted" in socket && socket.encrypted === true;
  }

  /**
   * Who the credentials belong to. A client sends the same ones with each request: what was found valid on its own connection, with
   * the tokens of the same plan, is not hashed again. Whoever compares here compares with what came over this connection before.
   * @param shared whether others speak over the connection too, as through a proxy: nothing is remembered then
   */
  authenticate(authorization: string | null, tokens: TokenIndex, shared: boolean): Authentication {
    if (shared) return authenticate(authorization, tokens);
    if (this.#found !== null && authorization === this.#authorization && tokens === this.#tokens) return this.#found;
    const found = authenticate(authorization, tokens);
    if (found.kind === "identity") {
      this.#authorization = authorization;
      this.#tokens = tokens;
      this.#found = found;
    }
    return found;
  }
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
