// THE LIST: every step of an HTTP request, in order.
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Http2ServerRequest, Http2ServerResponse } from "node:http2";
import type { Socket } from "node:net";
import { createResponse } from "../lib/node-http.ts";
import type { Authentication } from "../identity/authenticate.ts";
import { authorize, type Permit } from "../identity/authorize.ts";
import { keyAuthorization } from "./acme-challenge.ts";
import { admitOrigin, admitSessionUse } from "./admit-origin.ts";
import { answer, answerJson } from "./answer.ts";
import { findServer, serveAuthorization } from "./authorization.ts";
import { challenge } from "./challenge.ts";
import { admitAddress, admitPeer, identifyClient } from "./client-address.ts";
import { clientCertificate } from "./client-certificate.ts";
import { preflightAnswer } from "./cors.ts";
import { Exchange } from "./exchange.ts";
import { findExternalServer, serveExternalServer } from "./external-server.ts";
import { findRoute } from "./find-route.ts";
import { finish } from "./finish.ts";
import { forward } from "./forward.ts";
import { identify, inTime } from "./identify.ts";
import { httpsLocation } from "./https-location.ts";
import { inspectMcp } from "./mcp-guard.ts";
import { leadToLogin, loginAddress, tellNotAdmitted } from "./login.ts";
import { readHead } from "./read-head.ts";
import { RequestError } from "./request-error.ts";
import { rescue } from "./rescue.ts";
import { resourceMetadata } from "./resource-metadata.ts";
import type { ForwardedRoute, HttpState, LiveRoute } from "./state.ts";
import { refuseTokenInQuery } from "./token-in-query.ts";
import { answerPermitted, findAskedRoute, readQuestion } from "./verify.ts";

function run(x: Exchange): void {
  try {
    readHead(x); // What is ambiguous is refused before anything is decided by it.
    identifyClient(x); // Everything after this asks about the client, not about the proxy before it.
    const proof = keyAuthorization(x); // A CA may come from anywhere, and no rule, redirect or route may stand before its answer.
    if (proof !== null) return answer(x, 200, ["Content-Type", "application/octet-stream", "Content-Length", String(proof.length)], proof);
    admitPeer(x); // Behind a proxy, nobody goes round it.
    admitAddress(x); // Who may not come in learns nothing of routes.
    readQuestion(x); // What another proxy asks about takes the place of its question.
    const location = httpsLocation(x); // Before routes and credentials: what was said in the clear leads nowhere.
    if (location !== null && x.asker === "original") throw new RequestError(403, "ERR_HTTPS", "Plain HTTP is not served here: use https"); // nginx passes no redirect on.
    if (location !== null) return answer(x, 308, ["Location", location, "Content-Length", "0", "Cache-Control", "no-store", "X-Request-Id", x.requestId]);
    if (x.asker !== null) return decide(x, findAskedRoute(x));
    const server = findServer(x); // No route can stand before the endpoints of OAuth, or open a way round them.
    if (server !== null) return void serveAuthorization(x, server);
    const external = findExternalServer(x); // Where a route takes another server's tokens, old clients look here for that server.
    if (external !== null) return void serveExternalServer(x, external);
    const metadata = resourceMetadata(x.state.resourceMetadata, x); // Public by its nature: it tells where to log in.
    if (metadata !== undefined) return answerJson(x, metadata);
    decide(x, findRoute(x));
  } catch (error) {
    rescue(x, error); // The only place where an error becomes a response.
  }
}

/** The route is known. @throws {RequestError} */
function decide(x: Exchange, route: LiveRoute): void {
  const preflight = preflightAnswer(x, route.plan.cors); // Before auth: browsers send no credentials with it.
  if (preflight !== null && x.asker === null) return answer(x, 204, preflight);
  admitOrigin(x, route); // Before credentials: a page of a stranger must not use those of its visitor.
  if (preflight?.includes("Access-Control-Allow-Origin") === true) return answerPermitted(x, null); // The proxy's own upstream answers it.
  const authentication = identify(x, route);
  if (!(authentication instanceof Promise)) return admit(x, route, authentication);
  inTime(x, authentication).then(
    (found) => x.finished || admit(x, route, found),
    (error: unknown) => rescue(x, error),
  );
}

/** The last part of the list: the credentials are known. */
function admit(x: Exchange, route: LiveRoute, authentication: Authentication): void {
  try {
    const isAsked = x.asker !== null;
    const certificate = isAsked ? null : clientCertificate(x, route); // The connection of a question is the proxy's, and proves nothing of its client.
    x.identity = authentication.kind === "identity" ? authentication.identity : (certificate?.identity ?? x.identity);
    const permit = authorize(route.auth, authentication, certificate, isAsked ? null : x.connection.tailnet); // Only its permit leads on.
    if ("denied" in permit) {
      const login = loginAddress(x, route, permit);
      if (login !== null) return leadToLogin(x, login);
      if (tellNotAdmitted(x, route, permit, authentication)) return;
      throw challenge(permit, route.plan);
    }
    if (permit.identity !== null) x.identity = permit.identity;
    admitSessionUse(x, route, authentication);
    if (isAsked) return answerPermitted(x, permit);
    refuseTokenInQuery(x, route);
    if (!leadsOn(route)) throw new RequestError(404, "ERR_NO_UPSTREAM", "Nothing is served here");
    const proof = authentication.kind === "identity" && authentication.identity === permit.identity ? authentication : null;
    x.credentialExpiresAtMs = proof?.expiresAtMs ?? null;
    x.byCookie = proof?.by === "session";
    const inspected = inspectMcp(x, route, permit, proof); // What is no message of MCP, or for somebody else's session, reaches no upstream.
    if (inspected === false) return;
    if (inspected === true) return forward(x, route, permit); // Rewrites the head, chooses a target and carries both bodies.
    inspected.then(
      (goesOn) => goesOn && carry(x, route, permit),
      (error: unknown) => rescue(x, error),
    );
  } catch (error) {
    rescue(x, error);
  }
}

function carry(x: Exchange, route: ForwardedRoute, permit: Permit): void {
  try {
    if (!x.finished) forward(x, route, permit);
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
