// Problems for people: one line for each, and the place in the file with a caret under the word.
import type { Problem } from "./problem.ts";

const MAX_SHOWN = 100;
const MAX_EXCERPT_CHARS = 120;
const LINES_BEFORE = 1;

/** `sidegate.yaml:12:5: Unknown key ...` with an excerpt of the source, for each problem, an empty line between. Ends with a line break. */
export function formatProblems(problems: readonly Problem[], source: string): string {
  return format(problems, source, "", "problems");
}

/** The same with the word `warning:` before each sentence; empty without warnings. */
export function formatWarnings(warnings: readonly Problem[], source: string): string {
  return format(warnings, source, "warning: ", "warnings");
}

/** What refused a file and, after it, what else there is to say of it: a warning may be why. Ends with a line break. */
export function formatRefusal({
  problems,
  warnings,
  source,
}: {
  readonly problems: readonly Problem[];
  readonly warnings: readonly Problem[];
  readonly source: string;
}): string {
  return [formatProblems(problems, source), formatWarnings(warnings, source)].filter((text) => text !== "").join("\n");
}

function format(problems: readonly Problem[], source: string, word: string, plural: string): string {
  // Nothing in a file may move the cursor of a terminal.
  // oxlint-disable-next-line no-control-regex -- they are what is replaced
  const lines = source.split(/\r?\n/).map((line) => line.replaceAll(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u2028\u2029]/g, "\ufffd"));
  const shown = problems.slice(0, MAX_SHOWN).map((problem) => `${headline(problem, word)}\n${excerpt(problem, lines)}`);
  if (problems.length > MAX_SHOWN) shown.push(`... and ${problems.length - MAX_SHOWN} more ${plural}\n`);
  return shown.join("\n");
}

function headline(problem: Problem, word: string): string {
  return problem.line === 0 ? `${problem.file}: ${word}${problem.message}` : `${problem.file}:${problem.line}:${problem.column}: ${word}${problem.message}`;
}

function excerpt(problem: Problem, lines: readonly string[]): string {
  const width = String(problem.line).length;
  const text = lines[problem.line - 1];
  if (problem.line === 0 || text === undefined || text === "") return "";
  const rows: string[] = [];
  for (let number = Math.max(1, problem.line - LINES_BEFORE); number < problem.line; number += 1) {
    const before = lines[number - 1] ?? "";
    if (before.trim() !== "") rows.push(`  ${String(number).padStart(width)} | ${before.slice(0, MAX_EXCERPT_CHARS)}`);
  }
  // Of a very long line the part around the place.
  const from = Math.max(0, problem.column - 1 - MAX_EXCERPT_CHARS / 2) * (text.length > MAX_EXCERPT_CHARS ? 1 : 0);
  const shown = text.slice(from, from + MAX_EXCERPT_CHARS);
  const indent = text.slice(from, problem.column - 1).replaceAll(/[^\t]/g, " ");
  const carets = "^".repeat(Math.max(1, Math.min(problem.length, shown.length - indent.length)));
  rows.push(`  ${problem.line} | ${shown}`, `  ${" ".repeat(width)} | ${indent}${carets}`);
  return `${rows.join("\n")}\n`;
}
