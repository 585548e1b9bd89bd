// YAML 1.2 text -> plain values with their places. What makes YAML surprising (tags, duplicate keys, anchor bombs, several documents) is refused.
import { LineCounter, type Node, type YAMLError, type YAMLMap, isAlias, isMap, isPair, isScalar, isSeq, parseDocument } from "yaml";
import { ConfigDocument, type Range, rangeOf } from "./document.ts";
import { type Path, type Problem, quote } from "./problem.ts";

// More than 10,000 routes have; aliases could multiply values without end.
const MAX_VALUES = 100_000;
const MAX_DEPTH = 100;

const SENTENCES: Partial<Record<YAMLError["code"], string>> = {
  TAB_AS_INDENT: "Tabs cannot indent in YAML; use spaces",
  MULTIPLE_DOCS: "A second document begins here; the configuration is one document",
  RESOURCE_EXHAUSTION: "Nested too deeply",
  MULTILINE_IMPLICIT_KEY: "This is neither a key with its value ('key: value') nor the rest of a value above; check the indentation, the quotes and the colon",
  BLOCK_AS_IMPLICIT_KEY: "A second 'key: value' begins inside this value; check the indentation, or quote the value",
};

/** Of the library's messages those that beginners meet most, as what to do. */
function sentence(error: YAMLError, text: string): string {
  const { code, message } = error;
  const found = text.charAt(error.pos[0]);
  if (code === "UNEXPECTED_TOKEN" && text.startsWith("${", error.pos[0] - 1)) return 'Quote a value with ${...} inside { } or [ ]: "${VAR}"';
  if (code === "BAD_SCALAR_START") return `A value cannot begin with '${found}' unless it is quoted`;
  if (code === "BAD_INDENT" && message.includes("same column"))
    return "This line does not begin in the column of the lines that it belongs to; check the indentation";
  if (code === "BAD_INDENT" && /end with a [\]}]/.test(message))
    return `A '${message.endsWith("]") ? "[" : "{"}' before this is not closed, or this line is not indented below its key`;
  if (code === "MISSING_CHAR" && message.startsWith("Missing closing"))
    return `The quote that begins this text (${message.charAt("Missing closing ".length)}) is never closed`;
  return SENTENCES[code] ?? `Not valid YAML: ${message.charAt(0).toLowerCase()}${message.slice(1)}`;
}

/** Where an error is shown: a quote that is not closed where it begins, not at the end of the file. */
function place(error: YAMLError, text: string, contents: unknown): Range {
  if (error.code === "RESOURCE_EXHAUSTION") {
    // How far the parser came depends on the size of its stack; the line is what can be told.
    const start = text.lastIndexOf("\n", error.pos[0] - 1) + 1;
    return [start, start + 1];
  }
  if (!error.message.startsWith("Missing closing")) return error.pos;
  let node: unknown = contents;
  while (isMap(node) || isSeq(node)) {
    const last: unknown = node.items.at(-1);
    node = isPair(last) ? (last.value ?? last.key) : last;
  }
  return rangeOf(node) ?? error.pos;
}

export type Parsed = {
  readonly document: ConfigDocument;
  readonly problems: Problem[];
  /** Values of which something was refused: that they are now incomplete is no problem of its own. */
  readonly paths: Path[];
  /** False: the later phases have nothing that they could look at. */
  readonly usable: boolean;
};

/** Parses the text of the file. Values that are refused for themselves are problems, but do not hide the rest of the document. */
export function parseConfig(file: string, text: string): Parsed {
  const lines = new LineCounter();
  // Keys are made unique here and not by the library, whose check takes quadratic time.
  const yaml = parseDocument(text, {
    version: "1.2",
    schema: "core",
    merge: false,
    uniqueKeys: false,
    prettyErrors: false,
    lineCounter: lines,
    logLevel: "error",
  });
  const document = new ConfigDocument(file, text, yaml.contents, lines);
  const fail = (range: readonly [number, number], message: string): Parsed => ({
    document,
    problems: [document.problemAt(range, message)],
    paths: [],
    usable: false,
  });
  const directive = /^%[^\n]*/.exec(text);
  if (directive !== null) return fail([0, directive[0].trimEnd().length], "The language is YAML 1.2 without directives; delete this line");
  // One slip of syntax makes the parser see many: the first is the true one.
  const error = yaml.errors[0];
  if (error !== undefined) return fail(place(error, text, yaml.contents), sentence(error, text));
  if (yaml.contents === null || (isScalar(yaml.contents) && yaml.contents.value === null)) {
    return fail([0, 1], "The file is empty; it needs at least 'version: 1' and 'listeners' ('sidegate init' writes a starter file)");
  }
  const reader = new ValueReader(document);
  document.data = reader.value(yaml.contents, []);
  return { document, problems: reader.problems, paths: reader.paths, usable: !reader.exhausted };
}

