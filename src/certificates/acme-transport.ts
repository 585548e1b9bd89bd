// Requests to an ACME CA: where they may go, how long they and their answers may be, and what their failure means.
import { AsyncLocalStorage } from "node:async_hooks";
import type { Agent, Dispatcher } from "undici";
import { isLoopbackHost } from "../lib/address.ts";
import { createConnector } from "../lib/connector.ts";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";
import { parseRetryAfter } from "../lib/retry-after.ts";
import type { AcmeAccountPlan } from "../plan/model.ts";
import { AcmeError } from "./acme-issuer.ts";
import { describeProblem, parseProblem } from "./acme-problem.ts";

export type AcmeLibrary = typeof import("acme-client");
type Adapter = Extract<AcmeLibrary["axios"]["defaults"]["adapter"], (config: never) => unknown>;
type Answer = { readonly status: number; readonly headers: Readonly<Record<string, string>>; readonly text: string };

const CONNECT_TIMEOUT_MS = 10_000;
const REQUEST_TIMEOUT_MS = 30_000;
/** An order may have a hundred names, which are asked for side by side. */
const MAX_CONNECTIONS = 4;
/** A chain is a few kilobytes; the longest directory or order is less. */
const MAX_ANSWER_BYTES = 1_048_576;

/** The way to one CA for the time of one task. All errors are {AcmeError}. */
export class AcmeConnection {
  readonly directoryUrl: string;
  /** Host of the directory, which names the CA in texts. */
  readonly ca: string;
  readonly signal: AbortSignal;
  readonly #library: AcmeLibrary;
  readonly #request: typeof import("undici").request;
  readonly #agent: Agent;
  readonly #directory: URL;
  #retryAfterMs = 0;

  constructor(plan: AcmeAccountPlan, signal: AbortSignal, library: AcmeLibrary, undici: typeof import("undici")) {
    this.directoryUrl = plan.directoryUrl;
    this.signal = signal;
    this.#directory = new URL(plan.directoryUrl);
    this.ca = this.#directory.host;
    this.#library = library;
    this.#agent = new undici.Agent({
      allowH2: false,
      connections: MAX_CONNECTIONS,
      maxResponseSize: MAX_ANSWER_BYTES,
      connect: createConnector(undici, { allowH2: false, timeoutMs: CONNECT_TIMEOUT_MS, ...(plan.ca === null ? {} : { ca: plan.ca }) }, signal),
    });
    this.#request = undici.request;
  }

  /** Does something with the library, whose requests go this way. */
  async run<T>(work: (library: AcmeLibrary) => Promise<T>): Promise<T> {
    try {
      return await calls.run(this, () => work(this.#library));
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /** A GET without a signature. @returns the JSON of the answer, and its Retry-After. */
  async getJson(url: string): Promise<{ readonly value: unknown; readonly retryAfterMs: number | null }> {
    try {
      const { text, headers } = await this.send(url, "GET", {}, null);
      return { value: JSON.parse(text) as unknown, retryAfterMs: parseRetryAfter(headers["retry-after"], Date.now()) };
    } catch (error) {
      throw this.#explain(error);
    }
  }

  /** How long the CA asked to wait since this was last asked, 0 when it did not. */
  takeRetryAfterMs(): number {
    const ms = this.#retryAfterMs;
    this.#retryAfterMs = 0;
    return ms;
  }

  /** One request. @throws {AcmeError} unless the answer is good, or a nonce was refused, which the library tries again. */
  async send(url: string, method: Dispatcher.HttpMethod, headers: Record<string, string>, body: string | null): Promise<Answer> {
    const target = this.#checkUrl(url);
    const timeout = AbortSignal.timeout(REQUEST_TIMEOUT_MS);
    let answer: Answer;
    try {
      const response = await this.#request(target, {
        dispatcher: this.#agent,
        method,
        headers: { ...headers, "user-agent": "sidegate" }, // RFC 8555, 6.1
        body,
        signal: AbortSignal.any([this.signal, timeout]),
      });
      answer = { status: response.statusCode, headers: flatten(response.headers), text: await response.body.text() };
    } catch (error) {
      if (this.signal.aborted) throw error;
      throw new AcmeError(reasonOf(error, target.host, timeout.aborted), { cause: error });
    }
    const retryAfterMs = parseRetryAfter(answer.headers["retry-after"], Date.now());
    this.#retryAfterMs = Math.max(this.#retryAfterMs, retryAfterMs ?? 0);
    if (answer.status >= 200 && answer.status <= 299) return answer;
    const problem = parseProblem(parseJson(answer.text));
    if (answer.status === 400 && problem?.type === "badNonce") return answer;
    const said = problem === null ? `answered with status ${answer.status}` : `refused the request: ${describeProblem(problem)}`;
    const advice = problem === null && url === this.directoryUrl ? ` at '${url}'; check 'directory'` : "";
    throw new AcmeError(`CA '${this.ca}' ${said}${advice}`, { retryAfterMs, problem: problem?.type ?? null });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }

  /** A CA names the addresses of its orders. Without TLS they may only be on the machine that the directory is on, where it has none either. */
  #checkUrl(url: string): URL {
    const target = URL.parse(url);
    const local = this.#directory.protocol === "http:" && isLoopbackHost(this.#directory.hostname) && target?.host === this.#directory.host;
    const allowed = target?.protocol === "https:" || (local && target?.protocol === "http:");
    if (target === null || !allowed || target.username !== "" || target.password !== "")
      throw new AcmeError(`CA '${this.ca}' gave the address '${printable(url)}', which is no https URL`);
    return target;
  }

  #explain(error: unknown): AcmeError {
    if (this.signal.aborted) return new AcmeError(`What was asked of CA '${this.ca}' was stopped`, { cause: error });
    if (error instanceof AcmeError) return error;
    if (error instanceof GatewayError) return new AcmeError(error.message, { cause: error });
    if (error instanceof Error && error.message.includes("in ACME directory"))
      return new AcmeError(`'${this.directoryUrl}' is no ACME directory; check 'directory'`, { cause: error });
    return new AcmeError(`CA '${this.ca}' gave an answer that cannot be used: ${printable(error instanceof Error ? error.message : String(error))}`, {
      cause: error,
    });
  }
}

