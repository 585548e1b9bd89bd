// The gateway's own answers: whole, small, and with the headers that every answer of the listener has.
import { addAnswerHeaders } from "./answer-headers.ts";
import { discardRequest } from "./discard.ts";
import type { Exchange } from "./exchange.ts";
import { sendHead } from "./send-head.ts";
import { watchTail } from "./tail.ts";

/** Gives the response to its end and reads the rest of the request away. @param headers flat; may be changed @param body empty for none */
export function answer(x: Exchange, status: number, headers: string[], body = ""): void {
  const { answerHeaders } = x.state;
  sendHead(x, status, "", answerHeaders === null ? headers : addAnswerHeaders(headers, x.scheme, answerHeaders));
  x.ended = true;
  const sent = x.method === "HEAD" ? "" : body;
  x.res.end(sent === "" ? undefined : sent);
  x.bytesOut += Buffer.byteLength(sent);
  watchTail(x);
  if (x.body !== "none") discardRequest(x);
}
