// Keeps the node shut until its seal is proven: the shields of a tailscaled that is ours, and the seal of either kind.
import type { TailscalePlan } from "../plan/model.ts";
import type { Log } from "../telemetry/log.ts";
import type { Bus } from "./bus.ts";
import type { LocalApi, LocalPrefs, LocalStatus } from "./local-api-types.ts";
import { isNoAnswer, SealKeeper } from "./seal.ts";
import type { SealOrder, SealState } from "./seal.ts";

export class Gate {
  readonly #api: LocalApi;
  readonly #bus: Bus;
  readonly #log: Log;
  readonly #seal = new SealKeeper();
  #shieldsError = "";
  /** Ports that the next plan opens, while it is being committed. */
  #ahead: ReadonlySet<number> | null = null;

  constructor(api: LocalApi, bus: Bus, log: Log) {
    this.#api = api;
    this.#bus = bus;
    this.#log = log;
  }

  /** What is proven of what the plan asks for; `seal` null: nothing is. */
  facts(plan: TailscalePlan): { readonly seal: SealState | null; readonly sealError: string } {
    const { state, error } = this.#seal;
    return { seal: plan.seal && state?.kind === "none" ? null : state, sealError: error === "" ? this.#shieldsError : error };
  }

  /** Opens no port that is not in the set; null: those of the plan. */
  narrow(ports: ReadonlySet<number> | null): void {
    this.#ahead = ports;
  }

  /** Somebody may have changed the serve config. */
  suspect(): void {
    this.#seal.suspect();
  }

  /** Another login, or another tailscaled. */
  reset(): void {
    this.#seal.reset();
  }

  /** Whether all ports are refused that should be, as far as is known. */
  isAsOrdered(plan: TailscalePlan): boolean {
    const order = this.#order(plan);
    return order === null || this.#seal.holds(order);
  }

  /**
   * Raises the shields unless the seal is proven.
   * @returns the preferences as they are then
   */
  async shut(plan: TailscalePlan, status: LocalStatus, prefs: LocalPrefs): Promise<LocalPrefs> {
    // When they cannot be raised (Funnel is on, say), the seal is set all the same.
    return prefs.ShieldsUp || this.#mayAdmit(plan, status) ? prefs : this.#setShields(true, prefs);
  }

  /** Brings the seal in force; then lowers the shields. */
  async open(plan: TailscalePlan, status: LocalStatus, prefs: LocalPrefs | null, stopped: AbortSignal): Promise<LocalPrefs | null> {
    const order = this.#order(plan);
    if (plan.seal && status.tun)
      this.#seal.refuse(
        "A node with a kernel interface cannot be sealed by tailscaled: set 'tailscale.seal: false', and close ports by the firewall or the ACL",
      );
    else if (order === null) this.#seal.reset();
    else await this.#seal.keep(this.#api, order);
    if (plan.kind === "external" || prefs === null || stopped.aborted) return prefs;
    if (!prefs.ShieldsUp) return this.shut(plan, status, prefs);
    return this.#mayAdmit(plan, status) ? this.#setShields(false, prefs) : prefs;
  }

  #mayAdmit(plan: TailscalePlan, status: LocalStatus): boolean {
    return status.state === "Running" && (!plan.seal || this.facts(plan).seal !== null);
  }

  async #setShields(isUp: boolean, prefs: LocalPrefs): Promise<LocalPrefs> {
    try {
      const present = await this.#api.editPrefs({ ShieldsUp: isUp });
      this.#shieldsError = "";
      return present;
    } catch (error) {
      if (isNoAnswer(error)) throw error;
      const reason = `The shields of the node cannot be ${isUp ? "raised" : "lowered"}: ${error instanceof Error ? error.message : String(error)}`;
      if (reason !== this.#shieldsError) this.#log.warn({ event: "tailnet_shields_failed" }, reason);
      this.#shieldsError = reason;
      return prefs;
    }
  }

  /** Null: the serve config is not ours to touch, or cannot be touched yet. */
  #order(plan: TailscalePlan): SealOrder | null {
    const open = new Set(plan.ports.filter((port) => this.#ahead?.has(port) ?? true));
    if (plan.kind === "own") return plan.seal ? { kind: "lasting", open } : { kind: "none" };
    const { sessionId } = this.#bus;
    return plan.seal && sessionId !== null ? { kind: "session", open, sessionId } : null;
  }
}
