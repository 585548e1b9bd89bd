// A company's OpenID provider, a real one: people with claims who are logged in at once, tokens for machines, keys that rotate.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { createServer as createTlsServer } from "node:https";
import { SignJWT, importJWK } from "jose";
import { Agent, request } from "undici";
import { freePort } from "./free-port.ts";
import { Provider, type KoaContext, type ProviderInstance } from "./oidc-provider-library.ts";
import type { Pair } from "./pki.ts";
import { walk } from "./visit.ts";

export type OidcAccount = { readonly sub: string; readonly claims?: Readonly<Record<string, unknown>> };
export type OidcTrouble = { readonly status: number; readonly body: string; readonly headers?: Record<string, string> } | "hang" | "cut";
export type SigningAlgorithm = "RS256" | "ES256";

export type OidcIssuerOptions = {
  /** The first one is who sits at the browser. Default: `alice`, in the group `ops`. */
  readonly accounts?: readonly OidcAccount[];
  /** Default: `sidegate`. */
  readonly clientId?: string;
  /** Default: `company-secret`; null: a public client. */
  readonly clientSecret?: string | null;
  /** Of that client. Default: any. */
  readonly redirectUris?: readonly string[];
  /** Clients that act for themselves. Default: `robot` with `robot-secret`. */
  readonly machines?: readonly { readonly id: string; readonly secret: string }[];
  /** Where the claims are told. Default: `userinfo`, as the specification has it. */
  readonly claimsIn?: "userinfo" | "id_token";
  /** Of id tokens and access tokens. Default: RS256. */
  readonly algorithm?: SigningAlgorithm;
  readonly tls?: Pair;
  /** For `visit` and `accessToken` with `tls`. */
  readonly ca?: string;
  /** Default: a free one. */
  readonly port?: number;
};

export type AccessTokenRequest = {
  /** The audience. */
  readonly resource: string;
  readonly scope?: string;
  /** Default: the first machine. */
  readonly client?: { readonly id: string; readonly secret: string };
  /** Default: jwt. */
  readonly format?: "jwt" | "opaque";
  /** Beside those of the token itself. */
  readonly claims?: Readonly<Record<string, unknown>>;
  /** Seconds. Default: 600. */
  readonly lifetime?: number;
};

export type OidcIssuer = AsyncDisposable & {
  /** Without a slash at its end. */
  readonly issuer: string;
  readonly clientId: string;
  readonly clientSecret: string | null;
  /** As `GET /jwks`. */
  readonly calls: string[];
  /** Where clients put their secrets in calls of /token. */
  readonly secretsIn: ("header" | "body")[];
  /** Who sits at the browser from now on. */
  signIn(account: OidcAccount): void;
  /** What the person does with the question whether the application may. Default: approve. */
  answer(decision: "approve" | "deny"): void;
  /** Goes to the location as the person's browser does. @returns the address of our callback, with its query */
  visit(location: string): Promise<URL>;
  /** By client_credentials. @returns the access token */
  accessToken(request: AccessTokenRequest): Promise<string>;
  /** Any JWT, signed with the present key: `iss`, `iat` and `exp` (in ten minutes) are the issuer's unless they are given; undefined leaves one out. */
  sign(claims: Readonly<Record<string, unknown>>, header?: Readonly<Record<string, unknown>>): Promise<string>;
  /** Public keys, as at /jwks. */
  readonly publicKeys: readonly Readonly<Record<string, unknown>>[];
  /** A new key signs from now on. @param options.keepOld whether the old one stays in the set; default true */
  rotateKeys(options?: { readonly keepOld?: boolean }): void;
  /** Changes JSON answers of a path (`/token`, `/.well-known/openid-configuration`); null ends it. */
  tamper(path: string, change: ((body: Record<string, unknown>) => unknown) | null): void;
  /** What becomes of calls whose `METHOD /path` begins with a text. The last one set counts; null ends it. */
  trouble(call: string, trouble: OidcTrouble | null): void;
  /** Nobody answers on its port until `start`. */
  stop(): Promise<void>;
  start(): Promise<void>;
};

// Claims that people may have: the library tells none that it does not know.
const CLAIMS = [
  "acr,address,birthdate,cognito:groups,department,family_name,given_name,groups,hd,locale,name,nickname,oid,org,picture",
  "phone_number,preferred_username,realm_access,resource_access,roles,tid,upn,xms_edov,zoneinfo",
].flatMap((line) => line.split(","));
const ALICE: OidcAccount = {
  sub: "248289761001",
  claims: { name: "Alice Example", preferred_username: "alice", email: "Alice@Example.com", email_verified: true, groups: ["ops"] },
};

