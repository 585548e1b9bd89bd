// Durations and sizes as they are written in the file: 250ms, 30s, 64KiB.

const DURATION_UNITS_MS: Record<string, number> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 };
// setTimeout takes a signed 32-bit number of milliseconds: a longer one would fire at once.
const MAX_TIMER_MS = 2 ** 31 - 1;

/** `250ms`, `30s`, `1.5m`, `24h`, `90d` as milliseconds; null when the text is not a duration. */
export function parseDurationMs(text: string): number | null {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|h|d)$/.exec(text);
  const unit = DURATION_UNITS_MS[match?.[2] ?? ""];
  return unit === undefined ? null : Math.round(Number(match?.[1]) * unit);
}

/** A duration that a timer can wait for: capped at 24.8 days, the longest that Node.js takes. */
export function timerMs(ms: number): number {
  return Math.min(ms, MAX_TIMER_MS);
}

/** Milliseconds as people write them: 850ms, 12.3s, 4m 5s, 3h 20m, 2d 4h. */
export function formatDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  if (ms < 60_000) return `${Number((ms / 1_000).toFixed(1))}s`;
  const [large, largeMs, small, smallMs] =
    ms < 3_600_000
      ? (["m", 60_000, "s", 1_000] as const)
      : ms < 86_400_000
        ? (["h", 3_600_000, "m", 60_000] as const)
        : (["d", 86_400_000, "h", 3_600_000] as const);
  const rest = Math.floor((ms % largeMs) / smallMs);
  return `${Math.floor(ms / largeMs)}${large}${rest > 0 ? ` ${rest}${small}` : ""}`;
}

const SIZE_UNITS: Record<string, number> = { B: 1, KB: 1e3, MB: 1e6, GB: 1e9, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };

/** `512B`, `64KiB`, `10MB` as bytes; null when the text is not a size. */
export function parseSizeBytes(text: string): number | null {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)(B|KB|MB|GB|KiB|MiB|GiB)$/.exec(text);
  const unit = SIZE_UNITS[match?.[2] ?? ""];
  return unit === undefined ? null : Math.round(Number(match?.[1]) * unit);
}
