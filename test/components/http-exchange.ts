// One request over HTTP/1.1 or HTTP/2 with both directions open, so that a story can be told for either.
import { request as httpRequest, type IncomingHttpHeaders } from "node:http";
import { connect } from "node:http2";
import { request as httpsRequest } from "node:https";
import type { Readable, Writable } from "node:stream";
import { certificate } from "./http-gateway.ts";

export type Protocol = "http/1.1" | "h2";
export type ClientExchange = {
  readonly send: Writable;
  /** Resolves with the head of the final response; rejects when the connection broke before. */
  readonly head: Promise<{ status: number; headers: IncomingHttpHeaders; body: Readable }>;
  readonly informational: { status: number; headers: IncomingHttpHeaders }[];
  trailers(): IncomingHttpHeaders;
  abort(): void;
};

/** Opens a request on a connection of its own. HTTP/2 needs a gateway with TLS. Without `body: true` it has none. */
export function openExchange(
  port: number,
  protocol: Protocol,
  path: string,
  options: { method?: string; headers?: Record<string, string>; body?: boolean; tls?: boolean } = {},
): ClientExchange {
  const { method = "GET", headers = {}, body = false } = options;
  const head = Promise.withResolvers<{ status: number; headers: IncomingHttpHeaders; body: Readable }>();
  head.promise.catch(() => {});
  const informational: ClientExchange["informational"] = [];
  let trailers: IncomingHttpHeaders = {};
  if (protocol === "h2") {
    const session = connect(`https://localhost:${port}`, { ca: certificate().cert, settings: { initialWindowSize: 65_535 } });
    const { host, ...rest } = headers;
    const stream = session.request({ ":method": method, ":path": path, ...(host === undefined ? {} : { ":authority": host }), ...rest }, { endStream: !body });
    session.on("error", head.reject);
    stream.on("error", head.reject);
    stream.on("headers", (interim) => informational.push({ status: Number(interim[":status"]), headers: interim }));
    stream.on("response", (response) => head.resolve({ status: Number(response[":status"]), headers: response, body: stream }));
    stream.on("trailers", (fields) => (trailers = fields));
    stream.on("close", () => {
      session.close();
      head.reject(new Error("closed"));
    });
    return { send: stream, head: head.promise, informational, trailers: () => trailers, abort: () => stream.close(8) };
  }
  const tls = options.tls !== false;
  const request = (tls ? httpsRequest : httpRequest)(
    { host: "127.0.0.1", port, path, method, headers, agent: false, ...(tls ? { ca: certificate().cert, servername: "localhost" } : {}) },
    (response) => {
      response.on("end", () => (trailers = response.trailers));
      response.on("error", () => {});
      head.resolve({ status: response.statusCode ?? 0, headers: response.headers, body: response });
    },
  );
  request.on("information", ({ statusCode, headers: fields }) => informational.push({ status: statusCode, headers: fields }));
  request.on("error", head.reject);
  if (!body) request.end();
  else request.flushHeaders();
  return { send: request, head: head.promise, informational, trailers: () => trailers, abort: () => request.destroy() };
}

/** Reads a body to its end; rejects when it breaks off. */
export async function textOf(body: Readable): Promise<string> {
  let text = "";
  body.setEncoding("utf8");
  for await (const chunk of body) text += chunk as string;
  return text;
}
