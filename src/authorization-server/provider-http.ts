// Requests to those who say who somebody is: where they may go, how long they and their answers may be, and what their failure means to a person.
import { HttpsClient, type HttpsAnswer, type HttpsRequest, NoAnswer } from "../lib/https-client.ts";
import { printable } from "../lib/printable.ts";
import { parseRetryAfter } from "../lib/retry-after.ts";
import { LoginError } from "./login-source.ts";

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

const TIMEOUT_MS = 10_000;
// The longest are sets of keys and lists of a hundred teams.
const MAX_ANSWER_BYTES = 1_048_576;
const DEFAULT_RETRY_S = 5;

/** The way to one provider. Redirects are not followed: what is sent is for that host alone. */
export class ProviderHttp {
  readonly label: string;
  readonly #client: HttpsClient;

  constructor({ label, baseUrl, ca, timeoutMs = TIMEOUT_MS }: ProviderHttpOptions) {
    this.label = label;
    this.#client = new HttpsClient({ baseUrl, ca, timeoutMs, maxAnswerBytes: MAX_ANSWER_BYTES });
  }

  /** @throws {LoginError} when no answer comes, or one that asks to come back later: 429 and 5xx */
  async send(url: string, request: HttpsRequest = {}): Promise<HttpsAnswer> {
    const target = this.#client.target(url);
    if (target === null) throw this.misconfigured(`The provider gave the address '${printable(url, 200)}', which is no https URL`);
    const asked = `${request.method ?? "GET"} ${target.origin}${target.pathname}`;
    try {
      const answer = await this.#client.send(target, request);
      const failure = `${asked} answered with status ${answer.status}`;
      if (answer.status >= 500) throw this.unavailable(failure, { answer });
      // It is well; one person who asks too much must not look like an outage.
      if (answer.status === 429) throw this.unavailable(failure, { answer, outage: null });
      return answer;
    } catch (error) {
      throw error instanceof NoAnswer ? this.unavailable(`${asked}: ${error.message}`) : error;
    }
  }

  /** It does not answer, or not now. @param options.outage default: `detail` */
  unavailable(detail: string, options: { readonly answer?: HttpsAnswer; readonly outage?: string | null } = {}): LoginError {
    const { answer = null, outage = detail } = options;
    const askedMs = answer === null ? null : parseRetryAfter(answer.headers["retry-after"], Date.now());
    const retryAfterS = askedMs === null ? DEFAULT_RETRY_S : Math.ceil(askedMs / 1_000);
    return new LoginError("unavailable", `${this.label} does not answer now; try again in a moment`, { detail, retryAfterS, outage });
  }

  /** What went wrong is for the operator to mend. @param outage default: `detail` */
  misconfigured(detail: string, outage: string | null = detail): LoginError {
    const message = `The login with ${this.label} is not set up correctly; tell whoever runs this service, whose log says more`;
    return new LoginError("misconfigured", message, { detail, outage });
  }

  close(): void {
    this.#client.close();
  }
}
