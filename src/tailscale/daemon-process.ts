// One run of tailscaled: the program, its environment, from its start to its end.
import { spawn } from "node:child_process";
import { constants } from "node:fs";
import { access, open, readFile, stat } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { kill } from "node:process";
import { describeSystemError, systemErrorCode } from "../lib/errors.ts";
import { within } from "../lib/within.ts";
import type { Log } from "../telemetry/log.ts";
import { DaemonError } from "./daemon-error.ts";
import { DaemonLog } from "./daemon-log.ts";

const DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TUN_DEVICE = "/dev/net/tun";
const CAP_NET_ADMIN = 1n << 12n;
/** What tailscaled wrote before its end arrives within this time, even when a child of it holds the pipe open. */
const REST_OF_STDERR_MS = 200;

// What tailscaled and the Go runtime read. Values under names of the second kind are for others, or are set here.
const HANDED_ON = /^(?:TS_\w+|PATH|TZ|GOMAXPROCS|GOMEMLIMIT|GOGC|GODEBUG|GOTRACEBACK|SSL_CERT_FILE|SSL_CERT_DIR|(?:HTTPS?|ALL|NO)_PROXY)$/i;
const HELD_BACK = /AUTH_?KEY|API_?KEY|SECRET|TOKEN|PASSWORD|^TS_(?:BE_CLI|PARENT_DEATH_FD|LOGS_DIR)$/i;
// The configuration can take a key from a variable of any name.
const KEY = /\b(?:ts|hs)key-/;

export type Environment = Readonly<Record<string, string | undefined>>;

type RunOptions = {
  /** Path of the program. */
  readonly program: string;
  readonly stateDir: string;
  readonly socket: string;
  readonly tun: boolean;
  readonly env: Environment;
  readonly log: Log;
};

export type Run = {
  /** Null: it could not be started. */
  readonly pid: number | null;
  readonly hasEnded: boolean;
  /** Why it ended and what to do; resolves when it is gone, with all that it had started. */
  readonly ended: Promise<string>;
  /** Ends it; the first reason counts, and is what `ended` tells. */
  end(reason: string, signal: "SIGTERM" | "SIGKILL"): void;
};

/** Starts the program. Never throws. */
export function runTailscaled({ program, stateDir, socket, tun, env, log }: RunOptions): Run {
  const args = [`--statedir=${stateDir}`, `--socket=${socket}`, `--tun=${tun ? "tailscale0" : "userspace-networking"}`, "--port=0"];
  // Its own session: Ctrl-C on the terminal of the gateway must not end it while connections drain. That it ends with the gateway all the same is
  // what the pipe is for: tailscaled ends when the other end of this file descriptor is closed.
  const child = spawn(program, args, { cwd: stateDir, detached: true, stdio: ["ignore", "ignore", "pipe", "pipe"], env: environmentOf(env, stateDir) });
  const { pid = null } = child;
  let why = "";
  let hasEnded = false;
  const end = (reason: string, signal: "SIGTERM" | "SIGKILL"): void => {
    why ||= reason;
    if (!hasEnded && pid !== null) killGroup(pid, signal);
  };
  const lines = new DaemonLog(log, (reason) =>
    end(
      `tailscaled cannot read the state of the node, '${join(stateDir, "tailscaled.state")}': ${reason}: ` +
        "restore the file, or remove it (the node must then log in anew, and remove the old node in the admin console)",
      "SIGKILL",
    ),
  );
  child.stderr?.setEncoding("utf8").on("data", (text: string) => lines.write(text));
  // Without listeners, errors that come late would end the gateway.
  for (const stream of child.stdio) stream?.on("error", () => {});
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const { promise, resolve } = Promise.withResolvers<string>();
  child.on("error", (error) => {
    if (pid === null) resolve(`Cannot start '${program}': ${describeSystemError(error)}`);
  });
  child.once("exit", (code, signal) => {
    hasEnded = true;
    if (pid !== null) killGroup(pid, "SIGKILL");
    void within(closed, REST_OF_STDERR_MS, { ref: false }).then(() => {
      for (const stream of child.stdio) stream?.destroy();
      const line = lines.end();
      resolve(why || describeEnd(code, signal, line, socket));
    });
  });
  const ended = promise.finally(() => (hasEnded = true));
  return {
    pid,
    ended,
    end,
    get hasEnded() {
      return hasEnded;
    },
  };
}

