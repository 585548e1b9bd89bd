// sidegate check: judges a configuration file by the steps that a start and a reload take.
import { basename } from "node:path";
import { formatRefusal, formatWarnings } from "../config/format-problems.ts";
import { loadConfig } from "../config/load.ts";
import { buildPlan } from "../plan/build.ts";
import { configFile, EXIT_CONFIG, EXIT_OK, parseCommand, UsageError, type Io } from "./io.ts";

export async function runCheck(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseCommand(args, { format: { type: "string", default: "text" } }, 1);
  if (values.format !== "text" && values.format !== "json") throw new UsageError(`Unknown format '${values.format}'; there are 'text' and 'json'`);
  const isJson = values.format === "json";
  const file = configFile(io, positionals[0]);
  const loaded = await loadConfig(file, io.env);
  if (!loaded.ok) {
    if (isJson) printJson(io, { valid: false, file, problems: loaded.problems, warnings: loaded.warnings });
    else io.stderr(formatRefusal(loaded));
    return EXIT_CONFIG;
  }
  const plan = buildPlan(loaded.config, loaded.files);
  const counts = { listeners: plan.listeners.size, routes: plan.routes.length, upstreams: plan.upstreams.size };
  if (isJson) {
    printJson(io, { valid: true, file, ...counts, warnings: loaded.warnings });
  } else {
    io.stderr(formatWarnings(loaded.warnings, loaded.source));
    io.stdout(`${basename(file)} is valid: ${count(counts.listeners, "listener")}, ${count(counts.routes, "route")}, ${count(counts.upstreams, "upstream")}\n`);
  }
  return EXIT_OK;
}

function printJson(io: Io, value: unknown): void {
  io.stdout(`${JSON.stringify(value, null, 2)}\n`);
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}