export async function startOidcIssuer(options: OidcIssuerOptions = {}): Promise<OidcIssuer> {
  const { clientId = "sidegate", clientSecret = "company-secret", claimsIn = "userinfo", algorithm = "RS256", tls, ca } = options;
  const machines = options.machines ?? [{ id: "robot", secret: "robot-secret" }];
  const port = options.port ?? (await freePort());
  const issuer = `${tls === undefined ? "http" : "https"}://127.0.0.1:${port}`;
  const accounts = new Map<string, OidcAccount>();
  const redirectUris = new Set(options.redirectUris);
  const store = new Map<string, Record<string, unknown>>();
  const calls: string[] = [];
  const secretsIn: ("header" | "body")[] = [];
  const troubles: [string, OidcTrouble | null][] = [];
  const changes = new Map<string, (body: Record<string, unknown>) => unknown>();
  let keys = [newKey(algorithm)];
  let person = options.accounts?.[0] ?? ALICE;
  let decision: "approve" | "deny" = "approve";
  let nextToken: AccessTokenRequest = { resource: "" };
  for (const account of [...(options.accounts ?? []), person]) accounts.set(account.sub, account);

  function build(): ProviderInstance {
    const provider = new Provider(issuer, {
      adapter: (model: string) => memoryAdapter(model, store),
      // The library signs with the first one that fits.
      jwks: { keys },
      cookies: { keys: ["test"] },
      ttl: {
        AccessToken: 600,
        AuthorizationCode: 60,
        ClientCredentials: () => nextToken.lifetime ?? 600,
        Grant: 600,
        IdToken: 600,
        Interaction: 600,
        Session: 600,
      },
      clients: [
        {
          client_id: clientId,
          ...(clientSecret === null ? { token_endpoint_auth_method: "none" } : { client_secret: clientSecret }),
          redirect_uris: [...redirectUris, "http://127.0.0.1/never"],
          response_types: ["code"],
          grant_types: ["authorization_code"],
          id_token_signed_response_alg: algorithm,
        },
        ...machines.map(({ id, secret }) => ({
          client_id: id,
          client_secret: secret,
          redirect_uris: [],
          response_types: [],
          grant_types: ["client_credentials"],
          id_token_signed_response_alg: algorithm,
        })),
      ],
      claims: { openid: ["sub"], profile: CLAIMS, email: ["email", "email_verified"], groups: ["groups"], offline_access: [] },
      conformIdTokenClaims: claimsIn === "userinfo",
      findAccount: (_ctx: unknown, sub: string) => ({ accountId: sub, claims: () => ({ sub, ...accounts.get(sub)?.claims }) }),
      loadExistingGrant: async (ctx: { oidc: { client: { clientId: string }; session: { accountId: string } } }) => {
        const grant = new provider.Grant({ accountId: ctx.oidc.session.accountId, clientId: ctx.oidc.client.clientId });
        grant.addOIDCScope("openid profile email offline_access groups");
        await grant.save();
        return grant;
      },
      scopes: ["openid", "profile", "email", "offline_access", "groups"],
      extraTokenClaims: () => nextToken.claims,
      interactions: { url: (_ctx: unknown, { uid }: { uid: string }) => `/interaction/${uid}` },
      features: {
        devInteractions: { enabled: false },
        clientCredentials: { enabled: true },
        introspection: { enabled: true, allowedPolicy: () => true },
        revocation: { enabled: true },
        resourceIndicators: {
          enabled: true,
          getResourceServerInfo: (ctx: KoaContext, resource: string) => ({
            scope: String(ctx.oidc?.params?.["scope"] ?? ""),
            audience: resource,
            accessTokenFormat: nextToken.format ?? "jwt",
            accessTokenTTL: nextToken.lifetime ?? 600,
            jwt: { sign: { alg: algorithm } },
          }),
        },
      },
      renderError: (ctx: KoaContext, out: unknown, error: unknown) => {
        ctx.body = { out, error: String(error) };
      },
    });
    provider.use(async (ctx, next) => {
      await next();
      const change = changes.get(ctx.path);
      if (change !== undefined && typeof ctx.body === "object" && ctx.body !== null) ctx.body = change({ ...ctx.body });
    });
    return provider;
  }

  let provider = build();
  let callback = provider.callback();
  let server: Server | null = null;

  function rebuild(): void {
    provider = build();
    callback = provider.callback();
  }

  async function handle(incoming: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = new URL(incoming.url ?? "", issuer);
    const call = `${incoming.method ?? ""} ${url.pathname}`;
    calls.push(call);
    if (call === "POST /token") secretsIn.push(incoming.headers.authorization === undefined ? "body" : "header");
    const trouble = troubles.findLast(([text]) => call.startsWith(text))?.[1] ?? null;
    if (trouble === "hang") return;
    if (trouble === "cut") {
      response.destroy();
      return;
    }
    if (trouble !== null) {
      response.writeHead(trouble.status, { "content-type": "application/json", ...trouble.headers }).end(trouble.body);
      return;
    }
    const redirectUri = url.searchParams.get("redirect_uri");
    if (options.redirectUris === undefined && call === "GET /auth" && redirectUri !== null && !redirectUris.has(redirectUri)) {
      // Any redirect URI is one of the client's.
      redirectUris.add(redirectUri);
      rebuild();
    }
    if (url.pathname.startsWith("/interaction/")) {
      const denied = { error: "access_denied", error_description: "The person said no" };
      await provider.interactionFinished(incoming, response, decision === "deny" ? denied : { login: { accountId: person.sub }, consent: {} });
    } else callback(incoming, response);
  }

  async function start(): Promise<void> {
    const listener = (incoming: IncomingMessage, response: ServerResponse): void => void handle(incoming, response);
    server = tls === undefined ? createServer(listener) : createTlsServer({ cert: tls.cert, key: tls.key }, listener);
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
  }

  async function stop(): Promise<void> {
    const open = server;
    server = null;
    if (open === null) return;
    open.close();
    open.closeAllConnections();
    await once(open, "close");
  }

  await start();
  return {
    issuer,
    clientId,
    clientSecret,
    calls,
    secretsIn,
    signIn: (account) => {
      accounts.set(account.sub, account);
      person = account;
    },
    answer: (what) => {
      decision = what;
    },
    visit: async (location) => await walk(location, { ...(ca === undefined ? {} : { ca }), within: `${issuer}/` }),
    accessToken: async (asked) => {
      const client = asked.client ?? machines[0];
      if (client === undefined) throw new Error("The issuer has no machines");
      nextToken = asked;
      const form = new URLSearchParams({
        grant_type: "client_credentials",
        resource: asked.resource,
        ...(asked.scope === undefined ? {} : { scope: asked.scope }),
      });
      const agent = new Agent(ca === undefined ? {} : { connect: { ca } });
      const response = await request(`${issuer}/token`, {
        dispatcher: agent,
        method: "POST",
        headers: {
          "content-type": "application/x-www-form-urlencoded",
          authorization: `Basic ${Buffer.from(`${encodeURIComponent(client.id)}:${encodeURIComponent(client.secret)}`).toString("base64")}`,
        },
        body: form.toString(),
      });
      const body = (await response.body.json()) as Record<string, unknown>;
      await agent.close();
      const token = body["access_token"];
      if (typeof token !== "string") throw new Error(`The issuer gave no token: ${JSON.stringify(body)}`);
      return token;
    },
    sign: async (claims, header = {}) => {
      const now = Math.floor(Date.now() / 1000);
      const key = keys[0];
      if (key === undefined) throw new Error("The issuer has no key");
      const payload = Object.fromEntries(Object.entries({ iss: issuer, iat: now, exp: now + 600, ...claims }).filter(([, value]) => value !== undefined));
      return await new SignJWT(payload)
        .setProtectedHeader({ alg: algorithm, kid: String(key["kid"]), ...header })
        .sign(await importJWK(key as Record<string, string>, algorithm));
    },
    get publicKeys() {
      return keys.map(({ kty, use, kid, alg, crv, e, n, x, y }) => ({ kty, use, kid, alg, crv, e, n, x, y }));
    },
    rotateKeys: ({ keepOld = true } = {}) => {
      keys = [newKey(algorithm), ...(keepOld ? keys : [])];
      rebuild();
    },
    tamper: (path, change) => {
      if (change === null) changes.delete(path);
      else changes.set(path, change);
    },
    trouble: (call, what) => void troubles.push([call, what]),
    stop,
    start,
    [Symbol.asyncDispose]: stop,
  };
}

