// The access-log line of a request, built once and without an object in between.
import type { AccessLogWriter } from "../telemetry/access-log.ts";
import type { Exchange } from "./exchange.ts";

// What JSON takes in a string as it is; anything else is rare enough for JSON.stringify.
const PLAIN = /^[ !#-[\]-~]*$/;
const MAX_TEXT_LENGTH = 2_048;

let cachedMs = 0;
let cachedTime = "";

/** The time as ISO 8601 in UTC, made at most once a millisecond. */
function isoTime(): string {
  const now = Date.now();
  if (now !== cachedMs) {
    cachedMs = now;
    cachedTime = new Date(now).toISOString();
  }
  return cachedTime;
}

function quoted(text: string): string {
  if (text.length > MAX_TEXT_LENGTH) return JSON.stringify(`${text.slice(0, MAX_TEXT_LENGTH)}…`);
  return PLAIN.test(text) ? `"${text}"` : JSON.stringify(text);
}

/**
 * Writes the line. The query is left out, because tokens and codes travel there; header values are, but for User-Agent.
 * `bytes_in` and `bytes_out` are those of the bodies.
 */
export function writeAccessLog(writer: AccessLogWriter, x: Exchange, durationMs: number, complete: boolean): void {
  const path = x.target === "" ? (x.req.url ?? "") : x.target.slice(0, x.pathEnd);
  const query = x.target === "" ? path.indexOf("?") : -1;
  let line = `{"time":"${isoTime()}","listener":${x.state.nameJson}`;
  if (x.route !== null) line += `,"route":${x.route.nameJson}`;
  line += `,"client":"${x.client}"`;
  if (x.client !== x.peer) line += `,"peer":"${x.peer}"`;
  line += `,"method":${quoted(x.method)},"host":${quoted(x.hostHeader)},"path":${quoted(query === -1 ? path : path.slice(0, query))},"protocol":"${x.stream === null ? `HTTP/${x.req.httpVersion}` : "HTTP/2"}"`;
  line += `,"status":${x.status},"duration_ms":${durationMs.toFixed(2)},"bytes_in":${x.bytesIn},"bytes_out":${x.bytesOut}`;
  if (x.identity !== null) line += `,"identity":${quoted(`${x.identity.source}:${x.identity.name}`)}`;
  if (x.identity?.client !== undefined) line += `,"client_id":${quoted(x.identity.client)}`;
  else if (x.claimedClient !== null) line += `,"client_id":${quoted(x.claimedClient)}`;
  if (x.asker !== null) line += ',"verify":true';
  const { tailnet } = x.connection;
  if (tailnet !== null) line += `,"node":${quoted(tailnet.shortName)}`;
  if (x.targetUrl !== "") line += `,"target":${quoted(x.targetUrl)}`;
  line += `,"request_id":${quoted(x.requestId)}`;
  if (x.userAgent !== null) line += `,"user_agent":${quoted(x.userAgent)}`;
  if (!complete) line += ',"aborted":true';
  if (x.cause !== "") line += `,"error":${quoted(x.cause)}`;
  writer.write(`${line}}`);
}
