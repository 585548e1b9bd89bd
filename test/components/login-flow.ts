// The login flow alone behind a socket of its own: the issuer and the hosts of pages on one port, with requests of clients that wait for consent.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { openLoginFlow, type LoginFlow } from "../../src/authorization-server/login-flow.ts";
import { LoginError, type LoginSource } from "../../src/authorization-server/login-source.ts";
import type { LoginWays } from "../../src/authorization-server/login-ways.ts";
import type { PendingAuthorization } from "../../src/authorization-server/pending-authorization.ts";
import { redirect } from "../../src/authorization-server/pages.ts";
import type { Person } from "../../src/identity/person.ts";
import { cookieValue } from "../../src/lib/cookies.ts";
import type { TailnetPeer } from "../../src/lib/tailnet-peer.ts";
import type { AuthorizationServerPlan, OAuthResourcePlan } from "../../src/plan/auth-model.ts";
import type { Log } from "../../src/telemetry/log.ts";
import { memoryStore, type MemoryStore } from "./memory-store.ts";
import { NOBODY } from "../../src/plan/build-people.ts";

export function person(name: string, source: Person["source"] = "github"): Person {
  return { source, subject: name, name, email: null, domain: null, orgs: [], teams: [], groups: [], claims: {}, peer: null };
}

export const ALICE_PEER: TailnetPeer = {
  address: "100.64.0.7",
  id: "n7",
  name: "laptop.tail1.ts.net",
  shortName: "laptop",
  user: "alice@example.com",
  tags: [],
};

export type FlowOptions = {
  /** Default: GitHub alone. */
  readonly external?: readonly LoginSource[];
  /** Name and password that are right. */
  readonly password?: readonly [string, string];
  /** Persons of the tailnet may log in. */
  readonly tailnet?: boolean;
  /** Whose all connections are in the tailnet. */
  readonly peer?: TailnetPeer;
  readonly pending?: Partial<PendingAuthorization>;
  readonly plan?: Partial<AuthorizationServerPlan>;
  readonly resource?: Partial<OAuthResourcePlan>;
};

export type Flow = AsyncDisposable & {
  readonly flow: LoginFlow;
  readonly store: MemoryStore;
  readonly port: number;
  /** http://id.localhost:PORT */
  readonly issuer: string;
  /** http://app.localhost:PORT, whose pages show who has a session. */
  readonly app: string;
  /** What clients were told: `approve octocat mcp` or `deny access_denied: why`. */
  readonly told: string[];
  readonly logged: { readonly fields: Record<string, unknown>; readonly text: string }[];
  /** Milliseconds that the clock is ahead. */
  skew: number;
};

/** A provider that lets people in as `name`, without a page: it redirects at once. `fail`: what `start` or `finish` throw. */
export function fakeSource(
  options: { kind?: LoginSource["kind"]; label?: string; at?: string; who?: Person; startError?: LoginError; finishError?: LoginError } = {},
): LoginSource & {
  readonly started: { redirectUri: string; state: string }[];
  who: Person;
  /** Every answer is another provider's. */
  isOther: boolean;
} {
  const { kind = "github", label = "GitHub", at } = options;
  const started: { redirectUri: string; state: string }[] = [];
  return {
    kind,
    label,
    started,
    who: options.who ?? person("octocat"),
    isOther: false,
    async start({ redirectUri, state }) {
      if (options.startError !== undefined) throw options.startError;
      started.push({ redirectUri, state });
      const back = `${redirectUri}?code=c-${started.length}&state=${state}`;
      return { location: at === undefined ? back : `${at}?back=${encodeURIComponent(back)}`, memory: `memory ${started.length}` };
    },
    async finish({ callback, memory }) {
      if (options.finishError !== undefined) throw options.finishError;
      if (this.isOther) throw new LoginError("failed", "This is another provider's answer");
      const error = callback.searchParams.get("error");
      if (error === "access_denied") throw new LoginError("refused", `${label} was told not to say who you are`);
      if (error !== null) throw new LoginError("refused", `${label} has words of its own for this`);
      if (callback.searchParams.get("code") !== `c-${memory.split(" ")[1]}`) throw new LoginError("failed", "This is another login's code");
      return this.who;
    },
    provider: () => ({ kind: "login", name: label, url: at ?? "", outage: null }),
    close() {},
  };
}

