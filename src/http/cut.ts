// Breaks a response off, in a way that no client takes for its end.
import type { Exchange } from "./exchange.ts";

/** RFC 9112, 8 and RFC 9113, 8.1.1: an incomplete message is told by the broken connection or the reset stream. */
export function cut(x: Exchange): void {
  if (x.stream !== null) x.stream.close(2);
  else x.res.destroy();
}

/** Ends the connection with the answer to this request; its other streams over HTTP/2 go on to their ends. */
export function endWithAnswer(x: Exchange): void {
  if (x.stream === null) x.lastOnConnection = true;
  else x.stream.session?.close();
}
