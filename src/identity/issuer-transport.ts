// Requests to an issuer: where they may go, how long they and their answers may be, and what their failure means.
import * as undici from "undici";
import { createConnector } from "../lib/connector.ts";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";
import { isLoopbackHost } from "../lib/public-url.ts";
import type { IssuerPlan } from "../plan/auth-model.ts";

type Answer = { readonly status: number; readonly text: string };
export type JsonObject = Readonly<Record<string, unknown>>;

const TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 262_144;
const MAX_CONNECTIONS = 16;
// Metadata in its last place, then keys.
const LINGER_MS = 30_000;

/** Why an issuer did not give what was asked for, in words for the log. Never holds a token or a secret. */
export class IssuerError extends GatewayError {
  /** No answer came at all. */
  readonly isUnreachable: boolean;
  constructor(message: string, isUnreachable = false) {
    super("ERR_ISSUER", message);
    this.isUnreachable = isUnreachable;
  }
}

/** The way to one issuer. Redirects are never followed. All errors are {IssuerError}. */
export class IssuerTransport {
  readonly #name: string;
  readonly #isLocal: boolean;
  readonly #agent: undici.Agent;
  readonly #stop = new AbortController();

  constructor({ name, issuer, ca }: Pick<IssuerPlan, "name" | "issuer" | "ca">) {
    this.#name = name;
    this.#isLocal = new URL(issuer).protocol === "http:";
    this.#agent = new undici.Agent({
      allowH2: false,
      connections: MAX_CONNECTIONS,
      maxResponseSize: MAX_ANSWER_BYTES,
      connect: createConnector(undici, { allowH2: false, timeoutMs: TIMEOUT_MS, ...(ca === null ? {} : { ca }) }, this.#stop.signal),
    });
  }

  /** The JSON object at an address, and its text byte for byte; null when the status says that there is none. */
  async findJson(url: string): Promise<{ readonly text: string; readonly value: JsonObject } | null> {
    const { status, text } = await this.#send(url, "GET", { accept: "application/json" }, null);
    if (status >= 400 && status <= 499 && status !== 429) return null;
    if (status !== 200) throw new IssuerError(`Issuer '${this.#name}' answered with status ${status} at '${printable(url)}'`);
    return { text, value: this.#parse(url, text) };
  }

  /** As `findJson`. @throws when there is none */
  async getJson(url: string): Promise<{ readonly text: string; readonly value: JsonObject }> {
    const found = await this.findJson(url);
    if (found === null) throw new IssuerError(`Issuer '${this.#name}' has nothing at '${printable(url)}'`);
    return found;
  }

  /** @throws unless the answer is a JSON object */
  async postForm(url: string, form: URLSearchParams, headers: Readonly<Record<string, string>>): Promise<JsonObject> {
    const type = { "content-type": "application/x-www-form-urlencoded", accept: "application/json" };
    const { status, text } = await this.#send(url, "POST", { ...headers, ...type }, form.toString());
    if (status === 200) return this.#parse(url, text);
    const advice = status === 401 || status === 400 || status === 403 ? "; check 'client_id' and 'client_secret' of its 'introspection'" : "";
    throw new IssuerError(`Issuer '${this.#name}' answered with status ${status} at '${printable(url)}'${advice}`);
  }

  /** What is under way may still end well: a request keeps the plan that it started with. */
  close(): void {
    const end = (): void => {
      this.#stop.abort(new Error("stopped"));
      void this.#agent.destroy().catch(() => {});
    };
    setTimeout(end, LINGER_MS).unref();
  }

  async #send(url: string, method: "GET" | "POST", headers: Readonly<Record<string, string>>, body: string | null): Promise<Answer> {
    const target = this.#check(url);
    const signal = AbortSignal.timeout(TIMEOUT_MS);
    try {
      const response = await undici.request(target, { dispatcher: this.#agent, method, headers: { ...headers, "user-agent": "sidegate" }, body, signal });
      const bytes = await response.body.arrayBuffer();
      return { status: response.statusCode, text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes) };
    } catch (error) {
      throw new IssuerError(`Issuer '${this.#name}' cannot be asked at '${target.origin}': ${reasonOf(error, signal)}`, true);
    }
  }

  /** What its metadata names must be as safe as the issuer itself: without TLS only on this machine, where it has none either. */
  #check(url: string): URL {
    const target = URL.parse(url);
    const isSafe = target?.protocol === "https:" || (this.#isLocal && target?.protocol === "http:" && isLoopbackHost(target.hostname));
    if (target === null || !isSafe || target.username !== "" || target.password !== "")
      throw new IssuerError(`Issuer '${this.#name}' gives the address '${printable(url)}', which is no https URL`);
    return target;
  }

  #parse(url: string, text: string): JsonObject {
    try {
      const value: unknown = JSON.parse(text);
      if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
    } catch {
      // Said below: its text may be anything.
    }
    throw new IssuerError(`Issuer '${this.#name}' gives no JSON object at '${printable(url)}'`);
  }
}

function reasonOf(error: unknown, timeout: AbortSignal): string {
  if (timeout.aborted) return `no answer within ${TIMEOUT_MS / 1_000} s`;
  if (systemErrorCode(error) === "UND_ERR_RES_EXCEEDED_MAX_SIZE") return `its answer has more than ${MAX_ANSWER_BYTES / 1_024} KiB`;
  if (systemErrorCode(error) === "ERR_ENCODING_INVALID_ENCODED_DATA") return "its answer is not UTF-8";
  return printable(describeSystemError(error));
}
