// How programs are made to trust the internal CA: words alone, nothing is changed.
import { X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import { describeSystemError, GatewayError } from "../lib/errors.ts";

/** What identifies the CA; the answer of `sidegate certs trust --json`. */
export type Trust = { readonly file: string; readonly subject: string; readonly expires_at: string; readonly sha256: string };

/** @throws {GatewayError} when the certificate cannot be read here. */
export async function readTrust(file: string): Promise<Trust> {
  try {
    const { subject, validToDate, fingerprint256 } = new X509Certificate(await readFile(file));
    return { file, subject: subject.split("\n").join(", "), expires_at: validToDate.toISOString(), sha256: fingerprint256 };
  } catch (error) {
    throw new GatewayError(
      "ERR_TRUST",
      `Cannot read the internal CA's certificate '${file}': ${describeSystemError(error)}; run this command where the gateway runs, as its user`,
    );
  }
}

/** @param left time to its end, as `in 3650d`. */
export function formatTrust({ file, subject, expires_at, sha256 }: Trust, left: string): string {
  const path = /^[\w./-]+$/.test(file) ? file : `'${file.replaceAll("'", String.raw`'\''`)}'`;
  const copied = "sidegate-ca.crt";
  const ways: readonly (readonly [string, ...string[]])[] = [
    ["First copy it to the machine of the client", `cp ${path} ${copied}`, `docker cp CONTAINER:${path} ${copied}   # out of a container`],
    ["Debian, Ubuntu", `sudo cp ${copied} /usr/local/share/ca-certificates/${copied}`, "sudo update-ca-certificates"],
    ["Fedora, RHEL", `sudo cp ${copied} /etc/pki/ca-trust/source/anchors/${copied}`, "sudo update-ca-trust"],
    ["Alpine", "apk add ca-certificates", `cp ${copied} /usr/local/share/ca-certificates/${copied}`, "update-ca-certificates"],
    ["macOS", `sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain ${copied}`],
    ["Windows, as administrator", `certutil -addstore -f Root ${copied}`],
    ["Firefox", "Settings > Privacy & Security > Certificates > View Certificates > Authorities > Import"],
    ["Java", `keytool -importcert -cacerts -storepass changeit -noprompt -alias sidegate -file ${copied}`],
    ["Node.js", `export NODE_EXTRA_CA_CERTS=$PWD/${copied}`],
    ["curl", `curl --cacert ${copied} https://localhost:PORT/`],
    ["Python requests (instead of the usual CAs)", `export REQUESTS_CA_BUNDLE=$PWD/${copied}`],
  ];
  return (
    `The certificate of the internal CA is in ${file}\n\n` +
    `  subject  ${subject}\n  expires  ${left}, ${expires_at.slice(0, 10)}\n  SHA-256  ${sha256}\n\n` +
    "Clients that are to trust it need this file and never 'ca.key' beside it: who has that can pose as any site to them.\n" +
    "Compare the fingerprint after copying it to another machine. Nothing was changed; do one of these:\n\n" +
    ways.map(([where, ...lines]) => `${where}:\n${lines.map((line) => `  ${line}\n`).join("")}`).join("\n")
  );
}
