// A lock that processes share through a directory, also over machines: whoever has it keeps it fresh, and whoever stops doing so loses it.
import { randomBytes } from "node:crypto";
import { mkdir, readdir, rename, rm, rmdir, stat, unlink, utimes, writeFile } from "node:fs/promises";
import { hostname } from "node:os";
import { dirname, join } from "node:path";
import { systemErrorCode } from "./errors.ts";
import { draftOf, makeDirectory } from "./secret-file.ts";

const TOUCH_MS = 5_000;
// Six touches in a row must be missing: a busy or suspended machine, or a slow network file system, keeps its lock.
const STALE_MS = 30_000;
const HOLDER = /-\d+-[0-9a-f]{16}$/;

/**
 * The lock is a directory with one empty file, which is named after the host, the process and the attempt that has it. A directory can be renamed to
 * a missing or empty one only, and a file only by its present name: so of those that make the lock, or take it over, at the same time one succeeds,
 * and a crash at any point leaves a lock that goes stale.
 */
export class FileLock {
  readonly #path: string;
  readonly #pid: number;
  readonly #touchMs: number;
  readonly #staleMs: number;
  #mine: string | null = null;
  #timer: NodeJS.Timeout | null = null;
  #touching: Promise<void> | null = null;
  /** The holder as first seen: its clock does not count, only whether the time stamp changes. */
  #seen: { readonly file: string; readonly mtimeMs: number; readonly sinceMs: number } | null = null;

  /** @param path of the directory that is the lock; those above it are made when they are missing. @param options.pid tells people who has it. */
  constructor(path: string, options: { pid: number; touchMs?: number; staleMs?: number }) {
    this.#path = path;
    this.#pid = options.pid;
    this.#touchMs = options.touchMs ?? TOUCH_MS;
    this.#staleMs = options.staleMs ?? STALE_MS;
  }

  /** False also when it was had and somebody took it over, because this process stood still for too long. */
  get held(): boolean {
    return this.#mine !== null;
  }

  /**
   * Takes the lock without waiting, also from a holder that was seen by an earlier call and did not touch it for `staleMs` (30 s) since.
   * @returns false when somebody has it. @throws a system error when the directory cannot be used.
   */
  async tryTake(): Promise<boolean> {
    if (this.#mine !== null) return false;
    const holder = await this.#findHolder();
    const host = hostname().replaceAll(/[^\w.-]/g, "_");
    const file = join(this.#path, `${host.slice(0, 64)}-${this.#pid}-${randomBytes(8).toString("hex")}`);
    const taken = holder === null ? await this.#make(file) : this.#isStale(holder) && (await this.#takeOver(holder.file, file));
    if (!taken) return false;
    this.#seen = null;
    this.#mine = file;
    this.#timer = setInterval(() => void this.#touch(), this.#touchMs).unref();
    return true;
  }

  /** Lets go of it; does nothing when it is not held. Never rejects. */
  async release(): Promise<void> {
    this.#stopTouching();
    await this.#touching;
    const file = this.#mine;
    this.#mine = null;
    if (file === null) return;
    await unlink(file).catch(() => {});
    await rmdir(this.#path).catch(() => {});
  }

  async #findHolder(): Promise<{ file: string; mtimeMs: number } | null> {
    try {
      const entries = await readdir(this.#path);
      const name = entries.find((entry) => HOLDER.test(entry)) ?? entries[0];
      if (name === undefined) return null;
      const file = join(this.#path, name);
      return { file, mtimeMs: (await stat(file)).mtimeMs };
    } catch (error) {
      if (systemErrorCode(error) === "ENOENT") return null;
      throw error;
    }
  }

  #isStale({ file, mtimeMs }: { file: string; mtimeMs: number }): boolean {
    const now = performance.now();
    if (this.#seen?.file !== file || this.#seen.mtimeMs !== mtimeMs) this.#seen = { file, mtimeMs, sinceMs: now };
    return now - this.#seen.sinceMs >= this.#staleMs;
  }

  async #make(file: string): Promise<boolean> {
    await makeDirectory(dirname(this.#path), 0o700);
    const draft = draftOf(this.#path);
    await mkdir(draft, { mode: 0o700 });
    try {
      await writeFile(file.replace(this.#path, draft), "");
      await rename(draft, this.#path);
      return true;
    } catch (error) {
      await rm(draft, { recursive: true, force: true }).catch(() => {});
      if (["ENOTEMPTY", "EEXIST"].includes(systemErrorCode(error) ?? "")) return false;
      throw error;
    }
  }

  async #takeOver(from: string, to: string): Promise<boolean> {
    try {
      await rename(from, to);
      return true;
    } catch (error) {
      // Its holder let go, or somebody else was first.
      if (systemErrorCode(error) === "ENOENT") return false;
      throw error;
    }
  }

  #touch(): Promise<void> {
    this.#touching ??= this.#touchNow().finally(() => (this.#touching = null));
    return this.#touching;
  }

  async #touchNow(): Promise<void> {
    const file = this.#mine;
    if (file === null) return;
    try {
      const now = new Date();
      await utimes(file, now, now);
    } catch (error) {
      // Another one has it now. Other errors pass or make it stale.
      if (systemErrorCode(error) !== "ENOENT") return;
      this.#mine = null;
      this.#stopTouching();
    }
  }

  #stopTouching(): void {
    if (this.#timer !== null) clearInterval(this.#timer);
    this.#timer = null;
  }
}
