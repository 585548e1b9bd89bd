// A client that sends bytes as they are given, for requests that no HTTP library would make.
import { connect } from "node:net";
import { waitFor } from "./wait.ts";

export type RawReply = {
  /** Status codes in the order in which they came, interim ones among them. */
  readonly statuses: number[];
  readonly text: string;
  /** Whether the server closed the connection before we did. */
  readonly closed: boolean;
};

/**
 * Sends `pieces` one after another (a number waits for that many milliseconds), waits for `expected` responses or the end of the
 * connection, then ends it and returns all that came.
 */
export async function sendRaw(port: number, pieces: readonly (string | Buffer | number)[], expected: number, timeoutMs = 5_000): Promise<RawReply> {
  const socket = connect({ port, host: "127.0.0.1", allowHalfOpen: true });
  let text = "";
  let ended = false;
  socket.on("data", (chunk) => (text += chunk.toString("latin1")));
  socket.on("end", () => (ended = true));
  socket.on("close", () => (ended = true));
  socket.on("error", () => (ended = true));
  for (const piece of pieces) {
    if (typeof piece === "number") await new Promise((resolve) => setTimeout(resolve, piece));
    else if (!ended) socket.write(typeof piece === "string" ? Buffer.from(piece, "latin1") : piece);
  }
  await waitFor(() => ended || statusesOf(text).length >= expected, { timeoutMs, what: () => `${expected} responses, got: ${text}` });
  const closed = ended;
  socket.end();
  await waitFor(() => ended, { timeoutMs, what: () => `the end of the connection, got: ${text}` });
  socket.destroy();
  return { statuses: statusesOf(text), text, closed };
}

function statusesOf(text: string): number[] {
  return [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
}
