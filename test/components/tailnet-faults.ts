// What a user is told of a fault of the tailnet, and what must go on serving meanwhile.
import assert from "node:assert/strict";
import { connect } from "node:net";
import { text } from "node:stream/consumers";
import type { Gateway } from "./gateway.ts";
import { waitFor } from "./wait.ts";

const PATIENCE_MS = 60_000;

type Ready = { readonly status: string; readonly problems: readonly { readonly what: string; readonly name: string; readonly reason: string }[] };

/** What /ready answers. */
export async function readiness(gateway: Gateway): Promise<Ready> {
  return JSON.parse((await gateway.admin("/ready")).body) as Ready;
}

/**
 * Waits until /ready names a problem of the tailnet in these words, and the log does as a warning. Returns the words of /ready.
 * @param logged the words of the log when they are others
 * @param status of /ready: unready when the tailnet cannot be served, degraded when it can
 */
export async function told(gateway: Gateway, words: RegExp, status: "unready" | "degraded" = "unready", logged = words): Promise<string> {
  let last: Ready | undefined;
  const { reason } = await waitFor(
    async () => {
      last = await readiness(gateway);
      return last.status === status ? last.problems.find((problem) => problem.what === "tailnet" && words.test(problem.reason)) : null;
    },
    { timeoutMs: PATIENCE_MS, what: () => `/ready to say ${words}, which says ${JSON.stringify(last)}` },
  );
  const warnings = (): string[] =>
    gateway.log.filter(({ level }) => level === "warn").map(({ msg, reason: why }) => `${msg}${typeof why === "string" ? `: ${why}` : ""}`);
  await waitFor(() => warnings().some((line) => logged.test(line)), {
    timeoutMs: PATIENCE_MS,
    what: () => `${logged} in the log, which warns of ${JSON.stringify(warnings())}`,
  });
  return reason;
}

/** That a listener which is not on the tailnet serves: `service` is what its upstream says first. */
export async function servesLocally(gateway: Gateway, service = "service", listener = "local"): Promise<void> {
  assert.equal(await text(connect(gateway.port(listener), "127.0.0.1")), service);
}
