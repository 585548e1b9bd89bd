// What stands in a JWT, before anything of it is known to be true.
import type { JsonObject } from "./issuer-transport.ts";

/** What a token says of itself, before anything is known to be true. */
export type UnverifiedJwt = { readonly header: JsonObject; readonly claims: JsonObject };

/** Null when the text is no JWT with a signature. */
export function lookAtJwt(token: string): UnverifiedJwt | null {
  const [first = "", second = "", third, ...more] = token.split(".");
  if (third === undefined || more.length > 0) return null;
  const [header, claims] = [jsonObject(first), jsonObject(second)];
  return header === null || claims === null ? null : { header, claims };
}

function jsonObject(base64url: string): JsonObject | null {
  try {
    const value: unknown = JSON.parse(Buffer.from(base64url, "base64url").toString("utf8"));
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as JsonObject) : null;
  } catch {
    return null;
  }
}
