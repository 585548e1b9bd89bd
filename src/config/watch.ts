// Watches the configuration and every file that it names. An event or a poll only says "look again": the loader decides by the bytes.
import { lstat, readlink } from "node:fs";
import { basename, dirname, join, parse, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type FSWatcher, watch } from "chokidar";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { forEachFile, stampOf } from "./stamp.ts";

export type WatchOptions = {
  /** Absolute paths, the most important one first; those that are missing are waited for. */
  readonly paths: readonly string[];
  /** Something may have changed and is now at rest. Called once soon after the start and after `replace` too: what happened before the watch stood is not missed. */
  readonly onChange: () => void;
  /** A sentence for the log: a directory cannot be watched (said once each), so that only polling is left. */
  readonly onWarning: (message: string) => void;
  /**
   * Time between two polls. Default 1000: events do not come from network, FUSE and 9p file systems, nor from a file that is mounted by itself.
   * Of more than 256 files each poll looks at a part, so that ten polls see all; the first file is in each of them.
   */
  readonly pollMs?: number;
  /** How long nothing may change before it is at rest. Default 50. */
  readonly quietMs?: number;
  /** How long to wait for rest at most. Default 1000. */
  readonly maxWaitMs?: number;
};

export type ConfigWatch = {
  /** Watches these paths from now on. */
  readonly replace: (paths: readonly string[]) => void;
  readonly close: () => void;
};

const MAX_LINKS = 40;
// As many are looked at together: a look at thousands costs a second of processor time.
const FEW = 256;
const POLLS_PER_ROUND = 10;

/** Starts to watch. Neither its timers nor its watchers keep the process alive. */
export function watchConfig(options: WatchOptions): ConfigWatch {
  return new Watch(options);
}

/** What stands at a path: the text of a link, "other", or null when nothing does. */
type Kind = { readonly link: string } | "other" | null;

function kindOf(path: string): Promise<Kind> {
  const { promise, resolve: found } = Promise.withResolvers<Kind>();
  lstat(path, (error, stats) => {
    if (error !== null) found(null);
    else if (!stats.isSymbolicLink()) found("other");
    else readlink(path, (_error, link) => found({ link: link ?? "" }));
  });
  return promise;
}

/**
 * The places whose change changes what a path leads to: each link on the way and the file itself, or the first part that is missing.
 * All are in directories without links, which exist (or did a moment ago).
 * @param known what was found on the way to other files a moment ago.
 */
async function findPoints(path: string, known: Map<string, Promise<Kind>>): Promise<Set<string>> {
  const points = new Set<string>();
  let current = parse(path).root;
  let parts = path.slice(current.length).split("/");
  for (let links = 0; parts.length > 0 && links < MAX_LINKS;) {
    const point = join(current, parts.shift() ?? "");
    const isLast = parts.length === 0;
    const looking = known.get(point) ?? kindOf(point);
    if (!isLast) known.set(point, looking);
    const kind = await looking;
    if (kind === null) return points.add(point);
    if (kind === "other") {
      if (isLast) points.add(point);
      current = point;
    } else {
      points.add(point);
      links += 1;
      const target = resolve(current, kind.link);
      parts = [...target.slice(parse(target).root.length).split("/"), ...parts];
      current = parse(target).root;
    }
  }
  return points;
}

/** A directory with points in it, and for each of them the paths that it matters to. */
type Directory = { watcher: { readonly files: FSWatcher; readonly ready: PromiseWithResolvers<void> } | null; readonly points: Map<string, Set<string>> };

class Watch implements ConfigWatch {
  readonly #options: Required<WatchOptions>;
  #paths: ReadonlySet<string>;
  readonly #directories = new Map<string, Directory>();
  readonly #points = new Map<string, ReadonlySet<string>>();
  readonly #stamps = new Map<string, string>();
  /** Paths about which something was told since they were looked at. */
  #dirty: Set<string>;
  #lookAgain = true;
  readonly #warned = new Set<string>();
  readonly #pollTimer: NodeJS.Timeout;
  #polling = false;
  #nextPolled = 0;
  #looking = false;
  #closed = false;

