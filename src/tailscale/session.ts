// One tailscaled, ours or somebody else's, from the first word with it to the last: a loop that looks at how it is and says what it should be.
import { within } from "../lib/within.ts";
import type { TailscalePlan } from "../plan/model.ts";
import { Alarm } from "./alarm.ts";
import { Announcer } from "./announce.ts";
import { Bus } from "./bus.ts";
import type { Daemon } from "./daemon.ts";
import { Gate } from "./gate.ts";
import { Joiner } from "./joiner.ts";
import type { LocalApi, LocalPrefs, LocalStatus } from "./local-api-types.ts";
import { drawPicture } from "./picture.ts";
import { Pulse } from "./pulse.ts";
import { isNoAnswer } from "./seal.ts";
import type { SessionTools } from "./session-tools.ts";
import type { TailnetStatus } from "./status.ts";

const JOINING_TICK_MS = 1_000;
const LAST_WORDS_MS = 2_000;
const LOGOUT_MS = 5_000;

export class Session {
  readonly api: LocalApi;
  readonly #tools: SessionTools;
  readonly #daemon: Daemon | null;
  readonly #alarm = new Alarm();
  readonly #bus: Bus;
  readonly #gate: Gate;
  readonly #joiner: Joiner;
  readonly #announcer: Announcer;
  readonly #pulse: Pulse;
  readonly #stopping = new AbortController();
  readonly #loop: Promise<void>;
  #plan: TailscalePlan;
  #isUp: boolean;
  #local: LocalStatus | null = null;
  #prefs: LocalPrefs | null = null;
  #trouble = "";
  #isSilent = false;
  #joiningSince: number | null = performance.now();
  #lookedAt: (() => void)[] = [];
  #told = "";
  #status: TailnetStatus;

