// Keeps a tailscaled running: starts it, tells when it answers, starts it again when it ends or hangs, and ends it with the gateway.
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { formatDuration } from "../lib/duration.ts";
import { GatewayError } from "../lib/errors.ts";
import type { Log } from "../telemetry/log.ts";
import { StateClaim } from "./daemon-claim.ts";
import { checkTun, findProgram, runTailscaled } from "./daemon-process.ts";
import type { Environment, Run } from "./daemon-process.ts";
import { describeShortLife, makeStateDirectory, reachOf, removeReach } from "./daemon-state.ts";
import { takeSealOut } from "./daemon-unseal.ts";
import { openLocalApi } from "./local-api.ts";

const POLL_MS = 50;

export type DaemonOptions = {
  /** Absolute. One gateway at a time uses it. */
  readonly stateDir: string;
  /** A kernel interface, not userspace networking. */
  readonly tun: boolean;
  readonly log: Log;
  /** Of the gateway. */
  readonly pid: number;
  /** Of the gateway; tailscaled gets the settings in it, and no keys. */
  readonly env?: Environment;
  /** Path, or name to look for in PATH. */
  readonly program?: string;
  /** The LocalAPI answers; once for each start. */
  readonly onUp: () => void;
  /** It ended, hangs, or could not be started; `trouble` tells the same. Not called by `stop`. */
  readonly onDown: (reason: string) => void;
};

export type Daemon = {
  /** Path of the LocalAPI's socket. */
  readonly socket: string;
  /** Of the tailscaled that runs; null while none does. */
  readonly pid: number | null;
  /** How often it was started again. */
  readonly restarts: number;
  /** Why it is not running and what to do; empty while it runs. */
  readonly trouble: string;
  /** It hangs: kills it, and starts it again. */
  restart(reason: string): void;
  /** Ends it; resolves when it is gone. Never rejects. */
  stop(): Promise<void>;
};

/** Times in ms. */
const LIMITS = {
  /** For the LocalAPI's first answer. */
  start: 60_000,
  /** Between SIGTERM and SIGKILL. */
  terminate: 5_000,
  /** Between an end and the next start: doubled from the first to the last. */
  firstPause: 1_000,
  lastPause: 30_000,
  /** Whoever was up for so long begins with the first pause again. */
  steady: 60_000,
};

/** Starts tailscaled in the background, and goes on trying until `stop`. Never throws. */
export function startDaemon(options: DaemonOptions, limits: Partial<typeof LIMITS> = {}): Daemon {
  return new Supervisor(options, { ...LIMITS, ...limits });
}

class Supervisor implements Daemon {
  readonly socket: string;
  readonly #options: DaemonOptions;
  readonly #limits: typeof LIMITS;
  readonly #reach: string;
  readonly #claim: StateClaim;
  readonly #stopping = new AbortController();
  readonly #done: Promise<void>;
  #run: Run | null = null;
  #starts = 0;
  #upAt = Infinity;
  #trouble = "tailscaled is starting";
  /** Of a start that was not even tried, as last told in the log. */
  #told = "";
  #lifeTold = false;

