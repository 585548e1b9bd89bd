// Judges the document by the schema (ajv's code in validator.js) and turns what it found into sentences for people.
import type { ErrorObject } from "ajv";
import { nearest } from "../lib/nearest.ts";
import type { ConfigDocument } from "./document.ts";
import { FORMATS } from "./formats.ts";
import { type Path, type Problem, formatPath, quote } from "./problem.ts";
import { isSecret } from "./secrets.ts";
import { validate } from "./validator.js";
import { type Schema, branchIndex, childSchema, deref, placesOf, schemaAt, schemaOf } from "./schema.ts";

const MAX_ERRORS = 1_000;

// The ends of "write 'oauth: ...".
const WAY_EXAMPLES: Readonly<Record<string, string>> = {
  oauth: "{ allow: ... }', and name people in it",
  session: "{ allow: ... }', and name people in it",
  issuer: "{ name: ... }' with the name of an entry of 'auth.issuers'",
};

export type Judged = {
  readonly problems: Problem[];
  /** Where they are: nothing at or below these places is sound. */
  readonly paths: Path[];
};

/** All problems that the schema finds, but for values that are `doubtful` already. Interpolated text becomes a number or a boolean first where the schema wants one. */
export function validateDocument(document: ConfigDocument, doubtful: readonly Path[]): Judged {
  let isValid = validate(document.data);
  if (!isValid && convertInterpolated(document, validate.errors ?? [])) isValid = validate(document.data);
  const judged: Judged = { problems: [], paths: [] };
  if (isValid) return judged;
  const errors = validate.errors ?? [];
  // A file that is wrong all over: the first problems will do, and nothing of it is worth a closer look.
  if (errors.length > MAX_ERRORS) judged.paths.push([]);
  const descriptions = errors
    .slice(0, MAX_ERRORS)
    .filter((error) => speaks(document, error))
    .map((error) => describe(document, error));
  // A misspelt key is one problem: that the right one is missing goes without saying.
  const meant = new Set(descriptions.flatMap(({ path, suggestion }) => (suggestion === undefined ? [] : [formatPath([...path.slice(0, -1), suggestion])])));
  const told = new Set(doubtful.map(formatPath));
  for (const { path, message, part, missing, suggestion } of descriptions) {
    const place = formatPath(path);
    if (told.has(place) || told.has(`${place}\n${message}`)) continue;
    told.add(`${place}\n${message}`);
    // A key too many makes nothing else doubtful.
    if (suggestion === undefined && part !== "extra") judged.paths.push(path);
    // What was meant by a misspelt one stands there, and is not known.
    if (suggestion !== undefined) judged.paths.push([...path.slice(0, -1), suggestion]);
    if (missing === undefined || !meant.has(formatPath([...path, missing])))
      judged.problems.push(document.problem(path, message, part === undefined ? "value" : "key"));
  }
  return judged;
}

/** ajv's JSON pointer as a path; indexes of lists become numbers. */
function parsePointer(pointer: string, data: unknown): Path {
  const path: (string | number)[] = [];
  let value = data;
  for (const part of pointer.split("/").slice(1)) {
    const step = Array.isArray(value) ? Number(part) : part.replaceAll("~1", "/").replaceAll("~0", "~");
    path.push(step);
    value = (value as Record<string | number, unknown>)[step];
  }
  return path;
}

/** Whether an error is worth saying. At a place with a choice only the branch that fits the value's kind speaks, or the choice itself when none fits. */
function speaks(document: ConfigDocument, error: ErrorObject): boolean {
  // Each bad key of a map has an error of its own beside this one.
  if (error.keyword === "propertyNames") return false;
  const path = parsePointer(error.instancePath, document.data);
  const branches = deref(schemaAt(path, document.data) ?? {}).anyOf;
  if (branches === undefined) return true;
  const branch = branches[branchIndex(branches, document.get(path))];
  if (branch === undefined) return error.keyword === "anyOf";
  return error.keyword !== "type" && error.keyword in deref(branch);
}

