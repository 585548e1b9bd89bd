// What a request to an endpoint says of its client: credentials by Basic, as clients write them, and the id that it gives.
import { hash, timingSafeEqual } from "node:crypto";
import { decodeJwt } from "jose";
import { printable } from "../lib/printable.ts";
import type { ClientPlan } from "../plan/auth-model.ts";

const MAX_ID_CHARS = 200;

type Basic = { readonly id: string; readonly secret: string };

/**
 * Credentials by Basic are form-encoded (RFC 6749, 2.3.1), and most clients write them as they are. Those that are exactly a client's of the file are encoded
 * here; all others are left as they came.
 */
export function encodedBasic(authorization: string, clients: readonly ClientPlan[]): string {
  const given = readBasic(authorization);
  if (given === null) return authorization;
  const isRaw = clients.some(({ id, secret, jwks }) => id === given.id && jwks === null && secret !== null && isSame(secret, given.secret));
  if (!isRaw) return authorization;
  return `Basic ${Buffer.from(`${encodeURIComponent(given.id)}:${encodeURIComponent(given.secret)}`).toString("base64")}`;
}

/** The id that a request gives for its client, fit for a log; nobody has looked whether it is true. Null: none. */
export function claimedClient(authorization: string | null, form: URLSearchParams): string | null {
  const basic = authorization === null ? null : readBasic(authorization);
  const id = form.get("client_id") ?? basic?.id ?? subjectOf(form.get("client_assertion")) ?? "";
  return id === "" ? null : printable(id, MAX_ID_CHARS);
}

function readBasic(authorization: string): Basic | null {
  const encoded = /^basic +([A-Za-z0-9+/]+=*)$/i.exec(authorization)?.[1];
  if (encoded === undefined) return null;
  const text = Buffer.from(encoded, "base64").toString("utf8");
  const at = text.indexOf(":");
  return at === -1 ? null : { id: text.slice(0, at), secret: text.slice(at + 1) };
}

function isSame(one: string, other: string): boolean {
  return timingSafeEqual(hash("sha256", one, "buffer"), hash("sha256", other, "buffer"));
}

function subjectOf(assertion: string | null): string | null {
  try {
    return assertion === null ? null : (decodeJwt(assertion).sub ?? null);
  } catch {
    return null;
  }
}
