// Alerts to a webhook: signed as in Standard Webhooks, tried again for a day, and never in the way of anything else.
import { createHmac, randomUUID } from "node:crypto";
import { setTimeout as realDelay } from "node:timers/promises";
import { createConnector } from "../lib/connector.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { describeSystemError } from "../lib/errors.ts";
import { parseRetryAfter } from "../lib/retry-after.ts";
import type { Log } from "./log.ts";

/** `secret` null: not signed; `whsec_` and base64, or any other text as its bytes. Both are secrets. */
export type WebhookTarget = { readonly url: string; readonly secret: string | null };

export type WebhookOptions = {
  /** Asked for at each attempt, so that a reload counts for what waits, too; null: nobody is to be told. */
  readonly target: () => WebhookTarget | null;
  readonly log: Log;
  /** Told once for each message that came to its end. */
  readonly onResult: (result: "delivered" | "failed" | "dropped") => void;
  /** Default 10 s, for the whole attempt. */
  readonly timeoutMs?: number;
  /** A clock that never jumps. */
  readonly now?: () => number;
  /** Rejects when the signal is aborted. */
  readonly delay?: (ms: number, signal: AbortSignal) => Promise<void>;
};

export type Webhook = {
  /** Queues a message and returns at once. `text` is for people; `data` becomes JSON and holds no secret. */
  send(type: string, text: string, data: Readonly<Record<string, unknown>>): void;
  /** Waits for the attempt under way, a second at most; what else waits is given up. */
  close(): Promise<void>;
};

type Message = { readonly id: string; readonly type: string; readonly body: string; readonly queuedAt: number; attempts: number; dueAt: number };
/** How an attempt went. `reason` never holds more of the address than scheme and host. */
type Outcome = { readonly kind: "delivered" } | { readonly kind: "retry" | "refused"; readonly reason: string; readonly retryAfterMs: number };

const MAX_QUEUED = 100;
const DEFAULT_TIMEOUT_MS = 10_000;
const GIVE_UP_AFTER_MS = 86_400_000;
const FIRST_RETRY_MS = 5_000;
const MAX_RETRY_MS = 3_600_000;
const CLOSE_TIMEOUT_MS = 1_000;

export function openWebhook(options: WebhookOptions): Webhook {
  return new OpenWebhook(options);
}

class OpenWebhook implements Webhook {
  readonly #options: WebhookOptions;
  readonly #now: () => number;
  readonly #delay: (ms: number, signal: AbortSignal) => Promise<void>;
  readonly #closing = new AbortController();
  readonly #queue: Message[] = [];
  #running: Promise<void> | null = null;
  #wake = new AbortController();
  #closed = false;

  constructor(options: WebhookOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#delay = options.delay ?? ((ms, signal) => realDelay(timerMs(ms), undefined, { signal, ref: false }));
  }

