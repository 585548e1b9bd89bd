// Reads the files that the configuration refers to, each once.
import { dirname, resolve } from "node:path";
import type { CheckContext } from "./check-context.ts";
import { type Path, quoteFile } from "./problem.ts";
import { type FileText, readText } from "./read.ts";
import { forEachFile, stampOf } from "./stamp.ts";

/** What the last load read: of 10,000 certificates the next one reads only those that changed. */
let known: ReadonlyMap<string, FileText> = new Map();

type Reference = { readonly path: Path; readonly file: string };

export class FileReader {
  /** Texts of certificates, keys and CAs by absolute path, as far as they are right. */
  readonly texts = new Map<string, string>();
  readonly #check: CheckContext;
  readonly #directory: string;
  readonly #results = new Map<string, FileText>();

  /** Paths are relative to the directory of the configuration. */
  constructor(check: CheckContext, configPath: string) {
    this.#check = check;
    this.#directory = dirname(resolve(configPath));
  }

  absolute(path: string): string {
    return resolve(this.#directory, path);
  }

  async readAll(): Promise<void> {
    const wanted = [...new Set(references(this.#check).map(({ file }) => this.absolute(file)))];
    await forEachFile(wanted, async (file) => {
      const before = known.get(file);
      const isSame = before?.ok === true && before.stamp !== null && before.stamp === (await stampOf(file));
      this.#results.set(file, isSame ? before : await readText(file));
    });
    known = this.#results;
  }

  /** Every file that was read or looked for. */
  get paths(): string[] {
    return [...this.#results.keys()];
  }

  /** The text of the file named at the path; null, and a problem, when it cannot be read. */
  text(path: Path, file: string): string | null {
    const result = this.#results.get(this.absolute(file));
    if (result === undefined) return null;
    if (result.ok) return result.text;
    this.#check.report(path, `Cannot read ${this.shown(path, file)}: ${result.reason}`);
    return null;
  }

  /** The file for messages: absolute, unless its name comes from the environment. */
  shown(path: Path, file: string): string {
    const written = this.#check.text(path, file);
    return quoteFile(written === file ? this.absolute(file) : written);
  }
}

/** Places of the configuration that name a file, as far as they are sound. */
function references(check: CheckContext): Reference[] {
  const found: Reference[] = [];
  const walk = (value: unknown, path: Path): void => {
    if (typeof value !== "object" || value === null) return;
    for (const [key, child] of Object.entries(value)) {
      const at = [...path, Array.isArray(value) ? Number(key) : key];
      if (typeof child === "string" && key.endsWith("_file") && check.isSound(at)) found.push({ path: at, file: child });
      else walk(child, at);
    }
  };
  walk(check.config, []);
  return found;
}
