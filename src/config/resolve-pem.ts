// Reads the certificates, keys and CAs that the configuration names, and reports what is wrong with them.
import { Breather } from "../lib/breather.ts";
import { explainKnownKey, explainKnownPair, knownChain } from "../lib/pem-memory.ts";
import { explainCertificates } from "../lib/pem.ts";
import type { CheckContext } from "./check-context.ts";
import type { FileReader } from "./file-reader.ts";
import type { Path } from "./problem.ts";
import { type FilePair, filePairs, tlsObjects } from "./tls-objects.ts";
import type { UpstreamEntry } from "./types.ts";

/** Puts the texts into `files.texts`, and makes the paths absolute. */
export async function resolvePem(check: CheckContext, files: FileReader): Promise<void> {
  const breather = new Breather();
  for (const [name, entry] of check.entries<UpstreamEntry>("upstreams")) {
    if (typeof entry !== "object" || entry === null) continue;
    resolveCa(check, files, ["upstreams", name], entry);
    resolvePair(check, files, ["upstreams", name], entry);
  }
  for (const object of tlsObjects(check)) {
    const { path, tls } = object;
    resolveCa(check, files, path, tls);
    if (tls.acme !== undefined) resolveCa(check, files, [...path, "acme"], tls.acme);
    for (const [at, pair] of filePairs(object)) {
      resolvePair(check, files, at, pair);
      await breather.breathe();
    }
  }
}

export function resolveCa(check: CheckContext, files: FileReader, path: Path, holder: { ca_file?: string }): void {
  if (holder.ca_file === undefined || !check.isSound([...path, "ca_file"])) return;
  keepText(check, files, [...path, "ca_file"], holder.ca_file, explainCertificates);
  holder.ca_file = files.absolute(holder.ca_file);
}

function resolvePair(check: CheckContext, files: FileReader, path: Path, pair: FilePair): void {
  const [certPath, keyPath] = [
    [...path, "cert_file"],
    [...path, "key_file"],
  ];
  const cert = pair.cert_file === undefined || !check.isSound(certPath) ? null : keepText(check, files, certPath, pair.cert_file, explainChain);
  const key = pair.key_file === undefined || !check.isSound(keyPath) ? null : keepText(check, files, keyPath, pair.key_file, explainKnownKey);
  const reason = cert === null || key === null ? null : explainKnownPair(cert, key);
  if (reason !== null) check.report(keyPath, `File ${files.shown(keyPath, pair.key_file ?? "")} ${reason}`);
  if (typeof pair.cert_file === "string") pair.cert_file = files.absolute(pair.cert_file);
  if (typeof pair.key_file === "string") pair.key_file = files.absolute(pair.key_file);
}

function explainChain(text: string): string | null {
  const chain = knownChain(text);
  return typeof chain === "string" ? chain : null;
}

/** The text of a file that is right, put into `files.texts`; null, and a problem, otherwise. `explain`: what is wrong with it, as the end of "File x ...". */
export function keepText(check: CheckContext, files: FileReader, path: Path, file: string, explain: (text: string) => string | null): string | null {
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