  send(type: string, text: string, data: Readonly<Record<string, unknown>>): void {
    if (this.#closed || this.#options.target() === null) return;
    const body = JSON.stringify({ type, timestamp: new Date().toISOString(), text, data });
    const now = this.#now();
    this.#queue.push({ id: `msg_${randomUUID()}`, type, body, queuedAt: now, attempts: 0, dueAt: now });
    if (this.#queue.length > MAX_QUEUED) {
      const dropped = this.#queue.shift();
      this.#options.log.warn({ event: "alert_dropped", type: dropped?.type }, "An alert was dropped because too many wait for the webhook");
      this.#options.onResult("dropped");
    }
    this.#wake.abort();
    this.#running ??= this.#run();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.#wake.abort();
    const timer = setTimeout(() => this.#closing.abort(), CLOSE_TIMEOUT_MS);
    await this.#running;
    clearTimeout(timer);
    if (this.#queue.length > 0) this.#options.log.warn({ event: "alerts_lost", count: this.#queue.length }, "Alerts that waited for the webhook are given up");
  }

  // One attempt at a time: who is slow or refuses is not asked a hundred times at once.
  async #run(): Promise<void> {
    while (!this.#closed) {
      const next = this.#queue.reduce<Message | null>((first, each) => (first === null || each.dueAt < first.dueAt ? each : first), null);
      if (next === null) {
        this.#running = null;
        return;
      }
      this.#wake = new AbortController();
      const waitMs = next.dueAt - this.#now();
      const woken =
        waitMs > 0 &&
        (await this.#delay(waitMs, this.#wake.signal).then(
          () => false,
          () => true,
        ));
      if (!woken) await this.#try(next);
    }
  }

  async #try(message: Message): Promise<void> {
    const target = this.#options.target();
    if (target === null) {
      for (const _ of this.#queue.splice(0)) this.#options.onResult("dropped");
      return;
    }
    message.attempts += 1;
    const outcome = await attempt(target, message, this.#options.timeoutMs ?? DEFAULT_TIMEOUT_MS, this.#closing.signal);
    if (this.#closing.signal.aborted) return;
    const { log } = this.#options;
    const fields = { type: message.type, id: message.id, to: shownAddress(target.url), attempts: message.attempts };
    if (outcome.kind === "delivered") {
      log.debug({ event: "alert_delivered", ...fields }, "Alert delivered");
      return this.#end(message, "delivered");
    }
    const waitMs = Math.max(backoffMs(message.attempts), outcome.retryAfterMs);
    message.dueAt = this.#now() + waitMs;
    if (outcome.kind === "refused" || message.dueAt - message.queuedAt > GIVE_UP_AFTER_MS) {
      log.error({ event: "alert_failed", ...fields, reason: outcome.reason }, `Cannot deliver an alert to ${fields.to}, given up: ${outcome.reason}`);
      return this.#end(message, "failed");
    }
    const level = message.attempts === 1 ? "warn" : "debug";
    log[level](
      { event: "alert_delayed", ...fields, reason: outcome.reason },
      `Cannot deliver an alert to ${fields.to}, tried again in ${formatDuration(waitMs)}: ${outcome.reason}`,
    );
  }

  #end(message: Message, result: "delivered" | "failed"): void {
    const place = this.#queue.indexOf(message);
    // Dropped while it was under way, and counted as that.
    if (place === -1) return;
    this.#queue.splice(place, 1);
    this.#options.onResult(result);
  }
}

/** 5 s, 10 s, 20 s and so on up to an hour, a fifth more or less, so that several gateways do not come back at once. */
function backoffMs(attempts: number): number {
  return Math.min(FIRST_RETRY_MS * 2 ** (attempts - 1), MAX_RETRY_MS) * (0.8 + 0.4 * Math.random());
}

/** Never throws. */
async function attempt({ url, secret }: WebhookTarget, { id, body }: Message, timeoutMs: number, closing: AbortSignal): Promise<Outcome> {
  const timestamp = String(Math.floor(Date.now() / 1_000));
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    const { origin, pathname, search } = new URL(url);
    const headers = {
      "content-type": "application/json",
      "user-agent": "sidegate",
      "webhook-id": id,
      "webhook-timestamp": timestamp,
      ...(secret === null ? {} : { "webhook-signature": signature(secret, `${id}.${timestamp}.${body}`) }),
    };
    const undici = await import("undici");
    // Not the library's own signal, which counts only from the end of the handshake on.
    const stop = AbortSignal.any([timeout, closing]);
    const client = new undici.Client(origin, { allowH2: false, connect: createConnector(undici, { allowH2: false, timeoutMs: 0 }, stop) });
    const end = (): void => void client.destroy();
    stop.addEventListener("abort", end);
    if (stop.aborted) end();
    try {
      const response = await client.request({ method: "POST", path: pathname + search, headers, body });
      // The status says it all: the body is not read, and ends with its connection.
      response.body.on("error", () => {});
      return judge(response.statusCode, response.headers["retry-after"]);
    } finally {
      stop.removeEventListener("abort", end);
      end();
    }
  } catch (error) {
    const reason = timeout.aborted ? `no answer within ${formatDuration(timeoutMs)}` : describeSystemError(error);
    return { kind: "retry", reason, retryAfterMs: 0 };
  }
}

function judge(status: number, retryAfter: string | string[] | undefined): Outcome {
  if (status >= 200 && status <= 299) return { kind: "delivered" };
  const retry = { kind: "retry", reason: `it answers with status ${status}`, retryAfterMs: parseRetryAfter(retryAfter, Date.now()) ?? 0 } as const;
  if (status >= 500 || status === 408 || status === 429) return retry;
  const redirect = status >= 300 && status <= 399;
  return { ...retry, kind: "refused", reason: redirect ? `it answers with status ${status}, and redirects are not followed` : retry.reason };
}

function signature(secret: string, content: string): string {
  const key = secret.startsWith("whsec_") ? Buffer.from(secret.slice("whsec_".length), "base64") : Buffer.from(secret);
  return `v1,${createHmac("sha256", key).update(content).digest("base64")}`;
}

/** Scheme and host: whoever has the whole address may post to it. */
function shownAddress(url: string): string {
  return URL.canParse(url) ? new URL(url).origin : "the webhook";
}
