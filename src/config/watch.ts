// Watches the configuration and every file that it names. An event or a poll only says "look again": the loader decides by the bytes.
import { lstat, readlink, stat } from "node:fs/promises";
import { basename, dirname, join, parse, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { type FSWatcher, watch } from "chokidar";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";

export type WatchOptions = {
  /** Absolute paths; those that are missing are waited for. */
  readonly paths: readonly string[];
  /** Something may have changed and is now at rest. Called once soon after the start and after `replace` too: what happened before the watch stood is not missed. */
  readonly onChange: () => void;
  /** A sentence for the log: a directory cannot be watched (said once each), so that only polling is left. */
  readonly onWarning: (message: string) => void;
  /** Time between two polls. Default 1000: events do not come from network, FUSE and 9p file systems, nor from a file that is mounted by itself. */
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

/** Starts to watch. Neither its timers nor its watchers keep the process alive. */
export function watchConfig(options: WatchOptions): ConfigWatch {
  return new Watch(options);
}

/** Waits until the files stay as they are for `quietMs`, at most `maxWaitMs`: a save may take several writes. */
export async function waitUntilSettled(paths: readonly string[], quietMs = 50, maxWaitMs = 1_000): Promise<string> {
  const deadline = performance.now() + maxWaitMs;
  let last = await signature(paths);
  for (;;) {
    await delay(quietMs, undefined, { ref: false });
    const next = await signature(paths);
    if (next === last || performance.now() >= deadline) return next;
    last = next;
  }
}

/** Changes whenever a file is written, replaced, deleted or restored. Links are followed. */
async function signature(paths: readonly string[]): Promise<string> {
  const parts = await Promise.all(
    paths.map(async (path) => {
      try {
        const { dev, ino, size, mtimeNs, ctimeNs } = await stat(path, { bigint: true });
        return [dev, ino, size, mtimeNs, ctimeNs].join(":");
      } catch (error) {
        return systemErrorCode(error) ?? "unknown";
      }
    }),
  );
  return parts.join("\n");
}

/**
 * The places whose change changes what a path leads to: each link on the way and the file itself, or the first part that is missing.
 * All are in directories without links, which exist (or did a moment ago).
 */
async function findPoints(path: string, points: Set<string>): Promise<void> {
  let current = parse(path).root;
  let parts = path.slice(current.length).split("/");
  for (let links = 0; parts.length > 0 && links < MAX_LINKS;) {
    const point = join(current, parts.shift() ?? "");
    const kind = await lstat(point).catch(() => null);
    if (kind === null) {
      points.add(point);
      return;
    }
    if (kind.isSymbolicLink()) {
      points.add(point);
      links += 1;
      const target = resolve(current, await readlink(point).catch(() => ""));
      parts = [...target.slice(parse(target).root.length).split("/"), ...parts];
      current = parse(target).root;
    } else {
      if (parts.length === 0) points.add(point);
      current = point;
    }
  }
}

class Watch implements ConfigWatch {
  readonly #options: Required<WatchOptions>;
  #paths: readonly string[];
  #points: ReadonlySet<string> = new Set();
  readonly #watchers = new Map<string, FSWatcher>();
  readonly #warned = new Set<string>();
  readonly #poll: NodeJS.Timeout;
  #signature = "";
  #lookAgain = true;
  #looking = false;
  #closed = false;

  constructor(options: WatchOptions) {
    this.#options = { pollMs: 1_000, quietMs: 50, maxWaitMs: 1_000, ...options };
    this.#paths = options.paths;
    this.#poll = setInterval(() => void this.#look(), this.#options.pollMs).unref();
    void this.#look();
  }

  readonly replace = (paths: readonly string[]): void => {
    if (paths.length === this.#paths.length && paths.every((path) => this.#paths.includes(path))) return;
    this.#paths = paths;
    this.#event();
  };

  readonly close = (): void => {
    this.#closed = true;
    clearInterval(this.#poll);
    this.#closeWatchers();
  };

  #closeWatchers(): void {
    for (const watcher of this.#watchers.values()) void watcher.close();
    this.#watchers.clear();
  }

  #event(): void {
    this.#lookAgain = true;
    void this.#look();
  }

  /** One look at a time; whatever happens meanwhile makes one more. */
  async #look(): Promise<void> {
    if (this.#looking || this.#closed) return;
    this.#looking = true;
    try {
      do {
        if (!this.#lookAgain) {
          if ((await signature(this.#paths)) === this.#signature) return;
          // No event told of this change: the watchers may stand on directories that were moved away.
          this.#closeWatchers();
        }
        this.#lookAgain = false;
        const paths = this.#paths;
        // Armed before the files are read: a change after that makes an event.
        await this.#arm(paths);
        const settled = await waitUntilSettled(paths, this.#options.quietMs, this.#options.maxWaitMs);
        // A directory may have come into being meanwhile.
        await this.#arm(paths);
        if (this.#closed) return;
        this.#signature = settled;
        if (paths === this.#paths) this.#options.onChange();
      } while (this.#lookAgain);
    } finally {
      this.#looking = false;
    }
  }

  /** Watches the directories of all points, and no others. Directories and not files: a save by rename leaves a watched file behind. */
  async #arm(paths: readonly string[]): Promise<void> {
    const points = new Set<string>();
    for (const path of paths) await findPoints(path, points);
    if (this.#closed) return;
    this.#points = points;
    const directories = new Set(Array.from(points, (point) => dirname(point)));
    for (const [directory, watcher] of this.#watchers) {
      if (directories.has(directory)) continue;
      void watcher.close();
      this.#watchers.delete(directory);
    }
    const missing = [...directories].filter((directory) => !this.#watchers.has(directory));
    await Promise.all(missing.map((directory) => this.#open(directory)));
  }

  /** Resolves when the watch stands. */
  #open(directory: string): Promise<void> {
    const drop = (error: unknown): void => {
      void this.#watchers.get(directory)?.close();
      this.#watchers.delete(directory);
      if (this.#warned.has(directory) || systemErrorCode(error) === "ENOENT") return;
      this.#warned.add(directory);
      this.#options.onWarning(
        `Cannot watch directory '${directory}': ${describeWatchError(error)}; its files are looked at every ${this.#options.pollMs / 1_000} s instead`,
      );
    };
    const { promise, resolve: done } = Promise.withResolvers<void>();
    // Only its raw events are used, which say "look again": what they mean is decided by the bytes.
    const watcher = watch(directory, {
      persistent: false,
      ignoreInitial: true,
      followSymlinks: false,
      depth: 0,
      ignored: (path) => path !== directory && !this.#points.has(path),
    });
    watcher.on("raw", (_event, name) => {
      if (name !== null && this.#points.has(resolve(directory, name))) return this.#event();
      if (name !== null && name !== basename(directory)) return;
      // The directory itself is gone or moved: a new one of its name needs a new watcher.
      void watcher.close();
      if (this.#watchers.get(directory) === watcher) this.#watchers.delete(directory);
      done();
      this.#event();
    });
    this.#watchers.set(directory, watcher);
    watcher.on("ready", done);
    watcher.on("error", (error) => {
      drop(error);
      done();
    });
    return promise;
  }
}

function describeWatchError(error: unknown): string {
  return systemErrorCode(error) === "ENOSPC" ? "the system's limit of watches is reached (fs.inotify.max_user_watches)" : describeSystemError(error);
}
