// Which certificate a handshake gets: by server name, over the sources of a listener in turn.
import type { SecureContext } from "node:tls";
import type { TlsPlan } from "../plan/model.ts";
import { createFileSource, type FileSource } from "./file.ts";
import { createInternalSource } from "./internal.ts";
import type { InternalCa } from "./internal-ca.ts";
import { CertificateError, type CertificateInfo, type CertificateSource, type ServerCertificate } from "./source.ts";

/** The certificates of one listener and plan. */
export type ListenerTls = {
  /** For `tls.createServer`. A name that no source knows gets the fallback, or an error, which ends the handshake, when there is none. */
  SNICallback(this: void, serverName: string, callback: (error: Error | null, context?: SecureContext) => void): void;
  /**
   * The certificate for clients that send no server name, which Node.js does not ask SNICallback for: they get that of
   * `server.setSecureContext(fallback.options)`. A renewal gives another object, so compare it before each connection.
   */
  readonly fallback: ServerCertificate | null;
  list(): readonly CertificateInfo[];
  /** What the next configuration takes over, so that unchanged files are not prepared again. */
  readonly files: FileSource;
};

/**
 * Prepares the certificates of a listener. Everything that can fail fails here, before the configuration serves.
 * @param hosts hosts of the routes that the listener serves.
 * @param listenHost host of the listen address; null for all interfaces.
 * @param internalCa needed when `tls.internal` is set.
 * @param previous of the same listener in the configuration before.
 * @throws {CertificateError}
 */
export function createListenerTls(
  tls: Extract<TlsPlan, { mode: "application" }>,
  hosts: Iterable<string>,
  listenHost: string | null,
  internalCa: InternalCa | null,
  previous: ListenerTls | null = null,
): ListenerTls {
  const files = createFileSource(tls.certificates, previous?.files ?? null);
  const sources: CertificateSource[] = [files];
  if (tls.internal) {
    if (internalCa === null) throw new CertificateError("Cannot issue certificates: the internal CA is not open");
    sources.push(createInternalSource(internalCa, hosts, listenHost));
  }
  return joinSources(sources, files);
}

/** By name the first source that answers, otherwise the first that has one for everybody. */
function joinSources(sources: readonly CertificateSource[], files: FileSource): ListenerTls {
  const fallback = (): ServerCertificate | null => {
    for (const source of sources) {
      const found = source.fallback();
      if (found !== null) return found;
    }
    return null;
  };
  const find = async (serverName: string): Promise<SecureContext> => {
    const name = (serverName.endsWith(".") ? serverName.slice(0, -1) : serverName).toLowerCase();
    for (const source of sources) {
      const found = await source.get(name);
      if (found !== null) return found.context;
    }
    const certificate = fallback();
    if (certificate === null) throw new CertificateError(`No certificate for server name ${JSON.stringify(serverName)}`);
    return certificate.context;
  };
  return {
    files,
    get fallback() {
      return fallback();
    },
    SNICallback: (serverName, callback) => void answer(find(serverName), callback),
    list: () => sources.flatMap((source) => source.list()),
  };
}

async function answer(finding: Promise<SecureContext>, callback: (error: Error | null, context?: SecureContext) => void): Promise<void> {
  let context: SecureContext;
  try {
    context = await finding;
  } catch (error) {
    return callback(error instanceof Error ? error : new CertificateError("Cannot find a certificate", { cause: error }));
  }
  callback(null, context);
}
