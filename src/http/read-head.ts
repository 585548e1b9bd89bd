// Reads the head of a request in one pass, and refuses whatever another program could read differently (RFC 9112, 11.2).
import { randomBytes } from "node:crypto";
import { HEADER, headerName, listMembers } from "../lib/header-name.ts";
import { isHostName } from "../lib/address.ts";
import { isIPv4, isIPv6 } from "node:net";
import { matchPath } from "../plan/match-path.ts";
import type { Exchange } from "./exchange.ts";
import { RequestError } from "./request-error.ts";

const MAX_PIPELINED = 64;

/** @throws {RequestError} 400, 417, 431, 501, 503, 505: what is wrong, in words that name no value of a header */
export function readHead(x: Exchange): void {
  // They are served side by side: without a limit one connection could open thousands to an upstream. Over HTTP/2 streams are limited.
  if (x.stream === null && x.connection.requests > MAX_PIPELINED) {
    x.req.socket.destroy();
    throw new RequestError(503, "ERR_PIPELINED", "Too many requests at once on a connection");
  }
  // The parser takes any version that looks like one.
  if (x.stream === null && x.req.httpVersion !== "1.1" && x.req.httpVersion !== "1.0")
    throw new RequestError(505, "ERR_VERSION", "The version of HTTP is not supported");
  // The HTTP/1 parser knows its methods; over HTTP/2 any text may come, and would stand at the front of an HTTP/1.1 request.
  if (x.stream !== null && !/^[A-Z][A-Z-]{0,31}$/.test(x.method)) throw bad("Method is not allowed");
  readHeaders(x);
  readTarget(x);
  if (x.method === "CONNECT" || x.method === "TRACE") throw new RequestError(501, "ERR_METHOD", `Method ${x.method} is not supported`);
  x.lastOnConnection = x.upgradeSocket !== null;
}

// RFC 9110, 5.5: visible characters, spaces, tabs and obs-text. The HTTP/1 parser has checked it, HTTP/2 has not in full.
// eslint-disable-next-line no-control-regex
const FORBIDDEN_VALUE = /[\0-\x08\x0a-\x1f\x7f]/;

const MAX_HEADERS = 256;

function readHeaders(x: Exchange): void {
  const { raw } = x;
  // The parser drops what is beyond its own count in silence.
  if (raw.length > 2 * MAX_HEADERS) throw new RequestError(431, "ERR_HEADERS", "Too many headers");
  let host: string | null = null;
  let authority: string | null = null;
  let contentLength: string | null = null;
  let transferEncoding: string | null = null;
  let upgrade: string | null = null;
  let connection: string | null = null;
  let bytes = 0;
  for (let i = 0; i + 1 < raw.length; i += 2) {
    const value = raw[i + 1] ?? "";
    const name = headerName(raw[i] ?? "");
    if (name === null) throw bad("Header name is not allowed");
    switch (name.kind) {
      case HEADER.other:
        break;
      case HEADER.host:
        if (host !== null) throw bad("Several Host headers");
        host = value;
        break;
      case HEADER.pseudo:
        if (name.lower === ":authority") authority = value;
        break;
      case HEADER.contentLength:
        if (contentLength !== null) throw bad("Several Content-Length headers");
        if (!/^\d{1,15}$/.test(value)) throw bad("Content-Length is no number");
        contentLength = value;
        break;
      case HEADER.transferEncoding:
        if (transferEncoding !== null) throw bad("Several Transfer-Encoding headers");
        if (value.toLowerCase() !== "chunked") throw new RequestError(501, "ERR_TRANSFER_ENCODING", "Transfer-Encoding other than chunked is not supported");
        transferEncoding = value;
        break;
      case HEADER.connection:
        connection = connection === null ? value : `${connection},${value}`;
        break;
      case HEADER.upgrade:
        upgrade = upgrade === null ? value : `${upgrade}, ${value}`;
        break;
      case HEADER.te:
        if (/(?:^|[\s,])trailers(?:$|[\s,;])/i.test(value)) x.takesTrailers = true;
        break;
      case HEADER.expect:
        if (value.toLowerCase() !== "100-continue") throw new RequestError(417, "ERR_EXPECT", "Expectation is not supported");
        break;
      case HEADER.authorization:
        if (x.authorization !== null) throw bad("Several Authorization headers");
        x.authorization = value;
        break;
      case HEADER.origin:
        if (x.origin !== null) throw bad("Several Origin headers");
        x.origin = value;
        break;
      case HEADER.userAgent:
        x.userAgent = value;
        break;
      case HEADER.forwardedFor:
        x.forwardedFor = joined(x.forwardedFor, value);
        break;
      case HEADER.forwardedProto:
        x.forwardedProto = joined(x.forwardedProto, value);
        break;
      case HEADER.forwardedHost:
        x.forwardedHost = joined(x.forwardedHost, value);
        break;
      case HEADER.forwarded:
        x.forwarded = joined(x.forwarded, value);
        break;
      case HEADER.realIp:
        x.realIp = value;
        break;
      case HEADER.requestId:
        x.requestId = value;
        break;
      default:
        break;
    }
    if (x.stream !== null) {
      if (FORBIDDEN_VALUE.test(value)) throw bad("Header value has a control character");
      // As RFC 9113, 6.5.2 counts them. The HTTP/1 parser counts by itself; the HTTP/2 one only tells its client of the limit.
      bytes += value.length + name.lower.length + 32;
    }
  }
  if (bytes > x.state.plan.maxHeaderBytes) throw new RequestError(431, "ERR_HEADERS", "The head of the request is too large");
  if (transferEncoding !== null && (contentLength !== null || x.req.httpVersionMinor === 0))
    throw bad("Transfer-Encoding beside Content-Length or in HTTP/1.0");
  if (x.stream === null) {
    x.body = transferEncoding !== null ? "chunked" : contentLength !== null && Number(contentLength) > 0 ? "length" : "none";
    if (connection !== null) readConnection(x, connection, upgrade);
  } else {
    if (transferEncoding !== null || connection !== null || upgrade !== null) throw bad("Connection headers in HTTP/2");
    x.body = x.stream.endAfterHeaders ? "none" : contentLength !== null ? "length" : "chunked";
    if (authority !== null) {
      if (host !== null && host.toLowerCase() !== authority.toLowerCase()) throw bad("Host and :authority differ");
      host = authority;
    }
  }
  setHost(x, host);
}

