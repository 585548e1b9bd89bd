// Login with an OpenID provider: code flow with PKCE, state and nonce; what it may say is in login-oidc-person.
import * as oidc from "openid-client";
import type { Person } from "../identity/person.ts";
import type { HttpsAnswer } from "../lib/https-client.ts";
import { printable } from "../lib/printable.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import { lacksClaims, oidcPerson } from "./login-oidc-person.ts";
import { loginHealth } from "./login-health.ts";
import { LoginError, type LoginSource } from "./login-source.ts";
import { ProviderHttp } from "./provider-http.ts";

type OidcPlan = NonNullable<LoginPlan["oidc"]>;
/** `issuer`: a reload may have brought another one while the person was away. */
type Memory = { readonly verifier: string; readonly nonce: string; readonly issuer: string };

// Endpoints seldom move; keys are looked up by themselves.
const METADATA_MS = 3_600_000;
// A provider that is down is not asked by each person who tries.
const PAUSE_MS = 2_000;
const CLOCK_TOLERANCE_S = 30;
// RFC 6749, 5.2: those that no code of anybody's brings about.
const REFUSALS: ReadonlySet<string> = new Set(["invalid_client", "unauthorized_client", "unsupported_grant_type"]);
const CHECK = "check 'client_id' and 'client_secret' of 'auth.login.oidc'";

