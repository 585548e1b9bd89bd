// Certificates and private keys in PEM, as they come from files.
import { X509Certificate, createPrivateKey } from "node:crypto";

/** The PEM certificates of a text, in its order. What is between them does not count. */
export function splitCertificates(text: string): string[] {
  return text.match(/-----BEGIN CERTIFICATE-----[\s\S]*?-----END CERTIFICATE-----/g) ?? [];
}

/** Lower-case DNS names and IP addresses of the subject alternative names; the common name does not count (RFC 9525 section 2). */
export function certificateNames(certificate: X509Certificate): string[] {
  // Node.js quotes a name that holds a comma or a quote as JSON.
  const entries = (certificate.subjectAltName ?? "").matchAll(/(DNS|IP Address):("(?:[^"\\]|\\.)*"|[^,\s]+)/g);
  return Array.from(entries, ([, , name = ""]) => (name.startsWith('"') ? String(JSON.parse(name)) : name).toLowerCase());
}

/** What is wrong with a file of certificates, as the end of the sentence "File 'x' ..."; null when nothing is. */
export function explainCertificates(text: string): string | null {
  const certificates = splitCertificates(text);
  if (certificates.length === 0) return /-----BEGIN .*PRIVATE KEY-----/.test(text) ? "holds a private key and no certificate" : "holds no PEM certificate";
  for (const [i, pem] of certificates.entries()) {
    try {
      void new X509Certificate(pem);
    } catch {
      return certificates.length === 1 ? "holds a certificate that cannot be decoded" : `holds a certificate that cannot be decoded (number ${i + 1})`;
    }
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
