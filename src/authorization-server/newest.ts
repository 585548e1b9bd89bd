// How much of what anybody may begin without a proof of anything is kept: the newest, for each client address and in all.
import { networkOf } from "./limit.ts";

// A person begins a few logins; an office behind one address, or a proxy whose clients are not told apart, some hundred in a quarter of an hour.
const MOST_OF_ONE = 500;
// With some 3 KiB for each.
const MOST = 20_000;

export type Newest = {
  /** Keeps one more. @returns what has to go for it: the oldest of the same address, else the oldest of all. Those that ended by themselves count on. */
  keep(id: string, client: string): readonly string[];
};

/** Whoever floods it pushes out what is their own; nobody is refused. In memory: what was begun before a restart ends by its time. */
export function createNewest(mostOfOne: number = MOST_OF_ONE, most: number = MOST): Newest {
  const all = new Map<string, string>();
  const byClient = new Map<string, Set<string>>();
  const drop = (id: string): string => {
    const network = all.get(id) ?? "";
    const own = byClient.get(network);
    all.delete(id);
    own?.delete(id);
    if (own?.size === 0) byClient.delete(network);
    return id;
  };
  return {
    keep(id, client) {
      const network = networkOf(client);
      const own = byClient.get(network) ?? new Set();
      byClient.set(network, own.add(id));
      all.set(id, network);
      const [oldestOwn] = own;
      if (own.size > mostOfOne && oldestOwn !== undefined) return [drop(oldestOwn)];
      const [oldest] = all.keys();
      return all.size > most && oldest !== undefined ? [drop(oldest)] : [];
    },
  };
}
