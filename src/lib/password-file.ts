// The file of people who log in with a password, and the form of its hashes.
import { promisify } from "node:util";
import { randomBytes, scrypt, timingSafeEqual } from "node:crypto";

// OWASP's advice for scrypt: 128 MiB for each attempt.
const COST = { log2N: 17, r: 8, p: 1 };
// What a file may ask of us: 1 GiB.
const MAX_MEMORY = 2 ** 30;
const NAME = /^[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}$/;
// The form of PHC strings: base64 without padding.
// Those of Apache's htpasswd, of crypt(3) and of other programs.
const OTHER_HASH = /^(?:\$(?!scrypt\$)[a-z0-9-]+\$|\{[A-Z0-9-]+\})/i;
const HASH = /^\$scrypt\$ln=(\d{1,2}),r=(\d{1,2}),p=(\d{1,2})\$([A-Za-z0-9+/]{16,86})\$([A-Za-z0-9+/]{43,86})$/;

const derive = promisify<string, Buffer, number, { N: number; r: number; p: number; maxmem: number }, Buffer>(scrypt);

export type PasswordUser = { readonly hash: string; readonly groups: readonly string[] };
export type PasswordFile = {
  readonly users: ReadonlyMap<string, PasswordUser>;
  readonly problems: readonly { readonly line: number; readonly message: string }[];
};

/** Lines of NAME:HASH or NAME:HASH:GROUP,GROUP; empty ones and those that begin with '#' do not count. Messages hold nothing of the file but names. */
export function parsePasswordFile(text: string): PasswordFile {
  const users = new Map<string, PasswordUser>();
  const problems: { line: number; message: string }[] = [];
  for (const [i, raw] of text
    .replace(/^\uFEFF/, "")
    .split(/\r?\n/)
    .entries()) {
    const line = raw.trim();
    if (line === "" || line.startsWith("#")) continue;
    const [name = "", hash = "", groups = "", ...more] = line.split(":");
    // A line that is all name may be a password: it is not repeated.
    const message = !line.includes(":")
      ? "has no ':' between name and hash"
      : !NAME.test(name)
        ? "has no user name before its first ':'"
        : users.has(name)
          ? `names '${name}' a second time`
          : OTHER_HASH.test(hash)
            ? `has a hash of another kind for '${name}': only those of 'sidegate hash-password' (scrypt) are taken`
            : readHash(hash) === null
              ? `has no hash for '${name}'; 'sidegate hash-password' prints one`
              : more.length > 0
                ? `has too many ':' for '${name}'`
                : null;
    if (message === null)
      users.set(name, {
        hash,
        groups: groups
          .split(",")
          .map((group) => group.trim())
          .filter((group) => group !== ""),
      });
    else problems.push({ line: i + 1, message });
  }
  return { users, problems };
}

/** Letters, digits and `. _ @ + -`, at most 64. */
export function isUserName(text: string): boolean {
  return NAME.test(text);
}

/**
 * A hash of no password, to be checked for names that are not in the file: as costly as most of those that are, so that the time tells nothing.
 * Of hashes that cost more or less than most, the time may tell that they are there.
 */
export function decoyHash(hashes: readonly string[]): string {
  const costs = [
    ...Map.groupBy(
      hashes.flatMap((hash) => readHash(hash) ?? []),
      costText,
    ),
  ];
  const usual = costs.toSorted(([, a], [, b]) => b.length - a.length)[0]?.[0] ?? costText(COST);
  return `$scrypt$${usual}$${encode(randomBytes(16))}$${encode(randomBytes(32))}`;
}

/** A hash for the file. Takes some 0.3 s. */
export async function hashPassword(password: string): Promise<string> {
  const salt = randomBytes(16);
  const key = await derive(password.normalize("NFC"), salt, 32, optionsOf(COST));
  return `$scrypt$${costText(COST)}$${encode(salt)}$${encode(key)}`;
}

/** Whether the password is that of the hash. Takes as long as the hash asks for; false for a hash that is none. */
export async function verifyPassword(password: string, hash: string): Promise<boolean> {
  const parsed = readHash(hash);
  if (parsed === null) return false;
  const key = await derive(password.normalize("NFC"), parsed.salt, parsed.key.length, optionsOf(parsed));
  return timingSafeEqual(key, parsed.key);
}

type Cost = { readonly log2N: number; readonly r: number; readonly p: number };

function costText({ log2N, r, p }: Cost): string {
  return `ln=${log2N},r=${r},p=${p}`;
}

function optionsOf({ log2N, r, p }: Cost): { N: number; r: number; p: number; maxmem: number } {
  return { N: 2 ** log2N, r, p, maxmem: MAX_MEMORY + 2 ** 20 };
}

function readHash(hash: string): (Cost & { readonly salt: Buffer; readonly key: Buffer }) | null {
  const found = HASH.exec(hash);
  if (found === null) return null;
  const [log2N, r, p] = [Number(found[1]), Number(found[2]), Number(found[3])];
  const isSane = log2N >= 14 && r >= 1 && p >= 1 && p <= 4 && 128 * 2 ** log2N * r <= MAX_MEMORY;
  return isSane ? { log2N, r, p, salt: Buffer.from(found[4] ?? "", "base64"), key: Buffer.from(found[5] ?? "", "base64") } : null;
}

function encode(bytes: Buffer): string {
  return bytes.toString("base64").replace(/=+$/, "");
}