/** The library has one HTTP client for all, so the connection that a call belongs to goes along with it. */
const calls = new AsyncLocalStorage<AcmeConnection>();

// In place of axios' own, with its proxies from the environment, redirects and the library's retries that sleep as long as the CA likes.
const adapter: Adapter = async (config) => {
  const connection = calls.getStore();
  if (connection === undefined) throw new Error("The ACME library was called outside of a connection");
  const body = typeof config.data === "string" ? config.data : null;
  const method = (config.method ?? "get").toUpperCase();
  const headers = body === null ? {} : { "content-type": "application/jose+json" };
  const answer = await connection.send(config.url ?? "", method, headers, body);
  return { status: answer.status, statusText: "", headers: { ...answer.headers }, data: answer.text, config };
};

/** Loads what is needed to speak to a CA, which is much and takes a while. Dispose of it. */
export async function openAcmeConnection(plan: AcmeAccountPlan, signal: AbortSignal): Promise<AcmeConnection> {
  const [library, undici] = await Promise.all([import("acme-client"), import("undici")]);
  library.axios.defaults.adapter = adapter;
  return new AcmeConnection(plan, signal, library, undici);
}

function reasonOf(error: unknown, host: string, timedOut: boolean): string {
  if (timedOut) return `CA '${host}' did not answer within ${REQUEST_TIMEOUT_MS / 1000} s`;
  const code = systemErrorCode(error);
  if (code === "UND_ERR_RES_EXCEEDED_MAX_SIZE") return `CA '${host}' sent an answer of more than ${MAX_ANSWER_BYTES / 1024} KiB`;
  return `Cannot reach CA '${host}': ${printable(describeSystemError(error))}`;
}

function flatten(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : (value ?? "")]));
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
