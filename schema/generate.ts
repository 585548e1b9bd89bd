// Writes what is made of the schema: the types, the compiled validator and the table of settings. With --check it only says whether they are fresh.
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Ajv, _ } from "ajv";
import standaloneCode from "ajv/dist/standalone/index.js";
import { type JSONSchema, compile } from "json-schema-to-typescript";
import { format, resolveConfig } from "prettier";

type Node = {
  $ref?: string;
  title?: string;
  description?: string;
  type?: string;
  format?: string;
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  minimum?: number;
  maximum?: number;
  required?: string[];
  properties?: Record<string, Node>;
  additionalProperties?: boolean | Node;
  items?: Node;
  anyOf?: Node[];
  oneOf?: Node[];
  definitions?: Record<string, Node>;
};

const ROOT = join(import.meta.dirname, "..");
const SCHEMA = join(import.meta.dirname, "config.schema.json");
const TYPES_HEADER = "// The configuration in its resolved form. GENERATED from schema/config.schema.json by `npm run generate`: do not edit.\n\n";
const VALIDATOR_HEADER = "// Judges data by the schema. GENERATED from schema/config.schema.json by `npm run generate`: do not edit.\n/* oxlint-disable */\n";
const README_HEADER = "<!-- GENERATED from schema/config.schema.json by `npm run generate`: do not edit. -->\n\n";

/** A copy of the schema in which each schema object has passed through `change`. */
function mapSchema(node: Node, change: (node: Node) => Node): Node {
  const out: Record<string, unknown> = {};
  for (const [key, value] of Object.entries(change(node))) {
    if (key === "properties" || key === "definitions") {
      out[key] = Object.fromEntries(Object.entries(value as Record<string, Node>).map(([name, child]) => [name, mapSchema(child, change)]));
    } else if (key === "anyOf" || key === "oneOf") {
      out[key] = (value as Node[]).map((child) => mapSchema(child, change));
    } else {
      out[key] = ["items", "additionalProperties", "propertyNames"].includes(key) && typeof value === "object" ? mapSchema(value as Node, change) : value;
    }
  }
  return out;
}

function without(node: Node, keys: readonly string[]): Node {
  return Object.fromEntries(Object.entries(node).filter(([key]) => !keys.includes(key)));
}

/** The schema as the types need it: a property with a default is always there once resolved, and nothing stands beside a $ref. */
function resolvedForm(node: Node): Node {
  if (node.$ref !== undefined) return { $ref: node.$ref };
  const withDefault = Object.entries(node.properties ?? {}).filter(([, property]) => "default" in property);
  const required = new Set([...(node.required ?? []), ...withDefault.map(([key]) => key)]);
  return { ...without(node, ["default", "discriminator", "minItems"]), ...(node.properties === undefined ? {} : { required: [...required] }) };
}

async function typesText(schema: Node): Promise<string> {
  const text = await compile(mapSchema(schema, resolvedForm) as JSONSchema, "Config", { bannerComment: "", additionalProperties: false, format: false });
  return pretty("src/config/types.ts", TYPES_HEADER + text);
}

/** ajv's code for the schema: compiling it takes 90 ms, which every start and every check would pay. */
function validatorText(schema: Node): string {
  const formats = Object.fromEntries(Array.from(JSON.stringify(schema).matchAll(/"format":"(\w+)"/g), ([, name = ""]) => [name, () => true]));
  const code = { source: true, esm: true, lines: true, formats: _`ACCEPTS` };
  const ajv = new Ajv({ strict: true, allErrors: true, discriminator: true, messages: false, inlineRefs: false, formats, code });
  const text = standaloneCode.default(ajv, ajv.compile(mapSchema(schema, (node) => without(node, ["description", "default", "title", "$id"]))));
  // Copying all errors for each item with errors takes quadratic time.
  const linear = text.replaceAll("vErrors.concat(", "append(vErrors, ");
  const append = "function append(all, more) {\n  for (const error of more) all.push(error);\n  return all;\n}\n";
  const imports = new Set<string>();
  // ajv writes require even into ES modules.
  const body = linear.replaceAll(/require\("ajv\/dist\/runtime\/(\w+)"\)/g, (_all, name: string) => {
    imports.add(`import ${name} from "ajv/dist/runtime/${name}.js";\n`);
    return name;
  });
  return `${VALIDATOR_HEADER}import { ACCEPTS } from "./formats.ts";\n${[...imports].join("")}${append}${body
    .replace('"use strict";', "")
    .replace(/export default \w+;/, "")
    .trim()}\n`;
}

