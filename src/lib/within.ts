// Waits for something that may never come.

/**
 * The result of the task; undefined when there is none after `ms`, or the task fails.
 * @param options.ref whether the process goes on for the time as for a timer of its own; default true
 */
export async function within<T>(task: Promise<T>, ms: number, { ref = true }: { readonly ref?: boolean } = {}): Promise<T | undefined> {
  const { promise: late, resolve } = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => resolve(undefined), ms);
  if (!ref) timer.unref();
  try {
    return await Promise.race([task, late]);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}