/** Turns interpolated text into the number or boolean that the schema wants; whether anything was. */
function convertInterpolated(document: ConfigDocument, errors: readonly ErrorObject[]): boolean {
  let converted = false;
  for (const error of errors) {
    const path = parsePointer(error.instancePath, document.data);
    const key = path.at(-1);
    const text = document.get(path);
    if (error.keyword !== "type" || key === undefined || typeof text !== "string" || document.written(path) === undefined) continue;
    const wanted: unknown = error.params["type"];
    const value =
      wanted === "boolean" && /^(?:true|false)$/.test(text)
        ? text === "true"
        : /^(?:integer|number)$/.test(String(wanted)) && /^-?\d{1,15}$/.test(text)
          ? Number(text)
          : null;
    if (value === null) continue;
    (document.get(path.slice(0, -1)) as Record<string | number, unknown>)[key] = value;
    converted = true;
  }
  return converted;
}

function inPlace(path: Path): string {
  return path.length === 0 ? "at the top" : `in ${formatPath(path)}`;
}

function didYouMean(word: unknown, known: readonly unknown[]): string {
  if (typeof word !== "string") return "";
  const meant = nearest(
    word,
    known.filter((candidate) => typeof candidate === "string"),
  );
  return meant === null ? "" : `; did you mean '${meant}'?`;
}

function words(values: readonly unknown[]): string {
  const texts = values.map((value) => (typeof value === "string" ? `'${value}'` : String(value)));
  return texts.length < 2 ? texts.join("") : `${texts.slice(0, -1).join(", ")} or ${texts.at(-1)}`;
}

/** The first three, which are the nearest. */
function nearestOf(places: readonly string[]): string {
  const [first = "", second, third] = places;
  if (second === undefined) return first;
  if (third === undefined) return `${first} or ${second}`;
  return places.length === 3 ? `${first}, ${second} or ${third}` : `${first}, ${second}, ${third} and others`;
}

const KINDS: Record<string, string> = {
  string: "a string",
  integer: "a whole number",
  number: "a number",
  boolean: "true or false",
  array: "a list",
  object: "an object (keys and values)",
};

function kind(schema: Schema): string {
  const plain = deref(schema);
  if (plain.const !== undefined) return words([plain.const]);
  if (plain.enum !== undefined) return words(plain.enum);
  return KINDS[plain.type ?? ""] ?? "something else";
}

/** What stands at the path, in words. Of what is secret or comes from the environment only the text in the file is told. */
function found(document: ConfigDocument, path: Path): string {
  const value = document.get(path);
  if (value === null || value === undefined) return "empty";
  if (typeof value === "object") return Array.isArray(value) ? "a list" : "an object";
  if (isSecret(path)) return typeof value === "string" ? "another string" : `a ${typeof value}`;
  const text = document.written(path);
  if (text !== undefined) return quote(text);
  if (typeof value !== "string") return `the ${typeof value} ${String(value)}`;
  // A quoted number looks like a number.
  return /^(?:[-+.\d]+|true|false)$/.test(value) ? `the string ${quote(value)}` : quote(value);
}

type Description = {
  readonly path: Path;
  readonly message: string;
  /** The problem is the key at the path, or (`extra`) that it is there at all. Without it, the value. */
  readonly part?: "key" | "extra";
  /** The key that is missing in the object at the path. */
  readonly missing?: string;
  /** The key that was meant by the one at the path. */
  readonly suggestion?: string;
};

