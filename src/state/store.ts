// What outlives a restart and may be shared by several gateways: keys with values that end by themselves.

/**
 * Keys are ASCII text of at most 200 characters, values text; both are whatever callers make of them. A value whose time is over is gone for every
 * method. Each method is atomic, also among processes. They reject only when the store itself fails, with a `StateError`.
 */
export type StateStore = {
  get(key: string): Promise<string | null>;
  /** @param ttlMs null: for ever */
  set(key: string, value: string, ttlMs: number | null): Promise<void>;
  /** Sets the value unless there is one; false when there was. For what may be used once. */
  add(key: string, value: string, ttlMs: number | null): Promise<boolean>;
  /** Gets and deletes: of several callers only one gets it. */
  take(key: string): Promise<string | null>;
  /** False when there was nothing. */
  delete(key: string): Promise<boolean>;
  /** All whose keys begin with the prefix, in the order of keys. For people's eyes and rare events: it reads them all. */
  list(prefix: string): Promise<{ readonly key: string; readonly value: string }[]>;
  /** Ends what is under way. No method may be called after it. */
  close(): Promise<void>;
};
