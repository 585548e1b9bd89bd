// Calls of tailscaled's LocalAPI: HTTP on its unix socket, bounded in time and size, and what went wrong in words.
import type { Client, Dispatcher, Pool } from "undici";
import { createConnector } from "../lib/connector.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";
import { parseRetryAfter } from "../lib/retry-after.ts";
import { LocalApiError } from "./local-api-error.ts";

export type LocalApiCall = {
  readonly method: "GET" | "POST" | "PATCH";
  /** Below `/localapi/v0/`. */
  readonly path: string;
  readonly body?: object;
  readonly headers?: Readonly<Record<string, string>>;
  readonly timeoutMs: number;
  /** Default 1 MiB. */
  readonly maxBytes?: number;
  /** A text that must stand in no error. */
  readonly secret?: string;
};

export type LocalApiAnswer = { readonly etag: string; readonly text: string };

type Undici = typeof import("undici");

// The only Host that tailscaled takes besides none (ipn/localapi, validHost).
const ORIGIN = "http://local-tailscaled.sock";
const MAX_BYTES = 1024 * 1024;
const MAX_ERROR_BYTES = 16 * 1024;
const SAME_USER = "the gateway must run as the same user as tailscaled, as root or as its operator";

/** Connections of one kind of call, as many as are needed at once, kept for a few seconds. */
export class LocalApiLine {
  readonly #socket: string;
  readonly #maxConnections: number;
  readonly #closing = new AbortController();
  #pool: Promise<Pool> | null = null;

  constructor(socket: string, maxConnections: number) {
    this.#socket = socket;
    this.#maxConnections = maxConnections;
  }

