// sidegate init: writes a commented starter file, the same text as in examples/, and the schema beside it.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { dirname, isAbsolute, join, relative, resolve, sep } from "node:path";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { nearest } from "../lib/nearest.ts";
import { EXIT_OK, parseCommand, UsageError, type Io } from "./io.ts";
import { readSchema } from "./schema.ts";

const KINDS = ["mcp", "mcp-oauth", "ib-gateway", "behind-proxy"];
const SCHEMA_FILE = "sidegate.schema.json";
const SCHEMA_LINE = "# yaml-language-server: $schema=";

export class InitError extends GatewayError {
  constructor(message: string) {
    super("ERR_INIT", message);
  }
}

export async function runInit(args: readonly string[], io: Io): Promise<number> {
  const { values, positionals } = parseCommand(args, { output: { type: "string", default: "sidegate.yaml" }, force: { type: "boolean", default: false } }, 1);
  const kind = positionals[0] ?? "mcp";
  const text = await readStarter(kind);
  if (values.output === "-") {
    io.stdout(text);
    return EXIT_OK;
  }
  const file = resolve(io.cwd, values.output);
  const schemaFile = join(dirname(file), SCHEMA_FILE);
  await write(file, text, values.force, kind);
  // The schema belongs to the version that runs: an older one beside the file is replaced.
  await write(schemaFile, await readSchema(), true, kind);
  const shown = shownPath(io.cwd, file);
  io.stdout(`Wrote ${shown} and, for editors, ${shownPath(io.cwd, schemaFile)}\n\nRead and change it, then:\n`);
  if (text.includes("sha256:")) io.stdout("  sidegate token new              # a token, and the line with its hash\n");
  io.stdout(`  sidegate check ${shown.padEnd(16)} # says what is missing\n  sidegate run ${shown}\n`);
  return EXIT_OK;
}

async function readStarter(kind: string): Promise<string> {
  if (!KINDS.includes(kind)) {
    const near = nearest(kind, KINDS);
    throw new UsageError(`Unknown starter '${kind}'${near === null ? `; there are ${KINDS.join(", ")}` : `. Did you mean '${near}'?`}`);
  }
  const text = await readFile(new URL(`../../examples/${kind}/sidegate.yaml`, import.meta.url), "utf8");
  return `${SCHEMA_LINE}./${SCHEMA_FILE}\n${text.slice(text.indexOf("\n") + 1)}`;
}

/** From where the command runs, or absolute when it is elsewhere. */
function shownPath(cwd: string, file: string): string {
  const path = relative(cwd, file);
  return isAbsolute(path) || path.startsWith(`..${sep}`) ? file : path;
}

async function write(file: string, text: string, overwrite: boolean, kind: string): Promise<void> {
  try {
    await mkdir(dirname(file), { recursive: true });
    await writeFile(file, text, { flag: overwrite ? "w" : "wx" });
  } catch (error) {
    if (systemErrorCode(error) === "EEXIST") throw new InitError(`'${file}' is already there; --force overwrites it`);
    const advice = systemErrorCode(error) === "EACCES" ? `; 'sidegate init ${kind} --output -' prints it` : "";
    throw new InitError(`Cannot write '${file}': ${describeSystemError(error)}${advice}`);
  }
}
