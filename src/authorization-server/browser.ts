// The browser at the other end: how it is known again, and that what it sends came from a form of ours.
import { createHash, createHmac, randomBytes, timingSafeEqual } from "node:crypto";
import { cookieValue } from "../lib/cookies.ts";
import type { EndpointRequest } from "./endpoint.ts";

/** 256 bits as text that fits a cookie and a URL. */
export function makeSecret(): string {
  return randomBytes(32).toString("base64url");
}

/** What is kept of a secret: whoever reads the store cannot use it. */
export function secretHash(secret: string): string {
  return createHash("sha256").update(secret).digest("base64url");
}

export function isSecret(text: string): boolean {
  return /^[A-Za-z0-9_-]{43}$/.test(text);
}

/** A browser by its cookie. `headers`: what makes it known, when it is new. */
export type Browser = { readonly id: string; readonly isNew: boolean; readonly headers: readonly string[] };

/** The browser that makes the request; a new one gets its cookie with the answer. */
export function findBrowser({ headers, origin }: Pick<EndpointRequest, "headers" | "origin">): Browser {
  const name = browserCookieName(origin);
  const known = cookieValue(headers, name);
  if (known !== null && isSecret(known)) return { id: known, isNew: false, headers: [] };
  const id = makeSecret();
  return { id, isNew: true, headers: ["Set-Cookie", cookie(name, id, origin)] };
}

/** Value of a Set-Cookie header. Lax: a browser that comes back from an identity provider brings it along, one that a stranger's form sends does not. */
export function cookie(name: string, value: string, origin: string, maxAgeS: number | null = null): string {
  const age = maxAgeS === null ? "" : `; Max-Age=${maxAgeS}`;
  return `${name}=${value}; Path=/; HttpOnly; SameSite=Lax${origin.startsWith("https:") ? "; Secure" : ""}${age}`;
}

function browserCookieName(origin: string): string {
  return origin.startsWith("https:") ? "__Host-sidegate-browser" : "sidegate-browser";
}

/** What is signed says what it is for: a signature is worth nothing elsewhere. */
export type Signer = { sign(parts: readonly string[]): string; verify(signature: string, parts: readonly string[]): boolean };

/** @param keys those of now, which change with time: the first signs, all verify */
export function createSigner(keys: { readonly cookieKeys: readonly string[] }): Signer {
  return {
    sign: (parts) => {
      const [first] = keys.cookieKeys;
      if (first === undefined) throw new RangeError("No key to sign with");
      return signature(first, parts).toString("base64url");
    },
    verify: (text, parts) => {
      const given = Buffer.from(text, "base64url");
      return keys.cookieKeys.some((key) => {
        const wanted = signature(key, parts);
        return given.length === wanted.length && timingSafeEqual(given, wanted);
      });
    },
  };
}

function signature(key: string, parts: readonly string[]): Buffer {
  return createHmac("sha256", key)
    .update(JSON.stringify(["sidegate login", ...parts]))
    .digest();
}

/** Why a form is not taken, in a sentence for people; otherwise its fields. */
export type Form = { readonly fields: URLSearchParams } | { readonly refused: string };

/**
 * The fields of a form that this browser got from us. Without a referrer the form of our own page has Origin 'null', as one of a stranger's sandbox has:
 * what counts is the token, which is bound to the cookie, and that the browser does not say that it comes from elsewhere.
 * @param purpose what the token of the page was made for
 */
export function readForm(request: EndpointRequest, browser: Browser, signer: Signer, purpose: readonly string[]): Form {
  const type = header(request, "content-type") ?? "";
  if (!/^application\/x-www-form-urlencoded\s*(;|$)/i.test(type)) return { refused: "What came is not the form of this page." };
  const site = header(request, "sec-fetch-site");
  const from = header(request, "origin");
  if ((site !== null && site !== "same-origin") || (from !== null && from !== "null" && from !== request.origin))
    return { refused: "The form was sent by another site, so nothing was done." };
  if (browser.isNew) return { refused: "Your browser did not send the cookie of this page. Allow cookies for this site, then begin again." };
  const fields = new URLSearchParams(request.body.toString("utf8"));
  if (!signer.verify(fields.get("csrf") ?? "", formParts(browser, purpose))) return { refused: "The form is too old or is not of this page. Begin again." };
  return { fields };
}

/** What the hidden field of a form holds. */
export function formToken(browser: Browser, signer: Signer, purpose: readonly string[]): string {
  return signer.sign(formParts(browser, purpose));
}

function formParts(browser: Browser, purpose: readonly string[]): string[] {
  return ["form", browser.id, ...purpose];
}

/** Null when it is not there, or there more than once. */
export function header({ headers }: Pick<EndpointRequest, "headers">, name: string): string | null {
  let found: string | null = null;
  for (let i = 0; i + 1 < headers.length; i += 2) {
    if (headers[i]?.toLowerCase() !== name) continue;
    if (found !== null) return null;
    found = headers[i + 1] ?? "";
  }
  return found;
}

export function queryOf({ target }: Pick<EndpointRequest, "target">): URLSearchParams {
  const mark = target.indexOf("?");
  return new URLSearchParams(mark === -1 ? "" : target.slice(mark + 1));
}
