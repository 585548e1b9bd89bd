// Counts of the TLS handshakes of one listener.

// Clients choose neither version nor cipher freely, and reasons are fixed words; a mistake must not cost memory without end.
const MAX_SERIES = 64;

export class TlsStats {
  /** Always 0: nothing keeps a removed listener's series. */
  readonly active = 0;
  retired = false;
  /** By `version\ncipher\nresumed`. */
  readonly handshakes = new Map<string, number>();
  readonly failures = new Map<string, number>();

  /** @param version as Node.js tells it: TLSv1.3. @param cipher IANA name. */
  handshake(version: string, cipher: string, resumed: boolean): void {
    add(this.handshakes, `${version}\n${cipher}\n${resumed}`);
  }

  /** @param reason one of a few fixed words */
  failed(reason: string): void {
    add(this.failures, reason);
  }
}

function add(counts: Map<string, number>, key: string): void {
  const known = counts.has(key) || counts.size < MAX_SERIES ? key : "other";
  counts.set(known, (counts.get(known) ?? 0) + 1);
}