/** Reads nodes as plain values, in the order of the text. The value of an anchor is read once and shared by its aliases. */
class ValueReader {
  readonly problems: Problem[] = [];
  readonly paths: Path[] = [];
  exhausted = false;
  readonly #document: ConfigDocument;
  readonly #anchors = new Map<string, { readonly node: Node; value?: unknown; count?: number }>();
  #count = 0;

  constructor(document: ConfigDocument) {
    this.#document = document;
  }

  value(node: unknown, path: Path): unknown {
    if (this.exhausted) return null;
    this.#count += 1;
    if (isAlias(node)) return this.#alias(node, path);
    if (this.#count > MAX_VALUES) return this.#exhaust(node, path, `The file holds more than ${MAX_VALUES} values up to here`);
    const { tag, anchor } = node as { tag?: string; anchor?: string };
    if (tag !== undefined) {
      this.#refuse(node, path, `Tags such as ${quote(tag.replace("tag:yaml.org,2002:", "!!"))} are not part of the language`);
      this.paths.push(path);
    }
    if (path.length > MAX_DEPTH) return this.#exhaust(node, path, "Nested too deeply");
    const before = this.#count;
    const anchored: { node: Node; value?: unknown; count?: number } = { node: node as Node };
    if (anchor !== undefined) this.#anchors.set(anchor, anchored);
    const value = isMap(node)
      ? this.#map(node, path)
      : isSeq(node)
        ? node.items.map((item, i) => this.value(item, [...path, i]))
        : (node as { value: unknown }).value;
    anchored.value = value;
    anchored.count = this.#count - before;
    return value;
  }

  #map(node: YAMLMap, path: Path): object {
    // Without a prototype '__proto__' is a key as any other, and 'constructor' is not there unless written.
    const object = Object.create(null) as Record<string, unknown>;
    const lines = new Map<string, number>();
    for (const pair of node.items) {
      const key = isScalar(pair.key) ? pair.key.value : undefined;
      if (typeof key !== "string") {
        const found = isScalar(pair.key)
          ? `, but this is ${pair.key.value === null ? "empty" : `the ${typeof key} ${String(key)}; quote it if it is meant as text`}`
          : "";
        this.#refuse(pair.key, path, `A key must be a word${found}`);
        this.paths.push(path);
        continue;
      }
      const first = lines.get(key);
      const problem = this.#document.problemAt(rangeOf(pair.key) ?? [0, 1], `Duplicate key ${quote(key)}; it stands already in line ${first}`, [...path, key]);
      if (key === "<<") {
        this.#refuse(pair.key, path, "Merge keys ('<<') are not part of YAML 1.2; an alias can stand for a whole value");
        this.paths.push(path);
      } else if (first !== undefined) this.problems.push(problem);
      else lines.set(key, problem.line);
      const value = pair.value === null ? null : this.value(pair.value, [...path, key]);
      if (key !== "<<" && first === undefined) object[key] = value;
    }
    return object;
  }

  #alias(node: Node & { readonly source: string }, path: Path): unknown {
    const anchored = this.#anchors.get(node.source);
    if (anchored === undefined)
      return this.#exhaust(node, path, `There is no anchor '&${node.source}' before this alias; quote the value if it is meant as text`);
    if (anchored.count === undefined) return this.#exhaust(node, path, "An alias cannot stand inside its own anchor");
    this.#document.alias(node, anchored.node);
    this.#count += anchored.count;
    if (this.#count > MAX_VALUES) return this.#exhaust(node, path, `The file holds more than ${MAX_VALUES} values up to here, because aliases multiply them`);
    return anchored.value;
  }

  #refuse(node: unknown, path: Path, message: string): void {
    this.problems.push(this.#document.problemAt(rangeOf(node) ?? [0, 1], message, path));
  }

  /** For what makes every further value doubtful. */
  #exhaust(node: unknown, path: Path, message: string): null {
    this.exhausted = true;
    this.#refuse(node, path, message);
    return null;
  }
}
