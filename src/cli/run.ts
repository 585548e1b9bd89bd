// `sidegate run`: serves the file until it is told to stop.
import { once } from "node:events";
import { ConfigError, startGateway, type Gateway } from "../gateway.ts";
import { GatewayError } from "../lib/errors.ts";
import { configFile, EXIT_CONFIG, EXIT_FAILED, EXIT_OK, EXIT_UNAVAILABLE, parseCommand, type Io } from "./io.ts";
import { readVersion } from "./version.ts";

/** Codes of what the machine does not give: a port, a directory, a CA that cannot be kept. */
const UNAVAILABLE = new Set(["ERR_LISTEN", "ERR_STATE", "ERR_INTERNAL_CA", "ERR_ACCESS_LOG_OPEN"]);

export async function runGateway(args: readonly string[], io: Io): Promise<number> {
  const { positionals } = parseCommand(args, {}, 1);
  const file = configFile(io, positionals[0]);
  let gateway: Gateway;
  try {
    gateway = await startGateway({ file, env: io.env, version: readVersion(), pid: io.pid });
  } catch (error) {
    if (error instanceof ConfigError) {
      io.stderr(`${error.text}\n${error.message}\n`);
      return EXIT_CONFIG;
    }
    if (!(error instanceof GatewayError)) throw error;
    io.stderr(`${error.message}\n`);
    return UNAVAILABLE.has(error.code) ? EXIT_UNAVAILABLE : EXIT_FAILED;
  }
  io.onHangup(() => void gateway.hangUp());
  if (!io.stopped.aborted) await once(io.stopped, "abort");
  await gateway.close();
  return EXIT_OK;
}