  constructor(options: DaemonOptions, limits: typeof LIMITS) {
    this.#options = options;
    this.#limits = limits;
    this.#reach = reachOf(options.stateDir);
    this.socket = join(this.#reach, "tailscaled.sock");
    this.#claim = new StateClaim({ ...options, reach: this.#reach });
    this.#done = this.#supervise();
  }

  get restarts(): number {
    return Math.max(0, this.#starts - 1);
  }

  get pid(): number | null {
    return this.#run === null || this.#run.hasEnded ? null : this.#run.pid;
  }

  get trouble(): string {
    return this.#trouble;
  }

  restart(reason: string): void {
    if (this.#run === null || this.#run.hasEnded || this.#stopping.signal.aborted) return;
    this.#trouble = reason;
    this.#options.log.warn({ event: "tailscaled_restarting", reason }, "tailscaled is killed and started again");
    this.#run.end(reason, "SIGKILL");
  }

  async stop(): Promise<void> {
    this.#stopping.abort();
    this.#terminate(this.#run);
    await this.#done;
  }

  #terminate(run: Run | null): void {
    if (run === null || run.hasEnded) return;
    run.end("stopped", "SIGTERM");
    const timer = setTimeout(() => run.end("stopped", "SIGKILL"), this.#limits.terminate);
    void run.ended.then(() => clearTimeout(timer));
  }

  async #supervise(): Promise<void> {
    const { signal } = this.#stopping;
    const { firstPause, lastPause, steady } = this.#limits;
    let pauseMs = firstPause;
    while (!signal.aborted) {
      this.#upAt = Infinity;
      const ran = await this.#runOnce().catch((error: unknown) => this.#describeFailure(error));
      if (signal.aborted) break;
      if (performance.now() - this.#upAt >= steady) pauseMs = firstPause;
      this.#setDown(ran, pauseMs);
      await delay(pauseMs, undefined, { signal, ref: false }).catch(() => {});
      pauseMs = Math.min(lastPause, pauseMs * 2);
    }
    this.#trouble = "tailscaled is stopped";
    await this.#claim.release();
    await removeReach(this.#options.stateDir, this.#reach);
  }

  #describeFailure(error: unknown): { reason: string; started: boolean } {
    if (!(error instanceof GatewayError)) this.#options.log.error({ event: "internal_error", err: error }, "Unexpected error while tailscaled was started");
    return { reason: error instanceof Error ? error.message : String(error), started: false };
  }

  #setDown({ reason, started }: { reason: string; started: boolean }, pauseMs: number): void {
    const { log, onDown } = this.#options;
    this.#trouble = reason;
    const fields = { reason, next_start: formatDuration(pauseMs) };
    if (started) log.warn({ event: "tailscaled_exited", ...fields }, "tailscaled does not run");
    else log[reason === this.#told ? "debug" : "warn"]({ event: "tailscaled_not_started", ...fields }, "tailscaled cannot be started");
    this.#told = started ? "" : reason;
    onDown(reason);
  }

  /** @throws {DaemonError} when it cannot even be started */
  async #runOnce(): Promise<{ reason: string; started: boolean }> {
    const { stateDir, tun, log, env = {}, program: name = "tailscaled" } = this.#options;
    const program = await findProgram(name, env);
    if (tun) await checkTun();
    await makeStateDirectory(stateDir, this.#reach);
    await this.#claim.take();
    if (tun) await takeSealOut(stateDir);
    await this.#tellShortLife();
    if (this.#stopping.signal.aborted) return { reason: "stopped", started: false };

    const startedAt = performance.now();
    const run = runTailscaled({ program, stateDir, socket: this.socket, tun, env, log });
    this.#run = run;
    if (run.pid === null) return { reason: await run.ended, started: false };
    this.#starts += 1;
    try {
      await this.#claim.record(run.pid);
      log.info({ event: "tailscaled_started", pid: run.pid, program, tun, restarts: this.restarts }, "Started tailscaled");
      if (await this.#isUp(run)) {
        this.#upAt = performance.now();
        this.#trouble = "";
        log.info({ event: "tailscaled_up", duration_ms: Math.round(this.#upAt - startedAt) }, "tailscaled answers");
        this.#options.onUp();
      }
      return { reason: await run.ended, started: true };
    } finally {
      // Whatever went wrong, no second one is started beside it.
      run.end("tailscaled could not be looked after", "SIGKILL");
      await run.ended;
      await this.#claim.record(null).catch(() => {});
    }
  }

  /** Waits for the first answer. False when it ended before, or was killed because there was none. */
  async #isUp(run: Run): Promise<boolean> {
    const { start } = this.#limits;
    const deadline = performance.now() + start;
    const api = openLocalApi(this.socket, { timeoutMs: start });
    const ended = run.ended.then(() => false);
    try {
      while (!run.hasEnded) {
        const answer = api.status().then(
          () => true,
          () => false,
        );
        if (await Promise.race([answer, ended])) return !run.hasEnded && !this.#stopping.signal.aborted;
        if (performance.now() >= deadline) run.end(`tailscaled did not answer within ${formatDuration(start)} of its start, and was killed`, "SIGKILL");
        await Promise.race([ended, delay(POLL_MS)]);
      }
      return false;
    } finally {
      await api.close();
    }
  }

  async #tellShortLife(): Promise<void> {
    if (this.#lifeTold) return;
    this.#lifeTold = true;
    const { log, stateDir } = this.#options;
    const text = await describeShortLife(stateDir).catch(() => "");
    if (text !== "") log.warn({ event: "tailscale_state_short_lived", dir: stateDir }, text);
  }
}
