// The gateway's own answers: whole, small, and with the headers that every answer of the listener has.
import { addAnswerHeaders } from "./answer-headers.ts";
import { discardRequest } from "./discard.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import { sendHead } from "./send-head.ts";
import { watchTail } from "./tail.ts";

/** Gives the response to its end and reads the rest of the request away. @param headers flat; may be changed @param body empty for none */
export function answer(x: Exchange, status: number, headers: string[], body = ""): void {
  const { answerHeaders } = x.state;
  sendHead(x, status, "", answerHeaders === null ? headers : addAnswerHeaders(headers, x.scheme, answerHeaders));
  x.ended = true;
  // Not `x.method`: that of a question is another one.
  const sent = x.req.method === "HEAD" ? "" : body;
  x.res.end(sent === "" ? undefined : sent);
  x.bytesOut += Buffer.byteLength(sent);
  watchTail(x);
  if (x.body !== "none") discardRequest(x);
}

/** A public document for scripts of any page; null: 404, as JSON like all the rest. */
export function answerJson(x: Exchange, json: string | null): void {
  if (x.method !== "GET" && x.method !== "HEAD" && x.method !== "OPTIONS")
    throw new RequestError(405, "ERR_METHOD", `Method ${x.method} is not served here`, { headers: ["Allow", "GET, HEAD, OPTIONS"] });
  const cors = [
    "Access-Control-Allow-Origin",
    "*",
    "Access-Control-Allow-Headers",
    "*",
    "Access-Control-Allow-Methods",
    "GET, HEAD",
    "X-Request-Id",
    x.requestId,
  ];
  if (x.method === "OPTIONS") return answer(x, 204, [...cors, "Access-Control-Max-Age", "3600"]);
  const body = json ?? JSON.stringify({ error: { status: 404, code: "ERR_NO_RESOURCE", message: "No resource is described here" } });
  answer(
    x,
    json === null ? 404 : 200,
    [
      "Content-Type",
      "application/json",
      "Content-Length",
      String(Buffer.byteLength(body)),
      "Cache-Control",
      json === null ? "no-store" : "max-age=300",
      ...cors,
    ],
    body,
  );
}