function describe(document: ConfigDocument, error: ErrorObject): Description {
  const path = parsePointer(error.instancePath, document.data);
  const where = path.length === 0 ? "the top" : formatPath(path);
  const value = document.get(path);
  const undecided = deref(schemaAt(path, document.data) ?? {});
  const schema = schemaOf(undecided, value);
  const params = error.params as Record<string, unknown>;
  switch (error.keyword) {
    case "additionalProperties": {
      const key = String(params["additionalProperty"]);
      const known = Object.keys(schema.properties ?? {});
      const at: Description = { path: [...path, key], part: "extra", message: `Unknown key ${quote(key)} ${inPlace(path)}` };
      const places = placesOf(key, path);
      // 'login_lifetime' is a key of its own, and no 'login' that somebody spelt at length, as 'directory' for 'dir' is.
      const alike = places.length === 0 ? known : known.filter((candidate) => !key.startsWith(`${candidate}_`));
      const meant = nearest(key, alike);
      if (meant === null && places.length === 0) return { ...at, message: `${at.message}; known: ${known.join(", ")}` };
      if (meant === null) return { ...at, message: `${at.message}; it belongs to ${nearestOf(places)}; known here: ${known.join(", ")}` };
      if (Object.hasOwn(value as object, meant)) return { ...at, message: `${at.message}; '${meant}' is there already` };
      return { ...at, message: `${at.message}; did you mean '${meant}'?`, suggestion: meant };
    }
    case "required": {
      const key = String(params["missingProperty"]);
      const property = childSchema(schema, key) ?? {};
      const description = (property.description ?? deref(property).description ?? "").replace(/\.(?: .*)?$/s, "");
      if (property.const !== undefined)
        return { path, part: "key", missing: key, message: `Missing key '${key}' ${inPlace(path)}: write '${key}: ${String(property.const)}'` };
      const isWord = /^[A-Z][a-z ]/.test(description);
      const hint = description === "" ? "" : `: ${isWord ? description.charAt(0).toLowerCase() : description.charAt(0)}${description.slice(1)}`;
      return { path, part: "key", missing: key, message: `Missing key '${key}' ${inPlace(path)}${hint}` };
    }
    case "discriminator": {
      const tags = (schema.oneOf ?? []).map((branch) => deref(branch).properties?.[String(params["tag"])]?.const);
      if (value === null || !Object.hasOwn(value as object, String(params["tag"]))) {
        return { path, part: "key", message: `Missing key '${String(params["tag"])}' ${inPlace(path)}: ${words(tags)}`, missing: String(params["tag"]) };
      }
      const at = [...path, String(params["tag"])];
      return {
        path: at,
        message: `Value at ${formatPath(at)} must be ${words(tags)}, but is ${found(document, at)}${didYouMean(params["tagValue"], tags)}`,
      };
    }
    case "format": {
      const isName = error.propertyName !== undefined;
      const text = isName ? String(error.propertyName) : String(value);
      const reason = FORMATS[String(params["format"])]?.(text) ?? "is not right";
      if (isName) return { path: [...path, text], part: "key", message: `Key ${quote(text)} ${inPlace(path)} ${reason}` };
      const written = document.written(path);
      const quoted = isSecret(path) ? "" : `${quote(written ?? text)} `;
      // After its first words a reason may repeat parts of the text, which may be secret when it is not from the file.
      const told = written === undefined || text === "" ? reason : reason.replace(/ ?[;:(].*$/s, "");
      return { path, message: `Value ${quoted}at ${where} ${told}` };
    }
    case "type": {
      const isHidden = isSecret(path);
      const what = isHidden && typeof value === "string" && schema.type !== "string" ? "a string" : found(document, path);
      const text = isHidden || typeof value !== "string" ? null : quote(document.written(path) ?? value).slice(1, -1);
      const remedy = isHidden && typeof value === "number" ? "" : advice(schema, path, value, text);
      return { path, message: `Value at ${where} must be ${kind(schema)}, but is ${what}${remedy}` };
    }
    case "anyOf":
    case "enum":
    case "const": {
      const choices = undecided.anyOf ?? [undecided];
      const constants = choices.map(deref).flatMap((choice) => choice.enum ?? (choice.const === undefined ? [] : [choice.const]));
      const meant = path.at(-1) === "min_tls_version" ? tlsVersionAdvice(value) : didYouMean(value, constants);
      return { path, message: `Value at ${where} must be ${choices.map(kind).join(", or ")}, but is ${found(document, path)}${meant}` };
    }
    case "minimum":
    case "maximum":
      return {
        path,
        message: `Value at ${where} must be at ${error.keyword === "minimum" ? "least" : "most"} ${String(params["limit"])}, but is ${found(document, path)}`,
      };
    case "minLength":
    case "minItems":
      return { path, message: `Value at ${where} must not be empty` };
    case "minProperties":
    case "maxProperties": {
      const known = words(Object.keys(schema.properties ?? {}));
      if (known === "") return { path, message: `Value at ${where} must not be empty` };
      const advice = error.keyword === "minProperties" ? "" : ", but has several; make each an item of the list by itself";
      const count = schema.maxProperties === 1 ? "exactly" : "at least";
      return { path, message: `Value at ${where} must have ${count} one of the keys ${known}${advice}` };
    }
    case "uniqueItems":
      return {
        path: [...path, Math.max(Number(params["i"]), Number(params["j"]))],
        message: `Value ${found(document, [...path, Number(params["j"])])} stands twice in ${where}`,
      };
    default:
      return { path, message: `Value at ${where} ${error.message ?? "is not right"}` };
  }
}

/** YAML takes 1.2 for a number; and many files still ask for versions that nobody should speak. */
function tlsVersionAdvice(value: unknown): string {
  const version = /^(?:TLS ?v?)?(\d)(?:\.(\d))?$/i.exec(String(value));
  if (version === null) return "";
  const text = `1.${version[2] ?? (version[1] === "1" ? "0" : version[1])}`;
  if (text === "1.2" || text === "1.3") return typeof value === "number" ? `; quote it: "${text}"` : `; write "${text}"`;
  return text === "1.0" || text === "1.1"
    ? "; TLS 1.0 and 1.1 are refused: their hashes are broken, and every client of today speaks newer ones (RFC 8996)"
    : "";
}

/** What to write for a value of the wrong kind, where that can be guessed. `text`: of a string that may be told. */
function advice(schema: Schema, path: Path, value: unknown, text: string | null): string {
  if (value === null && path.at(-1) === "tailnet") return "; name 'users', 'tags' or 'nodes', or write {} for every node";
  const needed = path.length > 0 && schema.type === "object" && (value === null || value === true || typeof value === "string") ? (schema.required ?? []) : [];
  if (needed.length > 0) return `; write { ${needed.map((key) => `${key}: ${needed.length === 1 && text !== null ? inList(text) : "..."}`).join(", ")} }`;
  if (value === null && schema.type === "object") return "; write {} to leave everything at its default";
  if (value === true && schema.type === "object")
    return path.at(-1) === "tls" ? "; write { internal: true } for a local CA" : "; write {} to leave everything at its default";
  if (path.at(-2) === "auth" && typeof value === "string" && Object.hasOwn(schema.properties ?? {}, value))
    return `; write '${value}: ${WAY_EXAMPLES[value] ?? "{}' to admit any, or say which"}`;
  if (text !== null && schema.type === "array" && deref(schema.items ?? {}).type === "string") return `; write [${inList(text)}]`;
  if (value === "none" && path.at(-2) === "auth") return "; write 'auth: none', without the list";
  if (typeof value === "string" && schema.type === "boolean" && /^(?:yes|no|on|off)$/i.test(value)) return "; YAML 1.2 knows only true and false";
  if (typeof value !== "number" || schema.type !== "string") return "";
  if (schema.format === "duration" || schema.format === "positive_duration") return `; a duration has a unit: ${value}s`;
  if (schema.format === "size") return `; a size has a unit: ${value}B`;
  return schema.format === "listen_address" ? `; write ":${value}"` : `; quote it: "${value}"`;
}

/** A text as YAML has it between brackets. */
function inList(text: string): string {
  return /^[A-Za-z0-9][\w@./-]*$/.test(text) ? text : JSON.stringify(text);
}
