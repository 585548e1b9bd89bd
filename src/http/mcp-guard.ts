// What an MCP route asks of a request between its permit and the upstream: sessions of its own caller, and messages that mean one thing.
import type { Proof } from "../identity/authenticate.ts";
import type { Permit } from "../identity/authorize.ts";
import { headerValue } from "../lib/header-name.ts";
import { isRefusal, readMessages, refusalJson, refuseHead, UNKNOWN_SESSION, type McpRefusal } from "../mcp/message.ts";
import { sessionIdsOf } from "../mcp/endpoint-event.ts";
import { isDisguised, type SessionUse } from "../mcp/session-owners.ts";
import { answer } from "./answer.ts";
import { addCors } from "./cors.ts";
import type { Exchange } from "./exchange.ts";
import { readBody } from "./read-body.ts";
import { RequestError } from "./request-error.ts";
import type { ForwardedRoute } from "./state.ts";

const MAX_BODY_BYTES = 4_194_304;
const SESSION_HEADER = "mcp-session-id";

/** @param proof what the permit was given for; null when it was no token and no session. @returns whether the request goes on; false when it was answered, or its client went away */
export function inspectMcp(x: Exchange, route: ForwardedRoute, permit: Permit, proof: Proof | null): boolean | Promise<boolean> {
  const use = sessionUse(x, route, permit, proof);
  x.sessionUse = use;
  if (use !== null && use.ids.some((id) => isDisguised(id) || x.state.live.sessions.isForeign(use.place, id, use.owner)))
    return refuse(x, route, UNKNOWN_SESSION);
  if (route.plan.mcp === null || x.method !== "POST" || x.body === "none") return true;
  const refusal = refuseHead(x.raw);
  return refusal === null ? inspectBody(x, route) : refuse(x, route, refusal);
}

async function inspectBody(x: Exchange, route: ForwardedRoute): Promise<boolean> {
  const body = await readBody(x, MAX_BODY_BYTES);
  if (body === null || x.finished) return false;
  x.wholeBody = body;
  const read = readMessages(body, x.raw);
  return isRefusal(read) ? refuse(x, route, read) : true;
}

/** Null: sessions belong to nobody here. */
function sessionUse(x: Exchange, route: ForwardedRoute, { identity }: Permit, proof: Proof | null): SessionUse | null {
  const { mcp, auth } = route.plan;
  const isBound = mcp === null ? auth?.some(({ kind }) => kind === "oauth") === true : mcp.sessionBinding;
  if (identity === null || !isBound) return null;
  const ids = sessionIdsOf(x.target);
  let inHeader: string | null = null;
  for (let i = 0; i + 1 < x.raw.length; i += 2) {
    if (x.raw[i]?.toLowerCase() !== SESSION_HEADER) continue;
    // The upstream might read another one than we do.
    if (inHeader !== null) throw new RequestError(400, "ERR_BAD_REQUEST", "Several Mcp-Session-Id headers");
    inHeader = x.raw[i + 1] ?? "";
    ids.push(inHeader);
  }
  // The same person may use another client; a login name may be given to somebody else. A session is the upstream's: another route to it is no way round.
  return {
    owner: `${identity.source}\n${proof?.person?.subject ?? identity.name}`,
    place: route.upstream.upstream.plan.name,
    ids,
    claimed: mcp !== null ? ids : inHeader === null ? [] : [inHeader],
  };
}

/** Notes whose session it is, when the upstream has taken part in it. @param headers of its response */
export function noteSession(x: Exchange, status: number, headers: readonly string[]): void {
  const use = x.sessionUse;
  if (use === null || status < 200 || status > 299) return;
  const { sessions } = x.state.live;
  const given = headerValue(headers, SESSION_HEADER);
  if (x.method === "DELETE") for (const id of use.ids) sessions.unbind(use.place, id, use.owner);
  else for (const id of given === null ? use.claimed : [...use.claimed, given]) sessions.bind(use.place, id, use.owner);
}

function refuse(x: Exchange, route: ForwardedRoute, refusal: McpRefusal): false {
  x.cause = `ERR_MCP: ${refusal.message}`;
  const body = refusalJson(refusal);
  const headers = [
    "Content-Type",
    "application/json",
    "Content-Length",
    String(Buffer.byteLength(body)),
    "Cache-Control",
    "no-store",
    "X-Request-Id",
    x.requestId,
  ];
  answer(x, refusal.status, route.plan.cors === null ? headers : addCors(headers, x, route.plan.cors), body);
  return false;
}
