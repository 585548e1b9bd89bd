// Certificates and private keys in PEM, as they come from files: what they hold, and what is wrong with them.
import { X509Certificate, createPrivateKey } from "node:crypto";
import { parseAltNames } from "./subject-names.ts";

/** What is told of a certificate. */
export type CertificateFacts = {
  /** Distinguished name on one line. */
  readonly subject: string;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

/** The certificates of a file, leaf first. */
export type Chain = {
  /** Names of the leaf, see `certificateNames`. */
  readonly names: readonly string[];
  readonly certificates: readonly CertificateFacts[];
  /** Why clients may not find their way from the leaf to their CA, as the end of the sentence "File 'x' ..."; null when nothing speaks for that. */
  readonly gap: string | null;
};

/** The PEM certificates of a text, in its order. What is between them does not count. */
export function splitCertificates(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
}

/** Lower-case DNS names and IP addresses of the subject alternative names; the common name does not count (RFC 9525 section 2). */
export function certificateNames(certificate: X509Certificate): string[] {
  const names = parseAltNames(certificate.subjectAltName ?? "").filter(({ kind }) => kind === "dns" || kind === "ip");
  return names.map(({ value }) => value.toLowerCase());
}

/** OpenSSL takes certificates whose dates are none; nobody else does. */
export function hasDates({ validFrom, validTo }: X509Certificate): boolean {
  // The same as dates are whatever stands in memory, when OpenSSL can read none.
  return !Number.isNaN(Date.parse(validFrom) + Date.parse(validTo));
}

function decode(text: string): X509Certificate[] | string {
  const pems = splitCertificates(text);
  if (pems.length === 0) return /-----BEGIN .*PRIVATE KEY-----/.test(text) ? "holds a private key and no certificate" : "holds no PEM certificate";
  const certificates: X509Certificate[] = [];
  for (const pem of pems) {
    try {
      const certificate = new X509Certificate(pem);
      // A key that OpenSSL does not know throws here.
      void certificate.publicKey;
      if (!hasDates(certificate)) throw new Error("Its dates are none");
      certificates.push(certificate);
    } catch {
      return pems.length === 1
        ? "holds a certificate that cannot be decoded"
        : `holds a certificate that cannot be decoded (number ${certificates.length + 1})`;
    }
  }
  return certificates;
}

/** What is wrong with a file of CA certificates, as the end of the sentence "File 'x' ..."; null when nothing is. */
export function explainCertificates(text: string): string | null {
  const decoded = decode(text);
  return typeof decoded === "string" ? decoded : null;
}

/** The chain in a file of a certificate that is to be shown to others; otherwise what is wrong with it, as the end of the sentence "File 'x' ...". */
export function readChain(text: string): Chain | string {
  const decoded = decode(text);
  if (typeof decoded === "string") return decoded;
  for (const [i, certificate] of decoded.entries()) {
    const reason = weakness(certificate);
    if (reason !== null) return `holds a certificate${i === 0 ? "" : ` (number ${i + 1})`} ${reason}`;
  }
  const certificates = decoded.map(({ subject, validFromDate, validToDate }) => ({
    subject: subject.split("\n").join(", "),
    notBefore: validFromDate,
    notAfter: validToDate,
  }));
  const [leaf] = decoded;
  return { names: leaf === undefined ? [] : certificateNames(leaf), certificates, gap: explainGap(decoded) };
}

function isSelfSigned(certificate: X509Certificate): boolean {
  return certificate.subject === certificate.issuer;
}

/** Why OpenSSL refuses the certificate at security level 2, its default: a short key as a server, a broken hash as a client; null when it does not. */
function weakness(certificate: X509Certificate): string | null {
  const bits = certificate.publicKey.asymmetricKeyDetails?.modulusLength;
  if (bits !== undefined && bits < 2048)
    return `with an RSA key of ${bits} bits, which is too short for OpenSSL and for clients; make a new one with at least 2048 bits, or with an ECDSA key`;
  const hash = /(?:md[245]|sha-?1)(?!\d)/i.exec(certificate.signatureAlgorithm ?? "")?.[0].toUpperCase();
  // Nobody looks at the signature of a root on itself.
  if (hash === undefined || isSelfSigned(certificate)) return null;
  return `that is signed with ${hash}, which clients refuse because it can be forged; let it be issued anew with SHA-256`;
}

function explainGap(certificates: readonly X509Certificate[]): string | null {
  const [leaf] = certificates;
  if (leaf === undefined) return null;
  if (certificates.length === 1) {
    // The CA says where its own certificate is: that one is no root that clients have.
    return isSelfSigned(leaf) || !(leaf.infoAccess ?? "").includes("CA Issuers")
      ? null
      : "holds a certificate without the intermediate that issued it, so that many clients refuse it; append the intermediate, or take the CA's file with the full chain";
  }
  for (const [i, certificate] of certificates.entries()) {
    const next = certificates[i + 1];
    if (next === undefined || certificate.checkIssued(next)) continue;
    const issuer = isSelfSigned(certificate) ? -1 : certificates.findIndex((other, j) => j !== i && certificate.checkIssued(other));
    const what =
      issuer === -1 ? "leave out what does not belong to the chain, or add what is missing" : `number ${issuer + 1} did, and must come right after it`;
    return `holds a chain in the wrong order: certificate number ${i + 2} did not issue number ${i + 1}; ${what}`;
  }
  return null;
}

/** What is wrong with a file of a private key, as the end of the sentence "File 'x' ..."; null when nothing is. */
export function explainKey(text: string): string | null {
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(text)) {
    return "holds a private key with a passphrase; take it off: openssl pkey -in OLD -out NEW";
  }
  if (!/-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----/.test(text)) {
    return text.includes("-----BEGIN CERTIFICATE-----") ? "holds a certificate and no private key" : "holds no PEM private key";
  }
  try {
    createPrivateKey(text);
    return null;
  } catch {
    return "holds a private key that cannot be decoded";
  }
}

/** What is wrong with a certificate file and its key file, each right by itself, as the end of the sentence "File 'KEY' ..."; null when nothing is. */
export function explainPair(certText: string, keyText: string): string | null {
  const key = createPrivateKey(keyText);
  const fits = splitCertificates(certText).findIndex((pem) => new X509Certificate(pem).checkPrivateKey(key));
  if (fits === 0) return null;
  return fits === -1
    ? "is not the key of the certificate"
    : `is the key of certificate number ${fits + 1} in the certificate file, but the leaf must come first`;
}
