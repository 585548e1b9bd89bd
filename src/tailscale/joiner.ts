// Carries out what join.ts decides, and remembers what was tried.
import type { TailscaleNodePlan } from "../plan/model.ts";
import type { Bus } from "./bus.ts";
import { afterFailedExchange, afterRefusal, createJoinMemory, hideKeys, isRateLimit, nextStep, refusalInWords } from "./join.ts";
import type { JoinMemory, JoinStep } from "./join.ts";
import type { LocalApi, LocalPrefs, LocalStatus } from "./local-api-types.ts";
import type { Facts } from "./picture.ts";
import { isNoAnswer } from "./seal.ts";
import type { SessionTools } from "./session-tools.ts";

type Tools = Pick<SessionTools, "log" | "resolveAuthKey">;
type Order = { readonly plan: TailscaleNodePlan; readonly resolve: (outcome: Outcome) => void };
type Outcome = { readonly ok: boolean; readonly message: string };

const FIRST_PAUSE_MS = 1_000;
const MAX_PAUSE_MS = 60_000;
const TAGS_BLAMED_MS = 60_000;

export class Joiner {
  readonly #api: LocalApi;
  readonly #bus: Bus;
  readonly #tools: Tools;
  #memory: JoinMemory = createJoinMemory();
  #refusedSettings = "";
  #changedAtMs = 0;
  #changedTags: { readonly tags: readonly string[]; readonly atMs: number } | null = null;
  /** The step that was taken last, and when it may be taken once more: tailscaled or somebody else may undo it each time. */
  #last = { text: "", times: 0, againAt: 0 };
  #exitNode = { address: "", id: "" };
  #asked: Order | null = null;

  constructor(api: LocalApi, bus: Bus, tools: Tools) {
    this.#api = api;
    this.#bus = bus;
    this.#tools = tools;
  }

