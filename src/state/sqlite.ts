// The state in a file of its own: SQLite, in the directory of the state, shared by processes of one machine.
import { setImmediate as breathe, setTimeout as delay } from "node:timers/promises";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import type { Log } from "../telemetry/log.ts";
import { makeStateFile, openDatabase, prepareStateFile, type StateFile } from "./sqlite-file.ts";
import { isBusy, StateError, toStateError } from "./state-error.ts";
import { seal, unseal } from "./state-key.ts";
import type { StateStore } from "./store.ts";

// What a write of another process may take.
const BUSY_MS = 5_000;
const BUSY_PAUSE_MS = 10;
const SWEEP_EVERY_MS = 60_000;
// A batch takes some 5 ms, in which nothing else happens.
const SWEEP_BATCH = 500;
const KEY = /^[\x20-\x7e]{1,200}$/;
const LIVE = "(expires_at IS NULL OR expires_at > ?)";

export type SqliteOptions = {
  /** Milliseconds since 1970; default Date.now. */
  readonly now?: () => number;
};

/**
 * Opens `state.db` in the directory, which is made when it is missing, with the key in `state.key`. Nothing that is there is ever replaced.
 * @throws {StateError} with what to do
 */
export async function openSqliteStore(dir: string, log: Log, options: SqliteOptions = {}): Promise<StateStore> {
  const stateFile = await makeStateFile(dir, log);
  const { file } = stateFile;
  try {
    const { bytes } = await prepareStateFile(file);
    const database = await whileBusy(() => openDatabase(stateFile, bytes));
    return new SqliteStore(stateFile, database, log, options.now ?? Date.now);
  } catch (error) {
    throw toStateError(file, error);
  }
}

/** Tries again while another process writes, with pauses in which the gateway goes on. */
async function whileBusy<T>(work: () => T): Promise<T> {
  const deadline = performance.now() + BUSY_MS;
  for (;;) {
    try {
      return work();
    } catch (error) {
      if (!isBusy(error) || performance.now() > deadline) throw error;
    }
    await delay(BUSY_PAUSE_MS * (1 + Math.random()));
  }
}

type Statements = Readonly<Record<"get" | "list" | "set" | "add" | "take" | "delete" | "replace" | "sweep", StatementSync>>;

function prepareStatements(database: DatabaseSync): Statements {
  const insert =
    "INSERT INTO entries (key, value, expires_at) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value, expires_at = excluded.expires_at";
  return {
    get: database.prepare(`SELECT value, expires_at FROM entries WHERE key = ? AND ${LIVE}`),
    list: database.prepare(`SELECT key, value, expires_at FROM entries WHERE key >= ? AND key < ? AND ${LIVE} ORDER BY key`),
    set: database.prepare(insert),
    add: database.prepare(`${insert} WHERE expires_at <= ?`),
    take: database.prepare(`DELETE FROM entries WHERE key = ? AND ${LIVE} RETURNING value, expires_at`),
    delete: database.prepare(`DELETE FROM entries WHERE key = ? AND ${LIVE}`),
    replace: database.prepare("UPDATE entries SET value = ?, expires_at = ? WHERE key = ? AND value = ?"),
    sweep: database.prepare("DELETE FROM entries WHERE key IN (SELECT key FROM entries WHERE expires_at <= ? LIMIT ?)"),
  };
}

class SqliteStore implements StateStore {
  readonly #file: string;
  readonly #key: Buffer;
  readonly #database: DatabaseSync;
  readonly #statements: Statements;
  readonly #log: Log;
  readonly #now: () => number;
  readonly #timer: NodeJS.Timeout;
  readonly #running = new Set<Promise<unknown>>();
  #closing: Promise<void> | null = null;
  #toldUnreadable = false;

  constructor({ file, key }: StateFile, database: DatabaseSync, log: Log, now: () => number) {
    this.#file = file;
    this.#key = key;
    this.#database = database;
    this.#statements = prepareStatements(database);
    this.#log = log;
    this.#now = now;
    this.#timer = setInterval(() => void this.#sweep(), SWEEP_EVERY_MS).unref();
    void this.#sweep();
  }

