// Upstreams in this process: an HTTP origin that tells what it was asked, and a TCP echo.
import { createServer as createHttpServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { createServer, type AddressInfo, type Server, type Socket } from "node:net";

export type Running = AsyncDisposable & { readonly port: number };

/** An HTTP origin on a port of its own. The default handler answers with the request's method, URL and headers as JSON; `/events` streams an event at once and then one each `intervalMs`. */
export function startOrigin(handler: RequestListener = describe): Promise<Running & { readonly requests: string[] }> {
  const requests: string[] = [];
  const server = createHttpServer((request, response) => {
    requests.push(`${request.method} ${request.url}`);
    if (request.url?.startsWith("/events") === true) streamEvents(request, response);
    else handler(request, response);
  });
  return listening(server, { requests });
}

function describe(request: IncomingMessage, response: ServerResponse): void {
  request.resume();
  request.on("end", () => {
    response.setHeader("content-type", "application/json");
    response.end(JSON.stringify({ method: request.method, url: request.url, headers: request.headers }));
  });
}

const EVENT_INTERVAL_MS = 100;

function streamEvents(request: IncomingMessage, response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream" });
  let id = 0;
  const send = (): void => void response.write(`id: ${id++}\ndata: tick\n\n`);
  send();
  const timer = setInterval(send, EVENT_INTERVAL_MS);
  request.on("close", () => clearInterval(timer));
  response.on("close", () => clearInterval(timer));
}

/** A TCP server that sends back what it gets. */
export function startTcpEcho(): Promise<Running> {
  return listening(
    createServer((socket) => {
      socket.on("error", () => socket.destroy());
      socket.pipe(socket);
    }),
    {},
  );
}

function listening<T extends object>(server: Server, extra: T): Promise<T & Running> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket: Socket) => {
    sockets.add(socket);
    socket.on("close", () => sockets.delete(socket));
  });
  const { promise, resolve, reject } = Promise.withResolvers<T & Running>();
  server.once("error", reject);
  server.listen(0, "127.0.0.1", () => {
    const { port } = server.address() as AddressInfo;
    resolve({
      ...extra,
      port,
      [Symbol.asyncDispose]: async () => {
        const { promise: closed, resolve: onClosed } = Promise.withResolvers<void>();
        server.close(() => onClosed());
        for (const socket of sockets) socket.destroy();
        await closed;
      },
    });
  });
  return promise;
}
