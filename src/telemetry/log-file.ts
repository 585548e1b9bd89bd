// One log file: rotated by size and age, found again when somebody else moves it.
import { closeSync, mkdirSync, openSync } from "node:fs";
import { mkdir, open, readdir, rename, stat, unlink } from "node:fs/promises";
import type { FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { describeSystemError, GatewayError } from "../lib/errors.ts";
import type { LineSink } from "./line-sink.ts";
import type { Log } from "./log.ts";

export class AccessLogError extends GatewayError {
  constructor(path: string, cause: unknown) {
    super("ERR_ACCESS_LOG_OPEN", `Cannot write the access log '${path}': ${describeSystemError(cause)}`, { cause });
  }
}

export type LogFileSettings = { readonly dir: string; readonly retentionMs: number; readonly maxBytes: number };

const FILE_MODE = 0o640;
const DIR_MODE = 0o750;
const DAY_MS = 86_400_000;
const CHECK_PLACE_EVERY_MS = 1_000;
const ROTATED = /^-(\d{4}-\d\d-\d\dT\d\d)-(\d\d)-(\d\d\.\d{3}Z)\.log$/;

/**
 * `<dir>/<name>.log`, made when it is missing.
 * @throws {AccessLogError} when the directory or the file cannot be had.
 */
export function openLogFile(settings: LogFileSettings, name: string, now: () => number, log: Log): LogFile {
  const path = join(settings.dir, `${name}.log`);
  try {
    mkdirSync(settings.dir, { recursive: true, mode: DIR_MODE });
    closeSync(openSync(path, "a", FILE_MODE));
  } catch (error) {
    throw new AccessLogError(path, error);
  }
  const file = new LogFile(settings, name, now, log);
  void file.maintain();
  return file;
}

/** The open file is only touched by steps that wait for one another (`#inTurn`). */
export class LogFile implements LineSink {
  readonly #name: string;
  readonly #path: string;
  readonly #now: () => number;
  readonly #log: Log;
  #settings: LogFileSettings;
  #handle: FileHandle | null = null;
  #size = 0;
  #startedAt = 0;
  #placeCheckedAt = 0;
  /** What fails again and again is said once. */
  #complained = false;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(settings: LogFileSettings, name: string, now: () => number, log: Log) {
    this.#settings = settings;
    this.#name = name;
    this.#path = join(settings.dir, `${name}.log`);
    this.#now = now;
    this.#log = log;
  }

  /** Takes another retention and size; the directory is the same. */
  configure(settings: LogFileSettings): void {
    this.#settings = settings;
  }

  write(bytes: Buffer): Promise<number> {
    return this.#inTurn(async () => {
      let handle = await this.#open();
      if (this.#size > 0 && (this.#size + bytes.length > this.#settings.maxBytes || this.#isOld())) {
        await this.#rotate();
        handle = await this.#open();
      }
      const { bytesWritten } = await handle.write(bytes, 0, bytes.length, null);
      this.#size += bytesWritten;
      return bytesWritten;
    });
  }

  close(): Promise<void> {
    return this.#inTurn(() => this.#close());
  }

  /** Rotates the file when it is old enough, and deletes rotated files beyond their retention. */
  maintain(): Promise<void> {
    return this.#inTurn(() =>
      this.#attempt("look after", async () => {
        await this.#open();
        if (this.#size > 0 && this.#isOld()) await this.#rotate();
        else await this.#prune();
      }),
    );
  }

  #inTurn<T>(step: () => Promise<T>): Promise<T> {
    const result = this.#turn.then(step);
    this.#turn = result.catch(() => {});
    return result;
  }

  async #open(): Promise<FileHandle> {
    if (this.#handle !== null && (await this.#isInPlace(this.#handle))) return this.#handle;
    await this.#close();
    await mkdir(this.#settings.dir, { recursive: true, mode: DIR_MODE });
    const handle = await open(this.#path, "a", FILE_MODE);
    const { size, birthtimeMs } = await handle.stat();
    this.#handle = handle;
    this.#size = size;
    this.#startedAt = size > 0 && birthtimeMs > 0 ? birthtimeMs : this.#now();
    this.#placeCheckedAt = performance.now();
    return handle;
  }

  // logrotate and people move or delete the file: what is written to it then must not vanish with it.
  async #isInPlace(handle: FileHandle): Promise<boolean> {
    const now = performance.now();
    if (now - this.#placeCheckedAt < CHECK_PLACE_EVERY_MS) return true;
    this.#placeCheckedAt = now;
    const [ours, theirs] = await Promise.all([handle.stat(), stat(this.#path).catch(() => null)]);
    // Truncated in place (logrotate's copytruncate): the size is what it is now.
    this.#size = ours.size;
    return theirs !== null && theirs.ino === ours.ino && theirs.dev === ours.dev;
  }

  // A retention of a day promises that nothing is kept for ever in a file that never fills up.
  #isOld(): boolean {
    const { retentionMs } = this.#settings;
    return retentionMs > 0 && this.#now() - this.#startedAt >= Math.min(retentionMs, DAY_MS);
  }

  // A file that cannot be rotated goes on growing: lines matter more than sizes.
  async #rotate(): Promise<void> {
    await this.#attempt("rotate", async () => {
      await rename(this.#path, await this.#rotatedPath());
      await this.#close();
      await this.#prune();
    });
  }

  async #attempt(what: string, step: () => Promise<void>): Promise<void> {
    try {
      await step();
      this.#complained = false;
    } catch (error) {
      if (!this.#complained) this.#log.warn(`Cannot ${what} the access log '${this.#path}': ${describeSystemError(error)}`);
      this.#complained = true;
    }
  }

  async #rotatedPath(): Promise<string> {
    const names = new Set(await readdir(this.#settings.dir));
    for (let time = this.#now(); ; time += 1) {
      const name = `${this.#name}-${new Date(time).toISOString().replaceAll(":", "-")}.log`;
      if (!names.has(name)) return join(this.#settings.dir, name);
    }
  }

  async #prune(): Promise<void> {
    const { dir, retentionMs } = this.#settings;
    if (retentionMs === 0) return;
    for (const name of await readdir(dir)) {
      const match = name.startsWith(this.#name) ? ROTATED.exec(name.slice(this.#name.length)) : null;
      if (match !== null && this.#now() - Date.parse(`${match[1]}:${match[2]}:${match[3]}`) > retentionMs) await unlink(join(dir, name));
    }
  }

  async #close(): Promise<void> {
    const handle = this.#handle;
    this.#handle = null;
    await handle?.close();
  }
}
