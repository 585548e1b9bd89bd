// A port that nobody listens on: for what must know its port before it listens.
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";

/** Free on 127.0.0.1 a moment ago: another process may be faster. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}
