// The JSON Schema of the language as a tree that the phases walk.
import { readFileSync } from "node:fs";
import type { Path } from "./problem.ts";

export type Schema = {
  readonly $ref?: string;
  readonly description?: string;
  readonly type?: "string" | "integer" | "number" | "boolean" | "array" | "object";
  readonly format?: string;
  readonly enum?: readonly unknown[];
  readonly const?: unknown;
  readonly default?: unknown;
  readonly minimum?: number;
  readonly maximum?: number;
  readonly maxProperties?: number;
  readonly properties?: Readonly<Record<string, Schema>>;
  readonly additionalProperties?: boolean | Schema;
  readonly items?: Schema;
  readonly required?: readonly string[];
  readonly anyOf?: readonly Schema[];
  readonly oneOf?: readonly Schema[];
  readonly discriminator?: { readonly propertyName: string };
};

const json = JSON.parse(readFileSync(new URL("../../schema/config.schema.json", import.meta.url), "utf8")) as Schema & {
  readonly definitions: Readonly<Record<string, Schema>>;
};

export const CONFIG_SCHEMA: Schema = json;

/** Every key of the language, wherever it stands. */
export const KNOWN_KEYS: ReadonlySet<string> = new Set([json, ...Object.values(json.definitions)].flatMap(({ properties }) => Object.keys(properties ?? {})));

/** What a $ref leads to; the schema itself without one. */
export function deref(schema: Schema): Schema {
  let found = schema;
  while (found.$ref !== undefined) {
    const name = found.$ref.slice("#/definitions/".length);
    found = json.definitions[name] ?? {};
  }
  return found;
}

type Place = { readonly steps: readonly string[]; readonly schema: Schema; readonly tag: string | null };

/** Every object of the language, with each way to it. `NAME` and `[]` stand for the keys of a map and the items of a list. */
function placesBelow(schema: Schema, steps: readonly string[], tag: string | null = null): Place[] {
  const plain = deref(schema);
  const { properties = {}, additionalProperties, items, anyOf = [], oneOf = [], discriminator } = plain;
  return [
    ...(plain.properties === undefined ? [] : [{ steps, schema: plain, tag }]),
    ...Object.entries(properties).flatMap(([key, child]) => placesBelow(child, [...steps, key])),
    ...(typeof additionalProperties === "object" ? placesBelow(additionalProperties, [...steps, "NAME"]) : []),
    ...(items === undefined ? [] : placesBelow(items, [...steps, "[]"])),
    ...anyOf.flatMap((branch) => placesBelow(branch, steps)),
    ...oneOf.flatMap((branch) => {
      const key = discriminator?.propertyName ?? "";
      return placesBelow(branch, steps, `${key}: ${String(deref(branch).properties?.[key]?.const)}`);
    }),
  ];
}

/**
 * Where a key stands in the language, the nearest to a path of the data first, as words: `'routes[].auth[].oauth'`, `'listeners.NAME' with 'protocol: tcp'`.
 */
export function placesOf(key: string, near: Path): string[] {
  const distance = ({ steps }: Place): number => {
    const differ = steps.findIndex((step, i) => step !== near[i] && !(typeof near[i] === "number" ? step === "[]" : i < near.length && step === "NAME"));
    const common = differ === -1 ? steps.length : differ;
    return near.length - common + (steps.length - common);
  };
  const places = placesBelow(CONFIG_SCHEMA, [])
    .filter(({ schema }) => schema.properties !== undefined && Object.hasOwn(schema.properties, key))
    .toSorted((a, b) => distance(a) - distance(b));
  const texts = places.map(({ steps, tag }) => {
    const text = steps.length === 0 ? "the top" : `'${steps.join(".").replaceAll(".[]", "[]")}'`;
    return tag === null ? text : `${text} with '${tag}'`;
  });
  return [...new Set(texts)];
}

function kindOf(value: unknown): string {
  return value === null ? "null" : Array.isArray(value) ? "array" : typeof value;
}

/** The kind of value that a branch takes: its `type`, or that of its `const`. */
function kindOfBranch(branch: Schema): string {
  const { type, const: constant } = deref(branch);
  return type ?? kindOf(constant);
}

/** The index of the branch of an anyOf that takes values of this kind; -1 when none does. */
export function branchIndex(branches: readonly Schema[], value: unknown): number {
  return branches.findIndex((branch) => kindOfBranch(branch) === kindOf(value));
}

/** The schema that judges a value: references followed, and the branch chosen that fits the value (the schema of the choice itself when none fits). */
export function schemaOf(schema: Schema, value: unknown): Schema {
  const plain = deref(schema);
  if (plain.anyOf !== undefined) {
    const branch = plain.anyOf[branchIndex(plain.anyOf, value)];
    return branch === undefined ? plain : schemaOf(branch, value);
  }
  if (plain.oneOf !== undefined && plain.discriminator !== undefined) {
    const tag = plain.discriminator.propertyName;
    const wanted = typeof value === "object" && value !== null ? (value as Record<string, unknown>)[tag] : undefined;
    const branch = plain.oneOf.find((candidate) => deref(candidate).properties?.[tag]?.const === wanted);
    return branch === undefined || wanted === undefined ? plain : deref(branch);
  }
  return plain;
}

/** The schema of the value under a key or an index, before a branch is chosen; undefined when the schema knows no such key. */
export function childSchema(schema: Schema, key: string | number): Schema | undefined {
  if (typeof key === "number") return schema.items;
  if (schema.properties !== undefined && Object.hasOwn(schema.properties, key)) return schema.properties[key];
  return typeof schema.additionalProperties === "object" ? schema.additionalProperties : undefined;
}

/** The undecided schema at a path of the data; undefined where the schema does not reach. */
export function schemaAt(path: Path, data: unknown): Schema | undefined {
  let schema: Schema | undefined = CONFIG_SCHEMA;
  let value = data;
  for (const step of path) {
    if (schema === undefined) return undefined;
    schema = childSchema(schemaOf(schema, value), step);
    value = typeof value === "object" && value !== null ? (value as Record<string | number, unknown>)[step] : undefined;
  }
  return schema;
}
