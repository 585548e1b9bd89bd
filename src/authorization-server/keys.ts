// The keys of an authorization server: made once, kept in the state, replaced in time.
import { generateKeyPair, randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { calculateJwkThumbprint, type JWK } from "jose";
import type { StateStore } from "../state/store.ts";

const DAY_MS = 86_400_000;
const SIGNS_MS = 90 * DAY_MS;
// Of those before, at least: longer than what they signed lives.
const STAYS_MS = 30 * DAY_MS;
// A change may come late, when the state fails just then.
const LATE_MS = DAY_MS;
// Whoever keeps a copy of the published keys has the next one before it signs.
const AHEAD_MS = 7 * DAY_MS;
const COOKIE_KEY_BYTES = 32;
const RSA_BITS = 2_048;

const generate = promisify(generateKeyPair);

export type ServerKeys = {
  /** Private: that which signs first, then those that only verify. ES256 and RS256, which clients get who name no algorithm (OpenID Connect Registration 1.0, 2). */
  readonly jwks: { readonly keys: JWK[] };
  /** The first signs, all verify. */
  readonly cookieKeys: string[];
  /** When to open them again, because others sign or are published then; milliseconds since 1970. */
  readonly changesAtMs: number;
};

/** What is kept; its number is in the key of the store. */
type Generation = { readonly number: number; readonly signsFromMs: number; readonly jwks: readonly JWK[]; readonly cookieKey: string };

/**
 * The keys of the namespace (ASCII, at most 150 characters), which are made when there are none or the present ones are 83 days old: they sign for 90 days,
 * from their making or from the end of those before, and are published for 30 days more, or a day longer than what they sign lives. Gateways on one state get
 * the same ones.
 * @param now milliseconds since 1970
 * @param longestMs how long what they sign lives at most, in milliseconds. Default: 0
 * @throws {StateError}
 */
export async function openKeys(store: StateStore, namespace: string, now: number = Date.now(), longestMs = 0): Promise<ServerKeys> {
  const staysMs = Math.max(STAYS_MS, longestMs + LATE_MS);
  const prefix = `keys:${namespace}:`;
  let generations = await read(store, prefix);
  let last = generations.at(-1);
  if (last === undefined || now >= last.signsFromMs + SIGNS_MS - AHEAD_MS) {
    const next = await makeGeneration(last, now);
    const { number, ...kept } = next;
    // Of several gateways one is first; the others use what it made.
    await store.add(`${prefix}${String(number).padStart(8, "0")}`, JSON.stringify(kept), null);
    generations = await read(store, prefix);
    last = generations.at(-1);
  }
  // The store lost at once what it took.
  if (last === undefined) throw new Error("The keys that were made are not in the state");
  // A clock that was set back leaves none that signs already.
  const current = generations.findLast(({ signsFromMs }) => signsFromMs <= now) ?? last;
  const upcoming = generations.filter(({ number }) => number > current.number);
  const before = generations.filter(({ number }) => number < current.number).toReversed();
  const stays = before.filter((one) => now < staysUntil(one, generations, staysMs));
  for (const one of before) if (!stays.includes(one)) await store.delete(`${prefix}${String(one.number).padStart(8, "0")}`);
  const inOrder = [current, ...upcoming, ...stays];
  const changes = [
    last.signsFromMs + SIGNS_MS - AHEAD_MS,
    ...upcoming.map((one) => one.signsFromMs),
    ...stays.map((one) => staysUntil(one, generations, staysMs)),
  ];
  return {
    jwks: { keys: inOrder.flatMap(({ jwks }) => jwks) },
    cookieKeys: inOrder.map(({ cookieKey }) => cookieKey),
    changesAtMs: Math.min(...changes),
  };
}

/** When its successor has signed for long enough. */
function staysUntil({ number }: Generation, generations: readonly Generation[], staysMs: number): number {
  const successor = generations.find((one) => one.number > number);
  return successor === undefined ? Infinity : successor.signsFromMs + staysMs;
}

async function makeGeneration(last: Generation | undefined, now: number): Promise<Generation> {
  const [ec, rsa] = await Promise.all([generate("ec", { namedCurve: "P-256" }), generate("rsa", { modulusLength: RSA_BITS })]);
  const jwks = await Promise.all([toJwk(ec.privateKey.export({ format: "jwk" }), "ES256"), toJwk(rsa.privateKey.export({ format: "jwk" }), "RS256")]);
  return {
    number: (last?.number ?? 0) + 1,
    signsFromMs: last === undefined ? now : Math.max(now, last.signsFromMs + SIGNS_MS),
    jwks,
    cookieKey: randomBytes(COOKIE_KEY_BYTES).toString("base64url"),
  };
}

async function toJwk(key: JWK, alg: string): Promise<JWK> {
  return { ...key, kid: await calculateJwkThumbprint(key), alg, use: "sig" };
}

async function read(store: StateStore, prefix: string): Promise<Generation[]> {
  const entries = await store.list(prefix);
  return entries.map(({ key, value }) => ({ ...(JSON.parse(value) as Omit<Generation, "number">), number: Number(key.slice(prefix.length)) }));
}
