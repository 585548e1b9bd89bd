// Waits for what is under way to end by itself, up to a deadline.

const LOOK_EVERY_MS = 50;

/** Resolves true as soon as `remaining()` is 0, false when it is not after `timeoutMs`. */
export function drained(remaining: () => number, timeoutMs: number): Promise<boolean> {
  if (remaining() === 0) return Promise.resolve(true);
  if (timeoutMs === 0) return Promise.resolve(false);
  const { promise, resolve } = Promise.withResolvers<boolean>();
  const deadline = performance.now() + timeoutMs;
  const timer = setInterval(() => {
    const done = remaining() === 0;
    if (!done && performance.now() < deadline) return;
    clearInterval(timer);
    resolve(done);
  }, LOOK_EVERY_MS);
  return promise;
}