  constructor(plan: TailscalePlan, tools: SessionTools) {
    const { log, pid, env } = tools;
    this.#plan = plan;
    this.#tools = tools;
    this.#announcer = new Announcer(log);
    this.#pulse = new Pulse(tools.tickMs);
    this.#isUp = plan.kind === "external";
    this.#daemon =
      plan.kind === "external"
        ? null
        : tools.startDaemon({
            stateDir: plan.stateDir,
            tun: plan.tun,
            log,
            pid,
            env,
            onUp: () => queueMicrotask(() => this.#cameUp()),
            onDown: (reason) => queueMicrotask(() => this.#wentDown(reason)),
          });
    this.api = tools.openLocalApi(plan.kind === "external" ? plan.socket : (this.#daemon?.socket ?? ""));
    this.#bus = new Bus((message) => {
      if (message === null || message.prefsChanged) this.#gate.suspect();
      this.#alarm.ring();
    });
    this.#gate = new Gate(this.api, this.#bus, log);
    this.#joiner = new Joiner(this.api, this.#bus, tools);
    this.#status = this.#draw();
    this.#loop = this.#run();
  }

  /** From memory. */
  get status(): TailnetStatus {
    return this.#status;
  }

  /** Of the tailscaled that is ours and runs; null without one. */
  get pid(): number | null {
    return this.#daemon?.pid ?? null;
  }

  /** Null for a tailscaled of somebody else. */
  get stateDir(): string | null {
    return this.#plan.kind === "own" ? this.#plan.stateDir : null;
  }

  /** What tailscaled said last; null while it does not run or answer. */
  get local(): LocalStatus | null {
    return this.#local;
  }

  /** Whether this tailscaled can serve the plan, perhaps by other settings. */
  suits(plan: TailscalePlan): boolean {
    const mine = this.#plan;
    if (plan.kind === "external" || mine.kind === "external") return plan.kind === "external" && mine.kind === "external" && plan.socket === mine.socket;
    return plan.stateDir === mine.stateDir && plan.tun === mine.tun;
  }

  apply(plan: TailscalePlan): void {
    // Nothing but the end of its session takes a seal off a tailscaled that is not ours.
    if (plan.kind === "external" && this.#plan.seal && !plan.seal) this.#bus.cut();
    this.#plan = plan;
    this.#gate.narrow(null);
    this.#joiner.changed();
    this.#alarm.ringUrgently();
  }

  /** Resolves when every port but these is refused, or after the time; with whether that is so. */
  async sealAhead(ports: ReadonlySet<number>, timeoutMs: number): Promise<boolean> {
    const plan = this.#plan;
    if (!plan.seal || this.#gate.facts(plan).seal === null || plan.ports.every((port) => ports.has(port))) return true;
    this.#gate.narrow(ports);
    const deadline = performance.now() + timeoutMs;
    while (!this.#gate.isAsOrdered(plan) && performance.now() < deadline && !this.#stopping.signal.aborted) {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#lookedAt.push(resolve);
      this.#alarm.ringUrgently();
      await within(promise, Math.max(1, deadline - performance.now()));
    }
    return this.#gate.isAsOrdered(plan);
  }

  async logout(): Promise<{ readonly ok: boolean; readonly message: string }> {
    const plan = this.#plan;
    if (plan.kind === "external") return { ok: false, message: `The tailscaled at '${plan.socket}' is not Sidegate's: run 'tailscale logout' there` };
    if (this.#local === null) return { ok: false, message: `tailscaled does not run: ${this.#trouble === "" ? "it is starting" : this.#trouble}` };
    if (this.#stopping.signal.aborted) return { ok: false, message: "tailscaled is being stopped: try again" };
    const asked = this.#joiner.askLogout(plan);
    this.#alarm.ringUrgently();
    return asked;
  }

  /** @param isLeaving whether an ephemeral node logs out. Never rejects; bounded. */
  async stop(isLeaving: boolean): Promise<void> {
    this.#stopping.abort();
    this.#alarm.ringUrgently();
    await within(this.#loop, LAST_WORDS_MS);
    this.#joiner.restarted();
    if (this.#plan.kind === "own" && this.#isUp && this.#local !== null) {
      const isLeft = isLeaving && this.#plan.ephemeral && this.#local.haveNodeKey;
      if (isLeft) await within(this.api.logout(), LOGOUT_MS);
      // The next start admits nobody before the seal is proven, whatever the file says by then.
      else await within(this.api.editPrefs({ ShieldsUp: true }), LAST_WORDS_MS);
    }
    this.#bus.cut();
    await this.#daemon?.stop();
    await within(this.api.close(), LAST_WORDS_MS);
  }

  #cameUp(): void {
    this.#isUp = true;
    this.#forgetNode("");
    this.#alarm.ringUrgently();
  }

  #wentDown(reason: string): void {
    this.#isUp = false;
    this.#forgetNode(reason);
    this.#publish();
  }

  #forgetNode(trouble: string): void {
    this.#trouble = trouble;
    this.#isSilent = false;
    this.#pulse.reset();
    this.#local = null;
    this.#prefs = null;
    this.#bus.cut();
    this.#gate.reset();
    this.#joiner.restarted();
  }

  async #run(): Promise<void> {
    while (!this.#stopping.signal.aborted) {
      let pauseMs = this.#tools.tickMs;
      try {
        if (this.#isUp) pauseMs = await this.#look(this.#plan);
        this.#pulse.reset();
      } catch (error) {
        pauseMs = this.#fail(error);
      }
      this.#publish();
      for (const resolve of this.#lookedAt.splice(0)) resolve();
      if (!this.#stopping.signal.aborted) await this.#alarm.sleep(pauseMs, this.#pulse.failures > 0);
    }
  }

  /** Looks, and says what is to be said next. Returns how long nothing needs to be looked at unless something happens. */
  async #look(plan: TailscalePlan): Promise<number> {
    await this.#bus.follow(this.api);
    const status = await this.api.status();
    const prefs = plan.kind === "own" ? await this.api.prefs() : null;
    if (!this.#isUp) return this.#tools.tickMs;
    this.#pulse.beat();
    this.#trouble = "";
    this.#isSilent = false;
    if (status.state !== "Running" || status.self?.id !== this.#local?.self?.id) this.#gate.reset();
    this.#local = status;
    this.#prefs = prefs;
    const isRunning = status.state === "Running";
    this.#joiningSince = isRunning ? null : (this.#joiningSince ?? performance.now());
    if (plan.kind === "own" && prefs !== null) {
      this.#prefs = await this.#gate.shut(plan, status, prefs);
      if (await this.#joiner.step(plan, status, this.#prefs, this.#stopping.signal)) return 0;
    }
    if (!isRunning) return Math.min(JOINING_TICK_MS, this.#tools.tickMs);
    this.#prefs = await this.#gate.open(plan, status, this.#prefs, this.#stopping.signal);
    return this.#tools.tickMs;
  }

  /** Returns how long to wait before the next look. */
  #fail(error: unknown): number {
    const pauseMs = this.#pulse.miss();
    const reason = error instanceof Error ? error.message : String(error);
    this.#tools.log.debug({ event: "tailnet_failed", err: error }, `tailscaled could not be spoken to: ${reason}`);
    if (!this.#isUp) return pauseMs;
    if (this.#daemon === null) {
      this.#trouble = `The tailscaled at '${this.api.socket}' does not answer: ${reason}`;
      if (isNoAnswer(error)) this.#forgetState();
    } else if (isNoAnswer(error)) {
      // Nobody can be let in meanwhile: that is to be said at once.
      this.#isSilent = true;
      this.#trouble = `tailscaled does not answer, and connections are refused until it does: ${reason}`;
      if (!this.#pulse.isHung) return pauseMs;
      this.#forgetState();
      this.#pulse.beat();
      this.#daemon.restart("it does not answer");
    } else if (this.#pulse.isIll) {
      this.#trouble = `tailscaled does not do what it is told: ${reason}`;
      this.#forgetState();
    }
    return pauseMs;
  }

  #forgetState(): void {
    this.#local = null;
    this.#gate.reset();
  }

  #draw(): TailnetStatus {
    return drawPicture({
      plan: this.#plan,
      socket: this.api.socket,
      restarts: this.#daemon?.restarts ?? 0,
      trouble: this.#isUp ? this.#trouble : (this.#daemon?.trouble ?? ""),
      status: this.#local,
      prefs: this.#prefs,
      silent: this.#isSilent,
      ...this.#joiner.facts,
      said: this.#bus.said,
      ...this.#gate.facts(this.#plan),
      joiningMs: this.#joiningMs(),
      nowMs: Date.now(),
    });
  }

  #joiningMs(): number | null {
    return this.#joiningSince === null ? null : performance.now() - this.#joiningSince;
  }

  #publish(): void {
    this.#status = this.#draw();
    const isLate = this.#status.state === "starting" && (this.#joiningMs() ?? 0) >= this.#plan.timeoutMs;
    this.#announcer.tell(this.#status, isLate, Date.now());
    const told = JSON.stringify(this.#status);
    if (told === this.#told) return;
    this.#told = told;
    this.#tools.onStatus();
  }
}
