// Talks to the admin interface of a running gateway, whose address the configuration file tells.
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { interpolate } from "../config/interpolate.ts";
import { formatAddress, parseListenAddress } from "../lib/address.ts";
import { describeSystemError, GatewayError } from "../lib/errors.ts";

/** No gateway answers. */
export class AdminUnreachable extends GatewayError {
  constructor(address: string, reason: string) {
    super("ERR_ADMIN_UNREACHABLE", `No gateway answers on ${address} (${reason}); is it running?`);
  }
}

export type AdminAnswer = { readonly status: number; readonly body: string };

type AdminAddress = NonNullable<ReturnType<typeof parseListenAddress>>;

const DEFAULT_ADMIN = "127.0.0.1:2019";
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/**
 * Asks the gateway that serves `file`.
 * @param timeoutMs for the whole answer
 * @throws {AdminUnreachable}
 */
export async function askAdmin(
  file: string,
  env: Readonly<Record<string, string | undefined>>,
  method: "GET" | "POST",
  path: string,
  timeoutMs: number,
): Promise<AdminAnswer> {
  const address = await findAdminAddress(file, env);
  const text = await exchange(address, `${method} ${path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, timeoutMs);
  const end = text.indexOf("\r\n\r\n");
  const head = text.slice(0, end);
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1];
  // Other programs, such as Caddy, have their admin interface on the same port.
  if (end === -1 || status === undefined || !/^server: sidegate$/im.test(head)) throw new AdminUnreachable(formatAddress(address), "another program does");
  return { status: Number(status), body: text.slice(end + 4) };
}

// Loading the whole configuration would cost more than the question; and the file may be bad while the gateway runs on.
async function findAdminAddress(file: string, env: Readonly<Record<string, string | undefined>>): Promise<AdminAddress> {
  const listen = await findAdminListen(file);
  const text = listen === null ? null : interpolate(listen, env);
  return (text?.ok === true ? parseListenAddress(text.text) : null) ?? (parseListenAddress(DEFAULT_ADMIN) as AdminAddress);
}

async function findAdminListen(file: string): Promise<string | null> {
  const text = await readFile(file, "utf8").catch(() => "");
  // Parsing YAML costs a third of a health check, and most files leave the admin interface where it is.
  if (!/\badmin\b/.test(text)) return null;
  const { parseDocument } = await import("yaml");
  const listen = parseDocument(text, { logLevel: "silent", uniqueKeys: false }).getIn(["admin", "listen"]);
  return typeof listen === "string" ? listen : null;
}

// By hand, because loading node:http doubles the time of a health check. The interface always closes after its answer.
function exchange(address: AdminAddress, request: string, timeoutMs: number): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const name = formatAddress(address);
  const socket = address.kind === "unix" ? connect(address.path) : connect(address.port, localHost(address.host));
  const timer = setTimeout(() => socket.destroy(new AdminUnreachable(name, `nothing came within ${timeoutMs} ms`)), timeoutMs);
  let text = "";
  socket.setEncoding("utf8");
  socket.on("connect", () => socket.write(request));
  socket.on("data", (chunk: string) => {
    text += chunk;
    if (text.length > MAX_ANSWER_BYTES) socket.destroy(new AdminUnreachable(name, "the answer has no end"));
  });
  socket.on("end", () => resolve(text));
  socket.on("error", (error) => reject(error instanceof AdminUnreachable ? error : new AdminUnreachable(name, describeSystemError(error))));
  socket.on("close", () => reject(new AdminUnreachable(name, "the connection was closed")));
  return promise.finally(() => clearTimeout(timer));
}

function localHost(host: string | null): string {
  return host === null || host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
}
