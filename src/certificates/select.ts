// Which certificate a handshake gets: by server name, over the sources of a listener in turn.
import { constants, createHash } from "node:crypto";
import { createSecureContext, type SecureContext, type SecureContextOptions } from "node:tls";
import { cipherList } from "../lib/cipher-suites.ts";
import type { TlsProtocolPlan, TlsTermination } from "../plan/model.ts";
import { createFileSource, type FileSource } from "./file.ts";
import { createInternalSource } from "./internal.ts";
import type { InternalCa } from "./internal-ca.ts";
import type { TicketKeys } from "./ticket-keys.ts";
import { CertificateError, opensslReason, type CertificateInfo, type CertificateSource, type ServerCertificate } from "./source.ts";

// The post-quantum hybrid first (draft-ietf-tls-ecdhe-mlkem), then what every client knows. The slash: a client that speaks the hybrid but
// guessed another group is asked for it, at the price of a round trip; of the groups behind it the client's guess is taken.
const GROUPS = "X25519MLKEM768/X25519:P-256:P-384";
// A hundred are proven before the configuration serves; ten thousand would hold a start up for seconds, and wait for their first client.
const MAX_PROVEN = 100;
// As long as the keys of the tickets at most.
const SESSION_TIMEOUT_SECONDS = 86_400;

/** The certificates of one listener and plan. */
export type ListenerTls = {
  readonly protocol: TlsProtocolPlan;
  /** Encrypt session tickets; null = keys that this process alone knows. */
  readonly tickets: TicketKeys | null;
  /** For SNICallback: the context for a server name, or the default's; null when there is neither. @throws {CertificateError} */
  find(serverName: string): SecureContext | null;
  /** The default: for clients that send no server name, or one that no source knows. A renewal gives another object. */
  readonly fallback: ServerCertificate | null;
  /** What `tls.createServer` and `server.setSecureContext` need; without a certificate when it is null. */
  options(certificate: ServerCertificate | null): SecureContextOptions;
  list(): readonly CertificateInfo[];
  /** What the next configuration takes over, so that what did not change is not prepared again. */
  readonly files: FileSource;
  readonly contexts: WeakMap<ServerCertificate, SecureContext>;
};

/**
 * Prepares the certificates of a listener. What can fail fails here, before the configuration serves.
 * @param sources.listener its name: sessions are resumed on the listener that they began on, while its rules are the same.
 * @param sources.listenHost host of the listen address; null for all interfaces.
 * @param sources.tailnetNames names and addresses of the node for a listener on the tailnet, as they are known now; none for another.
 * @param sources.acme what the CA issued for `tls.acme`; null without it.
 * @param sources.tailscale what tailscaled gives for `tls.tailscale`; null without it.
 * @param sources.internalCa needed when `tls.internal` is set.
 * @param sources.tickets null = keys of this process alone.
 * @param previous of the same listener in the configuration before.
 * @throws {CertificateError}
 */
export function createListenerTls(
  tls: TlsTermination,
  sources: {
    listener: string;
    listenHost: string | null;
    tailnetNames: () => readonly string[];
    acme: CertificateSource | null;
    tailscale: CertificateSource | null;
    internalCa: InternalCa | null;
    tickets: TicketKeys | null;
  },
  previous: ListenerTls | null = null,
): ListenerTls {
  const { protocol } = tls;
  const files = createFileSource(tls.certificates, previous?.files ?? null);
  const inTurn: CertificateSource[] = [files];
  if (sources.acme !== null) inTurn.push(sources.acme);
  if (sources.tailscale !== null) inTurn.push(sources.tailscale);
  if (tls.internal) {
    if (sources.internalCa === null) throw new CertificateError("Cannot issue certificates: the internal CA is not open");
    inTurn.push(createInternalSource(sources.internalCa, tls.hosts, sources.listenHost, sources.tailnetNames));
  }
  const contexts = previous?.protocol.key === protocol.key ? previous.contexts : new WeakMap<ServerCertificate, SecureContext>();

  const fallback = (): ServerCertificate | null => {
    for (const source of inTurn) {
      const found = source.fallback();
      if (found !== null) return found;
    }
    return null;
  };
  const lookUp = (serverName: string): ServerCertificate | null => {
    const name = (serverName.endsWith(".") ? serverName.slice(0, -1) : serverName).toLowerCase();
    for (const source of inTurn) {
      const found = source.get(name);
      if (found !== null) return found;
    }
    return fallback();
  };
  // At most 32 bytes.
  const sessionIdContext = createHash("sha256").update(`${sources.listener}\0${protocol.key}`).digest("base64url").slice(0, 32);
  const options = (certificate: ServerCertificate | null): SecureContextOptions => ({
    ...(certificate === null ? {} : { cert: certificate.cert, key: certificate.key }),
    minVersion: protocol.minVersion,
    ciphers: protocol.ciphers ?? cipherList(),
    honorCipherOrder: true,
    ecdhCurve: GROUPS,
    sessionIdContext,
    sessionTimeout: SESSION_TIMEOUT_SECONDS,
    // A client could show another certificate in a renegotiation, which Node.js would not judge again. TLS 1.3 has none (RFC 8446, 4.1.2).
    // A session would speak for a client certificate that has expired since, or whose CA was taken away: these clients show it each time.
    secureOptions: constants.SSL_OP_NO_RENEGOTIATION | (protocol.clientAuth === null ? 0 : constants.SSL_OP_NO_TICKET),
    ...(protocol.clientAuth === null ? {} : { ca: protocol.clientAuth.ca }),
  });
  const contextOf = (certificate: ServerCertificate): SecureContext => {
    let context = contexts.get(certificate);
    if (context === undefined) {
      try {
        context = createSecureContext(options(certificate));
      } catch (error) {
        const { file, names } = certificate.info;
        // OpenSSL's own words, which never quote the key.
        throw new CertificateError(`Cannot use certificate '${file ?? names.join(" ")}': ${opensslReason(error)}`, { cause: error });
      }
      contexts.set(certificate, context);
    }
    return context;
  };
  const first = fallback();
  for (const certificate of [...(first === null ? [] : [first]), ...files.prepared.values()].slice(0, MAX_PROVEN)) contextOf(certificate);

  return {
    protocol,
    tickets: sources.tickets,
    files,
    contexts,
    options,
    get fallback() {
      return fallback();
    },
    find: (serverName) => {
      const found = lookUp(serverName);
      return found === null ? null : contextOf(found);
    },
    list: () => inTurn.flatMap((source) => source.list()),
  };
}
