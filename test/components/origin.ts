// Origins for the tests: a scripted HTTP server, and a raw one that records every byte that reaches it.
import { once } from "node:events";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { createServer as createHttp2Server, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import { createServer as createHttpsServer, type ServerOptions } from "node:https";
import { createServer as createNetServer, type AddressInfo, type Server, type Socket } from "node:net";

export type Origin = AsyncDisposable & {
  readonly port: number;
  /** As a target of an upstream. */
  readonly url: string;
  readonly sockets: ReadonlySet<Socket>;
  /** Connections accepted so far. */
  readonly connections: () => number;
};

async function listening(server: Server, scheme: string): Promise<Origin> {
  const sockets = new Set<Socket>();
  let connections = 0;
  server.on("connection", (socket: Socket) => {
    connections += 1;
    sockets.add(socket);
    socket.on("error", () => {});
    socket.once("close", () => sockets.delete(socket));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  return {
    port,
    url: `${scheme}://${scheme === "https" ? "localhost" : "127.0.0.1"}:${port}`,
    sockets,
    connections: () => connections,
    [Symbol.asyncDispose]: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
    },
  };
}

/** An HTTP/1.1 origin. `upgrade` gets requests for an upgrade. */
export function startOrigin(
  handler: (req: IncomingMessage, res: ServerResponse) => void | Promise<void>,
  upgrade?: (req: IncomingMessage, socket: Socket, head: Buffer) => void,
): Promise<Origin> {
  const server = createServer({ requestTimeout: 0, keepAliveTimeout: 60_000 }, (req, res) => void handler(req, res));
  if (upgrade !== undefined) server.on("upgrade", (req, socket, head) => upgrade(req, socket as Socket, head));
  return listening(server, "http");
}

/** @param options also what is asked of clients: `requestCert`, `rejectUnauthorized`, `ca`. @param upgrade gets requests for an upgrade */
export function startHttpsOrigin(
  options: ServerOptions,
  handler: RequestListener,
  upgrade?: (req: IncomingMessage, socket: Socket, head: Buffer) => void,
): Promise<Origin> {
  const server = createHttpsServer({ ...options, keepAliveTimeout: 60_000 }, handler);
  if (upgrade !== undefined) server.on("upgrade", (req, socket, head) => upgrade(req, socket as Socket, head));
  server.on("tlsClientError", () => {});
  return listening(server, "https");
}

/** An HTTP/2 origin without TLS. */
export function startH2cOrigin(handler: (req: Http2ServerRequest, res: Http2ServerResponse) => void | Promise<void>): Promise<Origin> {
  const server = createHttp2Server((req, res) => void handler(req, res));
  server.on("sessionError", () => {});
  return listening(server, "h2c");
}

/** An origin that is told of each connection and says what it wants on it. */
export function startRawOrigin(onConnection: (socket: Socket) => void): Promise<Origin> {
  return listening(createNetServer(onConnection), "http");
}

export type RecordedRequest = {
  readonly method: string;
  readonly target: string;
  readonly headers: [string, string][];
  readonly body: string;
  readonly trailers: string;
};

export type RecordingOrigin = Origin & {
  /** Whole requests, in the order in which they came. */
  readonly requests: RecordedRequest[];
  /** Bytes that are no well-formed request. */
  readonly malformed: string[];
  /** Bytes that wait for the rest of their request. */
  pending(): string;
  /** Forgets what was recorded. */
  reset(): void;
};

/** Answers each well-formed request with 200 and "ok", reading them more strictly than any server should. */
export async function startRecordingOrigin(): Promise<RecordingOrigin> {
  const requests: RecordedRequest[] = [];
  const malformed: string[] = [];
  const pending = new Map<Socket, string>();
  const origin = await startRawOrigin((socket) => {
    pending.set(socket, "");
    socket.once("close", () => {
      if (pending.get(socket) === "") pending.delete(socket);
    });
    socket.on("data", (chunk) => {
      let bytes = (pending.get(socket) ?? "") + chunk.toString("latin1");
      for (;;) {
        const parsed = parseRequest(bytes);
        if (parsed === null) break;
        if (parsed === "malformed") {
          malformed.push(bytes);
          bytes = "";
          socket.destroy();
          break;
        }
        requests.push(parsed.request);
        bytes = bytes.slice(parsed.length);
        socket.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
      }
      pending.set(socket, bytes);
    });
  });
  return {
    ...origin,
    requests,
    malformed,
    pending: () => [...pending.values()].join(""),
    reset: () => {
      requests.length = 0;
      malformed.length = 0;
      for (const socket of pending.keys()) if (socket.destroyed) pending.delete(socket);
    },
    [Symbol.asyncDispose]: () => origin[Symbol.asyncDispose](),
  };
}

function parseRequest(bytes: string): { request: RecordedRequest; length: number } | "malformed" | null {
  const headEnd = bytes.indexOf("\r\n\r\n");
  if (headEnd === -1) return null;
  const [line = "", ...lines] = bytes.slice(0, headEnd).split("\r\n");
  const start = /^([A-Z]+) (\/[\x21-\x7e]*|\*) HTTP\/1\.1$/.exec(line);
  if (start === null) return "malformed";
  const headers: [string, string][] = [];
  for (const text of lines) {
    const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+): ([\t\x20-\x7e\x80-\xff]*)$/.exec(text);
    if (match === null) return "malformed";
    headers.push([(match[1] ?? "").toLowerCase(), match[2] ?? ""]);
  }
  const all = (name: string): string[] => headers.filter(([key]) => key === name).map(([, value]) => value);
  if (all("host").length !== 1) return "malformed";
  const lengths = all("content-length");
  const encodings = all("transfer-encoding");
  if (lengths.length + encodings.length > 1) return "malformed";
  let body = "";
  let trailers = "";
  let length = headEnd + 4;
  if (lengths[0] !== undefined) {
    if (!/^\d+$/.test(lengths[0])) return "malformed";
    const size = Number(lengths[0]);
    if (bytes.length < length + size) return null;
    body = bytes.slice(length, length + size);
    length += size;
  } else if (encodings[0] !== undefined) {
    if (encodings[0] !== "chunked") return "malformed";
    for (;;) {
      const lineEnd = bytes.indexOf("\r\n", length);
      if (lineEnd === -1) return null;
      const digits = bytes.slice(length, lineEnd);
      if (!/^[0-9a-f]+$/.test(digits)) return "malformed";
      const size = Number.parseInt(digits, 16);
      length = lineEnd + 2;
      if (size === 0) {
        const end = bytes.startsWith("\r\n", length) ? length + 2 : bytes.indexOf("\r\n\r\n", length) + 4;
        if (end < length + 2) return null;
        trailers = bytes.slice(length, end - 2);
        length = end;
        break;
      }
      if (bytes.length < length + size + 2) return null;
      body += bytes.slice(length, length + size);
      if (bytes.slice(length + size, length + size + 2) !== "\r\n") return "malformed";
      length += size + 2;
    }
  }
  return { request: { method: start[1] ?? "", target: start[2] ?? "", headers, body, trailers }, length };
}

/** Reads a request's body to its end. */
export async function bodyOf(req: IncomingMessage): Promise<string> {
  let body = "";
  for await (const chunk of req) body += String(chunk);
  return body;
}
