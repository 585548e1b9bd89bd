// Tells, early enough and once for each step, that a certificate comes to its end.
import { formatDuration } from "../lib/duration.ts";
import type { Log } from "../telemetry/log.ts";
import type { CertificateEvent } from "./events.ts";
import type { InternalCa } from "./internal-ca.ts";
import type { Life } from "./renew.ts";
import { createServerCertificate, type CertificateInfo } from "./source.ts";

const DAY_MS = 86_400_000;
const LOOK_EVERY_MS = 3_600_000;
const MAX_NAMES_SHOWN = 3;

/** Time before the end at which something is told, the least urgent first. `alert`: an event is made of it, too. */
const STEPS = [
  { beforeMs: 30 * DAY_MS, level: "info", alert: false },
  { beforeMs: 14 * DAY_MS, level: "warn", alert: false },
  { beforeMs: 7 * DAY_MS, level: "warn", alert: true },
  { beforeMs: DAY_MS, level: "error", alert: true },
  { beforeMs: 0, level: "error", alert: true },
] as const;

export type ExpiryWatchOptions = {
  /** Those of all listeners; the same one may come several times. */
  readonly certificates: () => Iterable<CertificateInfo>;
  /** Null when none is open. */
  readonly internalCa: () => Pick<InternalCa, "certFile" | "cert"> | null;
  readonly log: Log;
  readonly onEvent: (event: CertificateEvent) => void;
  readonly now?: () => number;
};

/** `look` looks at once: after a start, and after each reload. */
export type ExpiryWatch = { look(): void; close(): void };

/**
 * Looks every hour. Each certificate (source, names and end) is told once for each step that it passes, at first sight the most urgent one.
 * Leaves of the internal CA are left out, because they are issued anew in the next handshake; the CA itself is not.
 */
export function createExpiryWatch(options: ExpiryWatchOptions): ExpiryWatch {
  const { now = Date.now } = options;
  /** The step that each certificate is on. */
  let steps = new Map<string, number>();

  const look = (): void => {
    const seen = new Map<string, number>();
    for (const info of watched(options)) {
      if (info.notAfter === null) continue;
      const key = JSON.stringify([info.source, info.names, info.notAfter.getTime()]);
      if (seen.has(key)) continue;
      const step = stepOf(info, now());
      // A clock that was ahead and was put right takes the step back, so that it is told when its time comes.
      seen.set(key, step);
      if (step > (steps.get(key) ?? -1)) tell(info, info.notAfter, step, options, now());
    }
    steps = seen;
  };
  // One short timer, and the clock is read at each look: a machine that slept, or a clock that was set, is noticed within the hour.
  const timer = setInterval(look, LOOK_EVERY_MS).unref();
  return { look, close: () => clearInterval(timer) };
}

function* watched({ certificates, internalCa }: ExpiryWatchOptions): Iterable<CertificateInfo> {
  for (const info of certificates()) if (info.source !== "internal") yield info;
  const ca = internalCa();
  if (ca !== null) yield createServerCertificate("internal", ca.certFile, ["internal CA"], ca.cert, "").info;
}

/** Index of the most urgent step that was passed; -1 for none. */
function stepOf({ notBefore, notAfter }: CertificateInfo, nowMs: number): number {
  const endMs = notAfter?.getTime() ?? Infinity;
  const lifetimeMs = endMs - (notBefore?.getTime() ?? -Infinity);
  // A certificate of 90 days that renews itself 30 days before its end must not be told each time.
  return STEPS.findLastIndex(({ beforeMs }) => beforeMs < lifetimeMs / 3 && endMs - nowMs <= beforeMs);
}

function tell(info: CertificateInfo, notAfter: Date, index: number, { log, onEvent }: ExpiryWatchOptions, nowMs: number): void {
  const step = STEPS[index];
  if (step === undefined) return;
  const { source, names, file } = info;
  const expired = step.beforeMs === 0;
  const fields = { event: expired ? "certificate_expired" : "certificate_expiring", source, names, file, expires_at: notAfter.toISOString() };
  log[step.level](fields, `${describeEnd(source, names, notAfter, nowMs)}${remedy(info)}`);
  if (step.alert) onEvent({ kind: expired ? "expired" : "expiring", source, names, notAfter, reason: "" });
}

/** `The certificate for 'a.example' expires in 6d 12h (2027-06-01)`, or that it expired. */
export function describeEnd(source: CertificateInfo["source"], names: readonly string[], notAfter: Date, nowMs: number): string {
  const leftMs = notAfter.getTime() - nowMs;
  const subject = source === "internal" ? "The internal CA" : `The certificate for ${describeNames(names)}`;
  const when = leftMs > 0 ? `expires in ${formatDuration(leftMs)}` : `expired ${formatDuration(-leftMs)} ago`;
  return `${subject} ${when} (${notAfter.toISOString().slice(0, 10)})`;
}

function remedy({ source, file, error, renewAt }: CertificateInfo): string {
  switch (source) {
    case "file":
      return `: replace '${file ?? "its file"}' and its key, the gateway then takes them by itself`;
    case "acme":
    case "tailscale":
      if (error !== "") return ` and could not be renewed: ${error}`;
      return renewAt === null ? " and is not renewed" : `: it is to be renewed at ${renewAt.toISOString()}`;
    case "internal":
      return `: remove the directory of '${file ?? ""}', restart the gateway, and let the clients trust the new CA ('sidegate certs trust')`;
  }
}

/** The end of a sentence on a renewal that failed; empty when there is no certificate yet. */
export function describeServed(life: Life | null, nowMs: number): string {
  if (life === null) return "";
  const end = new Date(life.notAfterMs).toISOString();
  return life.notAfterMs > nowMs ? `; the present one serves and is valid until ${end}` : `; the present one goes on serving, but expired on ${end}`;
}

/** `'a.example'`, `'a.example' and 'b.example'`, `'a.example', 'b.example', 'c.example' and 4 more`. */
export function describeNames(names: readonly string[]): string {
  const shown = names.slice(0, names.length > MAX_NAMES_SHOWN + 1 ? MAX_NAMES_SHOWN : MAX_NAMES_SHOWN + 1).map((name) => `'${name}'`);
  const last = names.length > shown.length ? `${names.length - shown.length} more` : shown.pop();
  if (last === undefined) return "no names";
  return shown.length === 0 ? last : `${shown.join(", ")} and ${last}`;
}
