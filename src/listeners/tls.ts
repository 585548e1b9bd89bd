// Ends TLS on accepted sockets: one unlistened tls.Server for each set of certificates, so that a reload swaps it by one assignment.
import type { Socket } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import type { AcmeChallenges } from "../certificates/acme-challenges.ts";
import type { ListenerTls } from "../certificates/select.ts";
import { timerMs } from "../lib/duration.ts";
import { systemErrorCode } from "../lib/errors.ts";
import { peerAddress } from "../lib/tailnet-peer.ts";
import type { Log } from "../telemetry/log.ts";
import type { TlsStats } from "../telemetry/tls-stats.ts";
import { beginsTls, parseClientHello } from "./client-hello.ts";
import { peekFirstBytes, sayGoodbye, type FirstBytesFailure } from "./first-bytes.ts";

/** What the TLS of a listener needs over all its plans. */
export type TlsParts = { readonly stats: TlsStats; readonly challenges: AcmeChallenges };

export type TlsTerminator = {
  /** Begins the handshake on a fresh socket; `onSecure` or `onPlain` is called once, or the connection failed and is counted and closed. */
  accept(socket: Socket): void;
};

/** Why there is no TLS session, as the metrics say it, beside that nothing came. */
export type TlsFailure = "unknown_name" | "protocol_version" | "no_shared_cipher" | "client_certificate" | "http_request" | "other";

// The protocol of tls-alpn-01 (RFC 8737, 3).
const ACME_TLS = "acme-tls/1";
const ALERTS = { internal_error: 80, missing_extension: 109, unrecognized_name: 112 };

/**
 * @param args.handshakeTimeoutMs each for the first bytes and for the handshake
 * @param args.onPlain gets a connection that does not begin with TLS; what was read of it was given back to the socket, which is paused; returns why it closed the
 * connection, or null
 */
export function createTlsTerminator(
  args: TlsParts & {
    listener: string;
    certificates: ListenerTls;
    alpnProtocols: string[];
    handshakeTimeoutMs: number;
    onSecure: (socket: TLSSocket) => void;
    onPlain: (socket: Socket, bytes: Buffer) => TlsFailure | null;
    log: Log;
  },
): TlsTerminator {
  const { listener, certificates, alpnProtocols, handshakeTimeoutMs, onSecure, onPlain, stats, challenges, log } = args;
  const { clientAuth } = certificates.protocol;
  let fallback = certificates.fallback;
  let ticketKeys = certificates.tickets?.current ?? null;
  const server = createServer({
    ...certificates.options(fallback),
    SNICallback: (serverName, callback) => {
      try {
        const context = certificates.find(serverName);
        callback(context === null ? new Error("unrecognized name") : null, context ?? undefined);
      } catch (error) {
        callback(error as Error);
      }
    },
    ...(alpnProtocols.length === 0 ? {} : { ALPNProtocols: alpnProtocols }),
    requestCert: clientAuth !== null,
    rejectUnauthorized: clientAuth?.mode === "require",
    handshakeTimeout: timerMs(handshakeTimeoutMs),
  });
  if (ticketKeys !== null) server.setTicketKeys(ticketKeys);
  server.on("secureConnection", (socket) => {
    // A session that began without a certificate must not stand for one, whatever the TLS library calls authorized.
    if (clientAuth?.mode === "require" && (!socket.authorized || socket.getPeerX509Certificate() === undefined)) {
      socket.destroy();
      return failed(socket, "client_certificate", null);
    }
    stats.handshake(socket.getProtocol() ?? "", socket.getCipher().standardName, socket.isSessionReused());
    onSecure(socket);
    setImmediate(endIfReset, socket);
  });
  server.on("tlsClientError", (error, socket) => {
    socket.destroy();
    failed(socket, failureReason(error, socket), error);
  });

  const failed = (socket: Socket, reason: TlsFailure | FirstBytesFailure, error: Error | null): void => {
    stats.failed(reason);
    log.debug({ listener, client: peerAddress(socket), reason, ...(error === null ? {} : { err: error }) }, "TLS handshake failed");
  };
  /** Clients without a server name get the server's own context, which is renewed with the certificate and the ticket keys. */
  const refresh = (): void => {
    const [certificate, keys] = [certificates.fallback, certificates.tickets?.current ?? null];
    if (certificate === fallback && keys === ticketKeys) return;
    if (certificate !== fallback && certificate !== null) {
      fallback = certificate;
      try {
        server.setSecureContext(certificates.options(certificate));
      } catch (error) {
        log.error({ listener, names: certificate.info.names, err: error }, "Cannot use a renewed certificate, the one before goes on");
      }
    }
    ticketKeys = keys;
    // A new context has random keys until it is told others.
    if (keys !== null) server.setTicketKeys(keys);
  };
  const alert = (socket: Socket, description: keyof typeof ALERTS, reason: TlsFailure, error: Error | null = null): void => {
    sayGoodbye(socket, Buffer.from([21, 3, 3, 0, 2, 2, ALERTS[description]]));
    failed(socket, reason, error);
  };
  /** Takes the connections that need more than the server's own handshake: those of a CA that validates, and those for unknown names. */
  const isTaken = (socket: Socket, bytes: Buffer): boolean => {
    const hello = parseClientHello(bytes);
    if (typeof hello === "string") return false;
    const { serverName, alpn } = hello;
    if (serverName !== null && alpn.length === 1 && alpn[0] === ACME_TLS) {
      const certificate = challenges.tlsAlpn(serverName.toLowerCase());
      if (certificate !== null) {
        answerChallenge(socket, certificate);
        return true;
      }
    }
    if (certificates.fallback !== null) return false;
    if (serverName === null) {
      // RFC 8446, 9.2.
      alert(socket, "missing_extension", "unknown_name");
      return true;
    }
    try {
      if (certificates.find(serverName) !== null) return false;
      alert(socket, "unrecognized_name", "unknown_name");
    } catch (error) {
      alert(socket, "internal_error", "other", error as Error);
    }
    return true;
  };
  const answerChallenge = (socket: Socket, certificate: { cert: string; key: string }): void => {
    const responder = createServer({ cert: certificate.cert, key: certificate.key, ALPNProtocols: [ACME_TLS], handshakeTimeout: timerMs(handshakeTimeoutMs) });
    responder.on("secureConnection", (secure) => secure.on("error", () => {}).destroySoon());
    responder.on("tlsClientError", (error, secure) => {
      secure.destroy();
      failed(secure, failureReason(error, secure), error);
    });
    responder.emit("connection", socket);
  };
  const looksInside = (): boolean => challenges.awaitsTlsAlpn || certificates.fallback === null;

  return {
    accept: (socket) => {
      peekFirstBytes(socket, {
        timeoutMs: handshakeTimeoutMs,
        isEnough: (bytes) => !beginsTls(bytes) || !looksInside() || parseClientHello(bytes) !== "incomplete",
        onBytes: (bytes) => {
          if (!beginsTls(bytes)) {
            const reason = onPlain(socket, bytes);
            return reason === null ? undefined : failed(socket, reason, null);
          }
          // The TLS socket takes it over from this one: a client that ends during its handshake is gone, and so is an HTTP/2 client that ends.
          socket.allowHalfOpen = false;
          if (looksInside() && isTaken(socket, bytes)) return;
          refresh();
          server.emit("connection", socket);
        },
        onFailed: (reason) => failed(socket, reason, null),
      });
    },
  };
}

