// Reads the files that the configuration names: secrets take the place of their `_file`, certificates and keys are checked, paths become absolute.
import { dirname, resolve } from "node:path";
import { explainCertificates, explainKey, explainPair } from "../lib/pem.ts";
import type { CheckContext } from "./check-context.ts";
import { FORMATS } from "./formats.ts";
import type { Env } from "./interpolate.ts";
import { type Path, quote } from "./problem.ts";
import { type FileText, readText } from "./read.ts";
import type { Listener, Tls, UpstreamEntry } from "./types.ts";

export type Resolved = {
  /** Texts of certificates, keys and CAs by absolute path. Secrets are in the configuration. */
  readonly files: Map<string, string>;
  /** Every file that was read or looked for. */
  readonly paths: string[];
};

const LOG_LEVELS = ["trace", "debug", "info", "warn", "error"] as const;

/** Completes `check.config` in place and reports what cannot be read. Of what is not sound nothing is read. */
export async function resolveConfig(check: CheckContext, configPath: string, env: Env): Promise<Resolved> {
  const files = new FileReader(check, dirname(resolve(configPath)));
  await files.readAll();
  resolveSecrets(check, files);
  resolveTexts(check, files);
  resolveDirectories(check, files);
  resolveLogLevel(check, env);
  return { files: files.texts, paths: files.paths };
}

type Reference = { readonly path: Path; readonly file: string };

/** Reads each file that the configuration refers to, once. */
class FileReader {
  readonly texts = new Map<string, string>();
  readonly #check: CheckContext;
  readonly #directory: string;
  readonly #results = new Map<string, FileText>();

  constructor(check: CheckContext, directory: string) {
    this.#check = check;
    this.#directory = directory;
  }

  get paths(): string[] {
    return [...this.#results.keys()];
  }

  absolute(path: string): string {
    return resolve(this.#directory, path);
  }

  async readAll(): Promise<void> {
    const wanted = new Set(references(this.#check).map(({ file }) => this.absolute(file)));
    const results = await Promise.all(Array.from(wanted, async (file) => [file, await readText(file)] as const));
    for (const [file, result] of results) this.#results.set(file, result);
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
    return quote(written === file ? this.absolute(file) : written);
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

function* tlsObjects(check: CheckContext): Generator<[Path, Tls]> {
  if (check.config.tls !== undefined && check.isSound(["tls"])) yield [["tls"], check.config.tls];
  for (const [name, listener] of check.entries<Listener>("listeners")) {
    const path = ["listeners", name, "tls"];
    if (listener?.tls !== undefined && check.isSound(path)) yield [path, listener.tls];
  }
}

/** A secret from its file: one line, its line break taken off. */
function secret(check: CheckContext, files: FileReader, path: Path, file: string, format: string): string | null {
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

function resolveSecrets(check: CheckContext, files: FileReader): void {
  for (const [name, entry] of check.entries<UpstreamEntry>("upstreams")) {
    const path = ["upstreams", name, "authorization_file"];
    if (typeof entry !== "object" || entry?.authorization_file === undefined || !check.isSound(path)) continue;
    const text = secret(check, files, path, entry.authorization_file, "header_value");
    if (text !== null) entry.authorization = text;
    delete entry.authorization_file;
  }
  const tokens: unknown = check.config.auth?.tokens;
  if (!Array.isArray(tokens)) return;
  for (const [i, token] of (tokens as (typeof check.config.auth.tokens)[number][]).entries()) {
    const path = ["auth", "tokens", i, "sha256_file"];
    if (token?.sha256_file === undefined || !check.isSound(path)) continue;
    const text = secret(check, files, path, token.sha256_file, "sha256");
    if (text !== null) token.sha256 = text;
    delete token.sha256_file;
  }
  const holders = new Map<string, number>();
  for (const [i, token] of (tokens as (typeof check.config.auth.tokens)[number][]).entries()) {
    if (typeof token?.sha256 !== "string" || !check.isSound(["auth", "tokens", i])) continue;
    const hash = token.sha256.toLowerCase();
    const first = holders.get(hash);
    if (first !== undefined)
      check.report(["auth", "tokens", i], `Token has the same hash as auth.tokens[${first}]; each holder needs a token of their own`, "key");
    else holders.set(hash, i);
  }
}

function resolveTexts(check: CheckContext, files: FileReader): void {
  for (const [name, entry] of check.entries<UpstreamEntry>("upstreams")) {
    const path = ["upstreams", name, "ca_file"];
    if (typeof entry !== "object" || entry?.ca_file === undefined || !check.isSound(path)) continue;
    checkedText(check, files, path, entry.ca_file, explainCertificates);
    entry.ca_file = files.absolute(entry.ca_file);
  }
  for (const [path, tls] of tlsObjects(check)) {
    const pairs: [Path, { cert_file?: string; key_file?: string }][] = [
      [path, tls],
      ...(tls.certificates ?? []).map((pair, i): [Path, typeof pair] => [[...path, "certificates", i], pair]),
    ];
    for (const [at, pair] of pairs) {
      const cert = pair.cert_file === undefined ? null : checkedText(check, files, [...at, "cert_file"], pair.cert_file, explainCertificates);
      const key = pair.key_file === undefined ? null : checkedText(check, files, [...at, "key_file"], pair.key_file, explainKey);
      const reason = cert === null || key === null ? null : explainPair(cert, key);
      if (reason !== null) check.report([...at, "key_file"], `File ${files.shown([...at, "key_file"], pair.key_file ?? "")} ${reason}`);
      if (pair.cert_file !== undefined) pair.cert_file = files.absolute(pair.cert_file);
      if (pair.key_file !== undefined) pair.key_file = files.absolute(pair.key_file);
    }
  }
}

function checkedText(check: CheckContext, files: FileReader, path: Path, file: string, explain: (text: string) => string | null): string | null {
  const text = files.text(path, file);
  if (text === null) return null;
  const reason = explain(text);
  if (reason !== null) {
    check.report(path, `File ${files.shown(path, file)} ${reason}`);
    return null;
  }
  files.texts.set(files.absolute(file), text);
  return text;
}

function resolveDirectories(check: CheckContext, files: FileReader): void {
  const { config } = check;
  if (check.isSound(["state", "dir"])) config.state.dir = files.absolute(config.state.dir);
  const logs: [Path, unknown][] = [
    [["access_log"], config.access_log],
    ...check.entries<Listener>("listeners").map(([name, listener]): [Path, unknown] => [["listeners", name, "access_log"], listener?.access_log]),
  ];
  for (const [path, log] of logs) {
    if (typeof log !== "object" || log === null || !check.isSound([...path, "dir"])) continue;
    const place = log as { dir?: string };
    if (place.dir !== undefined) place.dir = files.absolute(place.dir);
  }
}

function resolveLogLevel(check: CheckContext, env: Env): void {
  if (!check.isSound(["log"]) || check.config.log.level !== undefined) return;
  const wanted = env["SIDEGATE_LOG_LEVEL"] ?? "";
  const level = wanted === "" ? "info" : LOG_LEVELS.find((known) => known === wanted.toLowerCase());
  if (level === undefined) check.reportOutside(`Environment variable 'SIDEGATE_LOG_LEVEL' is ${quote(wanted)}; levels are ${LOG_LEVELS.join(", ")}`);
  else check.config.log.level = level;
}
