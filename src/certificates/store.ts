// Certificates of ACME CAs on disk, each in a file of its own, with what is remembered of it beside it.
import { createHash, createPrivateKey, X509Certificate } from "node:crypto";
import { chmod, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { GatewayError, systemErrorCode } from "../lib/errors.ts";
import { certificateNames, hasDates } from "../lib/pem.ts";
import { writeSecretFile } from "../lib/secret-file.ts";
import type { AcmeAccountPlan } from "../plan/model.ts";
import { acmeAccountDir } from "./acme-account.ts";
import type { Schedule } from "./renew.ts";
import { createServerCertificate, opensslReason, type CertificateInfo, type ServerCertificate } from "./source.ts";

// What a Date takes; most of the numbers are shown as one.
const MAX_DATE_MS = 8_640_000_000_000_000;

/** A file of a certificate cannot be used; the message is the end of the sentence "File 'x' ...". */
export class StoredCertificateError extends GatewayError {
  constructor(message: string) {
    super("ERR_STORED_CERTIFICATE", message);
  }
}

/** Where a certificate is kept. */
export type AcmeFiles = { readonly directory: string; readonly certificate: string; readonly schedule: string; readonly lock: string };

/** A certificate and the fingerprint of its leaf. */
export type StoredCertificate = { readonly certificate: ServerCertificate; readonly leaf: string };

/** @param names of the certificate, in any order */
export function acmeFiles(stateDir: string, account: AcmeAccountPlan, names: readonly string[]): AcmeFiles {
  const directory = acmeAccountDir(stateDir, account);
  const sorted = names.toSorted();
  const hash = createHash("sha256").update(JSON.stringify(sorted)).digest("hex").slice(0, 12);
  const base = `${fileName(sorted[0] ?? "")}-${hash}`;
  const path = join(directory, base);
  // Not beside them: what is beside them tells others that something changed.
  return { directory, certificate: `${path}.json`, schedule: `${path}.schedule.json`, lock: join(directory, "locks", base) };
}

/** File systems take 255 bytes. */
function fileName(name: string): string {
  return name
    .replaceAll(/[^a-z0-9.-]/g, "_")
    .replace(/^\./, "_")
    .slice(0, 120);
}

/**
 * Null when there is no such file.
 * @returns stamp: another one when the file is. isOpen: whether others than its owner have rights on it. @throws a system error
 */
export async function lookAt(file: string): Promise<{ stamp: string; isOpen: boolean } | null> {
  try {
    const { ino, mtimeMs, size, mode } = await stat(file);
    return { stamp: `${ino} ${mtimeMs} ${size}`, isOpen: (mode & 0o077) !== 0 };
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    throw error;
  }
}

/**
 * Checks that the certificate decodes, that its key fits and that it is for these names.
 * @throws {StoredCertificateError}
 */
export function checkCertificate(source: CertificateInfo["source"], names: readonly string[], cert: string, key: string): StoredCertificate {
  try {
    const leaf = new X509Certificate(cert);
    const had = new Set(certificateNames(leaf));
    const missing = names.find((name) => !had.has(name));
    if (missing !== undefined) throw new StoredCertificateError(`holds a certificate that is not for '${missing}'`);
    if (!leaf.checkPrivateKey(createPrivateKey(key))) throw new StoredCertificateError("holds a key that is not the key of its certificate");
    if (!hasDates(leaf)) throw new StoredCertificateError("holds a certificate without valid dates");
    return { certificate: createServerCertificate(source, null, names, cert, key, leaf), leaf: leaf.fingerprint256 };
  } catch (error) {
    // Without the error as cause: nothing of the key may reach a log.
    throw error instanceof StoredCertificateError
      ? error
      : new StoredCertificateError(`holds a certificate or key that cannot be decoded (${opensslReason(error)})`);
  }
}

/**
 * Null when there is none.
 * @param names the wanted ones @throws {StoredCertificateError} a system error
 */
export async function readCertificate(file: string, names: readonly string[]): Promise<StoredCertificate | null> {
  const stored = await readJson(file);
  if (stored === undefined) return null;
  const { cert, key } = stored;
  if (typeof cert !== "string" || typeof key !== "string") throw new StoredCertificateError("is no certificate of this gateway, or only half of one");
  return checkCertificate("acme", names, cert, key);
}

/** @throws a system error */
export async function writeCertificate(file: string, { info, cert, key }: ServerCertificate): Promise<void> {
  await writeJson(file, { names: info.names, cert, key });
}

/** Null when there is none, or an unusable one: it is only a memory. @throws a system error */
export async function readSchedule(file: string): Promise<Schedule | null> {
  try {
    const stored = await readJson(file);
    return stored === undefined ? null : parseSchedule(stored);
  } catch (error) {
    if (error instanceof StoredCertificateError) return null;
    throw error;
  }
}

/** @throws a system error */
export async function writeSchedule(file: string, schedule: Schedule): Promise<void> {
  await writeJson(file, schedule);
}

/**
 * Takes the rights of others from a file with a key, as a backup or a copy may have left them. Its owner does not count: whoever can put a file
 * into the state directory can do everything. Never rejects: a file of somebody else is read as it is.
 */
export async function keepFromOthers(file: string): Promise<void> {
  await chmod(file, 0o600).catch(() => {});
}

async function writeJson(file: string, value: unknown): Promise<void> {
  await writeSecretFile(file, `${JSON.stringify(value, null, 2)}\n`);
}

async function readJson(file: string): Promise<Record<string, unknown> | undefined> {
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return undefined;
    throw error;
  }
  try {
    const value: unknown = JSON.parse(text);
    if (typeof value === "object" && value !== null) return value as Record<string, unknown>;
  } catch {
    // The reason would quote the text.
  }
  throw new StoredCertificateError("is not JSON, or only half of it");
}

function parseSchedule(stored: Record<string, unknown>): Schedule | null {
  const { planKey, leaf, failures, error, retryAtMs, challenge, obtainedAtMs, early, earliestMs, window, askAtMs } = stored;
  if (typeof planKey !== "string" || typeof leaf !== "string" || typeof error !== "string") return null;
  if (!isCount(failures) || !isCount(challenge) || !isCount(early)) return null;
  if (!isNumber(retryAtMs) || !isNumber(obtainedAtMs) || !isNumber(earliestMs) || !isNumber(askAtMs)) return null;
  return { planKey, leaf, failures, error, retryAtMs, challenge, obtainedAtMs, early, earliestMs, window: parseWindow(window), askAtMs };
}

function parseWindow(window: unknown): Schedule["window"] {
  if (typeof window !== "object" || window === null) return null;
  const { startMs, endMs, atMs } = window as Record<string, unknown>;
  return isNumber(startMs) && isNumber(endMs) && isNumber(atMs) ? { startMs, endMs, atMs } : null;
}

function isNumber(value: unknown): value is number {
  return typeof value === "number" && value >= 0 && value <= MAX_DATE_MS;
}

function isCount(value: unknown): value is number {
  return isNumber(value) && Number.isSafeInteger(value);
}
