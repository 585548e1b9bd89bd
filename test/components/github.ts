// A stand-in of GitHub: its OAuth pages and the part of its API that logins ask, with scripted people and faults.
import { createHash, randomBytes, timingSafeEqual } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Pair } from "./pki.ts";
import { walk } from "./visit.ts";

export type GithubPerson = {
  readonly id: number;
  readonly login: string;
  readonly name?: string;
  /** `state` default: active. */
  readonly orgs?: readonly { readonly login: string; readonly state?: "active" | "pending" }[];
  /** `org/team-slug`. */
  readonly teams?: readonly string[];
  readonly emails?: readonly { readonly email: string; readonly primary?: boolean; readonly verified?: boolean }[];
};

/** What becomes of calls whose `METHOD /path` begins with a text. */
export type GithubTrouble = { readonly status: number; readonly body: string; readonly headers?: Record<string, string> } | "hang" | "cut";

export type GithubOptions = {
  /** Default: `test-client`. */
  readonly clientId?: string;
  /** Default: `test-secret`. */
  readonly clientSecret?: string;
  /** The callback URL of the application; a redirect may go to it or below it, on loopback to any port. Default: any URL. */
  readonly callbackUrl?: string;
  /** Default: one, `octocat` with the id 583231. The first one is who sits at the browser. */
  readonly people?: readonly GithubPerson[];
  /** Speaks https with it. */
  readonly tls?: Pair;
  /** The host of `url`, for containers: it listens on all addresses of the machine. Default: 127.0.0.1, on which alone it listens. */
  readonly host?: string;
  /** CA for `approve`. */
  readonly ca?: string;
};

export type Github = AsyncDisposable & {
  /** For `base_url`; the API is at /api/v3, as with Enterprise. */
  readonly url: string;
  readonly clientId: string;
  readonly clientSecret: string;
  /** As `GET /api/v3/user`. */
  readonly calls: string[];
  /** Tokens that work now. */
  readonly tokens: ReadonlySet<string>;
  /** Scopes that the last authorization asked for. */
  readonly askedScopes: readonly string[];
  /** Who sits at the browser from now on. */
  signIn(person: GithubPerson): void;
  /** What the person does with the question whether the application may. Default: approve. */
  answer(decision: "approve" | "deny"): void;
  /** What the person takes out of what was asked for. */
  withhold(scopes: readonly string[]): void;
  /** The last one set counts; null ends it. */
  trouble(call: string, trouble: GithubTrouble | null): void;
  /** Goes to the location as the person's browser does. @returns the address of our callback, with its query */
  visit(location: string): Promise<URL>;
};

type Code = { readonly person: GithubPerson; readonly redirectUri: string; readonly challenge: string | null; readonly scopes: readonly string[] };
type Answer = { readonly status: number; readonly body: unknown; readonly headers?: Record<string, string> };

const API = "/api/v3";
const OCTOCAT: GithubPerson = {
  id: 583_231,
  login: "octocat",
  name: "The Octocat",
  orgs: [{ login: "Acme" }],
  teams: ["Acme/ops"],
  emails: [{ email: "Octocat@Example.com", primary: true, verified: true }],
};

