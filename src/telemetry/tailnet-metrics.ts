// The metrics of the tailnet: whether the node is on it, serves and is sealed, and how long its key lasts.
import type { Exposition } from "./exposition.ts";

/** What is told of the tailnet; a TailnetStatus has it all. */
export type TailnetSample = {
  /** `running`: the node is on the tailnet. */
  readonly state: string;
  readonly serving: boolean;
  readonly restarts: number;
  /** ISO 8601; null: it does not expire. */
  readonly key_expires_at: string | null;
  readonly seal: { readonly active: boolean; readonly refused: number };
};

/** Writes nothing when nothing is on the tailnet. */
export function writeTailnet(out: Exposition, tailnet: TailnetSample | null, nowMs: number): void {
  if (tailnet === null) return;
  const { state, serving, restarts, key_expires_at, seal } = tailnet;
  out.single("sidegate_tailnet_up", "gauge", "1 when the node is on the tailnet.", state === "running" ? 1 : 0);
  out.single(
    "sidegate_tailnet_serving",
    "gauge",
    "1 when connections from the tailnet are served: the node is on it, and sealed where it must be.",
    serving ? 1 : 0,
  );
  out.single("sidegate_tailscaled_restarts_total", "counter", "How often tailscaled had to be started again.", restarts);
  if (key_expires_at !== null)
    out.single(
      "sidegate_tailnet_key_expiry_seconds",
      "gauge",
      "Time until the key of the node ends, negative afterwards; one that does not expire has none.",
      (Date.parse(key_expires_at) - nowMs) / 1_000,
    );
  out.single("sidegate_tailnet_sealed", "gauge", "1 when every port of the node that no listener opens is refused.", seal.active ? 1 : 0);
  out.single("sidegate_tailnet_refused_ports", "gauge", "Ports of the node that are refused.", seal.refused);
}
