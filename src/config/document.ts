// The parsed YAML document: its plain values, and where in the text each of them stands.
import { type LineCounter, type Node, type Pair, type YAMLMap, isMap, isScalar, isSeq } from "yaml";
import { type Path, type Problem, formatPath } from "./problem.ts";

/** Offsets into the text, the end exclusive. */
export type Range = readonly [start: number, end: number];

export function rangeOf(node: unknown): Range | null {
  const range = (node as Node | null | undefined)?.range;
  return range === null || range === undefined ? null : [range[0], range[1]];
}

export class ConfigDocument {
  readonly file: string;
  readonly text: string;
  /** Plain values; objects have no prototype. Interpolation replaces scalars in place. */
  data: unknown = null;
  readonly #contents: unknown;
  readonly #lines: LineCounter;
  readonly #aliases = new Map<unknown, unknown>();
  readonly #pairsOf = new Map<YAMLMap, ReadonlyMap<unknown, Pair>>();
  readonly #written = new Map<object, Map<string | number, string>>();

  constructor(file: string, text: string, contents: unknown, lines: LineCounter) {
    this.file = file;
    this.text = text;
    this.#contents = contents;
    this.#lines = lines;
  }

  /** Tells what node an alias stands for. */
  alias(node: unknown, anchored: unknown): void {
    this.#aliases.set(node, anchored);
  }

  /** Remembers the text of a value that is interpolated: messages quote it, never the value. */
  remember(parent: object, key: string | number, text: string): void {
    const texts = this.#written.get(parent) ?? new Map<string | number, string>();
    this.#written.set(parent, texts.set(key, text));
  }

  /** The value at the path, or undefined. */
  get(path: Path): unknown {
    let value: unknown = this.data;
    for (const step of path) {
      if (typeof value !== "object" || value === null || !Object.hasOwn(value, step)) return undefined;
      value = (value as Record<string | number, unknown>)[step];
    }
    return value;
  }

  /** The text of an interpolated value as it stands in the file; undefined when the value was not interpolated. */
  written(path: Path): string | undefined {
    const key = path.at(-1);
    const parent = this.get(path.slice(0, -1));
    return key === undefined || typeof parent !== "object" || parent === null ? undefined : this.#written.get(parent)?.get(key);
  }

  /** Where the value of the path stands, or its key when it is a list or an object. What is missing is looked for at its parent. */
  range(path: Path, part: "key" | "value" = "value"): Range {
    let node: unknown = this.#contents;
    let key: unknown;
    for (const step of path) {
      const parent = this.#aliases.get(node) ?? node;
      if (isMap(parent) && typeof step === "string") {
        const pair = this.#pairs(parent).get(step);
        if (pair === undefined) break;
        [key, node] = [pair.key, pair.value];
      } else if (isSeq(parent) && typeof step === "number" && step < parent.items.length) {
        [key, node] = [undefined, parent.items[step]];
      } else {
        break;
      }
    }
    const isCollection = isMap(node) || isSeq(node);
    const empty = node === null || (isScalar(node) && (rangeOf(node)?.[0] ?? 0) === (rangeOf(node)?.[1] ?? 0));
    if (key !== undefined && (part === "key" || isCollection || empty)) return rangeOf(key) ?? [0, 1];
    // An object in a list is shown by its first key: that is where a reader looks.
    if (isMap(node) && node.items.length > 0 && path.length > 0) return rangeOf(node.items[0]?.key) ?? [0, 1];
    return (path.length === 0 && isCollection ? null : rangeOf(node)) ?? [0, 1];
  }

  /** The first pair of each key of a map; remembered, because a bad file may have a problem in each of its lines. */
  #pairs(map: YAMLMap): ReadonlyMap<unknown, Pair> {
    let pairs = this.#pairsOf.get(map);
    if (pairs === undefined) {
      pairs = new Map(map.items.toReversed().flatMap((pair) => (isScalar(pair.key) ? [[pair.key.value, pair]] : [])));
      this.#pairsOf.set(map, pairs);
    }
    return pairs;
  }

  /** A problem at a place of the text; only its first line is underlined. */
  problemAt([start, end]: Range, message: string, path: Path = []): Problem {
    const { line, col } = this.#lines.linePos(start);
    const rest = /^[^\r\n]*/.exec(this.text.slice(start, Math.max(end, start + 1)))?.[0] ?? "";
    return { file: this.file, line: Math.max(1, line), column: Math.max(1, col), length: Math.max(1, rest.trimEnd().length), message, path: formatPath(path) };
  }

  /** A problem of the value (or of the key) at a path. */
  problem(path: Path, message: string, part: "key" | "value" = "value"): Problem {
    return this.problemAt(this.range(path, part), message, path);
  }

  /** Ranges of the scalars whose own key, or whose parent's key, is wanted. */
  scalarRanges(isWanted: (key: string, parentKey: string) => boolean): Range[] {
    const ranges: Range[] = [];
    const walk = (node: unknown, key: string, parentKey: string): void => {
      if (isMap(node)) for (const pair of node.items) walk(pair.value, isScalar(pair.key) ? String(pair.key.value) : "", key);
      else if (isSeq(node)) for (const item of node.items) walk(item, key, parentKey);
      else if (isScalar(node) && isWanted(key, parentKey)) ranges.push(rangeOf(node) ?? [0, 0]);
    };
    walk(this.#contents, "", "");
    return ranges;
  }
}
