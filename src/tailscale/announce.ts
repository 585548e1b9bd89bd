// Tells the log what becomes of the node: each step once.
import type { Log } from "../telemetry/log.ts";
import type { TailnetState, TailnetStatus } from "./status.ts";

const DAY_MS = 86_400_000;
// As Go writes it: how long something has been so, which tailscaled's texts tell anew each minute, is no news.
const DURATION = /\b(?:\d+(?:\.\d+)?(?:h|m|s|ms))+\b/g;
const REMEMBERED = 100;
const EVENTS: Record<TailnetState, string> = {
  off: "tailnet_off",
  starting: "tailnet_joining",
  needs_login: "tailnet_login_needed",
  needs_approval: "tailnet_approval_needed",
  stopped: "tailnet_stopped",
  expired: "tailnet_expired",
  running: "tailnet_running",
};

export class Announcer {
  readonly #log: Log;
  #state = "";
  #reason = "";
  #node = "";
  #sealed = "";
  /** Warnings, and when they were told. */
  readonly #told = new Map<string, number>();

  constructor(log: Log) {
    this.#log = log;
  }

  /** @param isLate whether joining takes longer than the plan allows */
  tell(status: TailnetStatus, isLate: boolean, nowMs: number): void {
    this.#tellState(status, isLate);
    this.#tellSeal(status);
    for (const warning of status.warnings) {
      const key = warning.replaceAll(DURATION, "…");
      if (nowMs - (this.#told.get(key) ?? -Infinity) < DAY_MS) continue;
      const [oldest] = this.#told.keys();
      if (this.#told.size >= REMEMBERED && oldest !== undefined) this.#told.delete(oldest);
      this.#told.delete(key);
      this.#told.set(key, nowMs);
      this.#log.warn({ event: "tailnet_warning" }, warning);
    }
  }

  #tellState(status: TailnetStatus, isLate: boolean): void {
    const { state } = status;
    // How long it has been joining is told once.
    const plain = status.reason.replaceAll(DURATION, "…");
    const reason = isLate ? plain.replace(/joining for .* and tries/, "joining for long and tries") : plain;
    const node = state === "running" ? `${status.name} ${status.addresses.join(" ")}` : "";
    if (state === this.#state && reason === this.#reason && node === this.#node) return;
    const isNew = state !== this.#state || node !== this.#node;
    [this.#state, this.#reason, this.#node] = [state, reason, node];
    const fields = { event: isLate ? "tailnet_join_slow" : EVENTS[state] };
    const because = status.reason === "" ? "" : `: ${status.reason}`;
    if (state === "running") {
      if (isNew)
        this.#log.info(
          { ...fields, name: status.name, addresses: status.addresses, tags: status.tags, user: status.user },
          `On the tailnet as '${status.name}'`,
        );
      if (reason !== "") this.#log.warn({ event: "tailnet_trouble" }, `The tailnet is not as it should be${because}`);
      return;
    }
    // The end and start of our tailscaled are told by who runs it.
    if (state === "off" && status.mode !== "external") this.#log.debug(fields, `tailscaled does not run${because}`);
    else if (state === "starting") this.#log[reason === "" ? "info" : "warn"](fields, `Joining the tailnet${because}`);
    else this.#log.warn(fields, `Not on the tailnet${because}`);
  }

  #tellSeal({ seal }: TailnetStatus): void {
    const text = seal.active ? seal.open.join(", ") : "";
    const key = `${seal.active} ${text}`;
    if (key === this.#sealed) return;
    this.#sealed = key;
    if (seal.active)
      this.#log.info(
        { event: "tailnet_sealed", open: seal.open, refused: seal.refused, foreign: seal.foreign },
        `${seal.refused} ports of the tailnet are refused`,
      );
  }
}
