// The local admin interface: /health, /ready, /metrics, /status, /auth/clients, /auth/grants, /auth/sessions, and POST to /reload, /certificates/renew,
// /tailnet/logout and /auth/revoke.
import type { IncomingMessage, ServerResponse } from "node:http";
import { formatAddress } from "../lib/address.ts";
import { describeSystemError, GatewayError } from "../lib/errors.ts";
import { listen } from "../lib/listen.ts";
import { createHttpServer } from "../lib/node-http.ts";
import type { BindAddress } from "../plan/model.ts";
import { EXPOSITION_CONTENT_TYPE } from "../telemetry/exposition.ts";
import type { Log } from "../telemetry/log.ts";
import { newestFirst, parseRevocation, type AdminAuth } from "./auth.ts";
import { refusal } from "./guard.ts";
import { buildReadiness } from "./ready.ts";
import type { ActionResult, GatewayStatus, ReloadResult } from "./status.ts";

export class AdminListenError extends GatewayError {
  constructor(address: BindAddress, cause: unknown) {
    super("ERR_LISTEN", `Cannot listen on ${formatAddress(address)} for the admin interface: ${describeSystemError(cause)}`, { cause });
  }
}

export type AdminOptions = {
  readonly address: BindAddress;
  readonly status: () => GatewayStatus;
  readonly metrics: { text(): Promise<string> };
  /** Resolves when the reload has ended. */
  readonly reload: () => Promise<ReloadResult>;
  /** Orders the certificate that has the name (lower case) anew; resolves when that has ended, which may take minutes. */
  readonly renew: (name: string) => Promise<ActionResult>;
  /** Takes the node off the tailnet; resolves when that has ended. */
  readonly logout: () => Promise<ActionResult>;
  readonly auth: AdminAuth;
  readonly log: Log;
};

/** `address` is the one that was really bound. `close` stops listening at once; replies under way get a moment to end by themselves. */
export type Admin = { readonly address: string; close(): Promise<void> };

const REQUEST_TIMEOUT_MS = 5_000;
const MAX_HEADER_BYTES = 8 * 1024;
const MAX_CONNECTIONS = 64;
const CLOSE_TIMEOUT_MS = 1_000;
const MAX_NAME_LENGTH = 253;
const METHODS: ReadonlyMap<string, "GET" | "POST"> = new Map([
  ["/health", "GET"],
  ["/ready", "GET"],
  ["/metrics", "GET"],
  ["/status", "GET"],
  ["/reload", "POST"],
  ["/certificates/renew", "POST"],
  ["/tailnet/logout", "POST"],
  ["/auth/clients", "GET"],
  ["/auth/grants", "GET"],
  ["/auth/sessions", "GET"],
  ["/auth/revoke", "POST"],
]);
// Only the gateway's own user may ask it to reload.
const SOCKET_FILE_MODE = 0o600;

/** @throws {AdminListenError} */
export async function startAdmin(options: AdminOptions): Promise<Admin> {
  const { address } = options;
  const server = createHttpServer(
    {
      headersTimeout: REQUEST_TIMEOUT_MS,
      requestTimeout: REQUEST_TIMEOUT_MS,
      connectionsCheckingInterval: 1_000,
      maxHeaderSize: MAX_HEADER_BYTES,
      requireHostHeader: false,
    },
    (request, response) => void answer(options, request, response),
  );
  server.maxConnections = MAX_CONNECTIONS;
  try {
    await listen(server, address, SOCKET_FILE_MODE);
  } catch (error) {
    throw new AdminListenError(address, error);
  }
  const bound = server.address();
  return {
    address: formatAddress(address.kind === "tcp" && bound !== null && typeof bound === "object" ? { ...address, port: bound.port } : address),
    close: () => {
      server.close();
      setTimeout(() => server.closeAllConnections(), CLOSE_TIMEOUT_MS).unref();
      return Promise.resolve();
    },
  };
}

async function answer(options: AdminOptions, request: IncomingMessage, response: ServerResponse): Promise<void> {
  try {
    // Nothing here takes a body.
    request.resume();
    const refused = refusal(request.headers, options.address);
    if (refused !== null) return sendJson(response, 403, { error: refused });
    const [path = "", ...rest] = (request.url ?? "").split("?");
    const query = rest.join("?");
    const method = METHODS.get(path);
    if (method === undefined) return sendJson(response, 404, { error: "Not found" });
    if (request.method !== method) {
      response.setHeader("Allow", method);
      return sendJson(response, 405, { error: `Only ${method} is answered here` });
    }
    if (path === "/health") return sendJson(response, 200, { status: "ok" });
    if (path === "/metrics") return send(response, 200, EXPOSITION_CONTENT_TYPE, await options.metrics.text());
    if (path === "/status") return sendJson(response, 200, options.status());
    if (path === "/ready") {
      const status = options.status();
      const readiness = buildReadiness(status);
      // The commands compare the file with theirs: several gateways may run on one machine.
      return sendJson(response, readiness.status === "unready" ? 503 : 200, { ...readiness, config: { file: status.config.file } });
    }
    if (path === "/certificates/renew") {
      const name = parseName(query);
      if (name === null) return sendJson(response, 400, { error: "One name is needed: /certificates/renew?name=NAME" });
      return sendResult(response, await options.renew(name));
    }
    if (path === "/tailnet/logout") return sendResult(response, await options.logout());
    if (path === "/auth/clients") return sendJson(response, 200, { clients: newestFirst(await options.auth.clients()) });
    if (path === "/auth/grants") return sendJson(response, 200, { grants: newestFirst(await options.auth.grants()) });
    if (path === "/auth/sessions") return sendJson(response, 200, { sessions: newestFirst(await options.auth.sessions()) });
    if (path === "/auth/revoke") {
      const what = parseRevocation(query);
      if (what === null)
        return sendJson(response, 400, { error: "One of them is needed: /auth/revoke?grant=ID, session=ID, client=ID, user=SOURCE:NAME, all=true" });
      return sendJson(response, 200, { revoked: await options.auth.revoke(what) });
    }
    const result = await options.reload();
    const { outcome, warnings, text } = result;
    if (outcome === "refused") return sendJson(response, 422, { outcome, problems: result.problems, warnings, text });
    return sendJson(response, 200, { outcome, changed: outcome === "changed", loaded_at: options.status().config.loaded_at, warnings, text });
  } catch (error) {
    options.log.error({ err: error, path: request.url }, "The admin interface cannot answer");
    if (response.headersSent) response.destroy();
    else sendJson(response, 500, { error: error instanceof GatewayError ? error.message : "Internal error, see the log" });
  }
}

/** The one name of the query, as certificates have it: lower case, without a final dot. */
function parseName(query: string): string | null {
  const [name = "", ...more] = new URLSearchParams(query).getAll("name");
  return more.length > 0 || name === "" || name.length > MAX_NAME_LENGTH ? null : name.toLowerCase().replace(/\.$/, "");
}

function sendResult(response: ServerResponse, { ok, message }: ActionResult): void {
  sendJson(response, ok ? 200 : 422, { ok, message });
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, "application/json", `${JSON.stringify(value)}\n`);
}

function send(response: ServerResponse, status: number, type: string, body: string): void {
  response.writeHead(status, {
    "Content-Type": type,
    "Content-Length": Buffer.byteLength(body),
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    // By this the commands know that it is not another program's port.
    Server: "sidegate",
    Connection: "close",
  });
  response.end(body);
}
