// Daily maintenance windows as they are written in the file: "23:45-00:15 America/New_York".

/** Whether the name is one of the IANA time zone database. */
export function isTimeZone(name: string): boolean {
  // Intl takes offsets such as +02:00 too, which know no summer time.
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    return new Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone !== "";
  } catch {
    return false;
  }
}

function parseMinute(text: string | undefined): number | null {
  const match = /^([01]\d|2[0-3]):([0-5]\d)$/.exec(text ?? "");
  return match === null ? null : Number(match[1]) * 60 + Number(match[2]);
}

/** Minutes after local midnight and the time zone; null when the text is no window, or an empty one. */
export function parseMaintenance(text: string): { readonly fromMinute: number; readonly toMinute: number; readonly timeZone: string } | null {
  const match = /^(\d\d:\d\d)-(\d\d:\d\d) (\S+)$/.exec(text);
  const [fromMinute, toMinute, timeZone] = [parseMinute(match?.[1]), parseMinute(match?.[2]), match?.[3]];
  if (fromMinute === null || toMinute === null || fromMinute === toMinute || timeZone === undefined || !isTimeZone(timeZone)) return null;
  return { fromMinute, toMinute, timeZone };
}
