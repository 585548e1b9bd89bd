// An issuer of tokens outside of the gateway: its keys, and who its tokens speak of.
import type { IssuerPlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import type { TokenSource } from "./authenticate.ts";

export type LiveIssuer = TokenSource & { close(): void };

export function openIssuer(_plan: IssuerPlan, _log: Log): LiveIssuer {
  throw new Error("not built yet");
}
