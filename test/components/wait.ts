// Waiting by condition with a deadline.
import { setTimeout as delay } from "node:timers/promises";

/**
 * Resolves with the first truthy result of `condition`, which is tried every 20 ms; its errors count as "not yet".
 * @throws after `timeoutMs` (default 10 s), naming `what` and the last error; at once on an error with `abortOnError`
 */
export async function waitFor<T>(
  condition: () => T | Promise<T>,
  options: { timeoutMs?: number; what?: () => string; abortOnError?: boolean } = {},
): Promise<NonNullable<T>> {
  const { timeoutMs = 10_000, what = () => "a condition", abortOnError = false } = options;
  const deadline = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const result = await condition();
      if (result) return result;
    } catch (error) {
      if (abortOnError) throw error;
      last = error;
    }
    if (performance.now() > deadline) throw new Error(`Waited ${timeoutMs} ms for ${what()}`, { cause: last });
    await delay(20);
  }
}
