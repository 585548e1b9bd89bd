// Login with GitHub: OAuth's web flow with PKCE, then what GitHub says of the person, once; its token is given back at once.
import { createHash, randomBytes } from "node:crypto";
import type { Person } from "../identity/person.ts";
import { printable } from "../lib/printable.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import type { Log } from "../telemetry/log.ts";
import { loginHealth } from "./login-health.ts";
import { LoginError, type LoginSource } from "./login-source.ts";
import type { HttpsAnswer } from "../lib/https-client.ts";
import { ProviderHttp } from "./provider-http.ts";

type GithubPlan = NonNullable<LoginPlan["github"]>;
type Json = Readonly<Record<string, unknown>>;

// The least that shows private memberships and the verified address. GitHub's own page tells the person so.
const SCOPES = ["read:org", "user:email"];
const PER_PAGE = 100;
const MAX_PAGES = 20;
const FORM = "application/x-www-form-urlencoded";

/** @param options.timeoutMs for each request; default 10 s */
export function openGithubLogin(plan: GithubPlan, log: Log, options: { readonly timeoutMs?: number } = {}): LoginSource {
  const host = new URL(plan.baseUrl).host;
  const label = host === "github.com" ? "GitHub" : `GitHub (${host})`;
  const http = new ProviderHttp({ label, baseUrl: plan.baseUrl, ca: plan.ca, ...options });
  const health = loginHealth<"login">("github", plan.baseUrl, log);

  /** @throws {LoginError} for what the token endpoint says, which is status 200 with an error in it */
  async function exchange(code: string, redirectUri: string, verifier: string): Promise<string> {
    const { clientId, clientSecret } = plan;
    const form = { client_id: clientId, client_secret: clientSecret, code, redirect_uri: redirectUri, code_verifier: verifier };
    const answer = await http.send(`${plan.baseUrl}/login/oauth/access_token`, {
      method: "POST",
      headers: { "content-type": FORM, accept: "application/json" },
      body: new URLSearchParams(form).toString(),
    });
    const body = parseObject(answer.text);
    const error = body["error"];
    if (error === "bad_verification_code") throw stale(label, "GitHub does not know the code: used, too old, or of another login");
    if (error === "unverified_user_email")
      throw new LoginError("refused", `${label} wants your e-mail address to be verified first; do so in its settings, then log in again`);
    if (error === "redirect_uri_mismatch") throw mismatch(redirectUri);
    if (error === "incorrect_client_credentials" || answer.status === 401 || answer.status === 404)
      throw http.misconfigured(`GitHub does not take the client: check 'client_id' and 'client_secret' of 'auth.login.github'`);
    const token = body["access_token"];
    if (answer.status === 200 && typeof token === "string" && /^[\x21-\x7e]{1,1000}$/.test(token)) return token;
    // What is for the code is no outage: anybody may make one up.
    if (typeof error === "string") throw http.misconfigured(`GitHub gave no token: ${printable(error, 100)}`, null);
    const detail = `The token endpoint gave an answer that is not GitHub's (status ${answer.status})`;
    throw http.unavailable(detail, answer.status >= 400 ? { outage: null } : {});
  }

  async function get(path: string, token: string): Promise<HttpsAnswer> {
    const answer = await http.send(`${plan.apiUrl}${path}`, {
      headers: { accept: "application/vnd.github+json", authorization: `Bearer ${token}`, "x-github-api-version": "2022-11-28" },
    });
    if (answer.status === 403 && isRateLimited(answer)) {
      const resetS = Number(answer.headers["x-ratelimit-reset"]) - Math.floor(Date.now() / 1_000);
      const headers = "retry-after" in answer.headers || !(resetS > 0) ? answer.headers : { ...answer.headers, "retry-after": String(resetS) };
      // It is counted for each person.
      throw http.unavailable(`GitHub's rate limit is reached (${path})`, { answer: { ...answer, headers }, outage: null });
    }
    if (answer.status === 401) throw http.unavailable(`GitHub does not take the token that it just gave (${path})`);
    return answer;
  }

  /** All pages. What the token may not see is empty: whom it would admit stays out, and the log says why. */
  async function list(path: string, token: string): Promise<Json[]> {
    const found: Json[] = [];
    for (let page = 1; ; page += 1) {
      const answer = await get(`${path}${path.includes("?") ? "&" : "?"}per_page=${PER_PAGE}&page=${page}`, token);
      if (answer.status === 403 || answer.status === 404) {
        log.warn(
          { path, status: answer.status, said: said(answer) },
          "GitHub does not show a part of what it knows of a person; check the application's permissions",
        );
        return [];
      }
      const items = answer.status === 200 ? parse(answer.text) : null;
      if (!Array.isArray(items)) throw http.unavailable(`${path} gave an answer that is not GitHub's (status ${answer.status})`);
      found.push(...items.filter(isObject));
      if (answer.headers["x-github-sso"] !== undefined)
        log.info({ path }, "GitHub leaves out organisations with single sign-on that the person has not signed on to for this application");
      if (!/<[^>]*>\s*;[^,]*\brel="?next"?/.test(answer.headers["link"] ?? "")) return found;
      if (page === MAX_PAGES) {
        log.warn({ path, count: found.length }, "A person is in more organisations or teams of GitHub than are looked at");
        return found;
      }
    }
  }

  async function describe(token: string): Promise<Person> {
    const [userAnswer, memberships, teams, emails] = await Promise.all([
      get("/user", token),
      list("/user/memberships/orgs?state=active", token),
      list("/user/teams", token),
      list("/user/emails", token),
    ]);
    const user = parseObject(userAnswer.text);
    const { id, login } = user;
    if (userAnswer.status !== 200 || !Number.isSafeInteger(id) || typeof login !== "string" || login === "")
      throw http.unavailable(`/user gave an answer that is not GitHub's (status ${userAnswer.status})`);
    const email = emails.find((one) => one["primary"] === true && one["verified"] === true)?.["email"];
    const address = typeof email === "string" && email.includes("@") ? email.toLowerCase() : null;
    return {
      source: "github",
      subject: String(id),
      name: login,
      email: address,
      domain: address === null ? null : address.slice(address.lastIndexOf("@") + 1),
      // Asked for above, and checked: an invitation is no membership.
      orgs: unique(memberships.flatMap((one) => (one["state"] === "active" ? orgOf(one) : []))),
      teams: unique(teams.flatMap((one) => orgOf(one).map((org) => (typeof one["slug"] === "string" ? `${org}/${one["slug"].toLowerCase()}` : "")))),
      groups: [],
      claims: {},
      peer: null,
    };
  }

  /** Nobody waits for it; a token that stays is one that we have forgotten. */
  async function giveBack(token: string): Promise<void> {
    const basic = Buffer.from(`${plan.clientId}:${plan.clientSecret}`).toString("base64");
    try {
      const answer = await http.send(`${plan.apiUrl}/applications/${encodeURIComponent(plan.clientId)}/token`, {
        method: "DELETE",
        headers: { accept: "application/vnd.github+json", "content-type": "application/json", authorization: `Basic ${basic}` },
        body: JSON.stringify({ access_token: token }),
      });
      if (answer.status !== 204) log.debug({ status: answer.status }, "GitHub did not take its token back");
    } catch (error) {
      log.debug({ reason: error instanceof LoginError ? error.detail : "unknown" }, "GitHub did not take its token back");
    }
  }

  function mismatch(redirectUri: string): LoginError {
    // A browser may bring a code that was given for another address, and GitHub says the same of it.
    return http.misconfigured(`The callback URL of the application at GitHub is not '${redirectUri}', nor one that this is below`, null);
  }

  return {
    kind: "github",
    label,
    start: ({ redirectUri, state }) => {
      const verifier = randomBytes(32).toString("base64url");
      const location = new URL(`${plan.baseUrl}/login/oauth/authorize`);
      location.search = new URLSearchParams({
        client_id: plan.clientId,
        redirect_uri: redirectUri,
        scope: SCOPES.join(" "),
        state,
        code_challenge: createHash("sha256").update(verifier).digest("base64url"),
        code_challenge_method: "S256",
      }).toString();
      // A reload may bring another address while the person is away.
      return Promise.resolve({ location: location.href, memory: `${verifier} ${plan.baseUrl}` });
    },
    finish: async ({ callback, redirectUri, state, memory }) => {
      const query = callback.searchParams;
      if (query.getAll("state").length !== 1 || query.get("state") !== state) throw stale(label, "The state is not that of the login");
      // GitHub sends none: it is the answer of somebody else (mix-up, RFC 9700, 4.4).
      if (query.has("iss")) throw stale(label, `The answer is that of '${printable(query.get("iss") ?? "", 100)}', not GitHub's`);
      const error = query.get("error");
      if (error === "access_denied") throw new LoginError("refused", `${label} was told not to let this service know who you are; log in again to allow it`);
      if (error === "redirect_uri_mismatch") throw mismatch(redirectUri);
      if (error !== null)
        throw http.misconfigured(`GitHub refused the login: ${printable(error, 100)} ${printable(query.get("error_description") ?? "", 200)}`.trim(), null);
      const code = query.get("code") ?? "";
      if (!/^[\x21-\x7e]{1,500}$/.test(code) || query.getAll("code").length !== 1) throw stale(label, "The answer has no code, or several");
      const [verifier = "", baseUrl] = memory.split(" ");
      if (baseUrl !== plan.baseUrl) throw stale(label, "The login began at another GitHub");
      return await health.watch("login", async () => {
        const token = await exchange(code, redirectUri, verifier);
        try {
          return await describe(token);
        } finally {
          void giveBack(token);
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

function stale(label: string, detail: string): LoginError {
  return new LoginError("failed", `The login with ${label} is over or was already used; begin anew`, { detail });
}

/** Rate limits have status 403 as often as 429; so have missing permissions. */
function isRateLimited(answer: HttpsAnswer): boolean {
  return "retry-after" in answer.headers || answer.headers["x-ratelimit-remaining"] === "0";
}

function orgOf(one: Json): string[] {
  const org = one["organization"];
  return isObject(org) && typeof org["login"] === "string" ? [org["login"].toLowerCase()] : [];
}

function said(answer: HttpsAnswer): string {
  const { message } = parseObject(answer.text) as { readonly message?: unknown };
  return typeof message === "string" ? printable(message, 200) : "";
}

function unique(texts: readonly string[]): string[] {
  return [...new Set(texts)].filter((text) => text !== "");
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function parseObject(text: string): Json {
  const value = parse(text);
  return isObject(value) ? value : {};
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    // A page of something on the way; what is made of it says so.
    return null;
  }
}
