// Ends TLS on accepted sockets: one unlistened tls.Server for each set of certificates, so that a reload swaps it by one assignment.
import type { Socket } from "node:net";
import { createServer, type TLSSocket } from "node:tls";
import type { ListenerTls } from "../certificates/select.ts";

export type TlsTerminator = {
  /** Begins the handshake on a fresh socket; `onSecure` or `onFailed` is called once. */
  accept(socket: Socket): void;
};

/**
 * @param args.handshakeTimeoutMs then the handshake has failed
 * @param args.onFailed gets the client's address and the reason; the socket is destroyed already
 */
export function createTlsTerminator(args: {
  certificates: ListenerTls;
  alpnProtocols: string[];
  handshakeTimeoutMs: number;
  onSecure: (socket: TLSSocket) => void;
  onFailed: (remoteAddress: string | undefined, error: Error) => void;
}): TlsTerminator {
  const { certificates, alpnProtocols, handshakeTimeoutMs, onSecure, onFailed } = args;
  let fallback = certificates.fallback;
  const server = createServer({
    ...fallback?.options,
    SNICallback: certificates.SNICallback,
    ...(alpnProtocols.length === 0 ? {} : { ALPNProtocols: alpnProtocols }),
    handshakeTimeout: handshakeTimeoutMs,
  });
  server.on("secureConnection", onSecure);
  server.on("tlsClientError", (error, socket) => {
    const { remoteAddress } = socket;
    socket.destroy();
    onFailed(remoteAddress, error);
  });
  return {
    accept: (socket) => {
      // Clients without a server name get the server's own context, which is renewed with the certificate.
      const current = certificates.fallback;
      if (current !== fallback && current !== null) server.setSecureContext(current.options);
      fallback = current;
      // The TLS socket takes it over from this one: a client that ends during its handshake is gone, and so is an HTTP/2 client that ends.
      socket.allowHalfOpen = false;
      server.emit("connection", socket);
    },
  };
}
