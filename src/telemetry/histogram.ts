// A histogram of durations that counts without allocating.

/** Upper bounds in seconds; requests take from a millisecond to a minute, sessions from a second to a day. */
export const HTTP_BUCKETS: readonly number[] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60];
export const TCP_BUCKETS: readonly number[] = [1, 5, 15, 60, 300, 900, 3_600, 14_400, 43_200, 86_400];

/** Counts of durations by bucket. `counts` has one more element than `bounds`, for everything above the last. */
export class Histogram {
  readonly bounds: readonly number[];
  readonly counts: Float64Array;
  sumSeconds = 0;

  constructor(bounds: readonly number[]) {
    this.bounds = bounds;
    this.counts = new Float64Array(bounds.length + 1);
  }

  observe(durationMs: number): void {
    const seconds = durationMs / 1_000;
    const { bounds, counts } = this;
    let i = 0;
    while (seconds > (bounds[i] ?? Infinity)) i += 1;
    counts[i] = (counts[i] ?? 0) + 1;
    this.sumSeconds += seconds;
  }
}
