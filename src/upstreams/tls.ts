// TLS to https targets: one context for each upstream, the handshake, and what its failures mean.
import { X509Certificate } from "node:crypto";
import { isIP, type Socket } from "node:net";
import { checkServerIdentity, connect, createSecureContext, type ConnectionOptions, type SecureContext, type TLSSocket } from "node:tls";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { describeSystemError, GatewayError, systemErrorCode } from "../lib/errors.ts";
import { certificateNames } from "../lib/pem.ts";
import type { TargetPlan, UpstreamPlan } from "../plan/model.ts";

const MAX_SHOWN_NAMES = 5;
const OURS = "give the upstream's 'cert_file' and 'key_file' another one";

/** Reasons that the target gives in an alert (RFC 8446, 6.2), or OpenSSL, by the end of their code. */
const REASONS: readonly (readonly [RegExp, string])[] = [
  [/ALERT_CERTIFICATE_REQUIRED$/, "the target wants a client certificate: give 'cert_file' and 'key_file'"],
  [/ALERT_UNKNOWN_CA$/, `the target does not know the CA of our client certificate: ${OURS}`],
  [/ALERT_CERTIFICATE_EXPIRED$/, `the target says that our client certificate has expired: ${OURS}`],
  [/ALERT_(BAD|UNSUPPORTED|REVOKED)_CERTIFICATE$|ALERT_CERTIFICATE_(UNKNOWN|REVOKED)$/, `the target does not take our client certificate: ${OURS}`],
  [/ALERT_ACCESS_DENIED$/, "the target does not admit our client certificate"],
  [/ALERT_HANDSHAKE_FAILURE$/, "the target refuses: it wants a client certificate, or has no cipher suite in common"],
  [/ALERT_PROTOCOL_VERSION$|UNSUPPORTED_PROTOCOL$|VERSION_TOO_LOW$/, "the target speaks no TLS version from 1.2 on"],
  [/ALERT_UNRECOGNIZED_NAME$/, "the target does not know the server name: set 'server_name'"],
  [/WRONG_VERSION_NUMBER$|PACKET_LENGTH_TOO_LONG$|HTTP_REQUEST$/, "the target does not speak TLS"],
  [/^CERT_NOT_YET_VALID$/, "its certificate is not valid yet: one of the clocks is wrong"],
  [/^INVALID_PURPOSE$/, "its certificate is not for servers"],
];

/**
 * What all connections to the https targets of an upstream share; null when it has none. Made once: with a CA and a pair it takes 0.3 ms.
 * @throws {GatewayError} when OpenSSL refuses the CA or the pair
 */
export function createUpstreamContext({ name, targets, tls }: UpstreamPlan): SecureContext | null {
  if (!targets.some(({ scheme }) => scheme === "https")) return null;
  try {
    return createSecureContext({
      ...(tls.ca === null ? {} : { ca: tls.ca }),
      ...tls.certificate,
      minVersion: "TLSv1.2",
    });
  } catch (error) {
    // OpenSSL's own words, which never quote a key.
    throw new GatewayError("ERR_UPSTREAM_TLS", `Cannot use the certificates of upstream '${name}': ${describeSystemError(error)}`, { cause: error });
  }
}

export type TargetTls = Required<Pick<ConnectionOptions, "servername" | "rejectUnauthorized" | "checkServerIdentity">> & {
  readonly secureContext?: SecureContext;
  readonly ALPNProtocols: string[];
};

/** How to connect to a target, for `tls.connect` and for undici. */
export function targetTls(upstream: UpstreamPlan, target: TargetPlan, secureContext: SecureContext | null): TargetTls {
  const name = serverName(upstream, target);
  return {
    ...(secureContext === null ? {} : { secureContext }),
    // RFC 6066, 3: an address is not a server name. An empty one keeps Node.js from taking the host.
    servername: isIP(name) === 0 ? name : "",
    rejectUnauthorized: upstream.tls.verify,
    checkServerIdentity: (_host, certificate) => checkServerIdentity(name, certificate),
    ALPNProtocols: ["http/1.1"],
  };
}

function serverName({ tls }: UpstreamPlan, { address }: TargetPlan): string {
  return tls.serverName ?? (address.kind === "tcp" ? address.host : "localhost");
}

/** Why TLS to a target failed, in words: "its certificate is for 'a.example', not for 'b.example': set 'server_name'". */
export function describeTlsError(error: unknown): string {
  const code = systemErrorCode(error) ?? "";
  if (code === "ERR_TLS_CERT_ALTNAME_INVALID") return describeWrongName(error as { readonly host?: string; readonly cert?: { readonly raw?: Buffer } });
  return REASONS.find(([pattern]) => pattern.test(code))?.[1] ?? describeSystemError(error);
}

function describeWrongName({ host, cert }: { readonly host?: string; readonly cert?: { readonly raw?: Buffer } }): string {
  const names = cert?.raw === undefined ? [] : certificateNames(new X509Certificate(cert.raw)).filter((name) => /^[!-~]+$/.test(name));
  const shown = names.slice(0, MAX_SHOWN_NAMES).map((name) => `'${name}'`);
  if (names.length > shown.length) shown.push(`${names.length - shown.length} more`);
  return `its certificate is ${shown.length === 0 ? "without a name" : `for ${shown.join(", ")}`}, not for '${host ?? ""}': set 'server_name'`;
}

/**
 * The handshake on a connected socket. `onDone` is called once, with the secure socket, or with words for why there is none; never after the
 * returned function has cancelled it.
 * @param options.session of an earlier connection to the same target
 * @param options.onSession gets those that a later connection to it may resume
 * @param options.timeoutMs what is left of `connectMs`, the whole
 */
export function startTls(
  socket: Socket,
  options: {
    readonly tls: TargetTls;
    readonly session: Buffer | undefined;
    readonly onSession: (session: Buffer) => void;
    readonly timeoutMs: number;
    readonly connectMs: number;
  },
  onDone: (result: TLSSocket | { readonly words: string; readonly timedOut: boolean; readonly cause?: unknown }) => void,
): () => void {
  const secure = connect({ ...options.tls, socket, ...(options.session === undefined ? {} : { session: options.session }) });
  const timer = setTimeout(() => {
    give({ words: `TLS handshake timed out after ${formatDuration(options.connectMs)}`, timedOut: true });
  }, timerMs(options.timeoutMs));

  // From the beginning: that of TLS 1.2 comes within the handshake. Node.js holds it back until the certificate is verified, and gives none of a
  // connection that is not: a session that is resumed is not verified again.
  secure.on("session", options.onSession);

  function stop(): void {
    clearTimeout(timer);
    secure.off("error", onError);
    secure.off("secureConnect", onSecure);
  }
  function cancel(): void {
    stop();
    secure.on("error", () => {});
    secure.destroy();
  }
  function give(failure: { readonly words: string; readonly timedOut: boolean; readonly cause?: unknown }): void {
    cancel();
    onDone(failure);
  }
  function onError(error: Error): void {
    give({ words: `TLS handshake failed (${describeTlsError(error)})`, timedOut: false, cause: error });
  }
  function onSecure(): void {
    stop();
    onDone(secure);
  }
  secure.once("error", onError);
  secure.once("secureConnect", onSecure);
  return cancel;
}
