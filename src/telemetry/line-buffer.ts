// A bounded buffer of log lines in front of something slow: many lines become one write, and writing never holds up a request.
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import type { LineSink } from "./line-sink.ts";
import type { Log } from "./log.ts";

// Lines of a few event-loop turns make one write: at full load that saves most of its cost, and nobody sees the delay.
const FLUSH_AFTER_MS = 10;
const FLUSH_AT_LENGTH = 64 * 1024;
const RETRY_AFTER_MS = 1_000;
const MAX_QUEUED_LENGTH = 8 * 1024 * 1024;

/** Lines that were lost, counted over all buffers that share it. */
export type LineLoss = { dropped: number };

/** @see AccessLogs */
export class LineBuffer {
  readonly #sink: LineSink;
  readonly #complaint: string;
  readonly #loss: LineLoss;
  readonly #log: Log;
  #queued = "";
  /** What a write left over. */
  #rest: Buffer | null = null;
  #flushing: Promise<void> | null = null;
  #timer: NodeJS.Timeout | null = null;
  #failing = false;
  #lostWhileFailing = 0;
  #retired = false;

  /** @param complaint what is logged, once, when writing fails: "Cannot write the access log 'x'" */
  constructor(sink: LineSink, complaint: string, loss: LineLoss, log: Log) {
    this.#sink = sink;
    this.#complaint = complaint;
    this.#loss = loss;
    this.#log = log;
  }

  write(line: string): void {
    if (this.#queued.length + line.length >= MAX_QUEUED_LENGTH) {
      this.#lose(1);
      return;
    }
    this.#queued += line;
    this.#queued += "\n";
    if (this.#flushing !== null || this.#failing) return;
    if (this.#queued.length >= FLUSH_AT_LENGTH) void this.#flush();
    else this.#timer ??= setTimeout(() => void this.#flush(), FLUSH_AFTER_MS);
  }

  /** Writes what is left and closes the sink. Lines that come later are still written, with the sink open only for each batch. */
  async retire(): Promise<void> {
    this.#retired = true;
    await this.#flushing;
    await this.#flush();
  }

  #flush(): Promise<void> {
    this.#flushing ??= this.#writeAll().finally(() => {
      this.#flushing = null;
      if (this.#queued !== "") this.#timer ??= setTimeout(() => void this.#flush(), FLUSH_AFTER_MS);
    });
    return this.#flushing;
  }

  async #writeAll(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    try {
      for (;;) {
        if (this.#rest === null) {
          if (this.#queued === "") break;
          this.#rest = Buffer.from(this.#queued);
          this.#queued = "";
        }
        const written = await this.#sink.write(this.#rest);
        this.#rest = written < this.#rest.length ? this.#rest.subarray(written) : null;
        if (this.#failing && this.#rest === null) this.#recovered();
      }
    } catch (error) {
      this.#failed(error);
    }
    // What closing could still report, writing has reported before.
    if (this.#retired) await this.#sink.close().catch(() => {});
  }

  #failed(error: unknown): void {
    // EAGAIN: a pipe is full whose reader is slow. That is no failure; the queue's bound deals with a reader that stands still.
    const isFull = systemErrorCode(error) === "EAGAIN";
    if (!isFull && !this.#failing) {
      this.#failing = true;
      this.#log.error(`${this.#complaint}: ${describeSystemError(error)}`);
    }
    if (this.#retired) this.#giveUp();
    else this.#timer = setTimeout(() => void this.#flush(), isFull ? FLUSH_AFTER_MS : RETRY_AFTER_MS).unref();
  }

  #giveUp(): void {
    let lines = this.#queued.split("\n").length - 1;
    for (const byte of this.#rest ?? []) if (byte === 0x0a) lines += 1;
    this.#lose(lines);
    this.#queued = "";
    this.#rest = null;
  }

  #recovered(): void {
    this.#failing = false;
    this.#log.info({ lines_lost: this.#lostWhileFailing }, "The access log is written again");
    this.#lostWhileFailing = 0;
  }

  #lose(lines: number): void {
    this.#loss.dropped += lines;
    if (this.#failing) this.#lostWhileFailing += lines;
  }
}
