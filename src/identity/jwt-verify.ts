// Whether a JWT is one that its issuer has made for us: signature, type, times and audience (RFC 9068, 4; RFC 8725).
import { errors, jwtVerify } from "jose";
import type { IssuerPlan } from "../plan/auth-model.ts";
import type { JsonObject } from "./issuer-transport.ts";
import { Kept } from "./issuer-kept.ts";
import type { JwtKeys } from "./jwt-keys.ts";
import type { UnverifiedJwt } from "./jwt-look.ts";

/** A token that is not valid. `message` is for its client; `detail` for the log. Neither holds the token. */
export class TokenRefusal extends Error {
  readonly detail: string;
  constructor(message: string, detail = "") {
    super(message);
    this.detail = detail;
  }
}

/** It cannot be told whether the token is valid. */
export class KeysUnavailable extends Error {}

type Verifying = Pick<IssuerPlan, "issuer" | "algorithms" | "types" | "clockToleranceMs"> & {
  /** What the client of a token is told that is of none of the types. */
  readonly wrongType?: string;
};

// A token that names no key is tried with those that it could be meant for.
const MAX_KEYS_TRIED = 16;

/**
 * The claims of a token that is signed by the issuer and valid now. Who it is for is not looked at here.
 * @throws {TokenRefusal}
 * @throws {KeysUnavailable} when the key is not known and the issuer cannot be asked
 */
export async function verifyJwt(token: string, { header }: UnverifiedJwt, keys: Kept<JwtKeys>, plan: Verifying): Promise<JsonObject> {
  checkHeader(header, plan);
  let known: JwtKeys;
  try {
    known = await keys.get();
  } catch (error) {
    throw new KeysUnavailable(error instanceof Error ? error.message : String(error));
  }
  try {
    return await verifyWith(token, known, plan);
  } catch (error) {
    // A key may have been changed under the name that it had.
    if (!(error instanceof errors.JWKSNoMatchingKey) && !(error instanceof errors.JWSSignatureVerificationFailed)) throw refusal(error);
    const newer = await keys.renew(known);
    if (newer === known) {
      if (keys.isFailing && error instanceof errors.JWKSNoMatchingKey)
        throw new KeysUnavailable("The token's key is not known, and the issuer does not answer");
      throw refusal(error);
    }
    return await verifyWith(token, newer, plan).catch((again: unknown) => {
      throw refusal(again);
    });
  }
}

/** Whether times that somebody vouches for, as claims or as an answer, hold now. @throws {TokenRefusal} */
export function checkTimes({ exp, nbf }: JsonObject, toleranceMs: number): void {
  if ((exp !== undefined && !isTime(exp)) || (nbf !== undefined && !isTime(nbf))) throw new TokenRefusal("The token is malformed", "a time is no number");
  const nowMs = Date.now();
  if (isTime(exp) && exp * 1_000 <= nowMs - toleranceMs) throw new TokenRefusal("The token has expired");
  if (isTime(nbf) && nbf * 1_000 > nowMs + toleranceMs) throw new TokenRefusal("The token is not valid yet");
}

/** @throws {TokenRefusal} for what no key could make right, so that it costs no fetch */
function checkHeader({ alg, typ, crit, kid }: JsonObject, { algorithms, types, wrongType = "The token is of a type that is not accepted" }: Verifying): void {
  if (typeof alg !== "string" || !algorithms.includes(alg)) throw new TokenRefusal("The token's algorithm is not accepted", "see 'algorithms'");
  // None of these extensions is understood, and a token that has one must be refused (RFC 7515, 4.1.11).
  if (crit !== undefined) throw new TokenRefusal("The token has a critical extension that is not known");
  if (kid !== undefined && typeof kid !== "string") throw new TokenRefusal("The token is malformed", "'kid' is no text");
  if (typ !== undefined && typeof typ !== "string") throw new TokenRefusal("The token is malformed", "'typ' is no text");
  const type = typ === undefined ? "none" : typ.toLowerCase().replace(/^application\//, "");
  if ((typ !== undefined && type === "none") || !types.has(type)) throw new TokenRefusal(wrongType, "see 'types'");
}

/** Key headers of a token (jwk, jku, x5c, x5u) are never looked at: its keys are those of its issuer. */
async function verifyWith(token: string, keys: JwtKeys, plan: Verifying): Promise<JsonObject> {
  const options = {
    algorithms: [...plan.algorithms],
    issuer: plan.issuer,
    requiredClaims: ["exp"],
    clockTolerance: plan.clockToleranceMs / 1_000,
  };
  try {
    return (await jwtVerify(token, keys.find, options)).payload;
  } catch (error) {
    if (!(error instanceof errors.JWKSMultipleMatchingKeys)) throw error;
    let tried = 0;
    let last: unknown = error;
    for await (const key of error) {
      if ((tried += 1) > MAX_KEYS_TRIED) break;
      try {
        return (await jwtVerify(token, key, options)).payload;
      } catch (failure) {
        last = failure;
        if (!(failure instanceof errors.JWSSignatureVerificationFailed)) throw failure;
      }
    }
    throw last;
  }
}

function refusal(error: unknown): TokenRefusal {
  if (error instanceof errors.JWTExpired) return new TokenRefusal("The token has expired");
  if (error instanceof errors.JWKSNoMatchingKey) return new TokenRefusal("The token is signed with an unknown key");
  if (error instanceof errors.JWSSignatureVerificationFailed) return new TokenRefusal("The token's signature is not valid");
  const detail = error instanceof Error ? error.message : String(error);
  if (error instanceof errors.JWTClaimValidationFailed) {
    if (error.claim === "nbf" && error.reason === "check_failed") return new TokenRefusal("The token is not valid yet");
    if (error.claim === "exp" && error.reason === "missing") return new TokenRefusal("The token does not say when it expires");
  }
  return new TokenRefusal("The token is not valid", detail);
}

function isTime(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value);
}
