// sidegate tailnet: shows the tailnet of the running gateway, judges its network, and takes the node off it.
import { spawn } from "node:child_process";
import { access, constants } from "node:fs/promises";
import type { ActionResult, GatewayStatus } from "../admin/status.ts";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { askAdmin } from "./admin-client.ts";
import { configFile, EXIT_FAILED, EXIT_OK, hasColors, parseCommand, UsageError, wordFirst, type Io } from "./io.ts";
import { plainLine } from "./table.ts";
import { formatTailnet } from "./tailnet-text.ts";

const TIMEOUT_MS = 5_000;
// The control server is told, and may be far away.
const LOGOUT_TIMEOUT_MS = 60_000;
const PROGRAM = "tailscale";
const WORDS = ["status", "netcheck", "logout"] as const;
const NOTHING = "Nothing is on the tailnet: the file has no listener on 'tailnet:PORT'";

export class NetcheckError extends GatewayError {
  constructor(message: string) {
    super("ERR_NETCHECK", message);
  }
}

export async function runTailnet(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseCommand(args, { json: { type: "boolean", default: false } }, 3);
  const [word, named, extra] = wordFirst(positionals, WORDS);
  if (extra !== undefined) throw new UsageError(`Unexpected argument '${extra}'`);
  const file = configFile(io, named);
  const { tailnet } = JSON.parse((await askAdmin(file, io.env, "GET /status", TIMEOUT_MS)).body) as GatewayStatus;
  if (word === "logout") return logout(tailnet === null, file, values.json, io);
  if (word === "netcheck") {
    if (tailnet === null) throw new NetcheckError(NOTHING);
    return netcheck(tailnet.socket, values.json, io);
  }
  if (values.json) io.stdout(`${JSON.stringify(tailnet, null, 2)}\n`);
  else io.stdout(tailnet === null ? `${NOTHING}\n` : formatTailnet(tailnet, new Date(), hasColors(io)));
  return EXIT_OK;
}

async function logout(nothing: boolean, file: string, json: boolean, io: Io): Promise<number> {
  const result = nothing ? { ok: false, message: NOTHING } : await askLogout(file, io);
  if (json) io.stdout(`${JSON.stringify(result)}\n`);
  else (result.ok ? io.stdout : io.stderr)(`${plainLine(result.message)}\n`);
  return result.ok ? EXIT_OK : EXIT_FAILED;
}

async function askLogout(file: string, io: Io): Promise<ActionResult> {
  const { status, body } = await askAdmin(file, io.env, "POST /tailnet/logout", LOGOUT_TIMEOUT_MS, io.stopped);
  const { ok, message, error } = JSON.parse(body) as Partial<ActionResult> & { error?: string };
  return { ok: ok === true, message: message ?? `The gateway cannot log out: ${error ?? status}` };
}

/** Runs Tailscale's own command, since the LocalAPI has none for this, and passes on what it prints. */
async function netcheck(socket: string, json: boolean, io: Io): Promise<number> {
  // Without tailscaled it would ask Tailscale's servers on the Internet, and answer for another tailnet than this one.
  await access(socket, constants.R_OK | constants.W_OK).catch((error: unknown) => {
    throw new NetcheckError(
      `Cannot use tailscaled's socket '${plainLine(socket)}': ${describeSystemError(error)}; run this command where the gateway runs, as its user`,
    );
  });
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const child = spawn(PROGRAM, [`--socket=${socket}`, "netcheck", ...(json ? ["--format=json"] : [])], {
    env: { ...io.env },
    stdio: ["ignore", "pipe", "pipe"],
    signal: io.stopped,
  });
  child.stdout.setEncoding("utf8").on("data", io.stdout);
  child.stderr.setEncoding("utf8").on("data", io.stderr);
  child.on("error", (error) => {
    if (io.stopped.aborted) return resolve(EXIT_FAILED);
    const why = systemErrorCode(error) === "ENOENT" ? "it is not in PATH; it comes with Tailscale, beside tailscaled" : describeSystemError(error);
    reject(new NetcheckError(`Cannot run '${PROGRAM}': ${why}`));
  });
  child.on("close", (code) => resolve(code === 0 ? EXIT_OK : EXIT_FAILED));
  return promise;
}