function readConnection(x: Exchange, connection: string, upgrade: string | null): void {
  if (connection === "keep-alive" || connection === "close" || connection === "Keep-Alive") return;
  const options = listMembers(connection);
  if (x.upgradeSocket !== null && upgrade !== null && options.includes("upgrade")) {
    // The parser left the connection to us: a body would be taken for the new protocol.
    if (x.body !== "none") throw bad("An upgrade with a body");
    x.upgrade = upgrade;
  }
  x.connectionOptions = options;
}

function joined(before: string | null, value: string): string {
  return before === null ? value : `${before}, ${value}`;
}

function bad(words: string): RequestError {
  return new RequestError(400, "ERR_BAD_REQUEST", words);
}

// Clients choose hosts: the memory of them is bounded.
const MAX_HOSTS = 1_024;
let hosts = new Map<string, string | null>();

function setHost(x: Exchange, value: string | null): void {
  if (value === null) {
    // RFC 9112, 3.2: only HTTP/1.0 may do without.
    if (x.stream !== null || x.req.httpVersionMinor !== 0) throw bad("Host is missing");
    return;
  }
  const host = parseHost(value);
  if (host === null) throw bad("Host is not a host name");
  x.hostHeader = value;
  x.host = host;
}

/** The host of `example.com:8443` or `[::1]`, lower case and without a dot at its end; null when it is none, userinfo and an empty one among that. */
export function parseHost(value: string): string | null {
  const known = hosts.get(value);
  if (known !== undefined) return known;
  const match = /^(\[[0-9A-Fa-f:.]+\]|[^:[\]]+)(?::\d{0,5})?$/.exec(value);
  let host = match?.[1]?.toLowerCase() ?? null;
  if (host !== null && host.length > 1 && host.endsWith(".")) host = host.slice(0, -1);
  if (host !== null && !(host.startsWith("[") ? isIPv6(host.slice(1, -1)) : isIPv4(host) || isHostName(host))) host = null;
  if (hosts.size >= MAX_HOSTS) hosts = new Map();
  if (value.length <= 260) hosts.set(value, host);
  return host;
}

// Visible ASCII. What else comes in a query is not for us to judge, but a fragment has no place in a target.
const QUERY = /^\?[!"$-~]*$/;

function readTarget(x: Exchange): void {
  let target = x.req.url ?? "";
  if (target === "*" && x.method === "OPTIONS") {
    x.path = x.target = "*";
    x.pathEnd = 1;
    return;
  }
  if (!target.startsWith("/")) target = originForm(x, target);
  const parsed = parseTarget(target);
  if (parsed === null) throw bad("Path or query is ambiguous or has characters that are not allowed");
  x.pathEnd = parsed.pathEnd;
  x.path = parsed.path;
  x.target = target;
}

/** `pathEnd`: where the query begins, or the length; `path` in its normal form. Null when the target has no single meaning. */
export function parseTarget(target: string): { readonly path: string; readonly pathEnd: number } | null {
  const query = target.indexOf("?");
  const pathEnd = query === -1 ? target.length : query;
  const path = matchPath(query === -1 ? target : target.slice(0, query));
  return path === null || (query !== -1 && !QUERY.test(target.slice(query))) ? null : { path, pathEnd };
}

/**
 * RFC 9112, 3.2.2: the absolute form names the host itself. One that differs from Host is refused rather than preferred, because
 * whoever stands before us may have looked at the other.
 */
function originForm(x: Exchange, target: string): string {
  const match = /^https?:\/\/([^/?#@]+)([/?].*)?$/i.exec(target);
  const authority = match?.[1];
  if (authority === undefined) throw bad("Target is not a path");
  if (authority.toLowerCase() !== x.hostHeader.toLowerCase()) throw bad("Target and Host differ");
  const rest = match?.[2] ?? "/";
  return rest.startsWith("?") ? `/${rest}` : rest;
}

const ID_PREFIX = randomBytes(6).toString("hex");
let idCounter = 0;

/** A request id: unique, not secret. */
export function makeRequestId(): string {
  idCounter += 1;
  return `${ID_PREFIX}-${idCounter.toString(36)}`;
}
