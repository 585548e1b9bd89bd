// JSON that every reader takes for the same: an object with a key twice means one thing to us and another to an upstream.

// A body of the largest size with nothing but brackets would hold up everybody else for a second; what is big and meant is made of long texts.
const MAX_PARTS = 250_000;

/**
 * Parses bytes as JSON.
 * @returns null when they are not UTF-8 or not JSON; a byte order mark is no JSON either (RFC 8259, 8.1). "complex" when there are more than 250,000 values.
 */
export function parseJson(bytes: Uint8Array): { readonly value: unknown; readonly hasDuplicateKeys: boolean } | "complex" | null {
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    const look = lookAtKeys(text);
    return look === "complex" ? look : { value: JSON.parse(text) as unknown, hasDuplicateKeys: look === "duplicate" };
  } catch {
    return null;
  }
}

/** Whether some object has a key twice, however it is escaped (RFC 8259, 4). @param text what it says of one that is no JSON means nothing; it may throw then */
function lookAtKeys(text: string): "plain" | "duplicate" | "complex" {
  let parts = 0;
  let found: "plain" | "duplicate" = "plain";
  // Of each open object its keys, of each open array null.
  const open: (Set<string> | null)[] = [];
  let isKey = false;
  for (let i = 0; i < text.length; i += 1) {
    switch (text.charCodeAt(i)) {
      case 0x7b: // {
        if ((parts += 1) > MAX_PARTS) return "complex";
        open.push(new Set());
        isKey = true;
        break;
      case 0x5b: // [
        if ((parts += 1) > MAX_PARTS) return "complex";
        open.push(null);
        isKey = false;
        break;
      case 0x7d: // }
      case 0x5d: // ]
        open.pop();
        isKey = false;
        break;
      case 0x2c: // ,
        if ((parts += 1) > MAX_PARTS) return "complex";
        isKey = (open.at(-1) ?? null) !== null;
        break;
      case 0x22: {
        const end = endOfString(text, i);
        const keys = open.at(-1) ?? null;
        if (isKey && keys !== null) {
          const raw = text.slice(i, end + 1);
          const key = raw.includes("\\") ? String(JSON.parse(raw)) : raw.slice(1, -1);
          if (keys.has(key)) found = "duplicate";
          keys.add(key);
        }
        isKey = false;
        i = end;
        break;
      }
      default:
        break;
    }
  }
  return found;
}

/** Where the quote is that ends the string which begins at `start`. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end !== -1; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === 0x5c) backslashes += 1;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}