export async function startGithub(options: GithubOptions = {}): Promise<Github> {
  const { clientId = "test-client", clientSecret = "test-secret", callbackUrl, people = [OCTOCAT], tls, ca, host } = options;
  let person = people[0] ?? OCTOCAT;
  let decision: "approve" | "deny" = "approve";
  let withheld: readonly string[] = [];
  let askedScopes: readonly string[] = [];
  const calls: string[] = [];
  const troubles: [string, GithubTrouble | null][] = [];
  const codes = new Map<string, Code>();
  const tokens = new Map<string, Code>();

  function authorize(url: URL): Answer {
    const query = url.searchParams;
    if (query.get("client_id") !== clientId) return { status: 404, body: "Not Found" };
    const redirect = (to: string, values: Record<string, string>): Answer => {
      const target = new URL(to);
      for (const [name, value] of Object.entries(values)) target.searchParams.set(name, value);
      const state = query.get("state");
      if (state !== null) target.searchParams.set("state", state);
      return { status: 302, body: "", headers: { location: target.href } };
    };
    const redirectUri = query.get("redirect_uri") ?? callbackUrl ?? "";
    if (!isAllowed(redirectUri, callbackUrl)) {
      if (callbackUrl === undefined) return { status: 404, body: "Not Found" };
      const error_description = "The redirect_uri is not associated with this application.";
      return redirect(callbackUrl, { error: "redirect_uri_mismatch", error_description, error_uri: "https://docs.github.com/" });
    }
    askedScopes = (query.get("scope") ?? "").split(/[\s,]+/).filter((scope) => scope !== "");
    if (decision === "deny") {
      const error_description = "The user has denied your application access.";
      return redirect(redirectUri, { error: "access_denied", error_description, error_uri: "https://docs.github.com/" });
    }
    const method = query.get("code_challenge_method");
    if (method !== null && method !== "S256") return { status: 400, body: "code_challenge_method must be S256" };
    const code = randomBytes(10).toString("hex");
    const scopes = askedScopes.filter((scope) => !withheld.includes(scope));
    codes.set(code, { person, redirectUri, challenge: query.get("code_challenge"), scopes });
    return redirect(redirectUri, { code });
  }

  /** Errors come with status 200, as GitHub has them. */
  function exchange(form: URLSearchParams, accept: string): Answer {
    const refuse = (error: string, error_description: string): Answer => ({
      status: 200,
      body: { error, error_description, error_uri: "https://docs.github.com/" },
    });
    if (!accept.includes("application/json")) return { status: 200, body: "error=no_json_asked_for" };
    if (form.get("client_id") !== clientId) return { status: 404, body: { error: "Not Found" } };
    if (!isSame(form.get("client_secret"), clientSecret))
      return refuse("incorrect_client_credentials", "The client_id and/or client_secret passed are incorrect.");
    const text = form.get("code") ?? "";
    const code = codes.get(text);
    const bad = (): Answer => refuse("bad_verification_code", "The code passed is incorrect or expired.");
    if (code === undefined) return bad();
    codes.delete(text);
    if (form.get("redirect_uri") !== code.redirectUri)
      return refuse("redirect_uri_mismatch", "The redirect_uri MUST match the registered callback URL for this application.");
    const verifier = form.get("code_verifier") ?? "";
    if (code.challenge !== null && createHash("sha256").update(verifier).digest("base64url") !== code.challenge) return bad();
    const token = `gho_${randomBytes(18).toString("hex")}`;
    tokens.set(token, code);
    return { status: 200, body: { access_token: token, token_type: "bearer", scope: code.scopes.join(",") } };
  }

  function revoke(authorization: string, body: string): Answer {
    if (!isSame(authorization, `Basic ${Buffer.from(`${clientId}:${clientSecret}`).toString("base64")}`))
      return { status: 401, body: { message: "Bad credentials" } };
    const { access_token: token } = JSON.parse(body) as { access_token?: unknown };
    return typeof token === "string" && tokens.delete(token) ? { status: 204, body: "" } : { status: 404, body: { message: "Not Found" } };
  }

  function api(method: string, url: URL, authorization: string, body: string): Answer {
    const path = url.pathname.slice(API.length);
    if (path === `/applications/${clientId}/token` && method === "DELETE") return revoke(authorization, body);
    const token = tokens.get(authorization.replace(/^(?:Bearer|token) /i, ""));
    if (token === undefined) return { status: 401, body: { message: "Bad credentials" } };
    const { person: who, scopes } = token;
    const needs = (scope: string, all: readonly unknown[]): Answer =>
      scopes.includes(scope) ? page(url, all) : { status: 403, body: { message: `You need at least ${scope} scope.` } };
    if (path === "/user") return { status: 200, body: { id: who.id, login: who.login, name: who.name ?? null, email: null, type: "User" } };
    if (path === "/user/memberships/orgs") {
      const state = url.searchParams.get("state");
      const all = (who.orgs ?? []).map((org) => ({ state: org.state ?? "active", role: "member", organization: { login: org.login } }));
      return needs(
        "read:org",
        all.filter((one) => state === null || one.state === state),
      );
    }
    if (path === "/user/teams")
      return needs(
        "read:org",
        (who.teams ?? []).map((team) => ({ name: team, slug: team.split("/")[1], organization: { login: team.split("/")[0] } })),
      );
    if (path === "/user/emails")
      return needs(
        "user:email",
        (who.emails ?? []).map(({ email, primary = false, verified = false }) => ({ email, primary, verified, visibility: null })),
      );
    return { status: 404, body: { message: "Not Found" } };
  }

  /** With the Link header of GitHub's lists. */
  function page(url: URL, all: readonly unknown[]): Answer {
    const size = Math.min(Number(url.searchParams.get("per_page") ?? 30), 100);
    const number = Number(url.searchParams.get("page") ?? 1);
    const next = new URL(url);
    next.searchParams.set("page", String(number + 1));
    const headers: Record<string, string> = number * size < all.length ? { link: `<${next.href}>; rel="next", <${next.href}>; rel="last"` } : {};
    return { status: 200, body: all.slice((number - 1) * size, number * size), headers };
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const method = request.method ?? "";
    const url = new URL(request.url ?? "", origin);
    const call = `${method} ${url.pathname}`;
    calls.push(call);
    let body = "";
    for await (const chunk of request) body += String(chunk);
    const trouble = troubles.findLast(([text]) => `${call}${url.search}`.startsWith(text))?.[1] ?? null;
    if (trouble === "hang") return;
    if (trouble === "cut") {
      response.destroy();
      return;
    }
    let answer: Answer;
    if (trouble !== null) answer = trouble;
    else if (url.pathname.startsWith(API) && request.headers["user-agent"] === undefined)
      answer = { status: 403, body: "Request forbidden by administrative rules. Please make sure your request has a User-Agent header" };
    else if (call === "GET /login/oauth/authorize") answer = authorize(url);
    else if (call === "POST /login/oauth/access_token") answer = exchange(new URLSearchParams(body), request.headers.accept ?? "");
    else if (url.pathname.startsWith(`${API}/`)) answer = api(method, url, request.headers.authorization ?? "", body);
    else answer = { status: 404, body: "Not Found" };
    const text = typeof answer.body === "string" ? answer.body : JSON.stringify(answer.body);
    const type = typeof answer.body === "string" ? "text/html; charset=utf-8" : "application/json; charset=utf-8";
    response.writeHead(answer.status, { "content-type": type, ...answer.headers }).end(text);
  }

  const listener = (request: IncomingMessage, response: ServerResponse): void => void handle(request, response);
  const server = tls === undefined ? createServer(listener) : createTlsServer({ cert: tls.cert, key: tls.key }, listener);
  server.listen(0, host === undefined ? "127.0.0.1" : "0.0.0.0");
  await once(server, "listening");
  const origin = `${tls === undefined ? "http" : "https"}://${host ?? "127.0.0.1"}:${(server.address() as AddressInfo).port}`;
  return {
    url: origin,
    clientId,
    clientSecret,
    calls,
    get tokens() {
      return new Set(tokens.keys());
    },
    get askedScopes() {
      return askedScopes;
    },
    signIn: (who) => {
      person = who;
    },
    answer: (what) => {
      decision = what;
    },
    withhold: (scopes) => {
      withheld = scopes;
    },
    trouble: (call, what) => void troubles.push([call, what]),
    visit: async (location) => await walk(location, ca === undefined ? {} : { ca }),
    [Symbol.asyncDispose]: async () => {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
}

/** GitHub's rule: host and port as registered, the path as registered or below it; any port on loopback. */
function isAllowed(redirectUri: string, callbackUrl: string | undefined): boolean {
  const asked = URL.parse(redirectUri);
  if (asked === null || callbackUrl === undefined) return asked !== null;
  const own = new URL(callbackUrl);
  const isLoopback = own.hostname === "127.0.0.1" || own.hostname === "localhost";
  const isHere = asked.protocol === own.protocol && (isLoopback ? asked.hostname === own.hostname : asked.host === own.host);
  return isHere && (asked.pathname === own.pathname || asked.pathname.startsWith(`${own.pathname.replace(/\/$/, "")}/`));
}

function isSame(given: string | null, right: string): boolean {
  const [a, b] = [Buffer.from(given ?? ""), Buffer.from(right)];
  return a.length === b.length && timingSafeEqual(a, b);
}
