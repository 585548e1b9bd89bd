// Whether two parts of a plan are equal, sets and maps in them too.
import { createHash } from "node:crypto";

/** Equal for equal parts, in the order of their sets. Made of secrets as well: never logged. */
export function planHash(part: unknown): string {
  const text = JSON.stringify(part, (_key, value: unknown) => (value instanceof Set ? [...value] : value instanceof Map ? [...value] : value));
  return createHash("sha256").update(text).digest("base64url");
}
