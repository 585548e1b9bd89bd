// What is told of the node: its state, why, and what to do, from what is known at a moment.
import { formatDuration } from "../lib/duration.ts";
import { printable } from "../lib/printable.ts";
import type { TailscaleNodePlan, TailscalePlan } from "../plan/model.ts";
import { createJoinMemory, hideKeys, isLoggedOutByCommand, isRateLimit } from "./join.ts";
import type { JoinMemory } from "./join.ts";
import type { LocalPrefs, LocalStatus } from "./local-api-types.ts";
import { isSameControl } from "./prefs.ts";
import type { SealState } from "./seal.ts";
import type { TailnetState, TailnetStatus } from "./status.ts";

/** All that the picture is drawn from. Empty texts: nothing to say. */
export type Facts = {
  readonly plan: TailscalePlan;
  readonly socket: string;
  readonly restarts: number;
  /** Why tailscaled does not run or does not answer. */
  readonly trouble: string;
  /** It does not answer now: what is known of it is from before. */
  readonly silent: boolean;
  /** Null: not known at present. `prefs` is null for a tailscaled that is not ours, too. */
  readonly status: LocalStatus | null;
  readonly prefs: LocalPrefs | null;
  readonly memory: Readonly<JoinMemory>;
  /** What the control server answered last, on the bus. */
  readonly said: string;
  /** Why tailscaled did not take the settings. */
  readonly refusedSettings: string;
  /** Null: not proven to be in force. */
  readonly seal: SealState | null;
  readonly sealError: string;
  /** When preferences were changed last; 0 when they were not. */
  readonly changedAtMs: number;
  /** Tags that were changed when the node ran last and what the node had before: the control server may have ended the login for it. */
  readonly changedTags: readonly string[] | null;
  /** Since when it joins; null when it does not. */
  readonly joiningMs: number | null;
  readonly nowMs: number;
};

const DAY_MS = 86_400_000;
const EXPIRY_NOTICE_MS = 7 * DAY_MS;
const SETTLING_MS = 5_000;
const ADMIN = "https://login.tailscale.com/admin/machines";
// What tailscaled finds wrong while it cannot reach a server (health/warnings.go), and what Go says of networks.
const COMPLAINT = /coordination server|last login error|network map|network is down|relay server|encrypted connection/i;
const LOGIN_ERROR = /last login error was: (.*)/s;
const NETWORK = /control key|register request|noise|dial|connect|EOF|time(?:d )?out|deadline|lookup|no such host|reset|tls:|x509|certificate|network/i;

/** @returns what `status` shows; each text ends without a full stop */
export function drawPicture(facts: Facts): TailnetStatus {
  const { plan, status } = facts;
  const state = stateOf(facts);
  const self = status?.self ?? null;
  const isSealed = facts.seal !== null;
  const isUp = state === "running" && (plan.kind === "external" || facts.prefs?.ShieldsUp === false);
  const url = state === "needs_login" || state === "expired" ? (status?.authUrl ?? "") : "";
  return {
    mode: plan.kind === "external" ? "external" : plan.tun ? "tun" : "userspace",
    state,
    reason: reasons(facts, state).join("; "),
    serving: isUp && !facts.silent && (!plan.seal || isSealed),
    warnings: state === "running" ? warningsOf(facts) : [],
    login_url: plan.kind === "own" && url !== "" ? url : null,
    hostname: plan.kind === "own" ? plan.hostname : null,
    name: self?.dnsName ?? "",
    tailnet: status?.tailnet ?? "",
    addresses: status?.addresses ?? [],
    user: self === null || self.tags.length > 0 ? null : self.user,
    tags: self?.tags ?? [],
    key_expires_at: self?.keyExpiry?.toISOString() ?? null,
    version: status?.version ?? "",
    socket: facts.socket,
    restarts: facts.restarts,
    seal: {
      enabled: plan.seal,
      // A port that listeners do not open any more is open until the next look.
      active: plan.seal && facts.seal !== null && facts.seal.open.every((port) => plan.ports.includes(port)),
      open: plan.seal ? (facts.seal?.open ?? []) : plan.ports,
      refused: plan.seal ? (facts.seal?.refused ?? 0) : 0,
      foreign: facts.seal?.foreign ?? [],
      error: facts.sealError,
    },
  };
}

