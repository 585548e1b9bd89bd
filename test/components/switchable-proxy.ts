// A TCP proxy that can be away: between a client and a server that must stay where it is.
import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { freePort } from "./free-port.ts";

export type SwitchableProxy = AsyncDisposable & {
  readonly port: number;
  /** Listens, and forwards to the server. */
  on(): Promise<void>;
  /** Refuses connections, and ends those that are open. */
  off(): void;
};

/** Begins switched off. @param target port of 127.0.0.1 */
export async function switchableProxy(target: number): Promise<SwitchableProxy> {
  const port = await freePort();
  const open = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(target, "127.0.0.1");
    for (const [side, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      open.add(side);
      side.on("error", () => {}).on("close", () => void (open.delete(side), other.destroy()));
      side.pipe(other);
    }
  });
  const off = (): void => {
    server.close();
    for (const socket of open) socket.destroy();
  };
  return {
    port,
    off,
    on: async () => {
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
    },
    [Symbol.asyncDispose]: async () => off(),
  };
}
