// What a session with tailscaled works with; tests put stand-ins in.
import type { Log } from "../telemetry/log.ts";
import type { startDaemon } from "./daemon.ts";
import type { LocalApi } from "./local-api-types.ts";
import type { resolveAuthKey } from "./oauth-key.ts";

export type SessionTools = {
  readonly log: Log;
  readonly pid: number;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly openLocalApi: (socket: string) => LocalApi;
  readonly startDaemon: typeof startDaemon;
  readonly resolveAuthKey: typeof resolveAuthKey;
  /** How often tailscaled is looked at when nothing happens. */
  readonly tickMs: number;
  /** The status changed. */
  readonly onStatus: () => void;
};
