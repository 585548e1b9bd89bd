// Text -> Config: read, parse, interpolate, validate, fill in defaults, check, resolve. All problems come at once.
import { createHash } from "node:crypto";
import { resolve } from "node:path";
import { Breather } from "../lib/breather.ts";
import { forgetOldPem } from "../lib/pem-memory.ts";
import { checkCover } from "./check-cover.ts";
import { checkDocument } from "./check.ts";
import { type Env, interpolateDocument } from "./interpolate.ts";
import { type Parsed, parseConfig } from "./parse.ts";
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
      /** What works, and yet not as somebody may think; in the order of the file. They change with the time, and the digest does not know them. */
      readonly warnings: readonly Problem[];
      /** The text of the file with its secrets masked, for excerpts; empty without warnings. */
      readonly source: string;
    }
  | {
      readonly ok: false;
      /** At least one, in the order of the file. */
      readonly problems: readonly Problem[];
      /** Of what was right, in the order of the file. */
      readonly warnings: readonly Problem[];
      /** The text of the file with its secrets masked, for excerpts; empty when it could not be read. */
      readonly source: string;
      readonly paths: readonly string[];
    };

/** What the last file said. The phases after it work on a copy of their own. */
let last: { readonly key: string; readonly parsed: Parsed } | null = null;

/**
 * Loads the configuration at `path`; `env` is what `${VAR}` takes its values from.
 * Nothing that a user can cause is thrown: it is a problem.
 * @param now milliseconds since the epoch, for certificates that expired. Default: the clock.
 */
export async function loadConfig(path: string, env: Env, now = Date.now()): Promise<LoadedConfig> {
  const own = resolve(path);
  const file = await readText(own);
  if (!file.ok) {
    const advice = file.isMissing === true ? `; ${await adviseMissing(own)}` : "";
    const message = `Cannot read the configuration: ${file.reason}${advice}`;
    const problem: Problem = { file: path, line: 0, column: 0, length: 0, message, path: "" };
    return { ok: false, problems: [problem], warnings: [], source: "", paths: [own] };
  }
  const breather = new Breather();
  const { document, paths: doubtful, usable, ...understood } = understand(path, file.text, env);
  if (!usable) return { ok: false, problems: understood.problems, warnings: [], source: maskSecrets(document, false), paths: [own] };
  await breather.breathe();
  const check = checkDocument(document, doubtful, env);
  await breather.breathe();
  forgetOldPem();
  const { files, paths } = await resolveConfig(check, own, env);
  await breather.breathe();
  await checkCover(check, files, now);
  const problems = [...understood.problems, ...check.problems];
  const watched = [own, ...paths];
  // Where a problem is, a warning says nothing more.
  const wrong = new Set(problems.map((problem) => problem.path));
  const warnings = inOrder(check.warnings.filter((warning) => warning.line === 0 || !wrong.has(warning.path)));
  if (problems.length > 0) return { ok: false, problems: inOrder(problems), warnings, source: maskSecrets(document, true), paths: watched };
  const digest = await digestOf(check.config, files);
  const source = warnings.length === 0 ? "" : maskSecrets(document, true);
  return { ok: true, config: check.config, files, paths: watched, digest, warnings, source };
}

/** A certificate is replaced more often than the configuration is edited, and of 10,000 pairs parsing alone takes more than half a second. */
function understand(path: string, text: string, env: Env): Parsed {
  const key = JSON.stringify([path, text, env]);
  if (last?.key === key) return last.parsed;
  const parsed = parseConfig(path, text);
  if (!parsed.usable) return parsed;
  const { document } = parsed;
  const interpolated = interpolateDocument(document, env);
  const doubtful = [...parsed.paths, ...interpolated.paths];
  const validated = validateDocument(document, doubtful);
  const problems = [...parsed.problems, ...interpolated.problems, ...validated.problems];
  last = { key, parsed: { document, problems, paths: [...doubtful, ...validated.paths], usable: true } };
  return last.parsed;
}

async function digestOf(config: Config, files: ReadonlyMap<string, string>): Promise<string> {
  const breather = new Breather();
  const sum = createHash("sha256").update(JSON.stringify(config));
  for (const file of files) {
    sum.update(JSON.stringify(file));
    await breather.breathe();
  }
  return sum.digest("hex");
}

async function adviseMissing(path: string): Promise<string> {
  const twin = path.endsWith(".yaml") ? path.replace(/aml$/, "ml") : path.replace(/\.yml$/, ".yaml");
  const isThere = twin !== path && (await readText(twin)).ok;
  return isThere ? `there is ${quote(twin)}: name that one, or rename it` : "'sidegate init' writes one; in a container mount its directory at /etc/sidegate";
}

function inOrder(problems: readonly Problem[]): Problem[] {
  return problems.toSorted((a, b) => a.line - b.line || a.column - b.column);
}
