// What a command may use of the world, and how it ends.
import { resolve } from "node:path";
import type { Readable } from "node:stream";
import { parseArgs, type ParseArgsConfig } from "node:util";
import { GatewayError } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";

/** The process as commands see it; only main.ts touches the real one. */
export type Io = {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly cwd: string;
  /** Process id, for status. */
  readonly pid: number;
  /** Standard input, asked for only by who reads it. */
  readonly stdin: () => Input;
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
  /** Whether standard output is a terminal. */
  readonly isTty: boolean;
  /** Aborted by SIGINT and SIGTERM. */
  readonly stopped: AbortSignal;
  /** Takes what SIGHUP does. */
  readonly onHangup: (handler: () => void) => void;
};

/** `isTTY` and `setRawMode` where it is a terminal. */
export type Input = Readable & { readonly isTTY?: boolean; setRawMode?(on: boolean): unknown };

export const EXIT_OK = 0;
export const EXIT_FAILED = 1;
export const EXIT_USAGE = 2;
export const EXIT_CONFIG = 64;
export const EXIT_UNAVAILABLE = 69;

/** The command was not written as it must be: exit code 2. */
export class UsageError extends GatewayError {
  constructor(message: string) {
    super("ERR_USAGE", message);
  }
}

const DEFAULT_FILE = "/etc/sidegate/sidegate.yaml";

/** The configuration file, absolute: the one that is named, else SIDEGATE_CONFIG, else /etc/sidegate/sidegate.yaml. */
export function configFile(io: Io, named: string | undefined): string {
  return resolve(io.cwd, named ?? (io.env["SIDEGATE_CONFIG"] || DEFAULT_FILE));
}

/** Whether to print in colours: on a terminal, unless NO_COLOR says otherwise (no-color.org). */
export function hasColors(io: Io): boolean {
  return io.isTty && (io.env["NO_COLOR"] ?? "") === "";
}

/**
 * The options and at most `maxPositionals` further words of a command.
 * @throws {UsageError} naming the nearest option that exists
 */
export function parseCommand<T extends NonNullable<ParseArgsConfig["options"]>>(args: readonly string[], options: T, maxPositionals: number) {
  let parsed;
  try {
    parsed = parseArgs({ args: [...args], options, allowPositionals: true, strict: true });
  } catch (error) {
    throw new UsageError(describe(error, Object.keys(options)));
  }
  const extra = parsed.positionals[maxPositionals];
  if (extra !== undefined) throw new UsageError(`Unexpected argument '${extra}'`);
  return parsed;
}

/**
 * The positionals with one of `words` first: the first of them when there is none, or when the file is named right away.
 * @throws {UsageError} naming the nearest word
 */
export function wordFirst(positionals: readonly string[], words: readonly [string, ...string[]]): readonly string[] {
  const [first] = positionals;
  if (first !== undefined && words.includes(first)) return positionals;
  if (first === undefined || /[./\\]/.test(first)) return [words[0], ...positionals];
  const near = nearest(first, words);
  throw new UsageError(`Unknown word '${first}'${near === null ? `; there are ${words.join(", ")}` : `. Did you mean '${near}'?`}`);
}

function describe(error: unknown, known: readonly string[]): string {
  if (!(error instanceof Error)) return String(error);
  // Node's sentences go on with advice that does not fit here.
  const sentence = error.message.split(/\. |\n/, 1)[0] ?? "";
  const unknown = /^Unknown option '--([^']+)'/.exec(sentence)?.[1];
  const near = unknown === undefined ? null : nearest(unknown, known);
  return near === null ? sentence : `${sentence}. Did you mean '--${near}'?`;
}
