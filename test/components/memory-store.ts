// A state that is gone with its test, whose time is the test's.
import type { StateStore } from "../../src/state/store.ts";

export type MemoryStore = StateStore & {
  /** What is kept, by key. */
  readonly entries: ReadonlyMap<string, { readonly value: string; readonly untilMs: number }>;
  /** From now on every method rejects with it; null: they work again. */
  fail(error: Error | null): void;
};

/** @param now default: Date.now */
export function memoryStore(now: () => number = Date.now): MemoryStore {
  const entries = new Map<string, { value: string; untilMs: number }>();
  let failure: Error | null = null;
  const live = (key: string): string | null => {
    if (failure !== null) throw failure;
    const entry = entries.get(key);
    if (entry === undefined || entry.untilMs > now()) return entry?.value ?? null;
    entries.delete(key);
    return null;
  };
  const put = (key: string, value: string, ttlMs: number | null): void => void entries.set(key, { value, untilMs: ttlMs === null ? Infinity : now() + ttlMs });
  return {
    entries,
    fail: (error) => void (failure = error),
    get: async (key) => live(key),
    set: async (key, value, ttlMs) => {
      live(key);
      put(key, value, ttlMs);
    },
    add: async (key, value, ttlMs) => {
      if (live(key) !== null) return false;
      put(key, value, ttlMs);
      return true;
    },
    take: async (key) => {
      const value = live(key);
      entries.delete(key);
      return value;
    },
    delete: async (key) => live(key) !== null && entries.delete(key),
    list: async (prefix) =>
      [...entries.keys()]
        .filter((key) => key.startsWith(prefix))
        .toSorted()
        .flatMap((key) => {
          const value = live(key);
          return value === null ? [] : [{ key, value }];
        }),
    close: async () => {},
  };
}
