// One coarse clock for everything that has a deadline, because a timer for each request would cost more than the request's routing.

const TICK_MS = 100;

/** Called about every 100 ms while it is in the ticker, with the present time of performance.now(). */
export type Ticking = { tick(now: number): void };

const ticking = new Set<Ticking>();
let timer: NodeJS.Timeout | null = null;

export function startTicking(thing: Ticking): void {
  ticking.add(thing);
  timer ??= setInterval(tickAll, TICK_MS).unref();
}

export function stopTicking(thing: Ticking): void {
  ticking.delete(thing);
}

function tickAll(): void {
  if (ticking.size === 0 && timer !== null) {
    clearInterval(timer);
    timer = null;
    return;
  }
  const now = performance.now();
  for (const thing of ticking) thing.tick(now);
}
