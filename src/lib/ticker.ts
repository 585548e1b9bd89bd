// One coarse clock for everything that has a deadline, because a timer for each request would cost more than the request's routing.

const TICK_MS = 100;

/** Called about every 100 ms while it is in the ticker, with the present time of performance.now(). `tickIndex` is the ticker's; -1 at first. */
export type Ticking = { tickIndex: number; tick(now: number): void };

// Each knows its place, so that leaving costs nothing. In a Set the entries that are gone go on to be traced until it grows: measured
// as a tenth of the CPU time of a busy proxy, spent in the garbage collector.
const ticking: Ticking[] = [];
let timer: NodeJS.Timeout | null = null;

export function startTicking(thing: Ticking): void {
  if (thing.tickIndex !== -1) return;
  thing.tickIndex = ticking.length;
  ticking.push(thing);
  timer ??= setInterval(tickAll, TICK_MS).unref();
}

export function stopTicking(thing: Ticking): void {
  const index = thing.tickIndex;
  if (index === -1) return;
  thing.tickIndex = -1;
  const last = ticking.pop();
  if (last === undefined || last === thing) return;
  ticking[index] = last;
  last.tickIndex = index;
}

function tickAll(): void {
  if (ticking.length === 0 && timer !== null) {
    clearInterval(timer);
    timer = null;
    return;
  }
  const now = performance.now();
  // From the end: one that leaves during its tick is replaced by one that had its turn.
  for (let i = ticking.length - 1; i >= 0; i -= 1) ticking[i]?.tick(now);
}
