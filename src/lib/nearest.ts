// The known word that somebody most likely meant by an unknown one.

/** Edits (insert, delete, replace, swap of neighbours) between two words. */
function distance(a: string, b: string): number {
  let beforeLast: number[] = [];
  let last = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i += 1) {
    const row = [i];
    for (let j = 1; j <= b.length; j += 1) {
      const cost = a[i - 1] === b[j - 1] ? 0 : 1;
      let best = Math.min((last[j] ?? 0) + 1, (row[j - 1] ?? 0) + 1, (last[j - 1] ?? 0) + cost);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) best = Math.min(best, (beforeLast[j - 2] ?? 0) + 1);
      row.push(best);
    }
    beforeLast = last;
    last = row;
  }
  return last[b.length] ?? 0;
}

/** The nearest of `known` to `word`, case and `-` for `_` aside; null when none is near: more than a third of the letters differ, and neither begins with the other. */
export function nearest(word: string, known: Iterable<string>): string | null {
  if (word.length > 100) return null;
  const plain = word.toLowerCase().replaceAll("-", "_");
  let best: string | null = null;
  let bestDistance = Infinity;
  for (const candidate of known) {
    const edits = distance(plain, candidate.toLowerCase().replaceAll("-", "_"));
    const allowed = Math.max(1, Math.floor(Math.max(word.length, candidate.length) / 3));
    if (edits <= allowed && edits < bestDistance) [best, bestDistance] = [candidate, edits];
  }
  // 'healthcheck' is far from 'health' by its letters, and yet meant.
  return (
    best ??
    Array.from(known).find((candidate) => candidate.length >= 3 && word.length >= 3 && (plain.startsWith(candidate) || candidate.startsWith(plain))) ??
    null
  );
}
