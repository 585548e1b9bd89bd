// The state in a file of its own: SQLite, in the directory of the state.
import type { Log } from "../telemetry/log.ts";
import type { StateStore } from "./store.ts";

export function openSqliteStore(_dir: string, _log: Log): Promise<StateStore> {
  throw new Error("not built yet");
}
