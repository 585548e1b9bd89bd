import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, unlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { InternalCaError, internalCaFile, openInternalCa } from "./internal-ca.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-ca-"));
after(() => rmSync(root, { recursive: true, force: true }));
const hasOpenssl = spawnSync("openssl", ["version"]).status === 0;

async function failure(stateDir: string, nowMs?: number): Promise<InternalCaError> {
  const error: unknown = await openInternalCa(stateDir, nowMs).then(
    () => null,
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof InternalCaError, String(error));
  return error;
}

function everythingIn(error: Error): string {
  return `${error.message} ${error.stack} ${JSON.stringify(error)} ${String(error.cause)}`;
}

test("a CA is made once, with modes that keep the key to its owner and the certificate readable", async () => {
  const stateDir = join(root, "once", "deep");
  const made = await openInternalCa(stateDir);
  const again = await openInternalCa(stateDir);
  assert.equal(again.cert, made.cert);
  assert.equal(made.certFile, internalCaFile(stateDir));
  assert.equal(readFileSync(made.certFile, "utf8"), made.cert);
  const mode = (path: string): number => statSync(path).mode & 0o777;
  assert.equal(mode(join(stateDir, "internal-ca", "ca.key")), 0o600);
  assert.equal(mode(made.certFile), 0o644);
  assert.equal(mode(join(stateDir, "internal-ca")), 0o755);
  assert.deepEqual(readdirSync(stateDir), ["internal-ca"]);
  const certificate = new X509Certificate(made.cert);
  assert.equal(certificate.ca, true);
  assert.ok(Math.abs(certificate.validToDate.getTime() - Date.now() - 10 * 365.25 * 86_400_000) < 2 * 86_400_000);
});

test("gateways that start at the same time share one CA", async () => {
  const stateDir = join(root, "race");
  const all = await Promise.all(Array.from({ length: 8 }, () => openInternalCa(stateDir)));
  assert.equal(new Set(all.map((ca) => ca.cert)).size, 1);
  assert.deepEqual(readdirSync(stateDir), ["internal-ca"]);
});

test("an empty directory is taken for none", async () => {
  const stateDir = join(root, "empty");
  mkdirSync(join(stateDir, "internal-ca"), { recursive: true });
  assert.ok((await openInternalCa(stateDir)).cert.startsWith("-----BEGIN CERTIFICATE-----\n"));
});

test("a damaged, incomplete or expired CA is an error that names the file and the remedy, and holds no key", async () => {
  const stateDir = join(root, "damaged");
  const directory = join(stateDir, "internal-ca");
  const ca = await openInternalCa(stateDir);
  const [certPath, keyPath] = [join(directory, "ca.crt"), join(directory, "ca.key")];
  const key = readFileSync(keyPath, "utf8");
  const secret = key.split("\n")[1] ?? "";
  const begins = `Cannot use the internal CA in '${directory}': `;

  unlinkSync(keyPath);
  assert.equal((await failure(stateDir)).message, `${begins}ca.key is missing; restore it, or remove the directory to have a new CA made`);

  writeFileSync(keyPath, key.slice(0, 120));
  const half = await failure(stateDir);
  assert.match(half.message, /ca\.key is damaged \(.+\); restore it/);
  assert.ok(secret.length > 20 && !everythingIn(half).includes(secret.slice(0, 20)));

  const other = await openInternalCa(join(root, "other"));
  writeFileSync(keyPath, readFileSync(join(root, "other", "internal-ca", "ca.key")));
  assert.match((await failure(stateDir)).message, /ca\.key is not the key of ca\.crt/);

  writeFileSync(keyPath, key);
  const leaf = other.issue(["localhost"], Date.now());
  writeFileSync(certPath, leaf.cert);
  assert.match((await failure(stateDir)).message, /ca\.crt is not the certificate of an ECDSA CA/);

  writeFileSync(certPath, "");
  assert.match((await failure(stateDir)).message, /ca\.crt is damaged/);

  writeFileSync(certPath, ca.cert);
  const expired = await failure(stateDir, ca.notAfter.getTime());
  assert.equal(expired.message, `${begins}it expired on ${ca.notAfter.toISOString().slice(0, 10)}; remove the directory to have a new CA made`);
  assert.equal((await openInternalCa(stateDir)).cert, ca.cert);
});

test("a state directory that cannot be written is an error with the reason", async () => {
  writeFileSync(join(root, "file"), "");
  assert.match((await failure(join(root, "file", "state"))).message, /: a part of the path is not a directory$/);
  const locked = join(root, "locked");
  mkdirSync(locked);
  chmodSync(locked, 0o555);
  // Root may write everywhere.
  if (process.getuid?.() !== 0) assert.match((await failure(locked)).message, /it cannot be made: permission denied$/);
});

test("leaves never outlive the CA", async () => {
  const ca = await openInternalCa(join(root, "short"));
  const issued = ca.issue(["localhost"], ca.notAfter.getTime() - 86_400_000);
  assert.equal((issued.info.notAfter ?? new Date(0)).getTime(), ca.notAfter.getTime());
});

test("dates after 2049 are written as RFC 5280 asks", async () => {
  const ca = await openInternalCa(join(root, "future"), Date.UTC(2045, 0, 1));
  assert.equal(ca.notAfter.getUTCFullYear(), 2055);
});

test(
  "openssl verifies a leaf against the CA, strictly, for each of its names and for no other",
  { skip: !hasOpenssl && "openssl is not installed: apt-get install openssl" },
  async () => {
    const ca = await openInternalCa(join(root, "openssl"));
    // Long enough that every length form of DER is used.
    const many = Array.from({ length: 20 }, (_, i) => `name-${i}.a-rather-long-domain.example.com`);
    const options = ca.issue(["mcp.example.com", "*.apps.example.com", "127.0.0.1", "fd00::1", ...many], Date.now());
    const leaf = join(root, "leaf.pem");
    writeFileSync(leaf, options.cert);
    const verify = (...args: string[]): number | null =>
      spawnSync("openssl", ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", ca.certFile, ...args, leaf]).status;
    assert.equal(verify(), 0);
    for (const name of ["mcp.example.com", "x.apps.example.com", many[19] ?? ""]) assert.equal(verify("-verify_hostname", name), 0, name);
    for (const ip of ["127.0.0.1", "fd00::1"]) assert.equal(verify("-verify_ip", ip), 0, ip);
    assert.notEqual(verify("-verify_hostname", "other.example.com"), 0);
    assert.notEqual(verify("-verify_ip", "127.0.0.2"), 0);
    const text = execFileSync("openssl", ["x509", "-in", ca.certFile, "-noout", "-ext", "basicConstraints,keyUsage"], { encoding: "utf8" });
    assert.match(text, /CA:TRUE, pathlen:0/);
    assert.match(text, /Certificate Sign, CRL Sign/);
  },
);
