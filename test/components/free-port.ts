// A port that nobody listens on: for what must know its port before it listens.
import { randomInt } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { createServer } from "node:net";

const FIRST = 10_000;
// Ports from here on are those of outgoing connections, of which a test may make tens of thousands: one that is free now may be taken at once (ip(7)).
const END = Number(/^\d+/.exec(readFileSync("/proc/sys/net/ipv4/ip_local_port_range", "utf8"))?.[0]);
const TRIES = 100;

/** Free on 127.0.0.1 a moment ago, and chosen by chance among some twenty thousand: another process is hardly ever faster. */
export async function freePort(): Promise<number> {
  for (let tries = 0; tries < TRIES; tries += 1) {
    const port = randomInt(FIRST, Math.max(END, FIRST + 1_000));
    const server = createServer();
    try {
      server.listen(port, "127.0.0.1");
      await once(server, "listening");
      server.close();
      await once(server, "close");
      return port;
    } catch {
      // Somebody has it.
    }
  }
  throw new Error(`No free port found in ${TRIES} tries`);
}
