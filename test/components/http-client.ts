// Small HTTP and TCP clients for stories: one request on a connection of its own, or a stream that is read piece by piece.
import { request as httpRequest, type ClientRequest, type IncomingHttpHeaders, type IncomingMessage, type RequestOptions } from "node:http";
import { request as httpsRequest, type RequestOptions as TlsRequestOptions } from "node:https";

export type Answer = { readonly status: number; readonly headers: IncomingHttpHeaders; readonly body: string };
export type RequestArgs = RequestOptions &
  Pick<TlsRequestOptions, "ca" | "cert" | "key" | "rejectUnauthorized" | "servername"> & { readonly body?: string | Buffer };

/** Sends a request and reads the whole answer; `ca` makes it https. Default: GET /, no connection reuse. */
export async function fetchFrom(port: number, path: string, args: RequestArgs = {}): Promise<Answer> {
  const { response } = await openRequest(port, path, args);
  let body = "";
  response.setEncoding("utf8");
  for await (const chunk of response) body += chunk as string;
  return { status: response.statusCode ?? 0, headers: response.headers, body };
}

/** Sends a request and resolves as soon as the response's headers are there. */
export function openRequest(port: number, path: string, args: RequestArgs = {}): Promise<{ request: ClientRequest; response: IncomingMessage }> {
  const { body, ...options } = args;
  const { promise, resolve, reject } = Promise.withResolvers<{ request: ClientRequest; response: IncomingMessage }>();
  const send = options.ca === undefined ? httpRequest : httpsRequest;
  const request = send(
    { host: "127.0.0.1", port, path, agent: false, ...(options.ca === undefined ? {} : { servername: "localhost" }), ...options },
    (response) => resolve({ request, response }),
  );
  request.on("error", reject);
  request.end(body);
  return promise;
}
