// The server side of node:http, without the client that an import brings along: it evaluates every export, WebSocket and fetch
// among them, which costs a start 40 ms and 16 MB.
import type * as http from "node:http";
import { createRequire } from "node:module";

const { createServer, ServerResponse, STATUS_CODES } = createRequire(import.meta.url)("node:http") as typeof http;

export const createHttpServer = createServer;
export const createResponse = (request: http.IncomingMessage): http.ServerResponse => new ServerResponse(request);
export const statusCodes = STATUS_CODES;
