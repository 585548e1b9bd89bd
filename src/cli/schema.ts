// sidegate schema: the JSON Schema of the configuration file.
import { readFile } from "node:fs/promises";
import { EXIT_OK, parseCommand, type Io } from "./io.ts";

export function readSchema(): Promise<string> {
  return readFile(new URL("../../schema/config.schema.json", import.meta.url), "utf8");
}

export async function runSchema(args: readonly string[], io: Io): Promise<number> {
  parseCommand(args, {}, 0);
  io.stdout(await readSchema());
  return EXIT_OK;
}
