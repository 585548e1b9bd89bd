// The metrics of certificates and TLS: ends, renewals, alerts and handshakes.
import type { Exposition } from "./exposition.ts";
import type { TlsStats } from "./tls-stats.ts";

/** `name`: the first name of the certificate, or its file when it has none. `notAfter` null: it was not issued yet. */
export type CertificateSample = { readonly source: string; readonly name: string; readonly notAfter: Date | null };

/** `delivered`: the receiver took it. `failed`: given up. `dropped`: pushed out of the queue by newer ones. */
export type AlertResult = "delivered" | "failed" | "dropped";

/** Counts what happened to certificates, and what people were told of it. */
export class CertificateMetrics {
  readonly #renewals = { success: 0, failure: 0 };
  readonly #alerts: Record<AlertResult, number> = { delivered: 0, failed: 0, dropped: 0 };

  /** An attempt to get a certificate ended, the first one or the next. */
  renewal(ok: boolean): void {
    this.#renewals[ok ? "success" : "failure"] += 1;
  }

  alert(result: AlertResult): void {
    this.#alerts[result] += 1;
  }

  write(out: Exposition, certificates: Iterable<CertificateSample>, nowMs: number): void {
    out.family("sidegate_certificate_expiry_seconds", "gauge", "Time until the certificate ends, negative afterwards; one that was not issued yet has none.");
    for (const [labels, endMs] of soonestEnds(certificates)) out.sample("sidegate_certificate_expiry_seconds", labels, (endMs - nowMs) / 1_000);
    out.family("sidegate_certificate_renewals_total", "counter", "Attempts to get a certificate, the first one or the next.");
    for (const [result, count] of Object.entries(this.#renewals)) out.sample("sidegate_certificate_renewals_total", { result }, count);
    out.family("sidegate_alerts_total", "counter", "Alerts to the webhook that were delivered, given up, or dropped because too many waited.");
    for (const [result, count] of Object.entries(this.#alerts)) out.sample("sidegate_alerts_total", { result }, count);
  }
}

// Two certificates may begin with the same name, and two samples with the same labels would make a scrape fail: the one that ends first counts.
function soonestEnds(certificates: Iterable<CertificateSample>): Iterable<readonly [{ readonly source: string; readonly name: string }, number]> {
  const ends = new Map<string, readonly [{ readonly source: string; readonly name: string }, number]>();
  for (const { source, name, notAfter } of certificates) {
    if (notAfter === null) continue;
    const key = `${source}\n${name}`;
    const [, known = Infinity] = ends.get(key) ?? [];
    ends.set(key, [{ source, name }, Math.min(known, notAfter.getTime())]);
  }
  return ends.values();
}

export function writeTls(out: Exposition, all: readonly { readonly listener: string; readonly stats: TlsStats }[]): void {
  out.family("sidegate_tls_handshakes_total", "counter", "TLS handshakes that succeeded.");
  for (const { listener, stats } of all) {
    for (const [key, count] of stats.handshakes) {
      const [version = "other", cipher = "other", resumed = "other"] = key.split("\n");
      out.sample("sidegate_tls_handshakes_total", { listener, version, cipher, resumed }, count);
    }
  }
  out.family("sidegate_tls_handshake_failures_total", "counter", "TLS handshakes that failed, by reason.");
  for (const { listener, stats } of all) {
    for (const [reason, count] of stats.failures) out.sample("sidegate_tls_handshake_failures_total", { listener, reason }, count);
  }
}
