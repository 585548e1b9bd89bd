// Access tokens of ours that are JWTs: nothing is kept of them but that they were revoked.
import { createLocalJWKSet, decodeJwt, errors, jwtVerify, type JWTPayload } from "jose";
import type { Adapter, Payload } from "oidc-provider";
import type { Authentication } from "../identity/authenticate.ts";
import { GRANT_CLAIM, type ServerState } from "./adapter.ts";
import type { ServerKeys } from "./keys.ts";

const JWT = /^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$/;
// oidc-provider refuses JWTs at its endpoints, since it keeps none: so written it asks for them like for any token.
const MARK = "~";

/** What an access token says, a JWT or another. */
export type Claims = {
  /** Null: the client itself. */
  readonly accountId: string | null;
  readonly clientId: string;
  readonly scope: string;
  readonly audience: string;
  readonly issuedAtS: number;
  readonly expiresAtS: number;
};

type JwtClaims = Claims & { readonly id: string };
type Invalid = Extract<Authentication, { kind: "invalid" }>;

export const EXPIRED: Invalid = { kind: "invalid", reason: "The token has expired" };
/** Of a person who is not in the file any more, or whose way to log in is not. */
export const GONE: Invalid = { kind: "invalid", reason: "The account is not there any more" };
export const REVOKED: Invalid = { kind: "invalid", reason: "The token was revoked" };

/** A form for /revoke or /introspect, as oidc-provider takes it. */
export function shapeTokenForm(params: URLSearchParams): URLSearchParams {
  const [token, ...more] = params.getAll("token");
  if (token !== undefined && more.length === 0 && token.includes(".")) params.set("token", MARK + token);
  return params;
}

/** The token that a form named before it was shaped. */
export function unshapedToken(token: string): string {
  return token.startsWith(MARK) ? token.slice(MARK.length) : token;
}

export class JwtTokens {
  readonly #issuer: string;
  readonly #state: ServerState;
  readonly #now: () => number;
  readonly #keySet: ReturnType<typeof createLocalJWKSet>;

  constructor(issuer: string, state: ServerState, keys: ServerKeys, now: () => number) {
    this.#issuer = issuer;
    this.#state = state;
    this.#now = now;
    this.#keySet = createLocalJWKSet({ keys: keys.jwks.keys.map((key) => publicPart(key)) });
  }

  /** Whether it says that it is. */
  isOurs(token: string): boolean {
    if (!JWT.test(token)) return false;
    try {
      return decodeJwt(token).iss === this.#issuer;
    } catch {
      return false;
    }
  }

  /** What a token says that stands; why it does not otherwise. */
  async read(token: string): Promise<JwtClaims | Invalid> {
    let payload: JWTPayload;
    try {
      ({ payload } = await jwtVerify(token, this.#keySet, {
        issuer: this.#issuer,
        typ: "at+jwt",
        algorithms: ["ES256"],
        requiredClaims: ["exp", "iat", "aud", "sub", "jti"],
        currentDate: new Date(this.#now()),
      }));
    } catch (error) {
      return error instanceof errors.JWTExpired ? EXPIRED : { kind: "invalid", reason: "The token is not valid" };
    }
    const { jti: id, sub, aud, iat, exp, client_id: clientId, scope, [GRANT_CLAIM]: grant } = payload;
    if (typeof aud !== "string" || typeof clientId !== "string") return REVOKED;
    if (id === undefined || sub === undefined || iat === undefined || exp === undefined) return REVOKED;
    if (typeof grant === "string" ? !(await this.#state.hasGrant(grant)) : sub !== clientId) return REVOKED;
    if (await this.#state.isRevokedJwt(id)) return REVOKED;
    const accountId = typeof grant === "string" ? sub : null;
    return { id, accountId, clientId, scope: typeof scope === "string" ? scope : "", audience: aud, issuedAtS: iat, expiresAtS: exp };
  }

  /** That of access tokens, which knows those that came through `shapeTokenForm` as well: of people and of clients alike. */
  adapter(base: Adapter): Adapter {
    return {
      ...base,
      find: async (id) => (id.startsWith(MARK) ? await this.#find(id) : await base.find(id)),
      destroy: async (id) => {
        if (!id.startsWith(MARK)) return await base.destroy(id);
        const claims = await this.read(unshapedToken(id));
        if (!("kind" in claims)) await this.#state.revokeJwt(claims.id, claims.expiresAtS * 1000 - this.#now());
      },
    };
  }

  async #find(id: string): Promise<Payload | undefined> {
    const token = unshapedToken(id);
    const claims = this.isOurs(token) ? await this.read(token) : REVOKED;
    if ("kind" in claims) return undefined;
    const { accountId, clientId, scope, audience: aud, issuedAtS: iat, expiresAtS: exp } = claims;
    return { kind: "AccessToken", jti: id, clientId, scope, aud, iat, exp, ...(accountId === null ? {} : { accountId }) };
  }
}

function publicPart(key: ServerKeys["jwks"]["keys"][number]): ServerKeys["jwks"]["keys"][number] {
  const { d: _d, p: _p, q: _q, dp: _dp, dq: _dq, qi: _qi, ...rest } = key;
  return rest;
}
