// Waits for something that may never come.
import { setTimeout as delay } from "node:timers/promises";

/** Resolves when the task is settled, however it ends, and after `ms` in any case. */
export async function within(task: Promise<unknown>, ms: number): Promise<void> {
  const timer = new AbortController();
  const late = delay(ms, undefined, { signal: timer.signal });
  await Promise.race([task, late]).catch(() => {});
  timer.abort();
  await Promise.allSettled([late]);
}
