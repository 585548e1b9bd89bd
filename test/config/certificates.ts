// Makes the certificates that the golden files name by ${CERTS}: good, old, new, weak and badly chained ones.
import { webcrypto } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  AuthorityInfoAccessExtension,
  AuthorityKeyIdentifierExtension,
  BasicConstraintsExtension,
  type Extension,
  SubjectAlternativeNameExtension,
  type X509Certificate,
  X509CertificateGenerator,
} from "@peculiar/x509";

/** When it is for the tests. */
export const NOW = new Date("2026-12-01T12:00:00Z");

const DAY_MS = 24 * 3_600_000;
const EC = { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" };
const CA_URL = "http://ca.example.com/intermediate.crt";

type Issuer = { readonly certificate: X509Certificate; readonly keys: webcrypto.CryptoKeyPair };
type Wish = {
  readonly names?: readonly string[];
  readonly isCa?: boolean;
  /** Days from NOW. */
  readonly from?: number;
  readonly to?: number;
  readonly keys?: webcrypto.CryptoKeyPair;
  readonly hash?: string;
  /** It tells where the certificate of its issuer is. */
  readonly tellsIssuer?: boolean;
};

async function ecKeys(): Promise<webcrypto.CryptoKeyPair> {
  return webcrypto.subtle.generateKey(EC, true, ["sign", "verify"]);
}

async function rsaKeys(bits: number): Promise<webcrypto.CryptoKeyPair> {
  const algorithm = { name: "RSASSA-PKCS1-v1_5", modulusLength: bits, publicExponent: new Uint8Array([1, 0, 1]), hash: "SHA-256" };
  return webcrypto.subtle.generateKey(algorithm, true, ["sign", "verify"]);
}

/** A certificate; self-signed without an issuer. */
async function issue(subject: string, issuer: Issuer | null, wish: Wish): Promise<Issuer> {
  const { names = [], isCa = false, from = -30, to = 365, hash = "SHA-256", tellsIssuer = false } = wish;
  const keys = wish.keys ?? (await ecKeys());
  const extensions: Extension[] = [new BasicConstraintsExtension(isCa, undefined, true)];
  if (names.length > 0) extensions.push(new SubjectAlternativeNameExtension(names.map((value) => ({ type: /^[\d.]+$|:/.test(value) ? "ip" : "dns", value }))));
  if (tellsIssuer) extensions.push(new AuthorityInfoAccessExtension({ caIssuers: CA_URL }));
  if (issuer !== null) extensions.push(await AuthorityKeyIdentifierExtension.create(issuer.keys.publicKey));
  const signer = issuer?.keys ?? keys;
  const certificate = await X509CertificateGenerator.create({
    subject: `CN=${subject}`,
    issuer: issuer?.certificate.subject ?? `CN=${subject}`,
    notBefore: new Date(NOW.getTime() + from * DAY_MS),
    notAfter: new Date(NOW.getTime() + to * DAY_MS),
    publicKey: keys.publicKey,
    signingKey: signer.privateKey,
    signingAlgorithm: { ...signer.privateKey.algorithm, hash },
    extensions,
  });
  return { certificate, keys };
}

async function keyPem({ keys }: Issuer): Promise<string> {
  const der = Buffer.from(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey)).toString("base64");
  return `-----BEGIN PRIVATE KEY-----\n${der.replaceAll(/.{64}/g, "$&\n")}\n-----END PRIVATE KEY-----\n`;
}

/** Writes NAME.crt and NAME.key of each into a directory of its own. */
export async function makeCertificates(): Promise<{ readonly directory: string } & AsyncDisposable> {
  const directory = await mkdtemp(join(tmpdir(), "sidegate-certificates-"));
  const root = await issue("Root", null, { isCa: true });
  const intermediate = await issue("Intermediate", root, { isCa: true });
  const oldIntermediate = await issue("Old intermediate", root, { isCa: true, to: -1 });
  const other = await issue("Other", null, { isCa: true });
  const www = ["www.example.com"];
  const leaf = await issue("www", intermediate, { names: www });
  const certificates: Record<string, readonly [Issuer, ...Issuer[]]> = {
    ca: [root],
    good: [leaf, intermediate],
    addresses: [await issue("addresses", root, { names: ["127.0.0.1", "::1", "*.apps.example.com"] })],
    expired: [await issue("expired", root, { names: www, from: -90, to: -1 })],
    "not-yet": [await issue("not-yet", root, { names: www, from: 1 })],
    soon: [await issue("soon", root, { names: www, to: 6 })],
    "not-so-soon": [await issue("not-so-soon", root, { names: www, to: 8 })],
    "old-intermediate": [await issue("www", oldIntermediate, { names: www }), oldIntermediate],
    "no-intermediate": [await issue("www", intermediate, { names: www, tellsIssuer: true })],
    "self-signed": [await issue("www", null, { names: www, tellsIssuer: true })],
    "wrong-order": [leaf, root, intermediate],
    "wrong-chain": [leaf, other],
    "rsa-1024": [await issue("rsa", root, { names: www, keys: await rsaKeys(1024) })],
    "sha-1": [await issue("sha-1", root, { names: www, hash: "SHA-1" })],
    "sha-1-ca": [leaf, await issue("Intermediate", root, { isCa: true, hash: "SHA-1", keys: intermediate.keys })],
    client: [await issue("sidegate", root, {})],
  };
  for (const [name, chain] of Object.entries(certificates)) {
    await writeFile(join(directory, `${name}.crt`), chain.map(({ certificate }) => `${certificate.toString("pem")}\n`).join(""));
    await writeFile(join(directory, `${name}.key`), await keyPem(chain[0]));
  }
  return { directory, [Symbol.asyncDispose]: () => rm(directory, { recursive: true }) };
}