  /** @throws {LocalApiError} unless the status is 2xx */
  async call(call: LocalApiCall): Promise<LocalApiAnswer> {
    const timeout = AbortSignal.timeout(timerMs(call.timeoutMs));
    try {
      const pool = await (this.#pool ??= this.#open());
      const response = await pool.request(requestOf(call, AbortSignal.any([timeout, this.#closing.signal])));
      if (response.statusCode < 200 || response.statusCode > 299) throw await refusal(call, response);
      const { text, isWhole } = await readText(response.body, call.maxBytes ?? MAX_BYTES);
      if (!isWhole) throw badAnswer(call, "it is too long");
      const { etag } = response.headers;
      return { etag: typeof etag === "string" ? etag : "", text };
    } catch (error) {
      throw this.#explain(call, error, timeout);
    }
  }

  /**
   * An answer without an end, on a connection of its own. `timeoutMs` is for its beginning.
   * @returns when it ended, or the signal aborted @throws {LocalApiError} when it cannot be had, or breaks off
   */
  async stream(call: LocalApiCall, onChunk: (chunk: Buffer) => void, signal: AbortSignal): Promise<void> {
    const begun = new AbortController();
    const timer = setTimeout(() => begun.abort(new Error("timeout")), timerMs(call.timeoutMs));
    const stop = AbortSignal.any([signal, begun.signal, this.#closing.signal]);
    let client: Client | null = null;
    try {
      stop.throwIfAborted();
      const undici = await import("undici");
      client = new undici.Client(ORIGIN, optionsOf(undici, this.#socket, stop));
      const response = await client.request(requestOf(call, stop));
      if (response.statusCode !== 200) throw await refusal(call, response);
      clearTimeout(timer);
      for await (const chunk of response.body as AsyncIterable<Buffer>) {
        if (stop.aborted) break;
        onChunk(chunk);
      }
      this.#closing.signal.throwIfAborted();
    } catch (error) {
      if (signal.aborted) return;
      throw this.#explain(call, error, begun.signal);
    } finally {
      clearTimeout(timer);
      void client?.destroy().catch(() => {});
    }
  }

  /** Calls under way reject. */
  async close(): Promise<void> {
    this.#closing.abort();
    const pool = await this.#pool?.catch(() => null);
    await pool?.destroy().catch(() => {});
  }

  async #open(): Promise<Pool> {
    const undici = await import("undici");
    return new undici.Pool(ORIGIN, { ...optionsOf(undici, this.#socket, this.#closing.signal), connections: this.#maxConnections });
  }

  #explain(call: LocalApiCall, error: unknown, timeout: AbortSignal): LocalApiError {
    if (error instanceof LocalApiError) return error;
    const what = nameOf(call);
    if (this.#closing.signal.aborted) return new LocalApiError("closed", `${what} was given up: the gateway is done with tailscaled`);
    if (timeout.aborted) return new LocalApiError("timeout", `tailscaled did not answer ${what} within ${formatDuration(call.timeoutMs)} on '${this.#socket}'`);
    const code = systemErrorCode(error) ?? "";
    if (error instanceof Error && error.name === "HTTPParserError")
      return new LocalApiError("bad_answer", `What answers on '${this.#socket}' does not speak HTTP: it is not tailscaled`);
    const advice = code === "EACCES" || code === "EPERM" ? `: ${SAME_USER}` : "";
    const reason = code === "UND_ERR_SOCKET" ? "it closed the connection" : describeSystemError(error);
    return new LocalApiError("unreachable", `tailscaled does not answer on '${this.#socket}': ${hide(call, reason)}${advice}`);
  }
}

export function badAnswer(call: Pick<LocalApiCall, "method" | "path">, reason: string): LocalApiError {
  return new LocalApiError("bad_answer", `tailscaled's answer to ${nameOf(call)} cannot be used: ${printable(reason)}`);
}

function requestOf({ method, path, body, headers }: LocalApiCall, signal: AbortSignal): Dispatcher.RequestOptions {
  return { method, path: `/localapi/v0/${path}`, body: body === undefined ? null : JSON.stringify(body), headers: headers ?? {}, signal };
}

/** The time limits are the calls' own. */
function optionsOf(undici: Undici, socketPath: string, stop: AbortSignal): Client.Options {
  return { allowH2: false, headersTimeout: 0, bodyTimeout: 0, connect: createConnector(undici, { allowH2: false, timeoutMs: 0, socketPath }, stop) };
}

/** Without the question's details: they may hold the address of a client, and say nothing here. */
function nameOf({ method, path }: Pick<LocalApiCall, "method" | "path">): string {
  return `${method} ${path.replace(/\?.*/s, "")}`;
}

async function refusal(call: LocalApiCall, { statusCode, headers, body }: Dispatcher.ResponseData): Promise<LocalApiError> {
  const said = printable(hide(call, errorText((await readText(body, MAX_ERROR_BYTES)).text)));
  const advice = statusCode === 401 || statusCode === 403 ? `; ${SAME_USER}` : "";
  const message = `tailscaled answered ${nameOf(call)} with status ${statusCode}${said === "" ? "" : `: ${said}`}${advice}`;
  return new LocalApiError("refused", message, { status: statusCode, retryAfterMs: parseRetryAfter(headers["retry-after"], Date.now()) });
}

/** Plain text, or JSON with an "error" or "Error" (ipn/localapi). */
function errorText(text: string): string {
  try {
    const { error, Error: other } = JSON.parse(text) as { error?: unknown; Error?: unknown };
    return typeof error === "string" ? error : typeof other === "string" ? other : text;
  } catch {
    return text;
  }
}

function hide({ secret = "" }: LocalApiCall, text: string): string {
  return secret === "" ? text : text.replaceAll(secret, "***");
}

/** At most so many bytes; what follows is not waited for. */
async function readText(body: AsyncIterable<Buffer>, maxBytes: number): Promise<{ readonly text: string; readonly isWhole: boolean }> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of body) {
    bytes += chunk.length;
    chunks.push(chunk);
    // Leaving the loop ends the connection.
    if (bytes > maxBytes) return { text: Buffer.concat(chunks).toString("utf8", 0, maxBytes), isWhole: false };
  }
  return { text: Buffer.concat(chunks).toString("utf8"), isWhole: true };
}
