// Who uses a state directory: one gateway at a time, whose crash leaves neither a lock nor a tailscaled behind.
import { lstatSync } from "node:fs";
import { readFile, readlink, rm } from "node:fs/promises";
import { createServer } from "node:net";
import type { Server } from "node:net";
import { hostname } from "node:os";
import { join } from "node:path";
import { kill } from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { describeSystemError } from "../lib/errors.ts";
import { FileLock } from "../lib/file-lock.ts";
import { writeSecretFile } from "../lib/secret-file.ts";
import { removeStaleSocket } from "../lib/unix-socket.ts";
import type { Log } from "../telemetry/log.ts";
import { DaemonError } from "./daemon-error.ts";
import { stateUnusable } from "./daemon-state.ts";

const TERMINATE_MS = 5_000;
const KILL_MS = 5_000;
const POLL_MS = 20;

type ClaimFile = {
  readonly gateway?: { readonly pid?: unknown; readonly host?: unknown };
  readonly tailscaled?: { readonly pid?: unknown; readonly started?: unknown; readonly namespace?: unknown } | null;
};

/**
 * A gateway listens on a socket in the directory as long as it lives: that is seen from other containers that share the volume, where process ids
 * mean nothing, and ends with the process however that ends. `gateway.json` names the processes.
 */
export class StateClaim {
  readonly #stateDir: string;
  readonly #reach: string;
  readonly #pid: number;
  readonly #log: Log;
  /** Kept between the tries: it must see that another one's stands still. */
  readonly #lock: FileLock;
  #server: Server | null = null;

  constructor({ stateDir, reach, pid, log }: { stateDir: string; reach: string; pid: number; log: Log }) {
    this.#stateDir = stateDir;
    this.#reach = reach;
    this.#pid = pid;
    this.#log = log;
    this.#lock = new FileLock(join(stateDir, "gateway.lock"), { pid });
  }

  get #file(): string {
    return join(this.#stateDir, "gateway.json");
  }

