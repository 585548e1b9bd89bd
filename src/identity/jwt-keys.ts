// The public keys of an issuer (RFC 7517, 5).
import { createLocalJWKSet, type JSONWebKeySet, type JWTVerifyGetKey } from "jose";
import { IssuerError, type JsonObject } from "./issuer-transport.ts";

/** `text` is what they were made from. */
export type JwtKeys = { readonly text: string; readonly find: JWTVerifyGetKey };

/** @throws {IssuerError} when the document has no key that could verify anything: it never takes the place of one that has */
export function readKeys({ text, value }: { readonly text: string; readonly value: JsonObject }, url: string, before: JwtKeys | null): JwtKeys {
  if (before?.text === text) return before;
  const keys: readonly unknown[] = Array.isArray(value["keys"]) ? value["keys"] : [];
  const usable = keys.filter(isPublicKey);
  if (usable.length === 0) throw new IssuerError(`There are no keys for signatures at '${url}'`);
  try {
    return { text, find: createLocalJWKSet({ keys: usable } as JSONWebKeySet) };
  } catch {
    throw new IssuerError(`The keys at '${url}' cannot be read`);
  }
}

/** What else stands in the document, such as keys for encryption, does not harm those for signatures. */
function isPublicKey(key: unknown): boolean {
  if (typeof key !== "object" || key === null) return false;
  const { kty, use, d } = key as JsonObject;
  return (kty === "RSA" || kty === "EC" || kty === "OKP") && (use === undefined || use === "sig") && d === undefined;
}
