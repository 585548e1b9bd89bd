// The certificate that a client proved to hold, and the names in it.
import type { X509Certificate } from "node:crypto";
import type { Socket } from "node:net";
import type { TLSSocket } from "node:tls";
import { commonName, distinguishedName, parseAltName, parseAltNames } from "../lib/subject-names.ts";
import type { AuthWayPlan } from "../plan/auth-model.ts";
import type { Identity } from "./identity.ts";

type CertificateWay = Extract<AuthWayPlan, { kind: "client_certificate" }>;

export type ClientCertificate = {
  /** RFC 2253, in printable ASCII. */
  readonly subject: string;
  /** Null when there is none, several, or one that could be taken for a distinguished name. */
  readonly commonName: { readonly text: string; readonly escaped: string } | null;
  /** In the form of `parseAltName`. */
  readonly sans: readonly string[];
  /** Milliseconds since the epoch. */
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
  /** Who it is where any certificate admits: the common name, else the first alternative name, else the subject, else the serial number. */
  readonly identity: Identity;
};

/** The certificate of the client; null when it showed none or one that `tls.ca_file` does not vouch for, and on plain sockets. */
export function clientCertificateOf(socket: Socket): ClientCertificate | null {
  // A session of TLS 1.3 that is resumed without a certificate is authorized too.
  if (!("authorized" in socket) || socket.authorized !== true) return null;
  const certificate = (socket as TLSSocket).getPeerX509Certificate();
  return certificate === undefined ? null : readClientCertificate(certificate);
}

export function readClientCertificate(certificate: X509Certificate): ClientCertificate {
  // Node.js gives undefined for an empty one.
  const rawSubject = (certificate.subject as string | undefined) ?? "";
  const subject = distinguishedName(rawSubject);
  const common = commonName(rawSubject);
  // A name is only what its kind in the certificate says: a DNS name "10.0.0.1" is no address.
  const sans = parseAltNames(certificate.subjectAltName ?? "").flatMap(({ kind, value }) => {
    const parsed = parseAltName(value);
    return parsed?.kind === kind ? [parsed.value] : [];
  });
  const named = common === null || common.text === "" || common.text.includes("=") ? null : common;
  const name = named?.escaped ?? sans[0] ?? (subject === "" ? `serial=${certificate.serialNumber}` : subject);
  return {
    subject,
    commonName: named,
    sans,
    notBeforeMs: certificate.validFromDate.getTime(),
    notAfterMs: certificate.validToDate.getTime(),
    identity: identityOf(name),
  };
}

/** Sessions that are resumed and connections that stay open outlive a certificate. */
export function isValidAt({ notBeforeMs, notAfterMs }: ClientCertificate, nowMs: number): boolean {
  return nowMs >= notBeforeMs && nowMs <= notAfterMs;
}

/** Who the certificate is on a way in, named by what it matched there; null when it admits somebody else. */
export function admittedIdentity(certificate: ClientCertificate, { subjects, sans }: CertificateWay): Identity | null {
  if (subjects === null && sans === null) return certificate.identity;
  const { commonName: common, subject } = certificate;
  if (common !== null && subjects?.has(common.text) === true) return identityOf(common.escaped);
  if (subjects?.has(subject) === true) return identityOf(subject);
  const san = certificate.sans.find((name) => sans?.has(name));
  return san === undefined ? null : identityOf(san);
}

function identityOf(name: string): Identity {
  return { source: "client_certificate", name, scopes: [] };
}
