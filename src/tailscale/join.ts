// Decides what tailscaled is told next, so that the node comes to be as the plan says: from what it says and what was tried, nothing else.
import { printable } from "../lib/printable.ts";
import type { TailscaleNodePlan } from "../plan/model.ts";
import type { LocalPrefs, LocalStatus } from "./local-api-types.ts";
import { differingPrefs, isSameControl, plannedPrefs } from "./prefs.ts";

/** What was tried. Times are of performance.now(): a clock that is set at the start of a machine must not hold a key back. */
export type JoinMemory = {
  /** The login that was asked for last and has not come. `authKey` null: by a browser. */
  attempt: { readonly authKey: string | null; readonly controlUrl: string | null } | null;
  /** The auth key that was refused, why in words, and when it is tried again. */
  refused: { readonly authKey: string; readonly reason: string; readonly times: number; readonly retryAtMs: number } | null;
  /** The plan under which somebody ordered a logout: it holds until the key or the control server is another. */
  loggedOut: { readonly authKey: string | null; readonly controlUrl: string | null } | null;
};

export type JoinStep =
  | { readonly kind: "wait" }
  /** Changes preferences of the running backend. */
  | { readonly kind: "edit"; readonly prefs: Partial<LocalPrefs> }
  /** Starts the backend with all preferences and asks for a login, by the key or by a browser. */
  | { readonly kind: "login"; readonly authKey: string | null; readonly prefs: Partial<LocalPrefs> };

const WAIT: JoinStep = { kind: "wait" };
const FIRST_RETRY_MS = 5 * 60_000;
const MAX_RETRY_MS = 60 * 60_000;
const EXCHANGE_RETRY_MS = 60_000;

export function createJoinMemory(): JoinMemory {
  return { attempt: null, refused: null, loggedOut: null };
}

/** @param exitNodeId see `differingPrefs` */
export function nextStep(
  plan: TailscaleNodePlan,
  status: LocalStatus,
  prefs: LocalPrefs,
  memory: Readonly<JoinMemory>,
  exitNodeId: string | null,
  nowMs: number,
): JoinStep {
  if (isLoggedOutByCommand(plan, memory)) return WAIT;
  // Of whichever control server: a slip in its URL, or a variable that is not set, must not cost the node its login.
  if (holdsLogin(status, prefs)) {
    const differing = differingPrefs(plan, prefs, exitNodeId);
    const change = prefs.WantRunning ? differing : { ...differing, WantRunning: true };
    return Object.keys(change).length === 0 ? WAIT : { kind: "edit", prefs: change };
  }
  const authKey = usableKey(plan, memory, nowMs);
  const { attempt } = memory;
  if (attempt !== null && attempt.authKey === authKey && isSameControl(attempt.controlUrl, plan.controlUrl)) {
    // While a login is under way, what changed in the file goes along with it.
    const differing = differingPrefs(plan, prefs, exitNodeId);
    return Object.keys(differing).length === 0 ? WAIT : { kind: "edit", prefs: differing };
  }
  // Shields are up from the first moment: the serve config that seals can only be set after the login.
  const control = plan.controlUrl === null && status.haveNodeKey ? { ControlURL: prefs.ControlURL } : {};
  return { kind: "login", authKey, prefs: { ...plannedPrefs(plan), ...control, WantRunning: true, LoggedOut: false, ShieldsUp: true } };
}

/** Whether a logout that somebody ordered still holds. */
export function isLoggedOutByCommand(plan: TailscaleNodePlan, memory: Readonly<JoinMemory>): boolean {
  const { loggedOut } = memory;
  return loggedOut !== null && loggedOut.authKey === plan.authKey && isSameControl(loggedOut.controlUrl, plan.controlUrl);
}

/** Whether the node needs nothing but time: its login may still be on the way to the control server, but nobody has to do anything for it. */
export function holdsLogin(status: LocalStatus, prefs: LocalPrefs): boolean {
  return status.haveNodeKey && !prefs.LoggedOut && status.state !== "NeedsLogin" && status.self?.expired !== true;
}

/** The memory after the control server refused the key. One that was refused may become good: by an edit of the ACL, say. */
export function afterRefusal(memory: Readonly<JoinMemory>, authKey: string, reason: string, nowMs: number): JoinMemory {
  const times = memory.refused?.authKey === authKey ? memory.refused.times + 1 : 1;
  const retryAtMs = nowMs + Math.min(FIRST_RETRY_MS * 2 ** (times - 1), MAX_RETRY_MS);
  return { ...memory, attempt: null, refused: { authKey, reason, times, retryAtMs } };
}

/** The memory after no key could be had for an OAuth client secret: a login that is under way is not touched. */
export function afterFailedExchange(memory: Readonly<JoinMemory>, authKey: string, reason: string, nowMs: number): JoinMemory {
  return { ...memory, refused: { authKey, reason, times: 0, retryAtMs: nowMs + EXCHANGE_RETRY_MS } };
}

/**
 * Why the control server refuses the key and what to do, from what it answered.
 * @param said its words; keys in them are hidden
 */
export function refusalInWords(plan: TailscaleNodePlan, said: string): string {
  const where = plan.controlUrl === null ? "at https://login.tailscale.com/admin/settings/keys" : `on the control server '${plan.controlUrl}'`;
  const renew = `make another one ${where} and put it in 'tailscale.auth_key'`;
  const words = hideKeys(said, plan.authKey);
  if (/\btags?\b/i.test(words))
    return `The auth key does not admit the tags ${plan.tags.map((tag) => `'${tag}'`).join(", ")} ('${words}'): give the key these tags, or name their owner in 'tagOwners' of the ACL`;
  if (/expired/i.test(words)) return `The auth key has expired ('${words}'): ${renew}`;
  if (/\bused\b/i.test(words)) return `The auth key has been used already ('${words}'): ${renew}, a reusable one if the state is not kept`;
  return `The control server refuses the auth key ('${words}'): ${renew}`;
}

/** The text without auth keys and client secrets. */
export function hideKeys(text: string, authKey: string | null): string {
  const plain = authKey === null || authKey === "" ? text : text.replaceAll(authKey, "(key)");
  return printable(plain.replaceAll(/\b(?:tskey|hskey)-[\w-]+/g, "(key)"));
}

/** Whether the answer is about the rate of logins and not about the key: tailscaled waits and tries on by itself. */
export function isRateLimit(said: string): boolean {
  return /rate limited/i.test(said);
}

function usableKey(plan: TailscaleNodePlan, memory: Readonly<JoinMemory>, nowMs: number): string | null {
  const { refused } = memory;
  if (plan.authKey === null) return null;
  return refused?.authKey === plan.authKey && nowMs < refused.retryAtMs ? null : plan.authKey;
}
