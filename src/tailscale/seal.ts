// Brings the seal into tailscaled's serve config, and proves that it is there.
import { GatewayError } from "../lib/errors.ts";
import { LocalApiError } from "./local-api-error.ts";
import type { LocalApi, ServeConfig } from "./local-api-types.ts";
import { sealedConfig, unsealedConfig } from "./serve-config.ts";

export type SealOrder =
  | { readonly kind: "lasting"; readonly open: ReadonlySet<number> }
  | { readonly kind: "session"; readonly open: ReadonlySet<number>; readonly sessionId: string }
  | { readonly kind: "none" };

/** What was found to be in force. */
export type SealState = {
  /** Of the config in which it was found. */
  readonly etag: string;
  readonly kind: SealOrder["kind"];
  readonly open: readonly number[];
  readonly refused: number;
  readonly foreign: readonly number[];
};

export class SealError extends GatewayError {
  constructor(message: string) {
    super("ERR_TAILNET_SEAL", message);
  }
}

const MAX_TRIES = 6;

/**
 * Sets what is missing and takes away what is too much. Resolves only when a config that was read from tailscaled is as ordered.
 * @throws {SealError} when others change the config faster than it can be set
 * @throws {LocalApiError} when tailscaled refuses it or does not answer
 */
export async function applySeal(api: LocalApi, order: SealOrder): Promise<SealState> {
  for (let tries = 0; tries < MAX_TRIES; tries += 1) {
    const { config, etag } = await api.serveConfig();
    const seal = ordered(config, order);
    if (!seal.changed) return { etag, kind: order.kind, open: order.kind === "none" ? [] : [...order.open], refused: seal.refused, foreign: seal.foreign };
    try {
      await api.setServeConfig(seal.config, etag);
    } catch (error) {
      if (!isChangedMeanwhile(error)) throw error;
    }
  }
  throw new SealError("The serve config is not as it was set: another program changes it all the time; find it by 'tailscale serve status'");
}

function ordered(config: ServeConfig, order: SealOrder): ReturnType<typeof sealedConfig> {
  return order.kind === "none" ? unsealedConfig(config) : sealedConfig(config, order.open, order.kind === "session" ? order.sessionId : null);
}

function isChangedMeanwhile(error: unknown): boolean {
  return error instanceof GatewayError && "status" in error && error.status === 412;
}

const PROVE_EVERY_MS = 60_000;
const FIRST_RETRY_MS = 1_000;
const MAX_RETRY_MS = 30_000;

/** Remembers what is proven, and when it must be proven again. Times are of performance.now(). */
export class SealKeeper {
  #proven: (SealState & { readonly key: string; readonly atMs: number }) | null = null;
  #isSuspect = false;
  #failures = 0;
  #retryAtMs = 0;
  /** Why it could not be set; empty when it could. */
  error = "";

  /** What is in force; null when that is not known. */
  get state(): SealState | null {
    return this.#proven;
  }

  /** Whether this very order is in force, as far as was looked. */
  holds(order: SealOrder): boolean {
    return this.#proven?.key === keyOf(order);
  }

  /** Somebody may have changed the serve config. */
  suspect(): void {
    this.#isSuspect = true;
    this.#retryAtMs = 0;
  }

  /** Another login, another tailscaled: nothing is known any more. */
  reset(): void {
    this.#proven = null;
    this.error = "";
    this.#failures = 0;
    this.#retryAtMs = 0;
  }

  /** That it cannot be set at all here. */
  refuse(error: string): void {
    this.reset();
    this.error = error;
  }

  /**
   * Brings the order in force when that is due.
   * @throws {LocalApiError} when tailscaled does not answer; what was proven before holds until it does
   */
  async keep(api: LocalApi, order: SealOrder): Promise<void> {
    const now = performance.now();
    const key = keyOf(order);
    const isFresh = this.#proven?.key === key && !this.#isSuspect && now - this.#proven.atMs < PROVE_EVERY_MS;
    if (isFresh || (this.#proven === null && now < this.#retryAtMs)) return;
    this.#isSuspect = false;
    try {
      const isSame = this.#proven?.key === key && (await api.isServeConfig(this.#proven.etag));
      const state = isSame && this.#proven !== null ? this.#proven : await applySeal(api, order);
      this.#proven = { ...state, key, atMs: performance.now() };
      this.error = "";
      this.#failures = 0;
    } catch (error) {
      this.#isSuspect = true;
      if (isNoAnswer(error)) throw error;
      this.#proven = null;
      this.error = `The ports that no listener opens could not be refused: ${error instanceof Error ? error.message : String(error)}`;
      this.#retryAtMs = performance.now() + Math.min(FIRST_RETRY_MS * 2 ** this.#failures, MAX_RETRY_MS);
      this.#failures += 1;
    }
  }
}

/** Whether tailscaled said nothing at all, so that nothing is known of it. What cannot be understood is an answer: it is not the one that was proven. */
export function isNoAnswer(error: unknown): boolean {
  return error instanceof LocalApiError && error.status === 0 && error.failure !== "bad_answer";
}

function keyOf(order: SealOrder): string {
  return order.kind === "none" ? "none" : JSON.stringify([order.kind, "sessionId" in order ? order.sessionId : "", ...order.open]);
}