/** The picture while there is no tailscaled for the plan yet. */
export function pictureBefore(plan: TailscalePlan): TailnetStatus {
  const unknown = {
    socket: "",
    restarts: 0,
    status: null,
    prefs: null,
    said: "",
    refusedSettings: "",
    silent: false,
    changedAtMs: 0,
    seal: null,
    sealError: "",
    changedTags: null,
    joiningMs: null,
  };
  return drawPicture({ ...unknown, plan, trouble: "tailscaled is about to start", memory: createJoinMemory(), nowMs: Date.now() });
}

function stateOf({ plan, trouble, status, prefs, memory }: Facts): TailnetState {
  if (plan.kind === "own" && isLoggedOutByCommand(plan, memory)) return "stopped";
  if (status === null) return trouble === "" ? "starting" : "off";
  if (status.state === "Running") return "running";
  if (status.state === "NeedsMachineAuth") return "needs_approval";
  if (status.state === "InUseOtherUser") return "stopped";
  if (status.self?.expired === true) return "expired";
  if (plan.kind === "external") return status.state === "NeedsLogin" ? "needs_login" : status.state === "Stopped" ? "stopped" : "starting";
  // With a key nobody is asked for anything, as long as it is not refused.
  const isAsking = status.authUrl !== "" || plan.authKey === null || memory.refused?.authKey === plan.authKey;
  return status.state === "NeedsLogin" && isAsking && (prefs?.WantRunning ?? true) ? "needs_login" : "starting";
}

function reasons(facts: Facts, state: TailnetState): string[] {
  const { plan, joiningMs } = facts;
  const found: string[] = [
    facts.trouble,
    ...(plan.kind === "external" ? externalReasons(facts, state) : ownReasons(facts, plan, state)),
    facts.refusedSettings,
  ];
  if (state === "running") {
    if (facts.sealError !== "") found.push(`${facts.sealError}; nobody is admitted before the other ports are refused`);
    for (const port of plan.ports)
      if (facts.seal?.foreign.includes(port) === true)
        found.push(`Port ${port} is taken by another serve config: take it away by 'tailscale serve --tcp=${port} off', or listen on another port`);
  }
  if (joiningMs !== null && joiningMs >= plan.timeoutMs && state === "starting") {
    if (found.join("") === "" && facts.status?.self === null) found.push("The control server does not answer: see that this machine reaches it");
    found.push(`It has been joining for ${formatDuration(joiningMs)} and tries on`);
  }
  return found.filter((text) => text !== "");
}

function externalReasons(facts: Facts, state: TailnetState): string[] {
  const { plan } = facts;
  const socket = plan.kind === "external" ? plan.socket : "";
  if (state === "needs_login") return [`The tailscaled at '${socket}' is not logged in: run 'tailscale up' there`];
  if (state === "stopped") return [`The tailscaled at '${socket}' is down: run 'tailscale up' there`];
  if (state === "needs_approval") return [`The node of the tailscaled at '${socket}' waits for approval by an administrator: see ${ADMIN}`];
  if (state === "expired") return [`The node key of the tailscaled at '${socket}' has expired: run 'tailscale up --force-reauth' there`];
  return state === "starting" ? controlTrouble(facts) : [];
}

function ownReasons(facts: Facts, plan: TailscaleNodePlan, state: TailnetState): string[] {
  const { status, memory } = facts;
  const refused = memory.refused?.authKey === plan.authKey ? (memory.refused?.reason ?? "") : "";
  const url = status?.authUrl ?? "";
  const logIn = url === "" ? "" : `To log in, open ${url}`;
  switch (state) {
    case "stopped":
      if (!isLoggedOutByCommand(plan, memory)) return ["Another user of this machine has tailscaled"];
      return ["Logged out by command: to join again, restart the gateway or change 'tailscale.auth_key'"];
    case "needs_approval":
      return [
        `The node waits for approval by an administrator of the tailnet: ${plan.controlUrl === null ? `see ${ADMIN}` : `see the control server '${plan.controlUrl}'`}`,
      ];
    case "needs_login":
      return [
        refused,
        logIn === "" ? "The node is not logged in: the URL of a login is being asked for" : logIn,
        ...(logIn === "" && refused === "" ? controlTrouble(facts) : []),
      ];
    case "expired":
      return [
        expiredWhy(facts),
        refused,
        logIn === "" ? "Put a new auth key in 'tailscale.auth_key', or let an administrator extend the key of the node" : logIn,
      ];
    case "starting":
      return controlTrouble(facts);
    case "off":
    case "running":
      return [];
  }
}