/** With the processes that it started. */
function killGroup(pid: number, signal: "SIGTERM" | "SIGKILL"): void {
  try {
    kill(-pid, signal);
  } catch {
    // Nobody is left.
  }
}

function describeEnd(code: number | null, signal: NodeJS.Signals | null, line: string, socket: string): string {
  if (signal === "SIGKILL") return "tailscaled was killed (SIGKILL) by something other than the gateway, for want of memory perhaps";
  const how = `tailscaled ended with ${code === null ? `signal ${signal}` : `exit code ${code}`}`;
  if (line === "") return how;
  if (line.startsWith("safesocket.Listen") && line.includes("address already in use")) return `${how}: another tailscaled listens on '${socket}'`;
  if (line.includes("tstun.New") && line.includes("resource busy")) {
    return `${how}: the network interface 'tailscale0' is in use by another tailscaled of the same network: end that one, or leave 'tun' out`;
  }
  if (line.includes("tstun.New")) return `${how}: ${line}: ${TUN_ADVICE}`;
  return `${how}: ${line}`;
}

/** What tailscaled gets of the gateway's environment: settings, never keys. It writes to no directory but that of its state. */
function environmentOf(env: Environment, stateDir: string): Record<string, string> {
  const handedOn = Object.entries(env).filter((entry): entry is [string, string] => {
    const [name, value] = entry;
    return value !== undefined && HANDED_ON.test(name) && !HELD_BACK.test(name) && !KEY.test(value);
  });
  return {
    PATH: DEFAULT_PATH,
    ...Object.fromEntries(handedOn),
    HOME: stateDir,
    XDG_CACHE_HOME: stateDir,
    XDG_CONFIG_HOME: stateDir,
    XDG_DATA_HOME: stateDir,
    TS_LOGS_DIR: stateDir,
    // Devices of the node's user can send it files otherwise, past the seal: they would fill the state directory.
    TS_DISABLE_TAILDROP: "true",
    TS_PARENT_DEATH_FD: "3",
  };
}

/**
 * The path of the program.
 * @param name a path, or a name that is looked for in PATH
 * @throws {DaemonError}
 */
export async function findProgram(name: string, env: Environment): Promise<string> {
  const path = env["PATH"] || DEFAULT_PATH;
  const candidates = name.includes("/") ? [name] : path.split(delimiter).map((dir) => join(dir || ".", name));
  for (const candidate of candidates) if (await isProgram(candidate)) return candidate;
  const where = name.includes("/") ? `'${name}' is no program that can be executed` : `no program '${name}' in PATH '${path}'`;
  throw new DaemonError(
    `Cannot find tailscaled: ${where}: install Tailscale (Sidegate's image has it), or name a tailscaled that runs already in 'tailscale.socket'`,
  );
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

const TUN_ADVICE = `a container needs 'devices: [${TUN_DEVICE}]', 'cap_add: [NET_ADMIN]' and 'user: "0"'; or leave 'tun' out`;

/**
 * Whether a kernel interface can be made; tailscaled's own words for it are many and dark.
 * @throws {DaemonError}
 */
export async function checkTun(device = TUN_DEVICE, statusFile = "/proc/self/status"): Promise<void> {
  const reason = (await whyNoDevice(device)) || (await whyNoCapability(statusFile));
  if (reason !== "") throw new DaemonError(`Cannot make a network interface for 'tun: true': ${reason}: ${TUN_ADVICE}`);
}

async function whyNoDevice(device: string): Promise<string> {
  try {
    if (!(await stat(device)).isCharacterDevice()) return `'${device}' is no device`;
    // Opening makes no interface yet, and is what the container's device rules forbid.
    await (await open(device, "r+")).close();
    return "";
  } catch (error) {
    const missing = ["ENOENT", "ENODEV", "ENXIO"].includes(systemErrorCode(error) ?? "");
    return missing ? `'${device}' is missing` : `cannot open '${device}': ${describeSystemError(error)}`;
  }
}

async function whyNoCapability(statusFile: string): Promise<string> {
  const status = await readFile(statusFile, "utf8").catch(() => "");
  const effective = /^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1];
  if (effective === undefined || (BigInt(`0x${effective}`) & CAP_NET_ADMIN) !== 0n) return "";
  const uid = /^Uid:\s*\d+\s+(\d+)/m.exec(status)?.[1];
  return uid === "0" ? "the capability NET_ADMIN is missing" : `the capability NET_ADMIN is missing, and the gateway runs as user ${uid}`;
}
