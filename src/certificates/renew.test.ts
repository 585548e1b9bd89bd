import assert from "node:assert/strict";
import { test } from "node:test";
import { adoptSchedule, afterAsking, afterFailure, afterSuccess, backoffMs, createSchedule, isDue, nextAttemptMs, spreadOf, type Life } from "./renew.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NOW = Date.UTC(2026, 10, 21);
const fresh = createSchedule("plan", "leaf", NOW);

function life(lifetimeMs: number, spread = 0): Life {
  return { notBeforeMs: NOW, notAfterMs: NOW + lifetimeMs, spread };
}

test("without a window a certificate is renewed with a third of its life left, whatever its life, and up to 5 percent earlier", () => {
  for (const lifetime of [90 * DAY, 6 * DAY, 3 * MINUTE]) {
    assert.equal(nextAttemptMs(fresh, life(lifetime)), NOW + lifetime - lifetime / 3);
    assert.equal(nextAttemptMs(fresh, life(lifetime, 1)), NOW + lifetime - lifetime / 3 - lifetime * 0.05);
    const at = nextAttemptMs(fresh, life(lifetime, 0.5));
    assert.equal(isDue(fresh, life(lifetime, 0.5), at - 1), false);
    assert.equal(isDue(fresh, life(lifetime, 0.5), at), true);
  }
  assert.equal(isDue(fresh, null, NOW), true);
});

test("the spread belongs to the certificate", () => {
  const spreads = Array.from({ length: 100 }, (_, i) => spreadOf(`leaf ${i}`));
  assert.deepEqual(
    spreads,
    Array.from({ length: 100 }, (_, i) => spreadOf(`leaf ${i}`)),
  );
  assert.ok(Math.min(...spreads) < 0.1 && Math.max(...spreads) > 0.9 && Math.max(...spreads) < 1);
});

test("a window gives a moment in it that stays until the window changes; one in the past is now, one too late is not believed", () => {
  const window = { start: new Date(NOW + 10 * DAY), end: new Date(NOW + 20 * DAY), retryAfterMs: 6 * HOUR };
  const asked = afterAsking(fresh, window, NOW, 0.5);
  assert.equal(nextAttemptMs(asked, life(90 * DAY)), NOW + 15 * DAY);
  assert.equal(asked.askAtMs, NOW + 6 * HOUR);
  assert.equal(afterAsking(asked, window, NOW, 0.9).window?.atMs, NOW + 15 * DAY);
  assert.equal(afterAsking(asked, { ...window, end: new Date(NOW + 30 * DAY) }, NOW, 0.9).window?.atMs, NOW + 28 * DAY);
  const past = afterAsking(asked, { ...window, start: new Date(NOW - DAY), end: new Date(NOW - HOUR) }, NOW, 0.5);
  assert.equal(isDue(past, life(90 * DAY), NOW), true);
  const late = afterAsking(fresh, { ...window, start: new Date(NOW + 200 * DAY), end: new Date(NOW + 201 * DAY) }, NOW, 0.5);
  assert.equal(nextAttemptMs(late, life(90 * DAY)), NOW + 85.5 * DAY);
  assert.equal(nextAttemptMs(afterAsking(asked, null, NOW, 0.5), life(90 * DAY)), NOW + 60 * DAY);
});

test("a CA cannot make us ask all the time, or never again", () => {
  const window = { start: new Date(NOW), end: new Date(NOW + DAY), retryAfterMs: 0 };
  assert.equal(afterAsking(fresh, window, NOW, 0).askAtMs, NOW + MINUTE);
  assert.equal(afterAsking(fresh, { ...window, retryAfterMs: 1e12 }, NOW, 0).askAtMs, NOW + DAY);
});

test("failures wait 1, 2, 4 ... minutes, 12 hours at most, with jitter, and at least what the CA asks for", () => {
  assert.deepEqual(
    [1, 2, 3, 10, 11, 5_000].map((failures) => backoffMs(failures, 0.5) / MINUTE),
    [1, 2, 4, 512, 720, 720],
  );
  assert.equal(backoffMs(1, 0), 0.9 * MINUTE);
  assert.equal(backoffMs(1, 1), 1.1 * MINUTE);
  let schedule = afterFailure(fresh, "No", null, NOW, 0.5);
  assert.deepEqual([schedule.failures, schedule.error, schedule.retryAtMs], [1, "No", NOW + MINUTE]);
  schedule = afterFailure(schedule, "No", 3 * HOUR, NOW, 0.5);
  assert.deepEqual([schedule.failures, schedule.retryAtMs], [2, NOW + 3 * HOUR]);
  assert.equal(isDue(schedule, null, NOW + 3 * HOUR - 1), false);
  assert.equal(isDue(schedule, null, NOW + 3 * HOUR), true);
  assert.equal(afterFailure(schedule, "No", 1e12, NOW, 0.5).retryAtMs, NOW + 7 * DAY);
});

test("what was noted while the clock was wrong holds nothing back", () => {
  const schedule = afterFailure(fresh, "No", null, NOW + 365 * DAY, 0.5);
  assert.equal(isDue(schedule, null, NOW), true);
});

test("renewals that come right after each other are held back longer and longer", () => {
  const past = life(-DAY);
  const first = afterSuccess(createSchedule("plan", "", NOW), null, "a", false, NOW, 0.5);
  assert.equal(isDue(first, past, NOW), true);
  const second = afterSuccess(first, past, "b", false, NOW + 1, 0.5);
  assert.equal(nextAttemptMs(second, past), NOW + MINUTE + 1);
  assert.equal(isDue(second, past, NOW + MINUTE), false);
  assert.equal(isDue(second, past, NOW + MINUTE + 1), true);
  const third = afterSuccess(second, life(90 * DAY), "c", false, NOW + DAY, 0.5);
  assert.equal(third.earliestMs, NOW + DAY + 2 * MINUTE);
  // In their time, or when somebody asks for it.
  assert.equal(afterSuccess(third, life(90 * DAY), "d", false, NOW + 10 * DAY + 1, 0.5).earliestMs, 0);
  assert.equal(afterSuccess(third, life(90 * DAY), "d", true, NOW + DAY, 0.5).earliestMs, 0);
  assert.equal(afterSuccess(first, life(90_000), "b", false, NOW + MINUTE, 0.5).earliestMs, 0);
});

test("failures are remembered for the same plan, everything for the same certificate", () => {
  const stored = afterFailure(afterAsking(fresh, { start: new Date(NOW), end: new Date(NOW), retryAfterMs: HOUR }, NOW, 0), "No", null, NOW, 0.5);
  assert.equal(adoptSchedule(stored, "plan", "leaf", NOW), stored);
  assert.deepEqual(adoptSchedule(stored, "other plan", "leaf", NOW), { ...stored, planKey: "other plan", failures: 0, error: "", retryAtMs: 0, challenge: 0 });
  assert.deepEqual(adoptSchedule(stored, "plan", "other leaf", 5), createSchedule("plan", "other leaf", 5));
  assert.deepEqual(adoptSchedule(null, "plan", "leaf", 5), createSchedule("plan", "leaf", 5));
});