  /**
   * Makes the directory this gateway's, and ends the tailscaled that a gateway left behind there. Does nothing when it is this one's already.
   * @throws {DaemonError} when somebody else uses it
   */
  async take(): Promise<void> {
    if (this.#server !== null) return;
    await this.#listen();
    try {
      await this.#endOrphan();
      await this.#expectSilence();
      await this.record(null);
    } catch (error) {
      await this.#closeServer();
      throw error;
    }
  }

  /**
   * Notes the process of tailscaled, so that the next gateway can end it if this one cannot; null: there is none.
   * @throws {DaemonError} when it cannot be written
   */
  async record(pid: number | null): Promise<void> {
    const tailscaled = pid === null ? null : { pid, started: (await readProcess(pid))?.started ?? "", namespace: await pidNamespace() };
    const content: ClaimFile = { gateway: { pid: this.#pid, host: hostname() }, tailscaled };
    try {
      await writeSecretFile(this.#file, `${JSON.stringify(content)}\n`);
    } catch (error) {
      throw stateUnusable(this.#stateDir, describeSystemError(error), error);
    }
  }

  /** Leaves the directory to others, once tailscaled has ended. Never rejects. */
  async release(): Promise<void> {
    if (this.#server === null) return;
    await rm(join(this.#reach, "tailscaled.sock"), { force: true }).catch(() => {});
    await rm(this.#file, { force: true }).catch(() => {});
    await this.#closeServer();
  }

  async #listen(): Promise<void> {
    const path = join(this.#reach, "gateway.sock");
    try {
      // Of two that find the socket of a dead gateway at the same time, the second would remove that of the first.
      if (!(await this.#lock.tryTake())) throw new DaemonError(`Another gateway is starting in the state directory '${this.#stateDir}'`);
      await removeStaleSocket(path);
      if (isThere(path)) throw await this.#taken();
      const server = createServer((socket) => socket.destroy()).unref();
      server.listen(path);
      const { promise, resolve, reject } = Promise.withResolvers<void>();
      server.once("listening", resolve).once("error", reject);
      await promise;
      // An error of accept(2), such as too many open files, is no reason to end.
      server.on("error", () => {});
      this.#server = server;
    } catch (error) {
      throw error instanceof DaemonError ? error : stateUnusable(this.#stateDir, describeSystemError(error), error);
    } finally {
      await this.#lock.release();
    }
  }

  async #taken(): Promise<DaemonError> {
    const { gateway } = await this.#read();
    const who = typeof gateway?.pid === "number" ? ` (process ${gateway.pid} on '${String(gateway.host)}')` : "";
    return new DaemonError(`Another gateway${who} uses the state directory '${this.#stateDir}': give each its own 'tailscale.state_dir'`);
  }

  async #endOrphan(): Promise<void> {
    const { tailscaled } = await this.#read();
    const pid = tailscaled?.pid;
    if (typeof pid !== "number" || !Number.isSafeInteger(pid) || pid <= 1 || tailscaled?.namespace !== (await pidNamespace())) return;
    const found = await readProcess(pid);
    if (found?.started !== tailscaled.started || !found?.args.includes(`--statedir=${this.#stateDir}`)) return;
    // One that is about to end has no arguments any more.
    const isGone = async (): Promise<boolean> => (await readProcess(pid))?.started !== found.started;
    this.#log.warn({ event: "tailscaled_orphan", pid }, "A gateway that is gone left its tailscaled behind; it is ended");
    for (const [signal, timeoutMs] of [
      ["SIGTERM", TERMINATE_MS],
      ["SIGKILL", KILL_MS],
    ] as const) {
      try {
        kill(pid, signal);
      } catch (error) {
        if (await isGone()) return;
        throw new DaemonError(`Cannot end process ${pid}, the tailscaled that an earlier gateway left behind: ${describeSystemError(error)}: end it by hand`, {
          cause: error,
        });
      }
      const deadline = performance.now() + timeoutMs;
      while (performance.now() < deadline) {
        if (await isGone()) return;
        await delay(POLL_MS);
      }
    }
    throw new DaemonError(`Process ${pid}, the tailscaled that an earlier gateway left behind, does not end: end it by hand`);
  }

  /** Whoever answers is no process that we know of: of another container, perhaps, and in use. */
  async #expectSilence(): Promise<void> {
    const path = join(this.#reach, "tailscaled.sock");
    await removeStaleSocket(path);
    if (!isThere(path)) return;
    throw new DaemonError(
      `A tailscaled that this gateway did not start answers on '${join(this.#stateDir, "tailscaled.sock")}', perhaps in another container: ` +
        "end it, or give the gateway its own 'tailscale.state_dir'",
    );
  }

  async #read(): Promise<ClaimFile> {
    try {
      const content: unknown = JSON.parse(await readFile(this.#file, "utf8"));
      return typeof content === "object" && content !== null ? content : {};
    } catch {
      return {};
    }
  }

  async #closeServer(): Promise<void> {
    const server = this.#server;
    this.#server = null;
    if (server !== null) await new Promise((resolve) => server.close(resolve));
  }
}

function isThere(path: string): boolean {
  return lstatSync(path, { throwIfNoEntry: false }) !== undefined;
}

/** Null when there is no such process, or when it has ended and only waits for its parent. `started` is in clock ticks after the boot (proc_pid_stat(5)). */
async function readProcess(pid: number): Promise<{ readonly started: string; readonly args: readonly string[] } | null> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    // The name of the program is in parentheses, and may hold any character.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const [state = "", started = ""] = [fields[0], fields[19]];
    if (state === "Z" || state === "X") return null;
    return { started, args: (await readFile(`/proc/${pid}/cmdline`, "utf8")).split("\0") };
  } catch {
    return null;
  }
}

function pidNamespace(): Promise<string> {
  return readlink("/proc/self/ns/pid").catch(() => "");
}
