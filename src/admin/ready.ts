// Whether the gateway does its work, and if not, what is unwell.
import { formatDuration } from "../lib/duration.ts";
import type { TailnetState, TailnetStatus } from "../tailscale/status.ts";
import type { CertificateStatus, GatewayStatus, StatusProblem } from "./status.ts";

const EXPIRY_WARNING_MS = 7 * 86_400_000;

export type Unwell = {
  readonly what: "gateway" | "config" | "listener" | "upstream" | "certificate" | "state" | "tailnet" | "issuer" | "login";
  readonly name: string;
  readonly reason: string;
};

/** `degraded`: it serves, but somebody should look. Only `unready` is answered with 503. */
export type Readiness = { readonly status: "ready" | "degraded" | "unready"; readonly problems: readonly Unwell[] };

/**
 * A refused configuration is only degraded: the last good one serves, and an orchestrator that took the gateway out of service for it
 * would turn a slip of the pen into an outage. An upstream is unready when no target of it is left. A tailnet that cannot be served is unready,
 * also while it is being joined: a listener that the file declares does not serve, and who waits for the gateway waits for that.
 * An identity provider that fails only degrades: whoever is logged in goes on, and no other gateway could ask it better.
 */
export function buildReadiness(status: GatewayStatus, now = new Date()): Readiness {
  const severe: Unwell[] = [];
  const mild: Unwell[] = [];
  if (status.stopping) severe.push({ what: "gateway", name: "sidegate", reason: "stopping" });
  for (const { name, down } of status.listeners) if (down !== "") severe.push({ what: "listener", name, reason: down });
  for (const { name, targets } of status.upstreams) {
    const isDown = targets.length > 0 && targets.every(({ health }) => health === "unhealthy");
    for (const { url, health, reason } of targets) {
      // Not judged yet, or not checked at all: what went wrong last is worth a look.
      if (health === "healthy" || (health === "unknown" && reason === "")) continue;
      const unwell: Unwell = { what: "upstream", name, reason: `${targets.length > 1 ? `${url}: ` : ""}${reason === "" ? health : reason}` };
      (isDown ? severe : mild).push(unwell);
    }
  }
  for (const certificate of status.certificates) {
    const reason = certificateReason(certificate, now.getTime());
    if (reason !== null) mild.push({ what: "certificate", name: certificate.names.join(" ") || (certificate.file ?? certificate.source), reason });
  }
  if (status.tailnet !== null) {
    const { name, hostname, serving, reason, warnings } = status.tailnet;
    const what = { what: "tailnet", name: name || (hostname ?? "") || "tailscale" } as const;
    if (!serving) severe.push({ ...what, reason: whyNotServing(status.tailnet) });
    else if (reason !== "") mild.push({ ...what, reason });
    for (const warning of warnings) mild.push({ ...what, reason: warning });
  }
  for (const { kind, name, error, since } of status.identity_providers)
    if (error !== "") mild.push({ what: kind, name, reason: `fails since ${since}: ${withoutName(error, name)}` });
  const { dir, error } = status.state;
  if (error !== "") mild.push({ what: "state", name: dir, reason: error });
  const { refused, file } = status.config;
  if (refused !== null) mild.push({ what: "config", name: file, reason: describeProblems(refused.problems) });
  return { status: severe.length > 0 ? "unready" : mild.length > 0 ? "degraded" : "ready", problems: [...severe, ...mild] };
}

const STATES: Record<TailnetState, string> = {
  off: "tailscaled is being started",
  starting: "joining the tailnet",
  needs_login: "somebody must log in",
  needs_approval: "an administrator of the tailnet must approve the node",
  stopped: "the node is not on the tailnet: it was logged out or told to be down",
  expired: "the key of the node has expired: somebody must log in again",
  running: "the ports of the node are being sealed",
};

/** Why connections from the tailnet are not served, with the URL of the login when somebody must open it. */
function whyNotServing({ state, reason, login_url, seal }: TailnetStatus): string {
  const why = reason || seal.error || STATES[state];
  return login_url === null || why.includes(login_url) ? why : `${why}: ${login_url}`;
}

/** What is wrong with a certificate; null when nothing is. */
function certificateReason({ valid_from, expires_at, error }: CertificateStatus, nowMs: number): string | null {
  if (expires_at === null) return `no certificate yet: ${error === "" ? "being ordered" : error}`;
  const because = error === "" ? "" : `: ${error}`;
  const leftMs = Date.parse(expires_at) - nowMs;
  if (leftMs <= 0) return `expired ${formatDuration(-leftMs)} ago, at ${expires_at}${because}`;
  if (!isNearEnd(valid_from, expires_at, nowMs)) return null;
  return `expires in ${formatDuration(leftMs)}, at ${expires_at}${because}`;
}

/** Whether less than a week is left, and less than a quarter of the lifetime: certificates of six days are renewed in time, too. */
export function isNearEnd(validFrom: string | null, expiresAt: string, nowMs: number): boolean {
  const endMs = Date.parse(expiresAt);
  const lifetimeMs = validFrom === null ? Infinity : endMs - Date.parse(validFrom);
  return endMs - nowMs < Math.min(EXPIRY_WARNING_MS, lifetimeMs / 4);
}

/** The name stands before the reason already. */
function withoutName(error: string, name: string): string {
  return error.replace(`Issuer '${name}' `, "").replace(` of issuer '${name}'`, "");
}

function describeProblems(problems: readonly StatusProblem[]): string {
  const [first] = problems;
  if (first === undefined) return "refused";
  const column = first.column === undefined ? "" : `, column ${first.column}`;
  const place = first.line === undefined || first.line === 0 ? "" : `line ${first.line}${column}: `;
  const more = problems.length - 1;
  return `refused, the last good one serves: ${place}${first.message}${more > 0 ? ` (and ${more} more ${more === 1 ? "problem" : "problems"})` : ""}`;
}
