// The only place where an error becomes a response.
import type { Socket } from "node:net";
import { GatewayError, systemErrorCode } from "../lib/errors.ts";
import { statusCodes } from "../lib/node-http.ts";
import { peerAddress } from "../lib/tailnet-peer.ts";
import { HttpCallError } from "../upstreams/http-call.ts";
import { answer } from "./answer.ts";
import { addAnswerHeaders } from "./answer-headers.ts";
import { addCors } from "./cors.ts";
import { isDiscarding } from "./connection.ts";
import { cut } from "./cut.ts";
import type { Exchange } from "./exchange.ts";
import { makeRequestId } from "./read-head.ts";
import { RequestError } from "./request-error.ts";
import type { HttpState } from "./state.ts";

/** Answers with what the error means, or cuts the connection when an answer has begun: a client must never take half a body for a whole one. */
export function rescue(x: Exchange, error: unknown): void {
  const failure = answerFor(x, error);
  x.cause = `${failure.code}: ${failure.detail ?? failure.message}`;
  if (failure.status === 500) x.state.log.error({ err: error, request_id: x.requestId, route: x.route?.plan.name }, "Request failed");
  if (x.res.headersSent) return cut(x);
  if (x.requestId === "") x.requestId = makeRequestId();
  const json = JSON.stringify({ error: { status: failure.status, code: failure.code, message: failure.message }, request_id: x.requestId });
  const plain = x.header("accept")?.includes("text/html") === true;
  const body = plain ? `${failure.status} ${statusCodes[failure.status] ?? ""}\n${failure.message}\nRequest id: ${x.requestId}\n` : `${json}\n`;
  let headers = ["Content-Type", plain ? "text/plain; charset=utf-8" : "application/json", "Content-Length", String(Buffer.byteLength(body))];
  headers.push("Cache-Control", "no-store", "X-Request-Id", x.requestId, ...failure.headers);
  const cors = x.route?.plan.cors ?? null;
  if (cors !== null) headers = addCors(headers, x, cors);
  answer(x, failure.status, headers, body);
}

function answerFor(x: Exchange, error: unknown): RequestError {
  if (error instanceof RequestError) return error;
  const name = x.route?.plan.upstream ?? "";
  if (error instanceof HttpCallError) {
    const timedOut = error.code === "ERR_UPSTREAM_TIMEOUT";
    const verb = error.progress === "nothing" ? "Cannot connect to" : "No valid response from";
    return new RequestError(
      timedOut ? 504 : error.code === "ERR_UPSTREAM_STOPPED" ? 503 : 502,
      error.code,
      timedOut ? "The upstream took too long" : "The upstream is not available",
      {
        detail: `${verb} upstream '${name}': ${error.message}`,
        cause: error,
      },
    );
  }
  if (error instanceof GatewayError) return new RequestError(500, error.code, "Internal error", { detail: error.detail ?? error.message, cause: error });
  return new RequestError(500, "ERR_INTERNAL", "Internal error", { detail: error instanceof Error ? error.message : String(error), cause: error });
}

/** Answers bytes that the parser could not take for a request, and closes the connection (RFC 9112, 9.6 and 11.2). */
export function answerParserError(state: HttpState, error: Error, socket: Socket): void {
  const code = systemErrorCode(error) ?? "";
  // The client is gone, or TLS failed: nobody is there to be answered.
  if (!socket.writable || code === "ECONNRESET" || code === "EPIPE") return void socket.destroy();
  const status = code === "HPE_HEADER_OVERFLOW" || code === "HPE_CHUNK_EXTENSIONS_OVERFLOW" ? 431 : code === "ERR_HTTP_REQUEST_TIMEOUT" ? 408 : 400;
  const message = status === 431 ? "The head of the request is too large" : status === 408 ? "The request took too long to come" : "The request is malformed";
  const requestId = makeRequestId();
  const body = `${JSON.stringify({ error: { status, code: "ERR_BAD_REQUEST", message }, request_id: requestId })}\n`;
  // While a response is under way its bytes would be mixed with ours.
  const busy = (socket as Socket & { _httpMessage?: { headersSent: boolean } | null })._httpMessage;
  if (busy?.headersSent !== true && !isDiscarding(socket)) {
    let head = `HTTP/1.1 ${status} ${statusCodes[status]}\r\nContent-Type: application/json\r\nContent-Length: ${body.length}\r\nX-Request-Id: ${requestId}\r\nConnection: close\r\n`;
    if (state.answerHeaders !== null) {
      // Of a proxy before us nothing is known: no head was read that could tell what its client used.
      const added = addAnswerHeaders([], "encrypted" in socket && socket.encrypted === true ? "https" : "http", state.answerHeaders);
      for (let i = 0; i < added.length; i += 2) head += `${added[i]}: ${added[i + 1]}\r\n`;
    }
    socket.write(`${head}\r\n${body}`);
  }
  socket.destroySoon();
  state.noRoute.observe(status, 0, 0, body.length);
  state.accessLog?.write(
    `{"time":"${new Date().toISOString()}","listener":${state.nameJson},"client":"${peerAddress(socket)}","status":${status},"request_id":"${requestId}","error":${JSON.stringify(`ERR_BAD_REQUEST: ${message} (${code})`)}}`,
  );
}
