// The directory that tailscaled keeps its state in: that it can be used, that it lasts, and a way to its sockets that is short enough.
import { randomBytes } from "node:crypto";
import { lstat, mkdir, rm, stat, statfs, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { makeDirectory } from "../lib/secret-file.ts";
import { DaemonError } from "./daemon-error.ts";

/** sun_path of Linux, without the byte that ends it (unix(7)). */
const SOCKET_PATH_BYTES = 107;
const LONGEST_NAME = "tailscaled.sock";
// linux/magic.h
const TMPFS = 0x01021994;
const OVERLAYFS = 0x794c7630;

/** Where sockets of the directory are reached: the directory itself, or the link that `makeReach` makes when its path is too long. */
export function reachOf(stateDir: string): string {
  if (Buffer.byteLength(join(stateDir, LONGEST_NAME)) <= SOCKET_PATH_BYTES) return stateDir;
  return join(tmpdir(), `sidegate-${randomBytes(6).toString("hex")}`, "state");
}

/**
 * Makes the directory, with mode 0700, and the way to its sockets.
 * @throws {DaemonError}
 */
export async function makeStateDirectory(stateDir: string, reach: string): Promise<void> {
  try {
    await makeDirectory(stateDir, 0o700);
    if (!(await stat(stateDir)).isDirectory()) throw stateUnusable(stateDir, "it is not a directory");
  } catch (error) {
    throw error instanceof DaemonError ? error : stateUnusable(stateDir, describeSystemError(error), error);
  }
  if (reach !== stateDir) await makeReach(stateDir, reach);
}

/** A socket is found through a link although its own path is too long. The directory is private: nobody else can make the link lead elsewhere. */
async function makeReach(stateDir: string, reach: string): Promise<void> {
  try {
    if ((await lstat(reach).catch(() => null)) !== null) return;
    await mkdir(dirname(reach), { mode: 0o700 });
    await symlink(stateDir, reach);
  } catch (error) {
    throw new DaemonError(
      `The path of the state directory '${stateDir}' is too long for a unix socket in it, and no shorter way to it can be made in '${tmpdir()}': ` +
        `${describeSystemError(error)}: shorten 'tailscale.state_dir' so that '${join(stateDir, LONGEST_NAME)}' has ${SOCKET_PATH_BYTES} bytes at most`,
      { cause: error },
    );
  }
}

export async function removeReach(stateDir: string, reach: string): Promise<void> {
  if (reach !== stateDir) await rm(dirname(reach), { recursive: true, force: true }).catch(() => {});
}

/** The error for a directory that nothing can be written to. */
export function stateUnusable(stateDir: string, reason: string, cause?: unknown): DaemonError {
  const readOnly = systemErrorCode(cause) === "EACCES" || systemErrorCode(cause) === "EPERM" ? " that belongs to the gateway's user" : "";
  return new DaemonError(
    `Cannot keep the state of the tailnet node in '${stateDir}': ${reason}: mount a writable volume there${readOnly}, or set 'tailscale.state_dir'`,
    {
      cause,
    },
  );
}

/** What is said of a directory that does not outlast the container or the machine's next start; empty when it does, as far as that can be told. */
export async function describeShortLife(stateDir: string): Promise<string> {
  const [own, root, ownKind, rootKind] = await Promise.all([stat(stateDir), stat("/"), statfs(stateDir), statfs("/")]);
  const lost = "a state that is lost makes a new node at each start, named '…-1', '…-2': mount a volume there";
  if (ownKind.type === TMPFS) return `The state directory '${stateDir}' is in memory (tmpfs); ${lost}`;
  if (own.dev !== root.dev || !(rootKind.type === OVERLAYFS || (await isContainer()))) return "";
  return `The state directory '${stateDir}' is inside the container, not on a volume; ${lost}`;
}

/** Docker and Podman say so; other runtimes are known by the overlay that they make the root of. */
async function isContainer(): Promise<boolean> {
  const found = await Promise.all(["/.dockerenv", "/run/.containerenv"].map((path) => lstat(path).catch(() => null)));
  return found.some((entry) => entry !== null);
}