/** Answers plain HTTP on a port that takes TLS alone, so that whoever typed the address sees why; closes what is something else. */
export function refusePlain(socket: Socket, bytes: Buffer): TlsFailure {
  const first = bytes[0] ?? 0;
  // Methods begin with an upper-case letter.
  if (first < 0x41 || first > 0x5a) {
    socket.destroy();
    return "other";
  }
  const body = "This port takes HTTPS: use https:// instead of http://\n";
  sayGoodbye(
    socket,
    `HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: ${body.length}\r\nConnection: close\r\n\r\n${body}`,
  );
  return "http_request";
}

/**
 * Of a client that reset its connection just before the session tickets of TLS 1.3 were sent, Node.js forgets the error with them: all that is
 * written after waits without end. The socket below still tells, by a write of nothing.
 */
function endIfReset(socket: TLSSocket & { readonly _parent?: Socket }): void {
  const below = socket._parent;
  if (below === undefined || below.destroyed || socket.destroyed) return;
  below.on("error", () => {});
  below.write(Buffer.alloc(0), (error) => {
    if (error) socket.destroy(error);
  });
}

function failureReason(error: Error, socket: TLSSocket): TlsFailure | FirstBytesFailure {
  const code = systemErrorCode(error) ?? "";
  // Set when the handshake was complete but for the certificate that the client showed.
  if (socket.authorizationError || /PEER_DID_NOT_RETURN_A_CERTIFICATE/.test(code)) return "client_certificate";
  if (code === "ERR_TLS_HANDSHAKE_TIMEOUT") return "timeout";
  if (["ECONNRESET", "EPIPE", "ECONNABORTED", "ETIMEDOUT"].includes(code)) return "aborted";
  if (/UNSUPPORTED_PROTOCOL|VERSION_TOO_LOW|WRONG_VERSION|ALERT_PROTOCOL_VERSION/.test(code)) return "protocol_version";
  if (/NO_SHARED_CIPHER|NO_CIPHERS/.test(code)) return "no_shared_cipher";
  return error.message === "unrecognized name" ? "unknown_name" : "other";
}
