// When a certificate from an ACME CA is renewed or tried again: arithmetic alone, the clock and the dice are the caller's.
import { createHash } from "node:crypto";
import type { RenewalWindow } from "./acme-issuer.ts";

const MINUTE_MS = 60_000;
const DAY_MS = 86_400_000;
const FIRST_BACKOFF_MS = MINUTE_MS;
const MAX_BACKOFF_MS = DAY_MS / 2;
/** The longest that anything holds a certificate back: the widest of Let's Encrypt's limits counts a week. */
export const MAX_HOLD_MS = 7 * DAY_MS;
const MIN_ASK_MS = MINUTE_MS;
const MAX_ASK_MS = DAY_MS;
/** When a renewal window could not be had: RFC 9773 section 4.3.3 says six hours. */
export const ASK_AGAIN_MS = DAY_MS / 4;
const EARLY_MS = 10_000;

/** From when to when a certificate is valid, and its place among others of its age, from 0 to 1. */
export type Life = { readonly notBeforeMs: number; readonly notAfterMs: number; readonly spread: number };

/** What is remembered of a certificate over restarts, all times in milliseconds since 1970. */
export type Schedule = {
  /** Hash of how it is ordered. */
  readonly planKey: string;
  /** Fingerprint of the certificate that this is about; empty when there was none. */
  readonly leaf: string;
  /** Failed attempts in a row, why the last one failed, and when the next one is. */
  readonly failures: number;
  readonly error: string;
  readonly retryAtMs: number;
  /** Place of the challenge that worked last: a renewal begins with it, so that one that never works fails but once. */
  readonly challenge: number;
  readonly obtainedAtMs: number;
  /** How many times in a row a renewal came when the certificate was hardly had, and until when the next one is held back for that. */
  readonly early: number;
  readonly earliestMs: number;
  /** The CA's renewal window, the moment chosen in it, and when to ask for it again. */
  readonly window: { readonly startMs: number; readonly endMs: number; readonly atMs: number } | null;
  readonly askAtMs: number;
};

/** The schedule of a certificate that nothing is remembered of. @param leaf its fingerprint; empty when there is none. */
export function createSchedule(planKey: string, leaf: string, obtainedAtMs: number): Schedule {
  return { planKey, leaf, failures: 0, error: "", retryAtMs: 0, challenge: 0, obtainedAtMs, early: 0, earliestMs: 0, window: null, askAtMs: 0 };
}

/** What of a remembered schedule holds for this certificate and plan: failures under another plan are mended or outdated. */
export function adoptSchedule(stored: Schedule | null, planKey: string, leaf: string, obtainedAtMs: number): Schedule {
  if (stored?.leaf !== leaf) return createSchedule(planKey, leaf, obtainedAtMs);
  return stored.planKey === planKey ? stored : { ...stored, planKey, failures: 0, error: "", retryAtMs: 0, challenge: 0 };
}

/** A number from 0 to 1 that belongs to the certificate: the same after a restart and in every gateway. @param id of the certificate */
export function spreadOf(id: string): number {
  return createHash("sha256").update(id).digest().readUInt32BE(0) / 2 ** 32;
}

/** When it is to be ordered, for people: a time long past for a certificate that there is not (`life` null). */
export function nextAttemptMs(schedule: Schedule, life: Life | null): number {
  if (schedule.failures > 0) return schedule.retryAtMs;
  return life === null ? 0 : Math.max(schedule.earliestMs, renewalMs(life, schedule.window));
}

/** At the moment chosen in the CA's window, or when a third of the life is left, up to 5 percent earlier so that not all come at once. */
function renewalMs({ notBeforeMs, notAfterMs, spread }: Life, window: Schedule["window"]): number {
  const lifetimeMs = Math.max(0, notAfterMs - notBeforeMs);
  // A window after the end, or too near to it to try again, is a mistake of the CA.
  if (window !== null) return Math.min(window.atMs, notAfterMs - lifetimeMs * 0.05);
  return notAfterMs - lifetimeMs / 3 - lifetimeMs * 0.05 * spread;
}

/** Whether to order now. */
export function isDue(schedule: Schedule, life: Life | null, nowMs: number): boolean {
  if (schedule.failures > 0) return isOver(schedule.retryAtMs, nowMs);
  return life === null || (renewalMs(life, schedule.window) <= nowMs && isOver(schedule.earliestMs, nowMs));
}

/** Whether the time until which something is held back has come. One that lies farther off than anything is held back was noted while the clock was wrong. */
export function isOver(atMs: number, nowMs: number): boolean {
  return atMs <= nowMs || atMs - nowMs > MAX_HOLD_MS + MAX_BACKOFF_MS;
}

/** How long to wait after so many failures in a row: 1, 2, 4 ... minutes, 12 hours at most, each 10 percent more or less. @param random from 0 to 1 */
export function backoffMs(failures: number, random: number): number {
  return Math.min(FIRST_BACKOFF_MS * 2 ** Math.min(failures - 1, 20), MAX_BACKOFF_MS) * (0.9 + 0.2 * random);
}

/** The schedule after a failed attempt. @param retryAfterMs what the CA asks for; null when it does not say */
export function afterFailure(schedule: Schedule, error: string, retryAfterMs: number | null, nowMs: number, random: number): Schedule {
  const failures = schedule.failures + 1;
  const waitMs = Math.max(backoffMs(failures, random), Math.min(retryAfterMs ?? 0, MAX_HOLD_MS));
  return { ...schedule, failures, error, retryAtMs: nowMs + waitMs };
}

/**
 * The schedule after a success. One that was hardly had when it was renewed points to a wrong clock, or to a CA whose window is always past:
 * the first time it is believed, then it is held back as failures are.
 * @param previous life of the one before; null without one. @param asked somebody asked for it, so that nothing follows from when it was.
 */
export function afterSuccess(schedule: Schedule, previous: Life | null, leaf: string, asked: boolean, nowMs: number, random: number): Schedule {
  const lifetimeMs = previous === null ? 0 : previous.notAfterMs - previous.notBeforeMs;
  const isEarly = !asked && previous !== null && nowMs - schedule.obtainedAtMs < Math.max(EARLY_MS, lifetimeMs / 10);
  const early = isEarly ? schedule.early + 1 : 0;
  const challenge = schedule.challenge + schedule.failures;
  return { ...createSchedule(schedule.planKey, leaf, nowMs), challenge, early, earliestMs: early === 0 ? 0 : nowMs + backoffMs(early, random) };
}

/**
 * The schedule after the CA was asked for its window: the moment that was chosen stays while the window does (RFC 9773 section 4.2).
 * @param window null when the CA has none for the certificate
 */
export function afterAsking(schedule: Schedule, window: RenewalWindow | null, nowMs: number, random: number): Schedule {
  if (window === null) return { ...schedule, window: null, askAtMs: nowMs + MAX_ASK_MS };
  const [startMs, endMs] = [window.start.getTime(), window.end.getTime()];
  const isSame = schedule.window?.startMs === startMs && schedule.window.endMs === endMs;
  const atMs = isSame && schedule.window !== null ? schedule.window.atMs : startMs + Math.max(0, endMs - startMs) * random;
  const askAtMs = nowMs + Math.min(Math.max(window.retryAfterMs, MIN_ASK_MS), MAX_ASK_MS);
  return { ...schedule, window: { startMs, endMs, atMs }, askAtMs };
}
