// The local CA: made once, kept in the state directory, signs certificates for development.
import { createPrivateKey, generateKeyPairSync, randomBytes, X509Certificate, type KeyObject } from "node:crypto";
import { mkdtemp, open, readFile, rename, rm, chmod } from "node:fs/promises";
import { hostname } from "node:os";
import { join } from "node:path";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { makeDirectory } from "../lib/secret-file.ts";
import { createServerCertificate, opensslReason, type ServerCertificate } from "./source.ts";
import { createCertificate, encodeName, subjectOf } from "./x509.ts";

const DAY_MS = 86_400_000;
const CA_DAYS = 3652;
/** Browsers refuse leaves of more than 398 days; 90 keeps us honest about renewing. */
const LEAF_DAYS = 90;
/** Clients whose clock is behind accept it too. */
const BACKDATE_MS = 3_600_000;

/** The CA cannot be made or read. */
export class InternalCaError extends GatewayError {
  constructor(message: string, cause?: unknown) {
    super("ERR_INTERNAL_CA", message, { cause });
  }
}

/** Where the certificate of the CA is, for `curl --cacert` and NODE_EXTRA_CA_CERTS. */
export function internalCaFile(stateDir: string): string {
  return join(stateDir, "internal-ca", "ca.crt");
}

export class InternalCa {
  readonly certFile: string;
  /** PEM. */
  readonly cert: string;
  readonly notAfter: Date;
  readonly #issuer: { readonly subject: Buffer; readonly privateKey: KeyObject };
  // One key for all leaves: it lives in memory alone, and making one for each would only cost time.
  readonly #leafKeys = generateKeyPairSync("ec", { namedCurve: "P-256" });
  readonly #leafKey = this.#leafKeys.privateKey.export({ type: "pkcs8", format: "pem" });

  constructor(certFile: string, cert: string, certificate: X509Certificate, privateKey: KeyObject) {
    this.certFile = certFile;
    this.cert = cert;
    this.notAfter = certificate.validToDate;
    this.#issuer = { subject: subjectOf(certificate.raw), privateKey };
  }

  /** A certificate for DNS names and IP addresses, the first of which is its subject. Takes about half a millisecond. */
  issue(names: readonly string[], nowMs: number): ServerCertificate {
    const leaf = createCertificate({
      subject: names[0] ?? "",
      names,
      publicKey: this.#leafKeys.publicKey,
      issuer: this.#issuer,
      ca: false,
      notBefore: new Date(nowMs - BACKDATE_MS),
      notAfter: new Date(Math.min(nowMs + LEAF_DAYS * DAY_MS, this.notAfter.getTime())),
    });
    return createServerCertificate("internal", this.certFile, names, leaf, this.#leafKey);
  }
}

/**
 * Opens the CA in `<stateDir>/internal-ca`, which is made when it is missing or empty. Two processes that start at once share one.
 * @throws {InternalCaError} when it cannot be made or read, is incomplete, or has expired.
 */
export async function openInternalCa(stateDir: string, nowMs: number = Date.now()): Promise<InternalCa> {
  return (
    (await readCa(stateDir, nowMs)) ??
    (await makeCa(stateDir, nowMs)) ??
    (await readCa(stateDir, nowMs)) ??
    failed(stateDir, "it was removed while it was read")
  );
}

function failed(stateDir: string, reason: string, cause?: unknown): never {
  throw new InternalCaError(`Cannot use the internal CA in '${join(stateDir, "internal-ca")}': ${reason}`, cause);
}

async function readPem(stateDir: string, name: string): Promise<string | null> {
  try {
    return await readFile(join(stateDir, "internal-ca", name), "utf8");
  } catch (error) {
    if (systemErrorCode(error) === "ENOENT") return null;
    return failed(stateDir, `${name}: ${describeSystemError(error)}`, error);
  }
}

async function readCa(stateDir: string, nowMs: number): Promise<InternalCa | null> {
  const remedy = "restore it, or remove the directory to have a new CA made";
  const [cert, key] = await Promise.all([readPem(stateDir, "ca.crt"), readPem(stateDir, "ca.key")]);
  if (cert === null && key === null) return null;
  if (cert === null || key === null) return failed(stateDir, `${cert === null ? "ca.crt" : "ca.key"} is missing; ${remedy}`);
  const certificate = parse(stateDir, "ca.crt", remedy, () => new X509Certificate(cert));
  const privateKey = parse(stateDir, "ca.key", remedy, () => createPrivateKey(key));
  if (!certificate.ca || certificate.publicKey.asymmetricKeyType !== "ec") return failed(stateDir, `ca.crt is not the certificate of an ECDSA CA; ${remedy}`);
  if (!certificate.checkPrivateKey(privateKey)) return failed(stateDir, `ca.key is not the key of ca.crt; ${remedy}`);
  if (certificate.validToDate.getTime() <= nowMs)
    return failed(stateDir, `it expired on ${certificate.validToDate.toISOString().slice(0, 10)}; remove the directory to have a new CA made`);
  return new InternalCa(internalCaFile(stateDir), cert, certificate, privateKey);
}

function parse<T>(stateDir: string, name: string, remedy: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    // Without the error as cause: nothing of the key may reach a log.
    return failed(stateDir, `${name} is damaged (${opensslReason(error)}); ${remedy}`);
  }
}

/** Null when another process made one first. */
async function makeCa(stateDir: string, nowMs: number): Promise<InternalCa | null> {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  // Told apart in a trust store, where several may stand.
  const subject = `Sidegate local CA ${hostname().slice(0, 24)} ${randomBytes(3).toString("hex")}`;
  const [notBefore, notAfter] = [new Date(nowMs - BACKDATE_MS), new Date(nowMs + CA_DAYS * DAY_MS)];
  const cert = createCertificate({ subject, names: [], publicKey, issuer: { subject: encodeName(subject), privateKey }, ca: true, notBefore, notAfter });
  const key = privateKey.export({ type: "pkcs8", format: "pem" });
  let draft: string | null = null;
  try {
    await makeDirectory(stateDir, 0o755);
    draft = await mkdtemp(join(stateDir, ".internal-ca-"));
    await writeNew(join(draft, "ca.key"), key, 0o600);
    await writeNew(join(draft, "ca.crt"), cert, 0o644);
    // Others may read the certificate, which is what it is for; the key has its own mode.
    await chmod(draft, 0o755);
    // A directory takes the place of a missing or empty one only: of two processes one succeeds, and nobody sees half a CA.
    await rename(draft, join(stateDir, "internal-ca"));
  } catch (error) {
    if (draft !== null) await rm(draft, { recursive: true, force: true });
    const code = systemErrorCode(error);
    if (code === "ENOTEMPTY" || code === "EEXIST") return null;
    return failed(stateDir, `it cannot be made: ${describeSystemError(error)}`, error);
  }
  return new InternalCa(internalCaFile(stateDir), cert, new X509Certificate(cert), privateKey);
}

async function writeNew(path: string, text: string, mode: number): Promise<void> {
  const file = await open(path, "wx", mode);
  try {
    await file.writeFile(text);
    // The umask may have taken bits away.
    await file.chmod(mode);
    await file.sync();
  } finally {
    await file.close();
  }
}