  get(key: string): Promise<string | null> {
    return this.#run(() => this.#open(key, this.#statements.get.get(key, this.#now())));
  }

  set(key: string, value: string, ttlMs: number | null): Promise<void> {
    return this.#run(() => {
      const expiresAt = this.#end(ttlMs);
      this.#statements.set.run(key, this.#seal(key, value, expiresAt), expiresAt);
    });
  }

  add(key: string, value: string, ttlMs: number | null): Promise<boolean> {
    return this.#run(() => {
      const expiresAt = this.#end(ttlMs);
      const sealed = this.#seal(key, value, expiresAt);
      if (this.#statements.add.run(key, sealed, expiresAt, this.#now()).changes > 0) return true;
      // What cannot be read is not there for the other methods; unless it is just this which is replaced, somebody else was first.
      const present = this.#statements.get.get(key, this.#now());
      if (!(present?.["value"] instanceof Uint8Array) || this.#open(key, present) !== null) return false;
      return this.#statements.replace.run(sealed, expiresAt, key, present["value"]).changes > 0;
    });
  }

  take(key: string): Promise<string | null> {
    return this.#run(() => this.#open(key, this.#statements.take.get(key, this.#now())));
  }

  delete(key: string): Promise<boolean> {
    return this.#run(() => this.#statements.delete.run(key, this.#now()).changes > 0);
  }

  list(prefix: string): Promise<{ readonly key: string; readonly value: string }[]> {
    // Above all ASCII text that begins with the prefix.
    const end = `${prefix}\u{10ffff}`;
    return this.#run(() =>
      this.#statements.list.all(prefix, end, this.#now()).flatMap((row) => {
        const key = String(row["key"]);
        const value = this.#open(key, row);
        return value === null ? [] : [{ key, value }];
      }),
    );
  }

  close(): Promise<void> {
    clearInterval(this.#timer);
    this.#closing ??= Promise.allSettled(this.#running).then(() => {
      this.#database.close();
    });
    return this.#closing;
  }

  async #run<T>(work: () => T): Promise<T> {
    if (this.#closing !== null) throw new StateError(`The state file '${this.#file}' is closed`);
    const running = whileBusy(work);
    this.#running.add(running);
    try {
      return await running;
    } catch (error) {
      throw toStateError(this.#file, error);
    } finally {
      this.#running.delete(running);
    }
  }

  #end(ttlMs: number | null): number | null {
    return ttlMs === null ? null : Math.min(Math.ceil(this.#now() + ttlMs), Number.MAX_SAFE_INTEGER);
  }

  #seal(key: string, value: string, expiresAt: number | null): Buffer {
    if (!KEY.test(key)) throw new StateError("A key of the state is no ASCII text of at most 200 characters");
    return seal(this.#key, sealedName(key, expiresAt), value);
  }

  #open(key: string, row: Readonly<Record<string, unknown>> | undefined): string | null {
    if (row === undefined) return null;
    const { value, expires_at: expiresAt } = row;
    const text = value instanceof Uint8Array ? unseal(this.#key, sealedName(key, typeof expiresAt === "number" ? expiresAt : null), value) : null;
    if (text === null && !this.#toldUnreadable) {
      this.#toldUnreadable = true;
      this.#log.warn(
        { event: "state_unreadable", file: this.#file, entry: key },
        "An entry of the state cannot be read and counts as missing: it was changed, or written with another key",
      );
    }
    return text;
  }

  /** Takes out what is over, a little at a time. */
  async #sweep(): Promise<void> {
    try {
      while (this.#closing === null) {
        const { changes } = await this.#run(() => this.#statements.sweep.run(this.#now(), SWEEP_BATCH));
        if (changes < SWEEP_BATCH) return;
        await breathe();
      }
    } catch (error) {
      this.#log.debug({ err: error, event: "state_not_swept" }, "What is over stays in the state for now");
    }
  }
}

/** What is sealed belongs to its key and ends when it was meant to. */
function sealedName(key: string, expiresAt: number | null): string {
  return `entries:${expiresAt ?? ""}:${key}`;
}
