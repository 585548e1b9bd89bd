// Requests to an issuer: where they may go, how long they and their answers may be, and what their failure means.
import { GatewayError } from "../lib/errors.ts";
import { HttpsClient, type HttpsAnswer, type HttpsRequest, NoAnswer } from "../lib/https-client.ts";
import { printable } from "../lib/printable.ts";
import type { IssuerPlan } from "../plan/auth-model.ts";

export type JsonObject = Readonly<Record<string, unknown>>;

const TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 262_144;
// Metadata in its last place, then keys.
const LINGER_MS = 30_000;
// What it says to whoever asks, whatever the token: it does not take the gateway, or there is nothing at the address.
const REFUSALS: ReadonlySet<number> = new Set([401, 403, 404, 405]);
// Some say it with another status (RFC 6749, 5.2).
const REFUSED_CLIENT = /"error"\s*:\s*"(?:invalid|unauthorized)_client"/;

/** Why an issuer did not give what was asked for, in words for the log. Never holds a token or a secret. */
export class IssuerError extends GatewayError {
  /** No answer came at all. */
  readonly isUnreachable: boolean;
  /** It is a matter of what was asked: whoever brings another token may have an answer. */
  readonly isOfToken: boolean;
  constructor(message: string, { isUnreachable = false, isOfToken = false } = {}) {
    super("ERR_ISSUER", message);
    this.isUnreachable = isUnreachable;
    this.isOfToken = isOfToken;
  }
}

/** The way to one issuer. Redirects are never followed. All errors are {IssuerError}. */
export class IssuerTransport {
  readonly #name: string;
  readonly #client: HttpsClient;

  constructor({ name, issuer, ca }: Pick<IssuerPlan, "name" | "issuer" | "ca">) {
    this.#name = name;
    this.#client = new HttpsClient({ baseUrl: issuer, ca, timeoutMs: TIMEOUT_MS, maxAnswerBytes: MAX_ANSWER_BYTES });
  }

  /** The JSON object at an address, and its text byte for byte; null when the status says that there is none. */
  async findJson(url: string): Promise<{ readonly text: string; readonly value: JsonObject } | null> {
    const { status, text } = await this.#send(url, { headers: { accept: "application/json" } });
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
    const { status, text } = await this.#send(url, { method: "POST", headers: { ...headers, ...type }, body: form.toString() });
    if (status === 200) return this.#parse(url, text);
    const advice = status === 401 || status === 400 || status === 403 ? "; check 'client_id' and 'client_secret' of its 'introspection'" : "";
    // Anybody may make up a token that it finds too long or too odd, or too many.
    const isOfToken = status >= 400 && status <= 499 && !REFUSALS.has(status) && !REFUSED_CLIENT.test(text);
    throw new IssuerError(`Issuer '${this.#name}' answered with status ${status} at '${printable(url)}'${advice}`, { isOfToken });
  }

  /** What is under way may still end well: a request keeps the plan that it started with. */
  close(): void {
    this.#client.close(LINGER_MS);
  }

  async #send(url: string, request: HttpsRequest): Promise<HttpsAnswer> {
    const target = this.#client.target(url);
    if (target === null) throw new IssuerError(`Issuer '${this.#name}' gives the address '${printable(url)}', which is no https URL`);
    try {
      return await this.#client.send(target, request);
    } catch (error) {
      if (error instanceof NoAnswer)
        throw new IssuerError(`Issuer '${this.#name}' cannot be asked at '${target.origin}': ${error.message}`, { isUnreachable: true });
      throw error;
    }
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
