// Which certificate events people are alerted of, how often, and in what words.
import { hostname } from "node:os";
import type { CertificateEvent } from "./events.ts";
import { describeEnd, describeNames } from "./expiry.ts";

const DAY_MS = 86_400_000;
// What was told long ago is forgotten, so that certificates that are no longer there cost no memory.
const FORGET_AFTER_MS = 30 * DAY_MS;

export type AlertsOptions = {
  /** As that of a webhook: returns at once. */
  readonly send: (type: string, text: string, data: Readonly<Record<string, unknown>>) => void;
  readonly now?: () => number;
  /** Of this machine, which tells several gateways apart. */
  readonly host?: string;
};

/**
 * Takes every event and sends on what is worth an alert. The same event comes at most once a day; a failed renewal at once and then daily
 * while it goes on, and once more when it succeeds at last. Renewals without trouble are not told.
 */
export function createCertificateAlerts({ send, now = Date.now, host = hostname() }: AlertsOptions): { tell(event: CertificateEvent): void } {
  const toldAt = new Map<string, number>();

  return {
    tell(event) {
      const { kind, source, names, notAfter, reason } = event;
      const nowMs = now();
      for (const [key, atMs] of toldAt) if (nowMs - atMs > FORGET_AFTER_MS) toldAt.delete(key);
      const certificate = JSON.stringify([source, names]);
      const failure = `renewal_failed ${certificate}`;
      if (kind === "renewed") {
        if (!toldAt.delete(failure)) return;
      } else {
        const key = kind === "renewal_failed" ? failure : `${kind} ${certificate} ${notAfter?.getTime()}`;
        const atMs = toldAt.get(key);
        // A clock that was set back does not silence anything for longer than a day.
        if (atMs !== undefined && Math.abs(nowMs - atMs) < DAY_MS) return;
        toldAt.set(key, nowMs);
      }
      send(`certificate.${kind}`, `Sidegate on '${host}': ${describeEvent(event, nowMs)}`, {
        host,
        source,
        names,
        expires_at: notAfter?.toISOString() ?? null,
        reason,
      });
    },
  };
}

function describeEvent({ kind, source, names, notAfter, reason }: CertificateEvent, nowMs: number): string {
  switch (kind) {
    case "renewed":
      return `The certificate for ${describeNames(names)} is renewed at last${notAfter === null ? "" : `, it lasts until ${notAfter.toISOString().slice(0, 10)}`}`;
    case "renewal_failed": {
      if (notAfter === null) return `There is no certificate for ${describeNames(names)} yet: ${reason}`;
      return `The certificate for ${describeNames(names)} could not be renewed (${notAfter.getTime() > nowMs ? "the present one lasts until" : "the present one expired on"} ${notAfter.toISOString().slice(0, 10)}): ${reason}`;
    }
    case "expiring":
    case "expired": {
      const why = "'sidegate certs' shows why it was not renewed";
      const remedy = { file: "replace its file", acme: why, tailscale: why, internal: "'sidegate certs trust' shows where it is" }[source];
      return `${notAfter === null ? `The certificate for ${describeNames(names)} is over` : describeEnd(source, names, notAfter, nowMs)}: ${remedy}`;
    }
  }
}