  get facts(): Pick<Facts, "memory" | "refusedSettings" | "changedAtMs" | "changedTags"> {
    return { memory: this.#memory, refusedSettings: this.#refusedSettings, changedAtMs: this.#changedAtMs, changedTags: this.#changedTags?.tags ?? null };
  }

  /** Another plan: what failed is worth another try. */
  changed(): void {
    this.#last = { text: "", times: 0, againAt: 0 };
    this.#refusedSettings = "";
  }

  /** Another tailscaled: it knows nothing of a login that was under way. */
  restarted(): void {
    this.changed();
    this.#memory = { ...this.#memory, attempt: null };
    this.#asked?.resolve({ ok: false, message: "tailscaled ended: try again" });
    this.#asked = null;
  }

  /** Logs out with the next step, and stays so until the plan has another key or control server. */
  askLogout(plan: TailscaleNodePlan): Promise<Outcome> {
    const { promise, resolve } = Promise.withResolvers<Outcome>();
    this.#asked?.resolve({ ok: false, message: "Another logout was asked for" });
    this.#asked = { plan, resolve };
    return promise;
  }

  /**
   * Does the next thing that must be done; returns whether it did something, so that all must be looked at again.
   * @throws {LocalApiError} when tailscaled does not answer
   */
  async step(plan: TailscaleNodePlan, status: LocalStatus, prefs: LocalPrefs, stopped: AbortSignal): Promise<boolean> {
    if (this.#asked !== null) return this.#logout(this.#asked);
    this.#judge(plan, status);
    const step = nextStep(plan, status, prefs, this.#memory, await this.#exitNodeId(plan, prefs), performance.now());
    if (step.kind === "wait") this.#refusedSettings = "";
    if (step.kind === "wait" || stopped.aborted || !this.#mayTake(step)) return false;
    try {
      await this.#take(plan, step, status, stopped);
      if (step.kind === "edit") this.#refusedSettings = "";
    } catch (error) {
      if (isNoAnswer(error)) throw error;
      const reason = hideKeys(error instanceof Error ? error.message : String(error), plan.authKey);
      this.#refusedSettings = `tailscaled does not take the settings: ${reason}`;
      return false;
    }
    return true;
  }

  /** Learns from what came of the last step. */
  #judge(plan: TailscaleNodePlan, status: LocalStatus): void {
    const { attempt } = this.#memory;
    if (status.state === "Running" || status.state === "NeedsMachineAuth") {
      this.#memory = { ...this.#memory, attempt: null, refused: null };
      this.#bus.forget();
      if (this.#changedTags !== null && performance.now() - this.#changedTags.atMs > TAGS_BLAMED_MS) this.#changedTags = null;
      return;
    }
    const { said } = this.#bus;
    if (said === "" || attempt === null || attempt.authKey === null || isRateLimit(said)) return;
    this.#bus.forget();
    const reason = refusalInWords({ ...plan, authKey: attempt.authKey }, said);
    // tailscaled would go on trying it, every half minute; what follows without a key ends that.
    this.#memory = afterRefusal(this.#memory, attempt.authKey, reason, performance.now());
    this.#tools.log.warn({ event: "tailnet_key_refused" }, reason);
  }

  async #take(plan: TailscaleNodePlan, step: Exclude<JoinStep, { kind: "wait" }>, status: LocalStatus, stopped: AbortSignal): Promise<void> {
    const { log } = this.#tools;
    if (step.kind === "edit") {
      const names = Object.keys(step.prefs);
      if (step.prefs.AdvertiseTags !== undefined) this.#changedTags = { tags: step.prefs.AdvertiseTags, atMs: performance.now() };
      this.#changedAtMs = Date.now();
      await this.#api.editPrefs(step.prefs);
      log.info({ event: "tailnet_settings", settings: names }, `tailscaled was given other settings: ${names.join(", ")}`);
    } else await this.#login(plan, step, status, stopped);
  }

  async #login(plan: TailscaleNodePlan, { authKey, prefs }: Extract<JoinStep, { kind: "login" }>, status: LocalStatus, stopped: AbortSignal): Promise<void> {
    const { log } = this.#tools;
    let key = "";
    if (authKey !== null) {
      try {
        key = await this.#tools.resolveAuthKey(authKey, { tags: plan.tags, ephemeral: plan.ephemeral, signal: stopped });
      } catch (error) {
        if (stopped.aborted) return;
        const reason = hideKeys(error instanceof Error ? error.message : String(error), authKey);
        this.#memory = afterFailedExchange(this.#memory, authKey, reason, performance.now());
        log.warn({ event: "tailnet_key_refused" }, reason);
        return;
      }
    }
    this.#memory = { ...this.#memory, attempt: { authKey, controlUrl: plan.controlUrl } };
    const how = authKey === null ? "by a browser" : "with the auth key";
    log.info({ event: "tailnet_login", hostname: plan.hostname, tags: plan.tags }, `${status.haveNodeKey ? "Logging in anew" : "Logging in"} ${how}`);
    try {
      await this.#api.start(key, prefs);
      // A start alone remembers the key, and logs in only with a node key that it has.
      await this.#api.loginInteractive();
    } catch (error) {
      this.#memory = { ...this.#memory, attempt: null };
      throw error;
    }
    // What was said before is about another attempt; an answer to this one comes again with tailscaled's next try.
    this.#bus.forget();
  }

  async #logout({ plan, resolve }: Order): Promise<boolean> {
    this.#asked = null;
    this.#memory = { ...createJoinMemory(), loggedOut: { authKey: plan.authKey, controlUrl: plan.controlUrl } };
    this.#tools.log.warn({ event: "tailnet_logout" }, "Logging out by command");
    try {
      await this.#api.logout();
      resolve({ ok: true, message: "Logged out; a restart of the gateway or another 'tailscale.auth_key' joins again" });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      resolve({ ok: false, message: `The node is down, but the logout was not confirmed (${reason}): take the node away in the admin console` });
    }
    return true;
  }

  /** tailscaled replaces the address of an exit node by its id as soon as it knows it. */
  async #exitNodeId(plan: TailscaleNodePlan, prefs: LocalPrefs): Promise<string | null> {
    const address = plan.flags.exitNode;
    if (address === null || prefs.ExitNodeID === "") return null;
    if (this.#exitNode.address !== address || this.#exitNode.id !== prefs.ExitNodeID)
      this.#exitNode = { address, id: (await this.#api.whois(address).catch(() => null))?.id ?? "" };
    return this.#exitNode.id;
  }

  #mayTake(step: JoinStep): boolean {
    const text = JSON.stringify(step.kind === "login" ? { ...step, authKey: step.authKey !== null } : step);
    const now = performance.now();
    if (text === this.#last.text && now < this.#last.againAt) return false;
    const times = text === this.#last.text ? this.#last.times + 1 : 0;
    this.#last = { text, times, againAt: now + Math.min(FIRST_PAUSE_MS * 2 ** times, MAX_PAUSE_MS) };
    return true;
  }
}
