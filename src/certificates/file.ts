// Certificates from the files that the configuration names.
import { wildcardOf } from "../lib/host-cover.ts";
import type { CertificatePair } from "../plan/model.ts";
import { CertificateError, createServerCertificate, type CertificateSource, type ServerCertificate } from "./source.ts";

/** A source that keeps its prepared certificates for the next configuration. */
export type FileSource = CertificateSource & { readonly prepared: ReadonlyMap<CertificatePair, ServerCertificate> };

/**
 * Prepares all pairs. The first one that has a name serves it, and the first of all serves clients without a known name.
 * @param previous the source of the configuration before: what it prepared of the same content is used again.
 * @throws {CertificateError} when one of them cannot be used, or has ended where a valid one serves: that is no renewal but a slip.
 */
export function createFileSource(pairs: readonly CertificatePair[], previous: FileSource | null = null, nowMs = Date.now()): FileSource {
  const known = new Map<string, [CertificatePair, ServerCertificate]>();
  for (const [pair, certificate] of previous?.prepared ?? []) known.set(pair.certFile, [pair, certificate]);

  const prepared = new Map<CertificatePair, ServerCertificate>();
  const byName = new Map<string, ServerCertificate>();
  let first: ServerCertificate | null = null;
  for (const pair of pairs) {
    const [old, ready] = known.get(pair.certFile) ?? [];
    const same = old !== undefined && old.cert === pair.cert && old.key === pair.key;
    const certificate = same && ready !== undefined ? ready : createServerCertificate("file", pair.certFile, pair.names, pair.cert, pair.key);
    if (ready !== undefined && hasEnded(certificate, nowMs) && !hasEnded(ready, nowMs)) {
      const end = certificate.info.notAfter?.toISOString() ?? "";
      throw new CertificateError(`Certificate '${pair.certFile}' expired on ${end.slice(0, 10)}, and the one that it replaces is still valid`);
    }
    prepared.set(pair, certificate);
    first ??= certificate;
    for (const name of pair.names) if (!byName.has(name)) byName.set(name, certificate);
  }

  return {
    prepared,
    get: (serverName) => byName.get(serverName) ?? byName.get(wildcardOf(serverName)) ?? null,
    fallback: () => first,
    list: () => [...prepared.values()].map((certificate) => certificate.info),
  };
}

function hasEnded({ info: { notAfter } }: ServerCertificate, nowMs: number): boolean {
  return notAfter !== null && notAfter.getTime() <= nowMs;
}
