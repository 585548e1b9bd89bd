// Reads the head of an HTTP/1.1 response, as strictly as its framing deserves (RFC 9112).
import { HEADER, headerName, listMembers } from "../lib/header-name.ts";

export type ResponseHead = {
  readonly status: number;
  readonly reason: string;
  /** End-to-end headers, flat. */
  readonly headers: string[];
  /** -1 when there is none. */
  readonly contentLength: number;
  readonly chunked: boolean;
  /** Whether the connection may carry another request. */
  readonly persistent: boolean;
  /** Seconds of a Keep-Alive hint, or null. */
  readonly keepAliveSeconds: number | null;
  /** Value of Upgrade, or null. */
  readonly upgrade: string | null;
};

const STATUS_LINE = /^HTTP\/1\.([01]) ([1-5]\d\d)(?: ([\t\x20-\x7e\x80-\xff]*))?$/;
// All that may stand in a head: visible characters, spaces, tabs, obs-text, and CR and LF only together.
// eslint-disable-next-line no-control-regex
const FORBIDDEN = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f]|\r(?!\n)|(?<!\r)\n/;

/** @param text the head without its last empty line; returns in words what is wrong with it, or the head */
export function parseResponseHead(text: string): ResponseHead | string {
  if (FORBIDDEN.test(text)) return "control character in its head";
  let end = text.indexOf("\r\n");
  const match = STATUS_LINE.exec(end === -1 ? text : text.slice(0, end));
  if (match === null) return "bad status line";
  const version10 = match[1] === "0";
  let headers: string[] = [];
  let contentLength = -1;
  let transferEncoding: string | null = null;
  let connection: string | null = null;
  let keepAliveSeconds: number | null = null;
  let upgrade: string | null = null;
  while (end !== -1) {
    const start = end + 2;
    end = text.indexOf("\r\n", start);
    const line = end === -1 ? text.slice(start) : text.slice(start, end);
    const colon = line.indexOf(":");
    const name = line.slice(0, colon);
    // A line that begins with white space (obs-fold) or has none before its colon is no header here (RFC 9112, 5.1 and 5.2).
    const known = colon > 0 ? headerName(name) : null;
    if (known === null) return "bad header line";
    const value = line.slice(colon + 1).trim();
    switch (known.kind) {
      case HEADER.contentLength:
        if (contentLength !== -1) return "several Content-Length";
        if (!/^\d{1,15}$/.test(value)) return "bad Content-Length";
        contentLength = Number(value);
        // RFC 9110, 8.6: an interim response has none, and a client might believe it.
        if (match[2]?.startsWith("1") !== true) headers.push(name, value);
        break;
      case HEADER.transferEncoding:
        if (transferEncoding !== null) return "several Transfer-Encoding";
        transferEncoding = value.toLowerCase();
        break;
      case HEADER.connection:
        connection = connection === null ? value : `${connection},${value}`;
        break;
      case HEADER.keepAlive:
        keepAliveSeconds = Number(/(?:^|[\s,;])timeout\s*=\s*(\d{1,6})/i.exec(value)?.[1] ?? Number.NaN);
        if (Number.isNaN(keepAliveSeconds)) keepAliveSeconds = null;
        break;
      case HEADER.upgrade:
        upgrade = value;
        break;
      case HEADER.hopByHop:
      case HEADER.te:
      // Only a promise of trailers, which Node.js takes ill where none can come.
      case HEADER.trailer:
        break;
      default:
        headers.push(name, value);
    }
  }
  if (transferEncoding !== null && transferEncoding !== "chunked") return "unknown Transfer-Encoding";
  if (transferEncoding !== null && (version10 || contentLength !== -1)) return "conflicting framing";
  let persistent = !version10;
  if (connection === "close" || connection === "keep-alive") persistent = connection === "keep-alive";
  else if (connection !== null) {
    const options = listMembers(connection);
    persistent = version10 ? options.includes("keep-alive") : !options.includes("close");
    headers = withoutNamed(headers, options);
  }
  return {
    status: Number(match[2]),
    reason: match[3] ?? "",
    headers,
    contentLength,
    chunked: transferEncoding !== null,
    persistent,
    keepAliveSeconds,
    upgrade,
  };
}

/** Takes off the headers that Connection names (RFC 9110, 7.6.1), but never the one that frames the message. */
export function withoutNamed(headers: string[], options: readonly string[]): string[] {
  const named = new Set(
    options.filter((option) => option !== "close" && option !== "keep-alive" && option !== "upgrade" && option !== "content-length" && option !== "host"),
  );
  if (named.size === 0) return headers;
  const kept: string[] = [];
  for (let i = 0; i + 1 < headers.length; i += 2) if (!named.has(headers[i]?.toLowerCase() ?? "")) kept.push(headers[i] ?? "", headers[i + 1] ?? "");
  return kept;
}

/** Reads trailer lines; null when one is bad. Fields that frame or route a message do not count as trailers (RFC 9110, 6.5.1). */
export function parseTrailers(text: string): string[] | null {
  if (text === "") return [];
  if (FORBIDDEN.test(text)) return null;
  const trailers: string[] = [];
  for (const line of text.split("\r\n")) {
    const colon = line.indexOf(":");
    const known = colon > 0 ? headerName(line.slice(0, colon)) : null;
    if (known === null) return null;
    if (isTrailer(known.kind)) trailers.push(line.slice(0, colon), line.slice(colon + 1).trim());
  }
  return trailers;
}

/** Whether a field of this kind may stand in a trailer section that we pass on: those that we know by name have a meaning in heads only. */
export function isTrailer(kind: number): boolean {
  return kind === HEADER.other || kind === HEADER.date;
}
