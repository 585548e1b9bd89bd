// An authorization server without sockets: requests as the gateway hands them over, a browser with cookies, and a person who consents.
import { createHash, randomBytes } from "node:crypto";
import assert from "node:assert/strict";
import { setImmediate as nextTurn } from "node:timers/promises";
import type { EndpointAnswer, EndpointRequest } from "../../src/authorization-server/endpoint.ts";
import type { LoginFlow, LoginFlowDeps } from "../../src/authorization-server/login-flow.ts";
import type { PendingAuthorizations } from "../../src/authorization-server/pending-authorization.ts";
import { openServer, type LiveServer, type ServerDeps } from "../../src/authorization-server/server.ts";
import type { Person } from "../../src/identity/person.ts";
import type { AuthorizationServerPlan, ClientPlan, OAuthResourcePlan } from "../../src/plan/auth-model.ts";
import type { StateStore } from "../../src/state/store.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { NOBODY } from "../../src/plan/build-people.ts";

export const ISSUER = "https://mcp.example.com";
export const REDIRECT = "http://127.0.0.1:33418/callback";

export const ALICE: Person = {
  source: "password",
  subject: "alice",
  name: "alice",
  email: null,
  domain: null,
  orgs: [],
  teams: [],
  groups: [],
  claims: {},
  peer: null,
};

export function resource(changes: Partial<OAuthResourcePlan> = {}): OAuthResourcePlan {
  return {
    url: `${ISSUER}/mcp`,
    routes: ["mcp"],
    scopes: ["mcp"],
    scopeSets: [changes.scopes ?? ["mcp"]],
    optionalScopes: ["mcp:write"],
    allow: [{ ...NOBODY, ownPeople: true, clients: new Set(["machine", "signer"]) }],
    assertions: [],
    grants: new Set(["authorization_code", "refresh_token", "client_credentials"]),
    accessTokenMs: 3_600_000,
    refreshTokenMs: 30 * 86_400_000,
    loginLifetimeMs: 90 * 86_400_000,
    accessTokenFormat: "opaque",
    ...changes,
  };
}

export function client(changes: Partial<ClientPlan> & { readonly id: string }): ClientPlan {
  return { name: changes.id, secret: null, jwks: null, scopes: [], redirectUris: [], ...changes };
}

export function serverPlan(changes: Partial<AuthorizationServerPlan> = {}): AuthorizationServerPlan {
  return {
    issuer: ISSUER,
    host: "mcp.example.com",
    resources: [resource()],
    sessionOrigins: new Set(),
    sessionLifetimesMs: new Map(),
    listeners: null,
    anyHost: false,
    login: { github: null, oidc: null, password: new Map(["alice", "bob"].map((name) => [name, { hash: "", groups: [] }])), tailnet: false },
    clients: [],
    scopes: new Map(),
    key: "key",
    ...changes,
  };
}

/** State in memory, for tests alone. */
export function memoryStore(now: () => number = Date.now): StateStore {
  const map = new Map<string, { value: string; until: number }>();
  const live = (key: string): string | null => {
    const found = map.get(key);
    return found !== undefined && found.until > now() ? found.value : null;
  };
  const set = (key: string, value: string, ttlMs: number | null): void => void map.set(key, { value, until: ttlMs === null ? Infinity : now() + ttlMs });
  // As with a real store, other work comes between a call and its answer.
  const later = async <T>(work: () => T): Promise<T> => {
    await nextTurn();
    return work();
  };
  return {
    get: (key) => later(() => live(key)),
    set: (key, value, ttlMs) => later(() => set(key, value, ttlMs)),
    add: (key, value, ttlMs) =>
      later(() => {
        if (live(key) !== null) return false;
        set(key, value, ttlMs);
        return true;
      }),
    take: (key) =>
      later(() => {
        const value = live(key);
        map.delete(key);
        return value;
      }),
    delete: (key) => later(() => live(key) !== null && map.delete(key)),
    list: (prefix) =>
      later(() =>
        [...map.keys()]
          .filter((key) => key.startsWith(prefix) && live(key) !== null)
          .toSorted()
          .map((key) => ({ key, value: live(key) ?? "" })),
      ),
    close: () => Promise.resolve(),
  };
}

export type Reply = EndpointAnswer & { header(name: string): string | null; json(): Record<string, unknown> };
type Send = { method?: string; headers?: Record<string, string>; body?: string; client?: string; origin?: string };

export class OAuthServer {
  readonly server: LiveServer;
  readonly pending: PendingAuthorizations;
  readonly plan: AuthorizationServerPlan;
  /** How often the sessions of whom were ended. */
  readonly revokedUsers: (string | null)[] = [];
  readonly cookies = new Map<string, string>();

  private constructor(plan: AuthorizationServerPlan, server: LiveServer, pending: PendingAuthorizations) {
    this.plan = plan;
    this.server = server;
    this.pending = pending;
  }

