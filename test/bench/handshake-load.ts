// Load of TLS handshakes: connections that are opened, secured and dropped, full or resumed.
import { once } from "node:events";
import { connect, type ConnectionOptions, type TLSSocket } from "node:tls";
import { HOST, TOKEN, type Proxy } from "./peers.ts";
import { cpuSeconds } from "./tcp-load.ts";

export type HandshakeMeasure = {
  readonly perSecond: number;
  /** Microseconds of the proxy's CPU time for each handshake. */
  readonly cpuMicros: number;
};

const AT_ONCE = 8;
// The group that every peer has: with the post-quantum hybrid some would do more work than others. P-256 is that of the certificate.
const OPTIONS: ConnectionOptions = { host: "127.0.0.1", servername: HOST, rejectUnauthorized: false, ecdhCurve: "X25519:P-256" };

async function secured(options: ConnectionOptions): Promise<TLSSocket> {
  const socket = connect({ ...OPTIONS, ...options });
  await once(socket, "secureConnect");
  return socket;
}

/** A session to resume: the server sends it after the handshake, with its first answer at the latest. */
async function openSession(port: number, version: "TLSv1.2" | "TLSv1.3"): Promise<Buffer> {
  const socket = connect({ ...OPTIONS, port, minVersion: version, maxVersion: version });
  // Over TLS 1.2 it comes with the handshake.
  const session = once(socket, "session") as Promise<[Buffer]>;
  await once(socket, "secureConnect");
  socket.resume();
  socket.write(`GET /mcp HTTP/1.1\r\nHost: ${HOST}\r\nAuthorization: Bearer ${TOKEN}\r\nConnection: close\r\n\r\n`);
  const [bytes] = await session;
  socket.destroy();
  return bytes;
}

/** Handshakes for `ms` milliseconds, eight at once. @throws when a session was not resumed, or was without being asked for. */
export async function measureHandshakes(proxy: Proxy, version: "TLSv1.2" | "TLSv1.3", resumed: boolean, ms: number): Promise<HandshakeMeasure> {
  const more: ConnectionOptions = { port: proxy.port, minVersion: version, maxVersion: version };
  if (resumed) more.session = await openSession(proxy.port, version);
  const cpuBefore = cpuSeconds([proxy.pid]);
  const started = performance.now();
  let count = 0;
  const work = async (): Promise<void> => {
    while (performance.now() - started < ms) {
      const socket = await secured(more);
      if (socket.isSessionReused() !== resumed) throw new Error(`${proxy.name}: a handshake was ${resumed ? "not " : ""}resumed`);
      socket.destroy();
      count += 1;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  const seconds = (performance.now() - started) / 1_000;
  return { perSecond: count / seconds, cpuMicros: ((cpuSeconds([proxy.pid]) - cpuBefore) * 1e6) / count };
}
