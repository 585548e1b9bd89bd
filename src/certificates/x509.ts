// Writes X.509 certificates with ECDSA keys (RFC 5280) in DER; no parser of untrusted input.
import { createHash, createPublicKey, randomBytes, sign, type KeyObject } from "node:crypto";
import { isIP } from "node:net";
import ipaddr from "ipaddr.js";

export type CertificateRequest = {
  readonly subject: string;
  /** DNS names and IP addresses; none for a CA. */
  readonly names: readonly string[];
  readonly publicKey: KeyObject;
  readonly issuer: { readonly subject: Buffer; readonly privateKey: KeyObject };
  readonly ca: boolean;
  readonly notBefore: Date;
  readonly notAfter: Date;
};

const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OCTET_STRING = 0x04;
const UTF8_STRING = 0x0c;
const SEQUENCE = 0x30;
const SET = 0x31;
const TRUE = Buffer.from([0x01, 0x01, 0xff]);

const ECDSA_WITH_SHA256 = tlv(SEQUENCE, oid("1.2.840.10045.4.3.2"));
// The names of certificates hold at most 64 characters in their common name (RFC 5280, ub-common-name).
const MAX_COMMON_NAME = 64;

/** One value: tag, length, content. */
function tlv(tag: number, ...contents: readonly Buffer[]): Buffer {
  const value = Buffer.concat(contents);
  const { length } = value;
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), value]);
  const bytes = length < 0x100 ? [length] : length < 0x1_0000 ? [length >> 8, length & 0xff] : [length >> 16, (length >> 8) & 0xff, length & 0xff];
  return Buffer.concat([Buffer.from([tag, 0x80 | bytes.length, ...bytes]), value]);
}

function oid(text: string): Buffer {
  const [first = 0, second = 0, ...rest] = text.split(".").map(Number);
  const bytes = [first * 40 + second];
  for (const arc of rest) {
    const groups = [arc & 0x7f];
    for (let value = arc >>> 7; value > 0; value >>>= 7) groups.unshift(0x80 | (value & 0x7f));
    bytes.push(...groups);
  }
  return tlv(0x06, Buffer.from(bytes));
}

/** UTCTime up to 2049, GeneralizedTime after it (RFC 5280 section 4.1.2.5). */
function time(date: Date): Buffer {
  const digits = date.toISOString().replaceAll(/[-:T]|\.\d+/g, "");
  return date.getUTCFullYear() < 2050 ? tlv(0x17, Buffer.from(digits.slice(2))) : tlv(0x18, Buffer.from(digits));
}

function extension(id: string, critical: boolean, value: Buffer): Buffer {
  return tlv(SEQUENCE, oid(id), ...(critical ? [TRUE] : []), tlv(OCTET_STRING, value));
}

function generalName(name: string): Buffer {
  return isIP(name) === 0 ? tlv(0x82, Buffer.from(name, "ascii")) : tlv(0x87, Buffer.from(ipaddr.parse(name).toByteArray()));
}

/** SHA-1 of the key's bits (RFC 5280 section 4.2.1.2, method 1): an identifier, not a protection. */
function keyIdentifier(publicKey: KeyObject): Buffer {
  const spki = publicKey.export({ type: "spki", format: "der" });
  const bits = child(spki, 1);
  return createHash("sha1").update(content(bits).subarray(1)).digest();
}

/** A distinguished name that is one common name. */
export function encodeName(commonName: string): Buffer {
  return tlv(SEQUENCE, tlv(SET, tlv(SEQUENCE, oid("2.5.4.3"), tlv(UTF8_STRING, Buffer.from(commonName.slice(0, MAX_COMMON_NAME))))));
}

/** The subject of a certificate, as it must stand in the issuer field of those that it signs. */
export function subjectOf(certificate: Buffer): Buffer {
  // tbsCertificate: version, serial number, algorithm, issuer, validity, subject.
  return child(child(certificate, 0), 5);
}

function header(value: Buffer): { readonly start: number; readonly end: number } {
  const length = value.readUInt8(1);
  if (length < 0x80) return { start: 2, end: 2 + length };
  const start = 2 + (length & 0x7f);
  return { start, end: start + value.readUIntBE(2, length & 0x7f) };
}

function content(value: Buffer): Buffer {
  const { start, end } = header(value);
  return value.subarray(start, end);
}

function child(value: Buffer, index: number): Buffer {
  let rest = content(value);
  for (let i = 0; i < index; i += 1) rest = rest.subarray(header(rest).end);
  return rest.subarray(0, header(rest).end);
}

/** Signs a certificate. @returns PEM with a final line feed. */
export function createCertificate(request: CertificateRequest): string {
  const serial = randomBytes(16);
  // Positive and of full length.
  serial.writeUInt8((serial.readUInt8(0) & 0x7f) | 0x40, 0);
  const issuerKey = createPublicKey(request.issuer.privateKey);
  const extensions = [
    // A CA signs leaves alone (path length 0).
    extension("2.5.29.19", true, request.ca ? tlv(SEQUENCE, TRUE, tlv(INTEGER, Buffer.from([0]))) : tlv(SEQUENCE)),
    // keyCertSign and cRLSign, or digitalSignature.
    extension("2.5.29.15", true, tlv(BIT_STRING, Buffer.from(request.ca ? [1, 0x06] : [7, 0x80]))),
    extension("2.5.29.14", false, tlv(OCTET_STRING, keyIdentifier(request.publicKey))),
    extension("2.5.29.35", false, tlv(SEQUENCE, tlv(0x80, keyIdentifier(issuerKey)))),
    ...(request.ca
      ? []
      : [
          extension("2.5.29.37", false, tlv(SEQUENCE, oid("1.3.6.1.5.5.7.3.1"))),
          extension("2.5.29.17", false, tlv(SEQUENCE, ...request.names.map(generalName))),
        ]),
  ];
  const body = tlv(
    SEQUENCE,
    tlv(0xa0, tlv(INTEGER, Buffer.from([2]))),
    tlv(INTEGER, serial),
    ECDSA_WITH_SHA256,
    request.issuer.subject,
    tlv(SEQUENCE, time(request.notBefore), time(request.notAfter)),
    encodeName(request.subject),
    request.publicKey.export({ type: "spki", format: "der" }),
    tlv(0xa3, tlv(SEQUENCE, ...extensions)),
  );
  const signature = sign("sha256", body, request.issuer.privateKey);
  const der = tlv(SEQUENCE, body, ECDSA_WITH_SHA256, tlv(BIT_STRING, Buffer.from([0]), signature));
  const lines = der.toString("base64").replaceAll(/.{64}(?=.)/g, "$&\n");
  return `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`;
}