  static async open(changes: Partial<AuthorizationServerPlan> = {}, deps: Partial<ServerDeps> = {}): Promise<OAuthServer> {
    const plan = serverPlan(changes);
    let pending: PendingAuthorizations | null = null;
    const revoked: (string | null)[] = [];
    const openFlow = (flowPlan: AuthorizationServerPlan, flowDeps: LoginFlowDeps): LoginFlow => {
      pending = flowDeps.pending;
      if (deps.openFlow !== undefined) return deps.openFlow(flowPlan, flowDeps);
      return {
        serves: () => false,
        handle: () => Promise.reject(new Error("no pages here")),
        findSession: () => ({ kind: "none" }),
        loginLocation: () => "/",
        sessions: () => Promise.resolve([]),
        endSession: () => Promise.resolve(false),
        revokeUser: (user) => Promise.resolve(revoked.push(user)),
        providers: () => [],
        close: () => {},
      };
    };
    const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: (text) => assert.fail(text) });
    const server = await openServer(plan, { store: memoryStore(deps.now), log, ...deps, openFlow });
    assert.ok(pending !== null);
    const opened = new OAuthServer(plan, server, pending);
    Object.assign(opened, { revokedUsers: revoked });
    return opened;
  }

  request(target: string, { method = "GET", headers = {}, body = "", client: address = "203.0.113.7", origin = this.plan.issuer }: Send = {}): EndpointRequest {
    const cookie = [...this.cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const all = { ...(cookie === "" ? {} : { cookie }), ...headers };
    const path = target.split("?", 1)[0] ?? "";
    const flat = Object.entries(all).flat();
    return { method, target, path, origin, headers: flat, body: Buffer.from(body), client: address, peer: null, requestId: "request-1" };
  }

  async send(target: string, options: Send = {}): Promise<Reply> {
    const request = this.request(target, options);
    assert.ok(this.server.serves(request.origin, request.path), `${request.path} is served`);
    return this.#reply(await this.server.handle(request));
  }

  #reply(answer: EndpointAnswer): Reply {
    const all = (name: string): string[] => answer.headers.filter((_, i) => i % 2 === 1 && answer.headers[i - 1]?.toLowerCase() === name);
    for (const line of all("set-cookie")) {
      const [pair = "", ...attributes] = line.split("; ");
      const [name = "", value = ""] = pair.split("=");
      if (value === "" || attributes.some((one) => one.startsWith("expires=Thu, 01 Jan 1970"))) this.cookies.delete(name);
      else this.cookies.set(name, pair.slice(name.length + 1));
    }
    return { ...answer, header: (name) => all(name.toLowerCase())[0] ?? null, json: () => JSON.parse(answer.body) as Record<string, unknown> };
  }

  form(target: string, fields: Record<string, string>, headers: Record<string, string> = {}): Promise<Reply> {
    return this.send(target, {
      method: "POST",
      headers: { "content-type": "application/x-www-form-urlencoded", ...headers },
      body: new URLSearchParams(fields).toString(),
    });
  }

  register(metadata: Record<string, unknown> = {}, client = "203.0.113.7"): Promise<Reply> {
    const body = { client_name: "Test", redirect_uris: [REDIRECT], token_endpoint_auth_method: "none", ...metadata };
    return this.send("/register", { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), client });
  }

  async registered(metadata: Record<string, unknown> = {}): Promise<string> {
    const reply = await this.register(metadata);
    assert.equal(reply.status, 201, reply.body);
    return String(reply.json()["client_id"]);
  }

  /** Goes to /authorize; the uid of what waits for a person. */
  async begin(fields: Record<string, string>): Promise<{ uid: string; verifier: string; reply: Reply }> {
    const verifier = randomBytes(32).toString("base64url");
    const challenge = createHash("sha256").update(verifier).digest("base64url");
    const all = { response_type: "code", redirect_uri: REDIRECT, state: "st", code_challenge: challenge, code_challenge_method: "S256", ...fields };
    const reply = await this.send(`/authorize?${new URLSearchParams(Object.entries(all).filter(([, value]) => value !== "")).toString()}`);
    const uid = /^\/\.sidegate\/consent\/(.+)$/.exec(reply.header("location") ?? "")?.[1] ?? "";
    return { uid, verifier, reply };
  }

  /** A person consents; where the browser ends up. */
  async approve(uid: string, { person = ALICE, scopes = null }: { person?: Person; scopes?: readonly string[] | null } = {}): Promise<URL> {
    const request = this.request(`/.sidegate/consent/${uid}`, { method: "POST" });
    const found = await this.pending.find(request, uid);
    assert.ok(found !== null, "it waits for this browser");
    const answer = this.#reply(await this.pending.approve(request, uid, person, scopes ?? found.scopes));
    return this.follow(answer);
  }

  /** Follows the way back through our own endpoints to the client. */
  async follow(answer: Reply): Promise<URL> {
    let reply = answer;
    for (;;) {
      const location = new URL(reply.header("location") ?? assert.fail(`no redirect: ${reply.status} ${reply.body}`), ISSUER);
      if (location.origin !== ISSUER) return location;
      reply = await this.send(`${location.pathname}${location.search}`);
    }
  }

  /** The whole way to tokens. */
  async tokens(fields: Record<string, string> & { client_id: string }, options: Parameters<OAuthServer["approve"]>[1] = {}): Promise<Record<string, unknown>> {
    const { uid, verifier } = await this.begin(fields);
    const back = await this.approve(uid, options);
    const code = back.searchParams.get("code") ?? assert.fail(`no code: ${back.href}`);
    const reply = await this.form("/token", {
      grant_type: "authorization_code",
      code,
      code_verifier: verifier,
      client_id: fields.client_id,
      redirect_uri: fields["redirect_uri"] ?? REDIRECT,
    });
    assert.equal(reply.status, 200, reply.body);
    return reply.json();
  }
}
