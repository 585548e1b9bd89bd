// The gateway's own log: JSON lines or a readable form, on standard error.
import { isatty } from "node:tty";
import { pino } from "pino";
import type { Logger } from "pino";
import { formatLogLine } from "./log-format.ts";

/** Fields go with each call; there are no child logs, because they would keep their level over a reload. */
export type Log = Pick<Logger, "fatal" | "error" | "warn" | "info" | "debug" | "trace" | "level" | "isLevelEnabled">;

export type LogSettings = {
  readonly level: "trace" | "debug" | "info" | "warn" | "error";
  /** `auto`: pretty on a terminal, JSON elsewhere. */
  readonly format: "auto" | "json" | "pretty";
};

/** What standard error is. `write` takes whole lines. */
export type LogOutput = { readonly isTty: boolean; readonly colors: boolean; write(text: string): void };

type Sink = { pretty: boolean; readonly output: LogOutput; write(line: string): void };

const sinks = new WeakMap<Log, Sink>();
const REDACTED = "[redacted]";
const SECRET_KEY = /authorization|token|secret|password|passwd|cookie|^key$|(?:private|api)[-_]?key/i;
const MAX_REDACT_DEPTH = 4;

/**
 * Opens the log.
 * @param output default: standard error. Written synchronously, so that the last line before an exit is not lost.
 */
export function openLog(settings: LogSettings, output: LogOutput = openStandardError()): Log {
  const sink: Sink = {
    pretty: isPretty(settings, output),
    output,
    write(line) {
      output.write(this.pretty ? formatLogLine(line, output.colors) : line);
    },
  };
  const log: Log = pino(
    {
      level: settings.level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: (label) => ({ level: label }), log: (fields) => redactSecrets(fields, 0) },
    },
    sink,
  );
  sinks.set(log, sink);
  return log;
}

/** Changes level and format of a log that `openLog` gave, at once. */
export function changeLog(log: Log, settings: LogSettings): void {
  log.level = settings.level;
  const sink = sinks.get(log);
  if (sink !== undefined) sink.pretty = isPretty(settings, sink.output);
}

/** Standard error, in colours when it is a terminal and NO_COLOR is not set (no-color.org). */
export function openStandardError(env: Readonly<Record<string, string | undefined>> = {}): LogOutput {
  const destination = pino.destination({ fd: 2, sync: true });
  // Whoever read standard error has gone: there is nobody to tell, and no reason to stop serving.
  destination.on("error", () => {});
  const isTty = isatty(2);
  return { isTty, colors: isTty && (env["NO_COLOR"] ?? "") === "", write: (text) => destination.write(text) };
}

function isPretty(settings: LogSettings, output: LogOutput): boolean {
  return settings.format === "pretty" || (settings.format === "auto" && output.isTty);
}

// A net under the rule that secrets are never passed to the log.
function redactSecrets(fields: Record<string, unknown>, depth: number): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(fields)) {
    const isObject = typeof value === "object" && value !== null;
    if (SECRET_KEY.test(key) && (isObject || typeof value === "string")) result[key] = REDACTED;
    else if (isObject && depth < MAX_REDACT_DEPTH && isPlain(value)) result[key] = redactSecrets(value, depth + 1);
    else if (Array.isArray(value) && depth < MAX_REDACT_DEPTH)
      result[key] = value.map((item: unknown) => (isPlain(item) ? redactSecrets(item, depth + 1) : item));
    else result[key] = value;
  }
  return result;
}

function isPlain(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;
}
