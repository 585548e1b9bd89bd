// Talks to the admin interface of a running gateway, whose address the configuration file tells.
import { readFile, realpath } from "node:fs/promises";
import { connect } from "node:net";
import { interpolate } from "../config/interpolate.ts";
import { formatAddress, type ListenPlace, parseListenAddress } from "../lib/address.ts";
import { formatDuration } from "../lib/duration.ts";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { plainLine } from "./table.ts";

/** No gateway answers. */
export class AdminUnreachable extends GatewayError {
  readonly address: string;
  readonly reason: string;

  constructor(address: string, reason: string, file?: { readonly path: string; readonly trouble: string }) {
    super(
      "ERR_ADMIN_UNREACHABLE",
      file === undefined
        ? `No gateway answers on ${address} (${reason}); is it running?`
        : `'${file.path}' ${file.trouble}, and no gateway answers on ${address} (${reason})`,
    );
    this.address = address;
    this.reason = reason;
  }
}

/** A gateway answers, but it is not the one that was asked for, or does not tell. */
export class WrongGateway extends GatewayError {
  constructor(message: string) {
    super("ERR_WRONG_GATEWAY", message);
  }
}

export type AdminAnswer = { readonly status: number; readonly body: string };

type AdminQuestion =
  | `GET /${"ready" | "status" | "auth/clients" | "auth/grants" | "auth/sessions"}`
  | `POST /${"reload" | "tailnet/logout" | `certificates/renew?name=${string}` | `auth/revoke?${string}`}`;
type AdminAddress = Exclude<ListenPlace, { kind: "tailnet" }>;

const DEFAULT_ADMIN = "127.0.0.1:2019";
const MAX_ANSWER_BYTES = 64 * 1024 * 1024;

/**
 * Asks the gateway that serves `file`, absolute. An answer of another gateway is never given, nor is another one made to do anything.
 * @param timeoutMs for one answer
 * @param signal stops waiting for the answer of a POST; what was asked for goes on.
 * @throws {AdminUnreachable}
 * @throws {WrongGateway}
 */
export async function askAdmin(
  file: string,
  env: Readonly<Record<string, string | undefined>>,
  question: AdminQuestion,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<AdminAnswer> {
  const source = await readFile(file, "utf8").catch((error: unknown) => ({ error }));
  const text = typeof source === "string" ? source : "";
  const address = await findAdminAddress(text, env);
  try {
    const namesFile = question === "GET /ready" || question === "GET /status";
    const answer = await ask(address, namesFile ? question : "GET /ready", timeoutMs);
    await checkServes(answer, file, formatAddress(address));
    return namesFile ? answer : await ask(address, question, timeoutMs, signal);
  } catch (error) {
    if (!(error instanceof AdminUnreachable) || typeof source === "string") throw error;
    const trouble = systemErrorCode(source.error) === "ENOENT" ? "does not exist" : `cannot be read (${describeSystemError(source.error)})`;
    throw new AdminUnreachable(error.address, error.reason, { path: file, trouble });
  }
}

async function checkServes(answer: AdminAnswer, file: string, address: string): Promise<void> {
  const { config, error } = parseAnswer(answer.body);
  const served = config?.file;
  if (served === undefined)
    throw new WrongGateway(`The gateway on ${address} does not tell which file it serves: ${plainLine(error ?? `status ${answer.status}`)}`);
  if (served === file) return;
  // A link and what it leads to are the same file.
  const [a, b] = await Promise.all([served, file].map((path) => realpath(path).catch(() => null)));
  if (a === null || a !== b) throw new WrongGateway(`The gateway on ${address} serves '${plainLine(served)}', not '${file}'`);
}

function parseAnswer(body: string): { config?: { file?: string }; error?: string } {
  try {
    return JSON.parse(body) as ReturnType<typeof parseAnswer>;
  } catch {
    return {};
  }
}

async function ask(address: AdminAddress, question: string, timeoutMs: number, signal?: AbortSignal): Promise<AdminAnswer> {
  const text = await exchange(address, `${question} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`, timeoutMs, signal);
  const end = text.indexOf("\r\n\r\n");
  const head = text.slice(0, end);
  const status = /^HTTP\/1\.1 (\d{3}) /.exec(head)?.[1];
  // Other programs, such as Caddy, have their admin interface on the same port.
  if (end === -1 || status === undefined || !/^server: sidegate$/im.test(head)) throw new AdminUnreachable(formatAddress(address), "another program does");
  return { status: Number(status), body: text.slice(end + 4) };
}

// Loading the whole configuration would cost more than the question; and the file may be bad while the gateway runs on.
async function findAdminAddress(source: string, env: Readonly<Record<string, string | undefined>>): Promise<AdminAddress> {
  const listen = await findAdminListen(source);
  const text = listen === null ? null : interpolate(listen, env);
  const address = text?.ok === true ? parseListenAddress(text.text) : null;
  return address === null || address.kind === "tailnet" ? (parseListenAddress(DEFAULT_ADMIN) as AdminAddress) : address;
}

async function findAdminListen(text: string): Promise<string | null> {
  // Parsing YAML costs a third of a health check, and most files leave the admin interface where it is.
  if (!/\badmin\b/.test(text)) return null;
  const { parseDocument } = await import("yaml");
  const listen = parseDocument(text, { logLevel: "silent", uniqueKeys: false }).getIn(["admin", "listen"]);
  return typeof listen === "string" ? listen : guessAdminListen(text);
}

/** `admin: { listen: X }`, or `listen: X` below `admin:`, in a text that is no YAML: the gateway still serves what stood there before the slip. */
function guessAdminListen(text: string): string | null {
  const lines = text.replace(/^\uFEFF/, "").split(/\r?\n/);
  const start = lines.findIndex((line) => /^admin[ \t]*:/.test(line));
  if (start === -1) return null;
  const length = lines.slice(start + 1).findIndex((line) => /^[^\s#]/.test(line));
  const [first = "", ...below] = length === -1 ? lines.slice(start) : lines.slice(start, start + 1 + length);
  const candidates = [first.replace(/^admin[ \t]*:[ \t]*\{/, ","), ...below];
  for (const line of candidates) {
    const match = /^(?:\s|[^#]*,[ \t]*)[ \t]*listen:[ \t]*(?:"([^"]*)|'([^']*)|((?:\$\{\w*\}|[^\s,}#"'])+))/.exec(line);
    const listen = match?.[1] ?? match?.[2] ?? match?.[3];
    if (listen !== undefined) return listen;
  }
  return null;
}

// By hand, because loading node:http doubles the time of a health check. The interface always closes after its answer.
function exchange(address: AdminAddress, request: string, timeoutMs: number, signal?: AbortSignal): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  const name = formatAddress(address);
  const socket = address.kind === "unix" ? connect(address.path) : connect(address.port, localHost(address.host));
  const timer = setTimeout(() => socket.destroy(new AdminUnreachable(name, `nothing came within ${formatDuration(timeoutMs)}`)), timeoutMs);
  const stop = (): void => void socket.destroy(new AdminUnreachable(name, "stopped"));
  if (signal?.aborted === true) stop();
  signal?.addEventListener("abort", stop, { once: true });
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
  return promise.finally(() => {
    clearTimeout(timer);
    signal?.removeEventListener("abort", stop);
  });
}

function localHost(host: string | null): string {
  return host === null || host === "0.0.0.0" || host === "::" ? "127.0.0.1" : host;
}