  constructor(options: WatchOptions) {
    this.#options = { pollMs: 1_000, quietMs: 50, maxWaitMs: 1_000, ...options };
    this.#paths = possible(options.paths);
    this.#dirty = new Set(this.#paths);
    this.#pollTimer = setInterval(() => void this.#poll(), this.#options.pollMs).unref();
    void this.#look();
  }

  readonly replace = (paths: readonly string[]): void => {
    const next = possible(paths);
    const before = this.#paths;
    if (next.size === before.size && next.isSubsetOf(before)) return;
    this.#paths = next;
    for (const path of before.difference(next)) this.#forget(path);
    this.#event(next.difference(before));
  };

  readonly close = (): void => {
    this.#closed = true;
    clearInterval(this.#pollTimer);
    for (const name of this.#directories.keys()) this.#unwatch(name);
    this.#directories.clear();
  };

  #event(paths: Iterable<string>): void {
    for (const path of paths) this.#dirty.add(path);
    this.#lookAgain = true;
    void this.#look();
  }

  /** The safety net: looks for what no event told. */
  async #poll(): Promise<void> {
    if (this.#polling || this.#looking || this.#closed) return;
    this.#polling = true;
    const paths = [...this.#paths];
    const count = this.#pollCount();
    const part = new Set(paths.slice(0, 1));
    for (let i = 0; i < count && i < paths.length; i += 1) part.add(paths[(this.#nextPolled + i) % paths.length] ?? "");
    this.#nextPolled = (this.#nextPolled + count) % Math.max(1, paths.length);
    const changed: string[] = [];
    await forEachFile(part, async (path) => {
      const before = this.#stamps.get(path);
      if (before !== undefined && (await stampOf(path)) !== before && before === this.#stamps.get(path)) changed.push(path);
    });
    this.#polling = false;
    if (changed.length === 0) return;
    // No event told of this change: the watchers may stand on directories that were moved away.
    const names = new Set(changed.flatMap((path) => Array.from(this.#points.get(path) ?? [], (point) => dirname(point))));
    const affected = new Set(changed);
    for (const name of names) {
      this.#unwatch(name);
      // They need the new watcher as well.
      for (const paths of this.#directories.get(name)?.points.values() ?? []) for (const path of paths) affected.add(path);
    }
    this.#event(affected);
  }

  #pollCount(): number {
    return Math.max(FEW, Math.ceil(this.#paths.size / POLLS_PER_ROUND));
  }

  /** One look at a time; whatever happens meanwhile makes one more. */
  async #look(): Promise<void> {
    if (this.#looking || this.#closed) return;
    this.#looking = true;
    try {
      while (this.#lookAgain) {
        this.#lookAgain = false;
        const current = this.#paths;
        const paths = current.size <= FEW ? new Set(current) : this.#dirty;
        this.#dirty = new Set();
        // Armed before the files are read: a change after that makes an event.
        await this.#arm(paths);
        const stamps = await this.#settle(paths);
        // A directory may have come into being meanwhile.
        await this.#arm(paths);
        if (this.#closed) return;
        for (const [path, stamp] of stamps) if (this.#paths.has(path)) this.#stamps.set(path, stamp);
        if (current === this.#paths) this.#options.onChange();
      }
    } finally {
      this.#looking = false;
    }
  }

  /** Waits until the files stay as they are for a while: a save may take several writes, and a certificate comes with its key. */
  async #settle(paths: Set<string>): Promise<ReadonlyMap<string, string>> {
    const deadline = performance.now() + this.#options.maxWaitMs;
    let last = await stampsOf(paths);
    for (;;) {
      await delay(this.#options.quietMs, undefined, { ref: false });
      const isQuiet = this.#dirty.isSubsetOf(paths);
      for (const path of this.#dirty) paths.add(path);
      const next = await stampsOf(paths);
      if ((isQuiet && last.entries().every(([path, stamp]) => next.get(path) === stamp)) || performance.now() >= deadline) return next;
      last = next;
    }
  }

  /** Watches the directories of all points, and no others. Directories and not files: a save by rename leaves a watched file behind. */
  async #arm(paths: ReadonlySet<string>): Promise<void> {
    const known = new Map<string, Promise<Kind>>();
    await forEachFile(paths, async (path) => {
      const points = await findPoints(path, known);
      if (this.#closed || !this.#paths.has(path)) return;
      const before = this.#points.get(path);
      this.#points.set(path, points);
      await Promise.all(Array.from(points, (point) => this.#open(point, path)));
      // Another reload may have taken the path away meanwhile.
      if (!this.#paths.has(path)) return this.#forget(path);
      for (const point of before ?? []) if (!points.has(point)) this.#leave(point, path);
    });
  }

  #forget(path: string): void {
    for (const point of this.#points.get(path) ?? []) this.#leave(point, path);
    this.#points.delete(path);
    this.#stamps.delete(path);
    this.#dirty.delete(path);
  }

  #leave(point: string, path: string): void {
    const name = dirname(point);
    const directory = this.#directories.get(name);
    const paths = directory?.points.get(point);
    paths?.delete(path);
    if (paths?.size === 0) directory?.points.delete(point);
    if (directory?.points.size !== 0) return;
    this.#unwatch(name);
    this.#directories.delete(name);
  }

  #unwatch(name: string): void {
    const directory = this.#directories.get(name);
    if (directory === undefined || directory.watcher === null) return;
    directory.watcher.files.close().catch(() => {});
    // Whoever waits for it must not wait for ever.
    directory.watcher.ready.resolve();
    directory.watcher = null;
  }

  /** Resolves when the directory of the point is watched, or cannot be. */
  async #open(point: string, path: string): Promise<void> {
    const name = dirname(point);
    const directory: Directory = this.#directories.get(name) ?? { watcher: null, points: new Map() };
    this.#directories.set(name, directory);
    directory.points.set(point, (directory.points.get(point) ?? new Set()).add(path));
    if (directory.watcher !== null) return directory.watcher.ready.promise;
    // Only its raw events are used, which say "look again": what they mean is decided by the bytes. So it need not look at what is in the directory.
    // `atomic` would leave out what is named like a draft of an editor.
    const options = { persistent: false, ignoreInitial: true, followSymlinks: false, depth: 0, atomic: false, ignored: (entry: string) => entry !== name };
    const watcher = { files: watch(name, options), ready: Promise.withResolvers<void>() };
    directory.watcher = watcher;
    watcher.files.on("ready", watcher.ready.resolve);
    watcher.files.on("raw", (_event, file) => {
      if (directory.watcher !== watcher) return;
      const paths = typeof file === "string" ? directory.points.get(resolve(name, file)) : undefined;
      if (paths !== undefined) return this.#event(paths);
      if (typeof file === "string" && file !== basename(name)) return;
      // The directory itself is gone or moved: a new one of its name needs a new watcher.
      this.#unwatch(name);
      this.#event(new Set(directory.points.values().flatMap((those) => those)));
    });
    watcher.files.on("error", (error) => {
      if (directory.watcher === watcher) this.#unwatch(name);
      this.#warn(name, error);
    });
    return watcher.ready.promise;
  }

  #warn(name: string, error: unknown): void {
    if (this.#warned.has(name) || systemErrorCode(error) === "ENOENT") return;
    this.#warned.add(name);
    const everyMs = Math.ceil(this.#paths.size / this.#pollCount()) * this.#options.pollMs;
    this.#options.onWarning(`Cannot watch directory '${name}': ${describeWatchError(error)}; its files are looked at every ${everyMs / 1_000} s instead`);
  }
}

/** A name with a null byte is no file's, and to ask for it throws. */
function possible(paths: readonly string[]): Set<string> {
  return new Set(paths.filter((path) => !path.includes("\0")));
}

async function stampsOf(paths: Iterable<string>): Promise<Map<string, string>> {
  const stamps = new Map<string, string>();
  await forEachFile(paths, async (path) => void stamps.set(path, await stampOf(path)));
  return stamps;
}

function describeWatchError(error: unknown): string {
  return systemErrorCode(error) === "ENOSPC" ? "the system's limit of watches is reached (fs.inotify.max_user_watches)" : describeSystemError(error);
}
