// The access logs: which listener writes where, through all reloads.
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { within } from "../lib/within.ts";
import type { Log } from "./log.ts";
import { LineBuffer } from "./line-buffer.ts";
import { openLogFile } from "./log-file.ts";
import type { LogFile } from "./log-file.ts";
import { STDOUT_SINK } from "./line-sink.ts";

/** `line` comes without its newline. Never throws, never waits. */
export type AccessLogWriter = { write(line: string): void };

export type AccessLogSettings =
  | { readonly kind: "stdout" }
  | { readonly kind: "off" }
  | { readonly kind: "files"; readonly dir: string; readonly retentionMs: number; readonly maxBytes: number };

type FileSettings = Extract<AccessLogSettings, { kind: "files" }>;
type FileWriter = AccessLogWriter & { readonly settings: FileSettings; readonly entry: FileEntry };
type FileEntry = { readonly file: LogFile; readonly lines: LineBuffer; readonly writers: FileWriter[] };

const MAINTAIN_EVERY_MS = 3_600_000;
// A reader of standard output that stands still must not keep the gateway from stopping.
const CLOSE_TIMEOUT_MS = 2_000;

/** All access logs of the process. One file is written by one `LogFile`, whatever reloads do. */
export class AccessLogs {
  readonly #log: Log;
  readonly #now: () => number;
  readonly #loss = { dropped: 0 };
  readonly #files = new Map<string, FileEntry>();
  #stdout: LineBuffer | null = null;
  readonly #timer: NodeJS.Timeout;

  constructor(log: Log, now: () => number = Date.now) {
    this.#log = log;
    this.#now = now;
    this.#timer = setInterval(() => this.maintain(), MAINTAIN_EVERY_MS).unref();
  }

  /** Lines lost because they could not be written. */
  get dropped(): number {
    return this.#loss.dropped;
  }

  /**
   * The writer for a listener, null when the log is off. Equal settings give the same writer. New settings of a file that is
   * already written count from the next `retain`, so that a reload that fails after this call has changed nothing.
   * @throws {AccessLogError} when the directory or the file cannot be had.
   */
  open(settings: AccessLogSettings, listener: string): AccessLogWriter | null {
    if (settings.kind === "off") return null;
    if (settings.kind === "stdout")
      return (this.#stdout ??= new LineBuffer(STDOUT_SINK, "Cannot write the access log to standard output", this.#loss, this.#log));
    const path = join(settings.dir, `${listener}.log`);
    let entry = this.#files.get(path);
    if (entry === undefined) {
      const file = openLogFile(settings, listener, this.#now, this.#log);
      entry = { file, lines: new LineBuffer(file, `Cannot write the access log '${path}'`, this.#loss, this.#log), writers: [] };
      this.#files.set(path, entry);
    }
    let writer = entry.writers.find((each) => isDeepStrictEqual(each.settings, settings));
    if (writer === undefined) {
      const { lines } = entry;
      writer = { settings, entry, write: (line) => lines.write(line) };
      entry.writers.push(writer);
    }
    return writer;
  }

  /**
   * The reload took effect: only these writers are in use from now on. Files that nobody uses are closed; a request that began before
   * the reload and writes its line later still finds its file.
   */
  retain(inUse: ReadonlySet<AccessLogWriter | null>): void {
    for (const [path, entry] of this.#files) {
      const kept = entry.writers.find((writer) => inUse.has(writer));
      entry.writers.splice(0, entry.writers.length, ...(kept === undefined ? [] : [kept]));
      if (kept !== undefined) entry.file.configure(kept.settings);
      else {
        this.#files.delete(path);
        void entry.lines.retire();
      }
    }
  }

  /** Rotates files that are old enough and deletes rotated ones beyond their retention. Runs every hour by itself. */
  maintain(): void {
    for (const { file } of this.#files.values()) void file.maintain();
  }

  /** Writes what is left, for two seconds at most, and closes the files. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    const all = [...this.#files.values()].map(({ lines }) => lines.retire());
    if (this.#stdout !== null) all.push(this.#stdout.retire());
    await within(Promise.all(all), CLOSE_TIMEOUT_MS);
  }
}
