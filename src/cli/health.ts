// sidegate health: one line that says what is unwell. It runs every few seconds, so it loads next to nothing.
import { parseDurationMs } from "../lib/duration.ts";
import { askAdmin } from "./admin-client.ts";
import { configFile, EXIT_FAILED, EXIT_OK, parseCommand, UsageError, type Io } from "./io.ts";
import { plainLine } from "./table.ts";

export async function runHealth(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseCommand(args, { timeout: { type: "string", default: "3s" } }, 1);
  const timeoutMs = parseDurationMs(values.timeout);
  if (timeoutMs === null || timeoutMs === 0) throw new UsageError(`'${values.timeout}' is not a duration such as 3s`);
  const answer = await askAdmin(configFile(io, positionals[0]), io.env, "GET /ready", timeoutMs);
  const { status, problems } = JSON.parse(answer.body) as { status: string; problems: { what: string; name: string; reason: string }[] };
  const reasons = problems.map(({ what, name, reason }) => plainLine(what === "gateway" ? reason : `${what} '${name}': ${reason}`));
  io.stdout(`${[status, reasons.join("; ")].filter((part) => part !== "").join(": ")}\n`);
  return answer.status === 200 ? EXIT_OK : EXIT_FAILED;
}