function expiredWhy({ changedTags, status }: Facts): string {
  if (changedTags !== null)
    return `The control server ended the login when the tags became ${changedTags.map((tag) => `'${tag}'`).join(", ") || "none"}: the ACL does not let this node take them; name their owner in 'tagOwners', or take the tags back`;
  const at = status?.self?.keyExpiry;
  return `The key of the node has expired${at === null || at === undefined ? "" : ` on ${at.toISOString().slice(0, 10)}`}`;
}

/** What keeps the control server from letting the node in, as tailscaled says. */
function controlTrouble({ plan, status, said, memory }: Facts): string[] {
  const own = plan.kind === "own" ? plan : null;
  const where = own === null || own.controlUrl === null ? "the control server" : `the control server '${own.controlUrl}'`;
  const complaint = (status?.health ?? []).find((text) => COMPLAINT.test(text)) ?? "";
  const words = said === "" ? (LOGIN_ERROR.exec(complaint)?.[1] ?? complaint) : said;
  if (words === "") return [];
  const plain = hideKeys(words, own?.authKey ?? null);
  if (said === "" && (NETWORK.test(words) || words === complaint)) return [`tailscaled cannot reach ${where}: ${plain}`];
  // What it answers to a key is told as the refusal of that key; until then it is about the attempt before.
  return memory.attempt !== null && memory.attempt.authKey !== null && !isRateLimit(words) ? [] : [`The login is refused by ${where}: ${plain}`];
}

function warningsOf({ plan, status, prefs, nowMs, seal, changedAtMs }: Facts): string[] {
  const self = status?.self ?? null;
  if (self === null || status === null) return [];
  const found: string[] = [];
  if (plan.kind === "own" && plan.controlUrl !== null && prefs !== null && !isSameControl(prefs.ControlURL, plan.controlUrl))
    found.push(
      `The node belongs to ${prefs.ControlURL === "" ? "Tailscale's own control server" : `the control server '${prefs.ControlURL}'`} and stays there, although 'tailscale.control_url' names another one: to move it, run 'sidegate tailnet logout' and restart the gateway`,
    );
  const granted = self.dnsName.split(".")[0] ?? "";
  // The control server needs a moment to grant what is new.
  if (plan.kind === "own" && nowMs - changedAtMs >= SETTLING_MS) {
    if (plan.hostname !== null && granted !== "" && granted !== plan.hostname.toLowerCase())
      found.push(
        `The name '${granted}' was granted instead of '${plan.hostname}': another node has it; take that one away in the admin console, and keep '${plan.stateDir}' on a volume`,
      );
    const missing = plan.tags.filter((tag) => !self.tags.includes(tag));
    if (missing.length > 0)
      found.push(
        `The tags ${missing.map((tag) => `'${tag}'`).join(", ")} were not granted: give the auth key these tags, or name their owner in 'tagOwners' of the ACL`,
      );
  }
  const leftMs = self.keyExpiry === null ? Infinity : self.keyExpiry.getTime() - nowMs;
  if (leftMs < EXPIRY_NOTICE_MS)
    found.push(
      `The key of the node expires on ${self.keyExpiry?.toISOString().slice(0, 16)}Z: log in anew before, switch the expiry off in the admin console, or use tags`,
    );
  if (!plan.seal && !status.tun)
    found.push(
      "The node is not sealed: the tailnet reaches every TCP port of this machine's localhost, also those that no listener opens; set 'tailscale.seal: true'",
    );
  if (plan.seal && seal !== null && seal.foreign.length > 0)
    found.push(`Another serve config opens ports of the node: ${seal.foreign.slice(0, 10).join(", ")}${seal.foreign.length > 10 ? " and more" : ""}`);
  for (const text of status.health) if (COMPLAINT.test(text)) found.push(`tailscaled complains: ${printable(text)}`);
  return found;
}