/** Serves it. The consent page of the one waiting request is at /.sidegate/consent/u1; /client on the issuer's port is the client's redirect URI. */
export async function startLoginFlow(options: FlowOptions = {}): Promise<Flow> {
  const server = createServer();
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  const issuer = `http://id.localhost:${port}`;
  const app = `http://app.localhost:${port}`;
  const told: string[] = [];
  const logged: { fields: Record<string, unknown>; text: string }[] = [];
  const note = (fields: Record<string, unknown>, text: string): void => void logged.push({ fields, text });
  const log = { info: note, warn: note, error: note, debug: note } as unknown as Log;
  let skew = 0;
  const now = (): number => Date.now() + skew;
  const store = memoryStore(now);
  const resource: OAuthResourcePlan = {
    url: `${issuer}/mcp`,
    routes: ["mcp"],
    scopes: ["mcp"],
    scopeSets: [["mcp"]],
    assertions: [],
    optionalScopes: ["mcp:write"],
    allow: [{ ...NOBODY, githubUsers: new Set(["octocat"]), ownPeople: true }],
    grants: new Set(["authorization_code"]),
    accessTokenMs: 60_000,
    refreshTokenMs: 600_000,
    loginLifetimeMs: 86_400_000,
    accessTokenFormat: "opaque",
    ...options.resource,
  };
  const plan: AuthorizationServerPlan = {
    issuer,
    host: "id.localhost",
    resources: [resource],
    sessionOrigins: new Set([app]),
    sessionLifetimesMs: new Map([[app, 3_600_000]]),
    listeners: null,
    anyHost: false,
    login: {
      github: null,
      oidc: null,
      password: options.password === undefined ? null : new Map([[options.password[0], { hash: "", groups: [] }]]),
      tailnet: false,
    },
    clients: [],
    scopes: new Map([["mcp", { name: "mcp", description: "Use the tools of this server", includes: new Set(), allow: null }]]),
    key: "test",
    ...options.plan,
  };
  const waiting: PendingAuthorization = {
    uid: "u1",
    clientId: "client-1",
    clientName: "Test client",
    clientKind: "registered",
    redirectUri: `http://127.0.0.1:${port}/client`,
    scopes: ["mcp"],
    resource,
    ...options.pending,
  };
  const ways: LoginWays & { close(): void } = {
    external: options.external ?? [fakeSource()],
    password:
      options.password === undefined
        ? null
        : {
            check: async (name, password) => {
              if (name === "slow") throw new LoginError("throttled", "Too many attempts have failed; try again in 30 seconds", { retryAfterS: 30 });
              if (name !== options.password?.[0] || password !== options.password[1])
                throw new LoginError("refused", "The user name or the password is not right");
              return person(name, "password");
            },
          },
    tailnet: (peer) => (options.tailnet === true && peer !== null && peer.user !== null ? { ...person(peer.user, "tailnet"), peer } : null),
    close() {},
  };
  let isWaiting = true;
  const flow = openLoginFlow(plan, {
    store,
    keys: { cookieKeys: ["a key of the test"] },
    log,
    now,
    ways,
    pending: {
      find: async (_request, uid) => (isWaiting && uid === waiting.uid ? waiting : null),
      approve: async (_request, _uid, who, scopes) => {
        isWaiting = false;
        told.push(`approve ${who.name} ${scopes.join(" ")}`);
        return redirect(`${waiting.redirectUri}?code=granted`);
      },
      deny: async (_request, _uid, error, description) => {
        isWaiting = false;
        told.push(`deny ${error}: ${description}`);
        return redirect(`${waiting.redirectUri}?error=${error}`);
      },
    },
  });

  server.on("request", (req, res) => {
    void (async () => {
      const chunks: Buffer[] = [];
      for await (const chunk of req) chunks.push(chunk as Buffer);
      const target = req.url ?? "/";
      const path = target.split("?", 1)[0] ?? "";
      const origin = `http://${req.headers.host ?? ""}`;
      const headers = req.rawHeaders;
      if (!flow.serves(origin, path)) {
        const cookie = cookieValue(headers, "sidegate");
        const found = origin === app && cookie !== null ? await flow.findSession(cookie, origin) : { kind: "none" as const };
        if (origin === app && found.kind === "none" && !target.includes("open"))
          return void res.writeHead(302, { location: flow.loginLocation(origin, target) }).end();
        return void res.end(`at ${target} as ${found.kind === "identity" ? found.identity.name : found.kind}`);
      }
      const request = {
        method: req.method ?? "GET",
        target,
        path,
        origin,
        headers,
        body: Buffer.concat(chunks),
        client: "192.0.2.1",
        peer: options.peer ?? null,
        requestId: "request-1",
      };
      const answer = await flow.handle(request);
      res.writeHead(answer.status, [...answer.headers]);
      res.end(answer.body);
    })().catch((error: unknown) => res.writeHead(500).end(String(error)));
  });
  return {
    flow,
    store,
    port,
    issuer,
    app,
    told,
    logged,
    get skew() {
      return skew;
    },
    set skew(value) {
      skew = value;
    },
    [Symbol.asyncDispose]: async () => {
      flow.close();
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
}
