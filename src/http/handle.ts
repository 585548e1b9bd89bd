// THE LIST: every step of an HTTP request, in order.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Socket } from "node:net";
import { createResponse } from "../lib/node-http.ts";
import type { Authentication } from "../identity/authenticate.ts";
import { authorize } from "../identity/authorize.ts";
import { keyAuthorization } from "./acme-challenge.ts";
import { admitOrigin } from "./admit-origin.ts";
import { answer, answerJson } from "./answer.ts";
import { findServer, serveAuthorization } from "./authorization.ts";
import { challenge } from "./challenge.ts";
import { admitAddress, admitPeer, identifyClient } from "./client-address.ts";
import { clientCertificate } from "./client-certificate.ts";
import { preflightAnswer } from "./cors.ts";
import { Exchange } from "./exchange.ts";
import { findRoute } from "./find-route.ts";
import { finish } from "./finish.ts";
import { forward } from "./forward.ts";
import { identify } from "./identify.ts";
import { httpsLocation } from "./https-location.ts";
import { readHead } from "./read-head.ts";
import { RequestError } from "./request-error.ts";
import { rescue } from "./rescue.ts";
import { resourceMetadata } from "./resource-metadata.ts";
import type { ForwardedRoute, HttpState, LiveRoute } from "./state.ts";

function run(x: Exchange): void {
  try {
    readHead(x); // What is ambiguous is refused before anything is decided by it.
    identifyClient(x); // Everything after this asks about the client, not about the proxy before it.
    const proof = keyAuthorization(x); // A CA may come from anywhere, and no rule, redirect or route may stand before its answer.
    if (proof !== null) return answer(x, 200, ["Content-Type", "application/octet-stream", "Content-Length", String(proof.length)], proof);
    admitPeer(x); // Behind a proxy, nobody goes round it.
    admitAddress(x); // Who may not come in learns nothing of routes.
    const location = httpsLocation(x); // Before routes and credentials: what was said in the clear leads nowhere.
    if (location !== null) return answer(x, 308, ["Location", location, "Content-Length", "0", "Cache-Control", "no-store", "X-Request-Id", x.requestId]);
    const server = findServer(x); // No route can stand before the endpoints of OAuth, or open a way round them.
    if (server !== null) return void serveAuthorization(x, server);
    const metadata = resourceMetadata(x); // Public by its nature: it tells where to log in.
    if (metadata !== undefined) return answerJson(x, metadata);
    const route = findRoute(x);
    const preflight = preflightAnswer(x, route.plan.cors);
    if (preflight !== null) return answer(x, 204, preflight); // Before auth: browsers send no credentials with it.
    admitOrigin(x, route); // Before credentials: a page of a stranger must not use those of its visitor.
    const authentication = identify(x, route);
    if (!(authentication instanceof Promise)) return admit(x, route, authentication);
    authentication.then(
      (found) => x.finished || admit(x, route, found),
      (error: unknown) => rescue(x, error),
    );
  } catch (error) {
    rescue(x, error); // The only place where an error becomes a response.
  }
}

/** The second half of the list: the credentials are known. */
function admit(x: Exchange, route: LiveRoute, authentication: Authentication): void {
  try {
    const certificate = clientCertificate(x, route);
    x.identity = authentication.kind === "identity" ? authentication.identity : (certificate?.identity ?? x.identity);
    const permit = authorize(route.auth, authentication, certificate, x.connection.tailnet); // Only its permit leads on.
    if ("denied" in permit) throw challenge(permit, route.plan);
    if (permit.identity !== null) x.identity = permit.identity;
    if (!leadsOn(route)) throw new RequestError(404, "ERR_NO_UPSTREAM", "Nothing is served here");
    forward(x, route, permit); // Rewrites the head, chooses a target and carries both bodies.
  } catch (error) {
    rescue(x, error);
  }
}

function leadsOn(route: LiveRoute): route is ForwardedRoute {
  return route.upstream !== null;
}

/** Serves a request of HTTP/1.1 or of the HTTP/2 compatibility API. Never throws. */
export function handleRequest(state: HttpState, req: IncomingMessage | Http2ServerRequest, res: ServerResponse | Http2ServerResponse): void {
  run(open(state, req, res));
}

/** Serves a request with Expect (the events checkContinue and checkExpectation). 100 Continue is sent once the request is permitted. */
export function handleExpect(state: HttpState, req: IncomingMessage | Http2ServerRequest, res: ServerResponse | Http2ServerResponse): void {
  const x = open(state, req, res);
  x.expectsContinue = true;
  run(x);
}

/** Serves a request for an upgrade; `head` is what came behind its head. See `wantsUpgrade` for which requests should come here. */
export function handleUpgrade(state: HttpState, req: IncomingMessage, socket: Socket, head: Buffer): void {
  // A response of its own carries any answer but 101, by the same path as for other requests.
  const res = createResponse(req);
  res.shouldKeepAlive = false;
  res.assignSocket(socket);
  socket.on("error", () => socket.destroy());
  const x = open(state, req, res);
  x.upgradeSocket = socket;
  x.upgradeHead = head;
  res.on("finish", () => {
    res.detachSocket(socket);
    // No parser and no deadline watch this socket any more: a client that keeps it open must not keep it here.
    socket.destroySoon();
    res.emit("close");
  });
  run(x);
}

const EXCHANGE = Symbol("exchange");
type Marked = ServerResponse & { [EXCHANGE]?: Exchange };

function open(state: HttpState, req: IncomingMessage | Http2ServerRequest, res: ServerResponse | Http2ServerResponse): Exchange {
  const stream = "stream" in req ? req.stream : null;
  // The compatibility API has the same surface for all that is used here.
  const x = new Exchange(state, req as IncomingMessage, res as ServerResponse, stream);
  (res as Marked)[EXCHANGE] = x;
  res.on("close", onClose);
  // Both report what 'close' tells anyway; unheard, an error would end the process.
  res.on("error", ignore);
  if (stream !== null) req.on("error", ignore);
  return x;
}

/** One function for all responses: 'close' is the end of each, after its last byte or with the connection. */
function onClose(this: ServerResponse): void {
  const x = (this as Marked)[EXCHANGE];
  if (x === undefined) return;
  const complete = x.ended && (x.stream === null ? x.res.writableFinished : x.stream.rstCode === 0);
  x.onClose?.clientGone();
  finish(x, complete);
}

function ignore(): void {}
