// What the checks share: the configuration with its defaults, which parts of it are right by themselves, and what was found.
import { withDefaults } from "./defaults.ts";
import type { ConfigDocument } from "./document.ts";
import { type Path, type Problem, formatPath } from "./problem.ts";
import type { Config } from "./types.ts";

export class CheckContext {
  readonly problems: Problem[] = [];
  /** What works, and yet not as somebody may think. */
  readonly warnings: Problem[] = [];
  /** Typed as if everything were right: look only at what `isSound`. */
  readonly config: Config;
  readonly #document: ConfigDocument;
  readonly #broken: ReadonlySet<string>;
  readonly #holdsBroken: ReadonlySet<string>;

  /** `broken`: the places that an earlier phase already complained about. */
  constructor(document: ConfigDocument, broken: readonly Path[]) {
    this.#document = document;
    this.config = withDefaults(document.data) as Config;
    this.#broken = new Set(broken.map(formatPath));
    this.#holdsBroken = new Set(broken.flatMap((path) => path.map((_step, i) => formatPath(path.slice(0, i)))));
  }

  /** Whether the value at the path, all that is in it and all around it were found right. */
  isSound(path: Path): boolean {
    if (this.#broken.size === 0) return true;
    return !this.#holdsBroken.has(formatPath(path)) && this.isThere(path);
  }

  /** The same, whatever is in the value: that of a misspelt key is not there. */
  isThere(path: Path): boolean {
    return this.#broken.size === 0 || [...path, ""].every((_step, i) => !this.#broken.has(formatPath(path.slice(0, i))));
  }

  /** Whether the file itself says something at the path: a default is not written. */
  isWritten(path: Path): boolean {
    return this.#document.get(path) !== undefined;
  }

  /** A value as messages may tell it: as it stands in the file when it comes from the environment. */
  text(path: Path, value: string): string {
    return this.#document.written(path) ?? value;
  }

  report(path: Path, message: string, part: "key" | "value" = "value"): void {
    this.problems.push(this.#document.problem(path, message, part));
  }

  warn(path: Path, message: string, part: "key" | "value" = "value"): void {
    this.warnings.push(this.#document.problem(path, message, part));
  }

  /** A problem that is not in the file. */
  reportOutside(message: string): void {
    this.problems.push({ ...this.#document.problemAt([0, 1], message), line: 0, column: 0, length: 0 });
  }

  /** What works, and yet not as somebody may think, and is not in the file. */
  warnOutside(message: string): void {
    this.warnings.push({ ...this.#document.problemAt([0, 1], message), line: 0, column: 0, length: 0 });
  }

  /** The sound texts of a list, each with its path; none when it is not a list. */
  items(path: Path, list: unknown): [Path, string][] {
    if (!Array.isArray(list)) return [];
    return list
      .map((text: unknown, i): [Path, unknown] => [[...path, i], text])
      .filter((item): item is [Path, string] => typeof item[1] === "string" && this.isSound(item[0]));
  }

  /** The entries of a map of the configuration; none when it is not one. */
  entries<T>(key: "upstreams" | "listeners"): [string, T][] {
    const map: unknown = this.config[key];
    return typeof map === "object" && map !== null && !Array.isArray(map) ? (Object.entries(map) as [string, T][]) : [];
  }
}
