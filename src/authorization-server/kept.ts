// What we kept ourselves, read again.

/** Null for null, and for what is no JSON. The shape is what we wrote: the store is sealed. */
export function tryParseJson(text: string | null): unknown {
  if (text === null) return null;
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