/** Nothing is asked of the provider before somebody logs in. @param options.timeoutMs for each request; default 10 s */
export function openOidcLogin(plan: OidcPlan, log: Log, options: { readonly timeoutMs?: number } = {}): LoginSource {
  const label = plan.name;
  const http = new ProviderHttp({ label, baseUrl: plan.issuer, ca: plan.ca, ...options });
  const health = loginHealth<"metadata" | "login">(label, plan.issuer, log);
  let known: { readonly config: oidc.Configuration; readonly atMs: number } | null = null;
  let asking: Promise<oidc.Configuration> | null = null;
  let failed: { readonly error: unknown; readonly untilMs: number } | null = null;

  // Requests of the library go our way: with the CA, limits, and without redirects.
  const customFetch: oidc.CustomFetch = async (url, { method, headers, body }) => {
    if (body !== null && body !== undefined && typeof body !== "string" && !(body instanceof Uint8Array) && !(body instanceof URLSearchParams))
      throw new TypeError("A body of a kind that the library never had");
    const text = body instanceof URLSearchParams ? body.toString() : (body ?? null);
    const answer = await http.send(url, { method: method === "POST" ? "POST" : "GET", headers, body: text });
    // It may not like the code, which anybody may make up.
    if (method === "POST" && isFiltered(answer)) throw http.unavailable(`The token endpoint answered with status ${answer.status}`, { answer, outage: null });
    const hasBody = answer.status !== 204 && answer.status !== 304;
    return new Response(hasBody ? answer.text : null, { status: answer.status, headers: new Headers(answer.headers) });
  };

  async function discover(): Promise<oidc.Configuration> {
    const { clientSecret } = plan;
    const authenticate: oidc.ClientAuth =
      clientSecret === null
        ? oidc.None()
        : (server, client, body, headers) => {
            // Providers that want it in the header alone say so, or say nothing (RFC 8414, 2).
            const isBody = server.token_endpoint_auth_methods_supported?.includes("client_secret_post") === true;
            (isBody ? oidc.ClientSecretPost(clientSecret) : oidc.ClientSecretBasic(clientSecret))(server, client, body, headers);
          };
    const isPlain = new URL(plan.issuer).protocol === "http:";
    try {
      const config = await oidc.discovery(new URL(plan.issuer), plan.clientId, { [oidc.clockTolerance]: CLOCK_TOLERANCE_S }, authenticate, {
        [oidc.customFetch]: customFetch,
        // The signature counts beside TLS: an intermediary that the CA trusts is not the issuer.
        execute: [oidc.enableNonRepudiationChecks, ...(isPlain ? [oidc.allowInsecureRequests] : [])],
      });
      const { issuer } = config.serverMetadata();
      // The library lets the issuers of some hosts differ.
      if (withoutSlash(issuer) !== withoutSlash(plan.issuer))
        throw http.misconfigured(`The provider's metadata name the issuer '${printable(issuer, 200)}'; write that as 'issuer' of 'auth.login.oidc'`);
      return config;
    } catch (error) {
      throw explainDiscovery(error);
    }
  }

  /** The one that is known goes on while the provider does not answer. */
  async function configuration(): Promise<oidc.Configuration> {
    const now = performance.now();
    if (known !== null && now - known.atMs < METADATA_MS) return known.config;
    if (failed !== null && now < failed.untilMs) {
      if (known !== null) return known.config;
      throw failed.error;
    }
    asking ??= health.watch("metadata", discover).finally(() => {
      asking = null;
    });
    try {
      const config = await asking;
      known = { config, atMs: performance.now() };
      failed = null;
      return config;
    } catch (error) {
      failed = { error, untilMs: performance.now() + PAUSE_MS };
      if (known !== null) return known.config;
      throw error;
    }
  }

  function explainDiscovery(error: unknown): LoginError {
    const ours = loginErrorIn(error);
    if (ours !== null) return ours;
    const code = codeOf(error);
    const detail = `The metadata at '${plan.issuer}' cannot be used: ${textOf(error)}`;
    if (code === "OAUTH_JSON_ATTRIBUTE_COMPARISON_FAILED") return http.misconfigured(`${detail}; check 'issuer' of 'auth.login.oidc'`);
    // A page of something on the way, perhaps: it may be gone in a moment.
    return http.unavailable(`${detail}; check 'issuer' of 'auth.login.oidc' when this stays`);
  }

  function explain(error: unknown): LoginError {
    const ours = loginErrorIn(error);
    if (ours !== null) return ours;
    if (error instanceof oidc.AuthorizationResponseError) return explainRefusal(error.error, error.error_description ?? "");
    if (error instanceof oidc.ResponseBodyError) {
      const detail = `The token endpoint refused the code: ${printable(error.error, 100)} ${printable(error.error_description ?? "", 200)}`.trim();
      if (error.error === "invalid_grant") return stale(detail);
      // What it thinks of the client alone: all else may be for the code, which anybody may make up. Its description is in the log.
      const outage = REFUSALS.has(error.error) ? `The token endpoint refused the client: ${error.error}; ${CHECK}` : null;
      return http.misconfigured(`${detail}; ${CHECK}`, outage);
    }
    if (error instanceof oidc.WWWAuthenticateChallengeError) return http.misconfigured(`The provider refused with status ${error.status}; ${CHECK}`);
    const code = codeOf(error);
    if (code === "OAUTH_RESPONSE_IS_NOT_JSON" || code === "OAUTH_RESPONSE_IS_NOT_CONFORM" || code === "OAUTH_PARSE_ERROR")
      return http.unavailable(`An answer is not that of an OpenID provider: ${textOf(error)}`);
    return stale(`The answer does not fit the login: ${textOf(error)}`);
  }

  /** OpenID Connect Core, 3.1.2.6, and RFC 6749, 4.1.2.1. The browser has brought it: it is no word of the provider's that counts. */
  function explainRefusal(error: string, description: string): LoginError {
    const detail = `The provider answered '${printable(error, 100)}': ${printable(description, 200)}`;
    if (error === "access_denied")
      return new LoginError("refused", `${label} did not let you in, or was told not to say who you are; log in again to allow it`, { detail });
    if (error === "temporarily_unavailable" || error === "server_error") return http.unavailable(detail, { outage: null });
    if (/^(?:login|interaction|consent|account_selection)_required$/.test(error)) return stale(detail);
    return http.misconfigured(detail, null);
  }

  function stale(detail: string): LoginError {
    return new LoginError("failed", `The login with ${label} is over, was already used or does not fit; begin anew`, { detail });
  }

  async function describe(config: oidc.Configuration, tokens: Awaited<ReturnType<typeof oidc.authorizationCodeGrant>>): Promise<Person> {
    const claims = tokens.claims();
    if (claims === undefined) throw stale("The answer has no id token");
    const hasUserinfo = config.serverMetadata().userinfo_endpoint !== undefined;
    const userinfo = hasUserinfo && lacksClaims(claims, plan) ? await oidc.fetchUserInfo(config, tokens.access_token, claims.sub) : {};
    const { person, notes } = oidcPerson(plan, claims, userinfo);
    for (const note of notes) log.warn({ provider: label, subject: printable(person.subject, 100) }, note);
    return person;
  }

  return {
    kind: "oidc",
    label,
    start: async ({ redirectUri, state }) => {
      const config = await configuration();
      const memory: Memory = { verifier: oidc.randomPKCECodeVerifier(), nonce: oidc.randomNonce(), issuer: plan.issuer };
      try {
        const location = oidc.buildAuthorizationUrl(config, {
          redirect_uri: redirectUri,
          scope: [...new Set(["openid", ...plan.scopes])].join(" "),
          state,
          nonce: memory.nonce,
          code_challenge: await oidc.calculatePKCECodeChallenge(memory.verifier),
          code_challenge_method: "S256",
        });
        return { location: location.href, memory: JSON.stringify(memory) };
      } catch (error) {
        throw explainDiscovery(error);
      }
    },
    finish: async ({ callback, redirectUri, state, memory }) => {
      const { verifier, nonce, issuer } = JSON.parse(memory) as Memory;
      if (issuer !== plan.issuer) throw stale("The login began at another issuer");
      const config = await configuration();
      const current = new URL(redirectUri);
      current.search = callback.search;
      return await health.watch("login", async () => {
        try {
          // It checks `state` and, where the provider sends it, `iss` (RFC 9207).
          const tokens = await oidc.authorizationCodeGrant(config, current, {
            pkceCodeVerifier: verifier,
            expectedNonce: nonce,
            expectedState: state,
            idTokenExpected: true,
          });
          return await describe(config, tokens);
        } catch (error) {
          // A key that is not known may be a new one: the set is kept for a minute by the library, with the metadata.
          if (known?.config === config && codeOf(error) === "OAUTH_KEY_SELECTION_FAILED") known = null;
          throw explain(error);
        }
      });
    },
    provider: () => health.describe(),
    close() {
      health.close();
      http.close();
    },
  };
}

/** Ours, wrapped by the library. */
function loginErrorIn(error: unknown): LoginError | null {
  for (let one: unknown = error, depth = 0; one instanceof Error && depth < 5; one = one.cause, depth += 1) if (one instanceof LoginError) return one;
  return null;
}

function codeOf(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}

/** By a page of something on the way, and not as RFC 6749, 5.2 has it. */
function isFiltered({ status, text }: HttpsAnswer): boolean {
  return status >= 400 && status <= 499 && status !== 401 && status !== 404 && status !== 405 && !text.trimStart().startsWith("{");
}

/** The library's own words; what it found, which may be secret, is beside them. */
function textOf(error: unknown): string {
  if (!(error instanceof Error)) return "unknown";
  return printable(error.cause instanceof Error ? `${error.message} (${error.cause.message})` : error.message, 300);
}

function withoutSlash(url: string): string {
  return url.replace(/\/$/, "");
}
