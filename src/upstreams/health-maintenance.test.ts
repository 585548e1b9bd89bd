import assert from "node:assert/strict";
import { test } from "node:test";
import { maintenanceEnd } from "./health-maintenance.ts";

const NIGHT = { text: "23:45-00:15 America/New_York", fromMinute: 23 * 60 + 45, toMinute: 15, timeZone: "America/New_York" };

function at(iso: string, window = NIGHT): string | null {
  return maintenanceEnd(window, Date.parse(iso));
}

test("a window over midnight is open on both of its sides, in winter and summer time", () => {
  assert.equal(at("2026-01-15T04:44:59Z"), null);
  assert.equal(at("2026-01-15T04:45:00Z"), "00:15 America/New_York");
  assert.equal(at("2026-01-15T05:00:00Z"), "00:15 America/New_York");
  assert.equal(at("2026-01-15T05:14:59Z"), "00:15 America/New_York");
  assert.equal(at("2026-01-15T05:15:00Z"), null);
  assert.equal(at("2026-07-15T03:50:00Z"), "00:15 America/New_York");
  assert.equal(at("2026-07-15T04:50:00Z"), null);
});

test("a window within a day is open between its ends", () => {
  const noon = { text: "11:30-12:30 Asia/Kolkata", fromMinute: 690, toMinute: 750, timeZone: "Asia/Kolkata" };
  assert.equal(at("2026-01-15T05:59:00Z", noon), null);
  assert.equal(at("2026-01-15T06:30:00Z", noon), "12:30 Asia/Kolkata");
  assert.equal(at("2026-01-15T07:00:00Z", noon), null);
});
