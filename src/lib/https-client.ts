// Requests to those who know people and tokens: where they may go, and how long they and their answers may be.
import { Agent, buildConnector, request, type Dispatcher } from "undici";
import { isLoopbackHost } from "./address.ts";
import { createConnector } from "./connector.ts";
import { describeSystemError, systemErrorCode } from "./errors.ts";
import { printable } from "./printable.ts";

const MAX_CONNECTIONS = 16;

export type HttpsClientOptions = {
  /** As in the configuration. Plain http is only for the machine that it names, and only when it is http itself. */
  readonly baseUrl: string;
  /** PEM; null = the system's CAs. */
  readonly ca: string | null;
  /** For each request. */
  readonly timeoutMs: number;
  readonly maxAnswerBytes: number;
};

export type HttpsRequest = {
  /** Default: GET. */
  readonly method?: Dispatcher.HttpMethod;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string | Uint8Array | null;
};

export type HttpsAnswer = {
  readonly status: number;
  /** Lower-case names. */
  readonly headers: Readonly<Record<string, string>>;
  readonly text: string;
};

/** No answer came that can be used; `message` says why, as the end of a sentence, and holds nothing of the request. */
export class NoAnswer extends Error {}

/** The way to one program elsewhere. Redirects are not followed: what is sent is for that host alone. */
export class HttpsClient {
  readonly #options: HttpsClientOptions;
  readonly #base: URL;
  readonly #stop = new AbortController();
  readonly #agent: Agent;

  constructor(options: HttpsClientOptions) {
    const { baseUrl, ca, timeoutMs, maxAnswerBytes } = options;
    this.#options = options;
    this.#base = new URL(baseUrl);
    this.#agent = new Agent({
      allowH2: false,
      connections: MAX_CONNECTIONS,
      maxResponseSize: maxAnswerBytes,
      connect: createConnector({ buildConnector }, { allowH2: false, timeoutMs, ...(ca === null ? {} : { ca }) }, this.#stop.signal),
    });
  }

  /** The address as a URL; null when it may not be asked: what others name must be as safe as the base itself. */
  target(url: string): URL | null {
    const target = URL.parse(url);
    const isLocal = this.#base.protocol === "http:" && isLoopbackHost(this.#base.hostname) && target?.hostname === this.#base.hostname;
    const isSafe = target?.protocol === "https:" || (isLocal && target?.protocol === "http:");
    return target === null || !isSafe || target.username !== "" || target.password !== "" ? null : target;
  }

  /** @param target of `target`. @throws {NoAnswer} */
  async send(target: URL, { method = "GET", headers = {}, body = null }: HttpsRequest = {}): Promise<HttpsAnswer> {
    const timeout = AbortSignal.timeout(this.#options.timeoutMs);
    try {
      const response = await request(target, {
        dispatcher: this.#agent,
        method,
        headers: { ...headers, "user-agent": "sidegate" },
        body,
        signal: AbortSignal.any([this.#stop.signal, timeout]),
      });
      const bytes = await response.body.arrayBuffer();
      return {
        status: response.statusCode,
        headers: flatten(response.headers),
        text: new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes),
      };
    } catch (error) {
      // The library's error is not handed on as the cause: it may hold the request with its secrets.
      throw new NoAnswer(this.#reason(error, timeout.aborted));
    }
  }

  /** @param lingerMs what is under way may still end well for so long */
  close(lingerMs = 0): void {
    const end = (): void => {
      this.#stop.abort(new Error("stopped"));
      void this.#agent.destroy().catch(() => {});
    };
    if (lingerMs === 0) end();
    else setTimeout(end, lingerMs).unref();
  }

  #reason(error: unknown, isLate: boolean): string {
    const { timeoutMs, maxAnswerBytes } = this.#options;
    if (isLate) return `no answer within ${timeoutMs / 1_000} s`;
    if (systemErrorCode(error) === "UND_ERR_RES_EXCEEDED_MAX_SIZE") return `its answer has more than ${maxAnswerBytes / 1_024} KiB`;
    if (systemErrorCode(error) === "ERR_ENCODING_INVALID_ENCODED_DATA") return "its answer is not UTF-8";
    return printable(describeSystemError(error));
  }
}

function flatten(headers: Readonly<Record<string, string | string[] | undefined>>): Record<string, string> {
  return Object.fromEntries(Object.entries(headers).map(([name, value]) => [name, Array.isArray(value) ? value.join(", ") : (value ?? "")]));
}
