// Secrets that stand in the configuration (`x`) or in a file of their own (`x_file`): one of both, and the file's text in the end.
import { nearest } from "../lib/nearest.ts";
import type { CheckContext } from "./check-context.ts";
import type { FileReader } from "./file-reader.ts";
import { FORMATS } from "./formats.ts";
import type { Path } from "./problem.ts";
import { CONFIG_SCHEMA, type Schema, childSchema, deref, schemaOf } from "./schema.ts";

// What to say where a secret is needed and neither is there.
const NEEDED: Readonly<Record<string, string>> = {
  sha256: "Token has no hash; give 'sha256' or 'sha256_file' ('sidegate token new' prints the line)",
  api_token: "Cloudflare asks who sets records; give 'api_token' or 'api_token_file': a token with the permissions Zone.Zone:Read and Zone.DNS:Edit",
  hmac_key: "External account binding needs the key that the CA gave with the kid; give 'hmac_key' or 'hmac_key_file'",
  url: "Webhook has no address; give 'url' or 'url_file'",
};
// A client of an OpenID provider may be a public one.
const NEEDED_BY: Readonly<Record<string, string>> = {
  github: "GitHub gives nothing to an app without its secret; give 'client_secret' or 'client_secret_file'",
  introspection: "Nobody may ask about tokens without a secret; give 'client_secret' or 'client_secret_file'",
};

type Place = {
  /** Of the object that holds the secret. */
  readonly path: Path;
  readonly holder: Record<string, unknown>;
  readonly key: string;
  readonly format: string;
};

/** Each place that may hold a secret or the name of its file: wherever the schema has both `x` and `x_file`. */
function secretPlaces(check: CheckContext): Place[] {
  const places: Place[] = [];
  const walk = (value: unknown, schema: Schema, path: Path): void => {
    if (typeof value !== "object" || value === null) return;
    const found = schemaOf(schema, value);
    if (Array.isArray(value)) {
      for (const [i, item] of value.entries()) walk(item, found.items ?? {}, [...path, i]);
      return;
    }
    const holder = value as Record<string, unknown>;
    const properties = found.properties ?? {};
    for (const [key, property] of Object.entries(properties)) {
      if (Object.hasOwn(properties, `${key}_file`)) places.push({ path, holder, key, format: deref(property).format ?? "" });
    }
    for (const [key, child] of Object.entries(holder)) walk(child, childSchema(found, key) ?? {}, [...path, key]);
  };
  walk(check.config, CONFIG_SCHEMA, []);
  return places;
}

export function checkSecrets(check: CheckContext): void {
  for (const { path, holder, key } of secretPlaces(check)) {
    const file = `${key}_file`;
    const needed = key === "client_secret" ? NEEDED_BY[String(path.at(-1))] : NEEDED[key];
    if (!check.isSound([...path, key]) || !check.isSound([...path, file])) continue;
    if (holder[key] !== undefined && holder[file] !== undefined) {
      check.report([...path, file], `Both '${key}' and '${file}' are given; keep one`, "key");
    } else if (holder[key] === undefined && holder[file] === undefined && needed !== undefined) {
      // A misspelt key explains itself.
      const isMisspelt = Object.keys(holder).some((other) => nearest(other, [key, file]) !== null);
      if (!isMisspelt) check.report(path, needed, "key");
    }
  }
}

/** Puts the texts of secret files where the secrets themselves would stand. */
export function resolveSecrets(check: CheckContext, files: FileReader): void {
  for (const { path, holder, key, format } of secretPlaces(check)) {
    const at = [...path, `${key}_file`];
    const file = holder[`${key}_file`];
    if (typeof file !== "string" || !check.isSound(at)) continue;
    const text = secretText(check, files, at, file, format);
    if (text !== null) holder[key] = text;
    delete holder[`${key}_file`];
  }
}

/** A secret from its file: one line, its line break taken off. */
function secretText(check: CheckContext, files: FileReader, path: Path, file: string, format: string): string | null {
  const text = files.text(path, file)?.replace(/\r?\n$/, "");
  if (text === undefined) return null;
  const fail = (reason: string): null => {
    check.report(path, `File ${files.shown(path, file)} ${reason}`);
    return null;
  };
  if (text === "") return fail("is empty");
  if (/[\r\n]/.test(text)) return fail("has more than one line");
  // The reason may repeat parts of the text after its first words.
  const reason = FORMATS[format]?.(text)?.replace(/ ?[;:(].*$/s, "");
  return reason === undefined ? text : fail(`does not fit: its content ${reason}`);
}
