// The daily window in which an upstream may be away: IB Gateway restarts every night.
import type { MaintenanceWindow } from "../plan/model.ts";

/** When the window ends ("00:15 America/New_York") if `nowMs` is in it, else null. The first minute belongs to it, the last does not. */
export function maintenanceEnd(window: MaintenanceWindow, nowMs: number): string | null {
  const { fromMinute, toMinute, timeZone } = window;
  const minute = minuteOfDay(nowMs, timeZone);
  const inside = fromMinute <= toMinute ? minute >= fromMinute && minute < toMinute : minute >= fromMinute || minute < toMinute;
  return inside ? `${twoDigits(Math.floor(toMinute / 60))}:${twoDigits(toMinute % 60)} ${timeZone}` : null;
}

/** Minutes on the wall clock of the zone, so that the window keeps its place through summer time. */
function minuteOfDay(nowMs: number, timeZone: string): number {
  const parts = new Intl.DateTimeFormat("en-US", { timeZone, hourCycle: "h23", hour: "numeric", minute: "numeric" }).formatToParts(nowMs);
  const value = (type: "hour" | "minute"): number => Number(parts.find((part) => part.type === type)?.value);
  return value("hour") * 60 + value("minute");
}

function twoDigits(value: number): string {
  return String(value).padStart(2, "0");
}
