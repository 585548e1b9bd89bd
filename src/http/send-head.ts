// Gives a response head to Node.js, whatever the protocol of the client.
import { HEADER, headerName } from "../lib/header-name.ts";
import type { Exchange } from "./exchange.ts";

/** @param reason reason phrase of HTTP/1; empty for the usual one. @param headers flat, end-to-end; may be changed */
export function sendHead(x: Exchange, status: number, reason: string, headers: string[]): void {
  x.status = status;
  const { res } = x;
  if (x.stream !== null) {
    res.writeHead(status, headers);
    return;
  }
  // A kept-alive connection would hold up a listener that drains.
  if (x.state.drain.draining || x.lastOnConnection) headers.push("Connection", "close");
  if (reason === "") res.writeHead(status, headers);
  else res.writeHead(status, reason, headers);
}

/** Headers and trailers as the record that the HTTP/2 API and `addTrailers` take. */
export function asRecord(flat: readonly string[]): Record<string, string[]> {
  // Without a prototype, so that a field named "constructor" is a field.
  const record: Record<string, string[]> = Object.create(null) as Record<string, string[]>;
  for (let i = 0; i + 1 < flat.length; i += 2) (record[(flat[i] ?? "").toLowerCase()] ??= []).push(flat[i + 1] ?? "");
  return record;
}

/** The trailers of a request that may go on: those that frame, route or authorise have a meaning in heads only (RFC 9110, 6.5.1). */
export function passableTrailers(raw: readonly string[]): string[] {
  const trailers: string[] = [];
  for (let i = 0; i + 1 < raw.length; i += 2) {
    if (headerName(raw[i] ?? "")?.kind === HEADER.other) trailers.push(raw[i] ?? "", raw[i + 1] ?? "");
  }
  return trailers;
}
