// The end of every request: counted and logged once, whatever became of it.
import { writeAccessLog } from "./access-log.ts";
import type { Exchange } from "./exchange.ts";

// What nginx made the usual number for a client that went away before its answer.
const CLIENT_CLOSED_REQUEST = 499;

/** @param complete the client was given the whole response */
export function finish(x: Exchange, complete: boolean): void {
  if (x.finished) return;
  x.finished = true;
  x.state.live.active -= 1;
  x.connection.requests -= 1;
  if (!complete && x.state.drain.cut) x.cause = "ERR_DRAINED: cut when the drain deadline had passed";
  if (x.status === 0) x.status = CLIENT_CLOSED_REQUEST;
  const stats = x.route === null ? x.state.noRoute : x.route.stats;
  if (x.route !== null) stats.active -= 1;
  const now = performance.now();
  x.connection.endedMs = now;
  const durationMs = now - x.startedMs;
  stats.observe(x.status, durationMs, x.bytesIn, x.bytesOut);
  if (x.state.accessLog !== null) writeAccessLog(x.state.accessLog, x, durationMs, complete);
}
