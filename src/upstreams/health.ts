// placeholder until the health checks land
import type { Log } from "../telemetry/log.ts";
import type { Upstream } from "./upstream.ts";
export type Health = { close(): void };
export function startHealth(_upstream: Upstream, _log: Log): Health { return { close() {} }; }
