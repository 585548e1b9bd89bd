// The file of the state: made whole, and opened only when it is ours, sound, and the key beside it fits.
import { existsSync, linkSync, renameSync } from "node:fs";
import { chmod, open, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { systemErrorCode } from "../lib/errors.ts";
import { draftOf, makeDirectory, removeOldDrafts } from "../lib/secret-file.ts";
import type { Log } from "../telemetry/log.ts";
import { BEGIN_ANEW, damaged, StateError, toStateError } from "./state-error.ts";
import { makeStateKey, readStateKey, seal, unseal } from "./state-key.ts";

const FORMAT_VERSION = 1;
// "SDGT": tells our file from another program's.
const APPLICATION_ID = 0x53444754;
// A statement that waits blocks the whole gateway: longer waits are the store's, between attempts.
const LOCK_WAIT_MS = 20;
// Looking through a file of this size takes some 0.2 s.
const MAX_CHECKED_BYTES = 64 * 1024 * 1024;
const CHECK_NAME = "check";
const CHECK_TEXT = "sidegate";

const SCHEMA = `
  CREATE TABLE entries (key TEXT PRIMARY KEY, value BLOB NOT NULL, expires_at INTEGER) STRICT, WITHOUT ROWID;
  CREATE INDEX entries_by_end ON entries (expires_at) WHERE expires_at IS NOT NULL;
  CREATE TABLE meta (name TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;
  PRAGMA application_id = ${APPLICATION_ID};
  PRAGMA user_version = ${FORMAT_VERSION};
`;

export type StateFile = { readonly file: string; readonly key: Buffer };

/** Makes `state.key` and `state.db` in the directory when both are missing. Processes that do so at once end with the same ones. @throws {StateError} */
export async function makeStateFile(dir: string, log: Log): Promise<StateFile> {
  const file = join(dir, "state.db");
  const keyFile = join(dir, "state.key");
  try {
    await makeDirectory(dir, 0o700);
    await removeOldDrafts(dir);
    const hadLog = existsSync(`${file}-wal`);
    const isThere = existsSync(file);
    // SQLite would take what the log holds for changes of the new file.
    if (hadLog && !isThere)
      throw new StateError(`'${file}' is missing, but '${file}-wal' is there: bring the file back, or move that one away, too: ${BEGIN_ANEW}`);
    const key = isThere ? await readStateKey(keyFile) : await makeStateKey(keyFile);
    if (key === null)
      throw new StateError(
        `The key '${keyFile}' is missing, and the state file '${file}' cannot be read without it; bring it back from a backup, or move the state file away: ${BEGIN_ANEW}`,
      );
    if (!isThere && (await makeDatabase(file, key))) log.info({ event: "state_created", file }, "Made a new state file");
    return { file, key };
  } catch (error) {
    throw toStateError(file, error);
  }
}

/** A file in the place of the state is whole from the first moment: an empty one is damage. @returns false when another process was first */
async function makeDatabase(file: string, key: Buffer): Promise<boolean> {
  const draft = draftOf(file);
  try {
    await (await open(draft, "wx", 0o600)).close();
    const database = new DatabaseSync(draft);
    try {
      database.exec("PRAGMA journal_mode = WAL");
      database.exec(`BEGIN; ${SCHEMA}`);
      database.prepare("INSERT INTO meta (name, value) VALUES (?, ?)").run(CHECK_NAME, seal(key, `meta:${CHECK_NAME}`, CHECK_TEXT));
      database.exec("COMMIT");
    } finally {
      database.close();
    }
    return place(draft, file);
  } finally {
    for (const end of ["", "-wal", "-shm"]) await rm(`${draft}${end}`, { force: true }).catch(() => {});
  }
}

/** Unlike a renamed file, a link takes nothing's place. Some file systems have none. */
function place(draft: string, file: string): boolean {
  try {
    linkSync(draft, file);
    return true;
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return false;
    if (!["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK"].includes(systemErrorCode(error) ?? "")) throw error;
    if (existsSync(file)) return false;
    renameSync(draft, file);
    return true;
  }
}

/** The file as only its owner should see it, and as far as the file system tells. @throws a system error */
export async function prepareStateFile(file: string): Promise<{ readonly bytes: number }> {
  // SQLite's own error would not say why.
  await (await open(file, "r+")).close();
  const { mode, size } = await stat(file);
  // The files beside it get the same mode. A file of somebody else is used as it is.
  if ((mode & 0o077) !== 0) await chmod(file, 0o600).catch(() => {});
  return { bytes: size };
}

/** Opens the database and looks whether it is ours, sound, and opens with the key. @throws {StateError} {Error} of SQLite, also when it is busy */
export function openDatabase({ file, key }: StateFile, bytes: number): DatabaseSync {
  if (bytes === 0) throw damaged(file);
  const database = new DatabaseSync(file, { timeout: LOCK_WAIT_MS });
  try {
    const isWal = pragma(database, "journal_mode = WAL") === "wal";
    // After a power cut the last moments may be missing, but never a part of them; without a log beside the file that needs FULL.
    database.exec(`PRAGMA synchronous = ${isWal ? "NORMAL" : "FULL"}`);
    if (pragma(database, "application_id") !== APPLICATION_ID)
      throw new StateError(`'${file}' is another program's database; let 'state.dir' name another directory`);
    const version = Number(pragma(database, "user_version"));
    if (version !== FORMAT_VERSION)
      throw new StateError(
        `The state file '${file}' was written by a newer Sidegate (format ${version}, this one knows ${FORMAT_VERSION}); run that one, or move the file away: ${BEGIN_ANEW}`,
      );
    if (bytes <= MAX_CHECKED_BYTES && pragma(database, "quick_check(1)") !== "ok") throw damaged(file);
    const check = database.prepare("SELECT value FROM meta WHERE name = ?").get(CHECK_NAME)?.["value"];
    if (!(check instanceof Uint8Array)) throw damaged(file);
    if (unseal(key, `meta:${CHECK_NAME}`, check) !== CHECK_TEXT)
      throw new StateError(
        `The key in 'state.key' is not that of the state file '${file}'; bring the right one back from a backup, or move the state file away: ${BEGIN_ANEW}`,
      );
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

function pragma(database: DatabaseSync, text: string): unknown {
  return Object.values(database.prepare(`PRAGMA ${text}`).get() ?? {})[0];
}
