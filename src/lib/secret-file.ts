// Files that only their owner may read, and that are there whole or not at all.
import { randomBytes } from "node:crypto";
import { link, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { systemErrorCode } from "./errors.ts";

const DRAFT = /\.[0-9a-f]{12}$/;
// No write takes as long: whoever made it is gone.
const LEFT_BEHIND_MS = 3_600_000;

/** The name of a draft beside what it is to become. */
export function draftOf(path: string): string {
  return `${path}.${randomBytes(6).toString("hex")}`;
}

/**
 * Makes a directory and those above it that are missing, with this mode. Not by `recursive` of Node.js, which takes a read-only file system for
 * a missing file, and where nothing can be made, as in /proc, tries for ever.
 * @throws a system error
 */
export async function makeDirectory(path: string, mode: number): Promise<void> {
  try {
    await makeOne(path, mode);
  } catch (error) {
    if (systemErrorCode(error) !== "ENOENT" || dirname(path) === path) throw error;
    await makeDirectory(dirname(path), mode);
    await makeOne(path, mode);
  }
}

async function makeOne(path: string, mode: number): Promise<void> {
  try {
    await mkdir(path, { mode });
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") return;
    // A read-only file system says so before it looks for the directory.
    const isThere = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    );
    if (!isThere) throw error;
  }
}

/**
 * The old or the new content, whatever happens meanwhile. The file gets mode 0600, directories that are missing 0700.
 * @throws a system error, and leaves no draft
 */
export async function writeSecretFile(path: string, text: string): Promise<void> {
  await writeBy(rename, path, text);
}

/**
 * As `writeSecretFile`, but of several processes that make the file at once one does.
 * @returns false when it is there already @throws a system error, and leaves no draft
 */
export async function makeSecretFile(path: string, text: string): Promise<boolean> {
  try {
    await writeBy(linkOrRename, path, text);
    return true;
  } catch (error) {
    // Not of a directory above it that is a file.
    if (systemErrorCode(error) === "EEXIST" && (error as NodeJS.ErrnoException).syscall === "link") return false;
    throw error;
  }
}

/** Unlike a renamed file, a link takes nothing's place. Some network file systems have none. */
async function linkOrRename(draft: string, path: string): Promise<void> {
  try {
    await link(draft, path);
    await rm(draft, { force: true });
  } catch (error) {
    if (!["EPERM", "ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EMLINK"].includes(systemErrorCode(error) ?? "")) throw error;
    await rename(draft, path);
  }
}

async function writeBy(place: (draft: string, path: string) => Promise<void>, path: string, text: string): Promise<void> {
  const directory = dirname(path);
  await makeDirectory(directory, 0o700);
  const draft = draftOf(path);
  try {
    const file = await open(draft, "wx", 0o600);
    try {
      await file.writeFile(text);
      await file.sync();
    } finally {
      await file.close();
    }
    await place(draft, path);
  } catch (error) {
    await rm(draft, { force: true }).catch(() => {});
    throw error;
  }
  await syncDirectory(directory);
}

/** The new name is on disk when the directory is. Some network file systems refuse this, and have done it already. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r").catch(() => null);
  await directory?.sync().catch(() => {});
  await directory?.close().catch(() => {});
}

/** Removes the drafts, files and directories, that a crash left in a directory an hour ago or earlier. Never rejects: they do no harm but take space. */
export async function removeOldDrafts(directory: string, nowMs: number = Date.now()): Promise<void> {
  for (const name of await readdir(directory).catch(() => [])) {
    if (!DRAFT.test(name)) continue;
    const path = join(directory, name);
    const mtimeMs = await stat(path).then(
      (found) => found.mtimeMs,
      () => nowMs,
    );
    if (nowMs - mtimeMs >= LEFT_BEHIND_MS) await rm(path, { recursive: true, force: true }).catch(() => {});
  }
}
