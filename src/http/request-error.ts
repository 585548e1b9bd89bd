// What a step throws when the request gets no further: the status and the words for its client.
import { GatewayError } from "../lib/errors.ts";

/** `message` reaches the client; `detail` the log alone. `headers` are flat and go with the answer. */
export class RequestError extends GatewayError {
  readonly status: number;
  readonly headers: readonly string[];

  constructor(status: number, code: string, message: string, options: { headers?: readonly string[]; detail?: string; cause?: unknown } = {}) {
    super(code, message, options);
    this.status = status;
    this.headers = options.headers ?? [];
  }
}
