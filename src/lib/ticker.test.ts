import assert from "node:assert/strict";
import { test } from "node:test";
import { startTicking, stopTicking, type Ticking } from "./ticker.ts";

test("everything that ticks does so until it leaves, also when it leaves during a tick", async () => {
  const ticks = [0, 0, 0, 0];
  const done = Promise.withResolvers<void>();
  const things: Ticking[] = ticks.map((_, i) => ({
    tickIndex: -1,
    tick() {
      ticks[i] = (ticks[i] ?? 0) + 1;
      if (i === 1) stopTicking(things[1] as Ticking);
      if (i === 2 && ticks[2] === 1) stopTicking(things[0] as Ticking);
      if (i === 3 && ticks[3] === 3) done.resolve();
    },
  }));
  for (const thing of things) startTicking(thing);
  startTicking(things[3] as Ticking);
  const alive = setInterval(() => {}, 1_000);
  await done.promise;
  clearInterval(alive);
  for (const thing of things) stopTicking(thing);
  assert.ok((ticks[0] ?? 0) <= 1);
  assert.equal(ticks[1], 1);
  assert.ok((ticks[2] ?? 0) >= 2);
  assert.equal(ticks[3], 3);
});
