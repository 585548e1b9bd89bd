// Requests to those who say who somebody is: where they may go, how long they and their answers may be, and what their failure means to a person.
import { Agent, buildConnector, request, type Dispatcher } from "undici";
import { isLoopbackHost } from "../lib/address.ts";
import { createConnector } from "../lib/connector.ts";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";
import { parseRetryAfter } from "../lib/retry-after.ts";
import { LoginError } from "./login-source.ts";

export type ProviderAnswer = {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
};

export type ProviderHttpOptions = {
  /** What people are told: "GitHub", or the name on the button. */
  readonly label: string;
  /** As in the configuration. Plain http is only for the machine that it names, and only when it is http itself. */
  readonly baseUrl: string;
  /** PEM; null = the system's CAs. */
  readonly ca: string | null;
  /** For each request. Default 10 s: a person waits. */
  readonly timeoutMs?: number;
};

export type ProviderRequest = {
  readonly method?: Dispatcher.HttpMethod;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | null;
};

const TIMEOUT_MS = 10_000;
const MAX_CONNECTIONS = 16;
// The longest are sets of keys and lists of a hundred teams.
const MAX_ANSWER_BYTES = 1_048_576;
const DEFAULT_RETRY_S = 5;

/** The way to one provider. Redirects are not followed: what is sent is for that host alone. */
export class ProviderHttp {
  readonly label: string;
  readonly #base: URL;
  readonly #timeoutMs: number;
  readonly #stop = new AbortController();
  readonly #agent: Agent;

  constructor({ label, baseUrl, ca, timeoutMs = TIMEOUT_MS }: ProviderHttpOptions) {
    this.label = label;
    this.#base = new URL(baseUrl);
    this.#timeoutMs = timeoutMs;
    this.#agent = new Agent({
      allowH2: false,
      connections: MAX_CONNECTIONS,
      maxResponseSize: MAX_ANSWER_BYTES,
      connect: createConnector({ buildConnector }, { allowH2: false, timeoutMs, ...(ca === null ? {} : { ca }) }, this.#stop.signal),
    });
  }

  /** @throws {LoginError} when no answer comes, or one that asks to come back later: 429 and 5xx */
  async send(url: string, { method = "GET", headers = {}, body = null }: ProviderRequest = {}): Promise<ProviderAnswer> {
    const target = this.#checkUrl(url);
    const timeout = AbortSignal.timeout(this.#timeoutMs);
    let answer: ProviderAnswer;
    try {
      const response = await request(target, {
        dispatcher: this.#agent,
        method,
        headers: { ...headers, "user-agent": "sidegate" },
        body,
        signal: AbortSignal.any([this.#stop.signal, timeout]),
      });
      answer = { status: response.statusCode, headers: flatten(response.headers), text: await response.body.text() };
    } catch (error) {
      // The library's error is not handed on as the cause: it may hold the request with its secrets.
      throw this.unavailable(`${method} ${target.origin}${target.pathname}: ${reasonOf(error, timeout.aborted, this.#timeoutMs)}`);
    }
    if (answer.status === 429 || answer.status >= 500)
      throw this.unavailable(`${method} ${target.origin}${target.pathname} answered with status ${answer.status}`, answer);
    return answer;
  }

  /** It does not answer, or not now. */
  unavailable(detail: string, answer: ProviderAnswer | null = null): LoginError {
    const askedMs = answer === null ? null : parseRetryAfter(answer.headers["retry-after"], Date.now());
    const retryAfterS = askedMs === null ? DEFAULT_RETRY_S : Math.ceil(askedMs / 1_000);
    return new LoginError("unavailable", `${this.label} does not answer now; try again in a moment`, { detail, retryAfterS });
  }

  /** What went wrong is for the operator to mend. */
  misconfigured(detail: string): LoginError {
    return new LoginError("refused", `The login with ${this.label} is not set up correctly; tell whoever runs this service, whose log says more`, { detail });
  }

  close(): void {
    this.#stop.abort(new Error("stopped"));
    void this.#agent.destroy().catch(() => {});
  }

  #checkUrl(url: string): URL {
    const target = URL.parse(url);
    const isLocal = this.#base.protocol === "http:" && isLoopbackHost(this.#base.hostname) && target?.hostname === this.#base.hostname;
    if (target === null || !(target.protocol === "https:" || (isLocal && target.protocol === "http:")) || target.username !== "" || target.password !== "")
      throw this.misconfigured(`The provider gave the address '${printable(url, 200)}', which is no https URL`);
    return target;
  }
}

function reasonOf(error: unknown, isLate: boolean, timeoutMs: number): string {
  if (isLate) return `no answer within ${timeoutMs / 1_000} s`;
  if (systemErrorCode(error) === "UND_ERR_RES_EXCEEDED_MAX_SIZE") return `the answer is longer than ${MAX_ANSWER_BYTES / 1_024} KiB`;
  return printable(describeSystemError(error));
}

function flatten(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : (value ?? "")]));
}
