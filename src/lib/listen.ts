// Makes a server listen, on a port or on a unix socket whose file has the mode that it must have.
import { chmodSync } from "node:fs";
import type { Server } from "node:net";
import type { ListenPlace, TailnetAddress } from "./address.ts";
import { systemErrorCode } from "./errors.ts";
import { removeStaleSocket } from "./unix-socket.ts";

const BACKLOG = 511;

type BindPlace = Exclude<ListenPlace, TailnetAddress>;

/**
 * Resolves when the server listens; errors of later accepts (too many open files) leave it listening and are ignored. The file of a
 * unix socket that a dead process left behind is replaced.
 * @param fileMode of the file of a unix socket
 * @throws the system's error, with the server closed
 */
export async function listen(server: Server, address: BindPlace, fileMode: number): Promise<void> {
  try {
    await attempt(server, address, fileMode);
  } catch (error) {
    if (address.kind !== "unix" || systemErrorCode(error) !== "EADDRINUSE" || !(await removeStaleSocket(address.path))) throw error;
    await attempt(server, address, fileMode);
  }
}

function attempt(server: Server, address: BindPlace, fileMode: number): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  function onError(error: Error): void {
    server.off("listening", onListening);
    reject(error);
  }
  function onListening(): void {
    server.off("error", onError);
    server.on("error", () => {});
    try {
      // Some file systems know no modes for sockets (directories that a virtual machine shares).
      if (address.kind === "unix") chmodSync(address.path, fileMode);
      resolve();
    } catch (error) {
      server.close();
      reject(error);
    }
  }
  server.once("error", onError);
  if (address.kind === "unix") server.listen({ path: address.path, backlog: BACKLOG }, onListening);
  else server.listen({ port: address.port, ...(address.host === null ? {} : { host: address.host }), backlog: BACKLOG }, onListening);
  return promise;
}