function definitionName(ref: string): string {
  return ref.slice("#/definitions/".length);
}

function link(name: string): string {
  return `[${name}](#${name.toLowerCase()})`;
}

function typeText(node: Node): string {
  if (node.$ref !== undefined) return link(definitionName(node.$ref));
  if (node.const !== undefined) return `\`${String(node.const)}\``;
  if (node.enum !== undefined) return node.enum.map((value) => `\`${String(value)}\``).join(", ");
  const variants = node.anyOf ?? node.oneOf;
  if (variants !== undefined) return variants.map(typeText).join(" or ");
  if (node.type === "array") return `list of ${typeText(node.items ?? {})}`;
  if (node.type === "object" && typeof node.additionalProperties === "object") return `map of name to ${typeText(node.additionalProperties)}`;
  if (node.type === "integer" && node.maximum !== undefined) return `integer, ${node.minimum ?? 0} to ${node.maximum}`;
  return (node.format ?? node.type ?? "").replaceAll("_", " ");
}

function defaultText(node: Node, key: string, owner: Node): string {
  if (owner.required?.includes(key) === true) return "needed";
  if (node.default === undefined) return "";
  const text = JSON.stringify(node.default);
  return text === "{}" || text === "[]" ? "empty" : `\`${typeof node.default === "string" ? node.default : text}\``;
}

function table(node: Node, definitions: Record<string, Node>): string {
  const rows = Object.entries(node.properties ?? {}).map(([key, property]) => {
    const described = property.description ?? (property.$ref === undefined ? "" : (definitions[definitionName(property.$ref)]?.description ?? ""));
    return `| \`${key}\` | ${typeText(property)} | ${defaultText(property, key, node)} | ${described.replaceAll("|", "\\|")} |`;
  });
  return ["| key | type | default | |", "| --- | --- | --- | --- |", ...rows].join("\n");
}

async function readmeText(schema: Node): Promise<string> {
  const definitions = schema.definitions ?? {};
  const sections = Object.entries(definitions).map(([name, node]) => {
    const body = node.properties === undefined ? (node.type === "object" && node.oneOf === undefined ? "" : `${typeText(node)}.`) : table(node, definitions);
    return `## ${name}\n\n${node.description ?? ""}\n\n${body}`;
  });
  const text = `${README_HEADER}# Settings

${schema.description ?? ""} Objects are closed: an unknown key is an error.
The first line of a file that names this schema gives completion and hover text in editors:

\`\`\`yaml
# yaml-language-server: $schema=${String((schema as { $id?: string }).$id)}
\`\`\`

- Durations: \`250ms\`, \`30s\`, \`5m\`, \`24h\`, \`90d\`. Sizes: \`512B\`, \`64KiB\`, \`10MB\`.
- \`\${VAR}\`, \`\${VAR:-default}\` and \`\${VAR:?message}\` in values are replaced from the environment after parsing; \`$\${\` is a literal \`\${\`.
- Relative paths are relative to the directory of the file.

## The file

${table(schema, definitions)}

${sections.join("\n\n")}
`;
  return pretty("schema/README.md", text);
}

async function pretty(path: string, text: string): Promise<string> {
  const filepath = join(ROOT, path);
  return format(text, { ...(await resolveConfig(filepath)), filepath });
}

async function main(): Promise<number> {
  const schema = JSON.parse(await readFile(SCHEMA, "utf8")) as Node;
  const outputs: [string, string][] = [
    ["src/config/types.ts", await typesText(schema)],
    ["src/config/validator.js", validatorText(schema)],
    ["schema/README.md", await readmeText(schema)],
  ];
  let stale = 0;
  for (const [path, text] of outputs) {
    const current = await readFile(join(ROOT, path), "utf8").catch(() => "");
    if (current === text) continue;
    stale += 1;
    if (process.argv.includes("--check")) console.error(`${path} is stale: run 'npm run generate'`);
    else await writeFile(join(ROOT, path), text);
  }
  return process.argv.includes("--check") && stale > 0 ? 1 : 0;
}

process.exitCode = await main();
