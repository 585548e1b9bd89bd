// A file of public keys as JSON Web Keys (RFC 7517, 5).

export type PublicJwk = Readonly<Record<string, unknown>>;

const PRIVATE_PARTS = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"];

/** What is wrong with the text of such a file, as the end of the sentence "File x ..."; null when it is right. */
export function explainJwks(text: string): string | null {
  const keys = read(text);
  if (keys === null) return 'is not a JSON Web Key Set: { "keys": [...] }';
  if (keys.length === 0) return "has no keys";
  if (keys.some((key) => PRIVATE_PARTS.some((part) => part in key))) return "has a private key in it; give the public part alone";
  return keys.every((key) => typeof key["kty"] === "string" && ["RSA", "EC", "OKP"].includes(key["kty"]))
    ? null
    : "has a key whose 'kty' is neither RSA, EC nor OKP";
}

/** The keys of a file that `explainJwks` finds right. */
export function parseJwks(text: string): readonly PublicJwk[] {
  return read(text) ?? [];
}

function read(text: string): PublicJwk[] | null {
  try {
    const parsed = JSON.parse(text) as { keys?: unknown } | null;
    const keys = parsed?.keys;
    return Array.isArray(keys) && keys.every((key) => typeof key === "object" && key !== null) ? (keys as PublicJwk[]) : null;
  } catch {
    return null;
  }
}
