// The metadata of an authorization server elsewhere, told on the host of a route that takes its tokens: clients of MCP 2025-03-26 look for it there alone.
import { answerJson } from "./answer.ts";
import type { ExternalServer } from "./compile-external-servers.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";
import { rescue } from "./rescue.ts";

const PATHS = new Set(["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"]);
const RETRY_AFTER_S = 5;

/** Null when the request asks for no such document. */
export function findExternalServer(x: Exchange): ExternalServer | null {
  const { externalServers, servers } = x.state;
  if (externalServers === null || !PATHS.has(x.path) || servers?.byHost.has(x.host) === true) return null;
  const { byHost, anyHost } = externalServers;
  return byHost.has(x.host) ? (byHost.get(x.host) ?? null) : anyHost;
}

/** Whatever happens, the exchange gets an answer or its end. */
export async function serveExternalServer(x: Exchange, issuer: ExternalServer): Promise<void> {
  try {
    // A preflight and a wrong method need no document.
    const json = x.method === "GET" || x.method === "HEAD" ? await issuer.metadata() : "";
    if (x.finished) return;
    if (json !== null) return answerJson(x, json);
    throw new RequestError(503, "ERR_ISSUER", "The authorization server cannot be asked at the moment", { headers: ["Retry-After", String(RETRY_AFTER_S)] });
  } catch (error) {
    rescue(x, error);
  }
}
