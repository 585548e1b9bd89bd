// Text -> Config: read, parse, interpolate, validate, fill in defaults, check, resolve. All problems come at once.
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { checkDocument } from "./check.ts";
import { type Env, interpolateDocument } from "./interpolate.ts";
import { parseConfig } from "./parse.ts";
import { type Problem, quote } from "./problem.ts";
import { readText } from "./read.ts";
import { resolveConfig } from "./resolve.ts";
import { maskSecrets } from "./secrets.ts";
import type { Config } from "./types.ts";
import { validateDocument } from "./validate.ts";

export type LoadedConfig =
  | {
      readonly ok: true;
      readonly config: Config;
      /** Texts of certificates, keys and CAs by absolute path. */
      readonly files: ReadonlyMap<string, string>;
      /** Every file that was read or looked for, absolute: what to watch. */
      readonly paths: readonly string[];
      /** SHA-256 over all that the configuration says and the files it names: equal digests mean that nothing changed. */
      readonly digest: string;
    }
  | {
      readonly ok: false;
      /** At least one, in the order of the file. */
      readonly problems: readonly Problem[];
      /** The text of the file with its secrets masked, for excerpts; empty when it could not be read. */
      readonly source: string;
      readonly paths: readonly string[];
    };

/**
 * Loads the configuration at `path`; `env` is what `${VAR}` takes its values from.
 * Nothing that a user can cause is thrown: it is a problem.
 */
export async function loadConfig(path: string, env: Env): Promise<LoadedConfig> {
  const own = resolve(path);
  const file = await readText(own);
  if (!file.ok) {
    const advice = file.isMissing === true ? `; ${await adviseMissing(own)}` : "";
    const message = `Cannot read the configuration: ${file.reason}${advice}`;
    const problem: Problem = { file: path, line: 0, column: 0, length: 0, message, path: "" };
    return { ok: false, problems: [problem], source: "", paths: [own] };
  }
  const { document, problems, paths: refused, usable } = parseConfig(path, file.text);
  if (!usable) return { ok: false, problems, source: maskSecrets(document, false), paths: [own] };
  const interpolated = interpolateDocument(document, env);
  const doubtful = [...refused, ...interpolated.paths];
  const validated = validateDocument(document, doubtful);
  const check = checkDocument(document, [...doubtful, ...validated.paths]);
  const { files, paths } = await resolveConfig(check, own, env);
  problems.push(...interpolated.problems, ...validated.problems, ...check.problems);
  const watched = [own, ...paths];
  if (problems.length > 0) return { ok: false, problems: inOrder(problems), source: maskSecrets(document, true), paths: watched };
  const digest = createHash("sha256")
    .update(JSON.stringify([check.config, [...files]]))
    .digest("hex");
  return { ok: true, config: check.config, files, paths: watched, digest };
}

async function adviseMissing(path: string): Promise<string> {
  const twin = path.endsWith(".yaml") ? path.replace(/aml$/, "ml") : path.replace(/\.yml$/, ".yaml");
  const isThere = twin !== path && (await readText(twin)).ok;
  return isThere ? `there is ${quote(twin)}: name that one, or rename it` : "'sidegate init' writes one; in a container mount its directory at /etc/sidegate";
}

function inOrder(problems: readonly Problem[]): Problem[] {
  return problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
}