function newKey(algorithm: SigningAlgorithm): Record<string, unknown> {
  const { privateKey } = algorithm === "RS256" ? generateKeyPairSync("rsa", { modulusLength: 2048 }) : generateKeyPairSync("ec", { namedCurve: "P-256" });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), alg: algorithm, use: "sig" };
}

/** The library's adapter, of its own for each issuer: a code of one is nothing to another. */
function memoryAdapter(model: string, store: Map<string, Record<string, unknown>>): Readonly<Record<string, unknown>> {
  const key = (id: string): string => `${model}:${id}`;
  const findBy = async (field: string, value: string): Promise<unknown> =>
    [...store].find(([name, payload]) => name.startsWith(`${model}:`) && payload[field] === value)?.[1];
  return {
    upsert: async (id: string, payload: Record<string, unknown>): Promise<void> => void store.set(key(id), payload),
    find: async (id: string): Promise<unknown> => store.get(key(id)),
    findByUid: async (uid: string): Promise<unknown> => await findBy("uid", uid),
    findByUserCode: async (code: string): Promise<unknown> => await findBy("userCode", code),
    consume: async (id: string): Promise<void> => {
      const payload = store.get(key(id));
      if (payload !== undefined) payload["consumed"] = Math.floor(Date.now() / 1000);
    },
    destroy: async (id: string): Promise<void> => void store.delete(key(id)),
    revokeByGrantId: async (grantId: string): Promise<void> => {
      for (const [name, payload] of store) if (payload["grantId"] === grantId) store.delete(name);
    },
  };
}
