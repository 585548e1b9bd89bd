// sidegate version: the version of the package.
import { readFileSync } from "node:fs";
import { EXIT_OK, parseCommand, type Io } from "./io.ts";

/** As in package.json. */
export function readVersion(): string {
  const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  return version;
}

export function runVersion(args: readonly string[], io: Io): Promise<number> {
  parseCommand(args, {}, 0);
  io.stdout(`sidegate ${readVersion()}\n`);
  return Promise.resolve(EXIT_OK);
}
