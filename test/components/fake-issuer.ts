// An issuer of tokens under the test's full control: metadata, keys and introspection over HTTP on loopback, each of which can be wrong, slow or gone.
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { exportJWK, generateKeyPair, type JWK, SignJWT } from "jose";
import type { IssuerPlan } from "../../src/plan/auth-model.ts";

export type SigningKey = { readonly kid: string; readonly alg: string; readonly privateKey: CryptoKey; readonly publicKey: CryptoKey; readonly jwk: JWK };
export type Handler = (req: IncomingMessage, res: ServerResponse, body: string) => void | Promise<void>;

export type FakeIssuer = AsyncDisposable & {
  /** Its `iss`: an origin, with `path` behind it. */
  readonly issuer: string;
  readonly origin: string;
  /** Requests so far, by path. */
  readonly hits: Map<string, number>;
  /** What it answers, by path; may be changed at any time. */
  readonly pages: Map<string, Handler>;
  /** The keys that it shows. */
  readonly keys: SigningKey[];
  /** Stops answering: its port refuses connections. */
  down(): Promise<void>;
  /** Answers again on the same port. */
  up(): Promise<void>;
};

/** The issuer in the plan of a gateway: named 'corp', for https://mcp.example.com/mcp, with the defaults of the file. */
export function issuerPlan(issuer: string, partial: Partial<IssuerPlan> = {}): IssuerPlan {
  return {
    name: "corp",
    issuer,
    audiences: new Set(["https://mcp.example.com/mcp"]),
    jwksUrl: null,
    algorithms: ["RS256", "PS256", "ES256", "Ed25519", "EdDSA"],
    types: new Set(["at+jwt", "jwt"]),
    clockToleranceMs: 30_000,
    userClaim: ["sub"],
    groupsClaim: ["groups"],
    scopesClaim: null,
    grants: [],
    introspection: null,
    ca: null,
    key: issuer,
    ...partial,
  };
}

export async function makeKey(kid: string, alg = "ES256"): Promise<SigningKey> {
  const { privateKey, publicKey } = await generateKeyPair(alg, { extractable: true });
  return { kid, alg, privateKey, publicKey, jwk: { ...(await exportJWK(publicKey)), kid, alg, use: "sig" } };
}

export function json(value: unknown, status = 200): Handler {
  return (_req, res) => void res.writeHead(status, { "content-type": "application/json" }).end(typeof value === "string" ? value : JSON.stringify(value));
}

/** A token with `iss`, `sub`, `exp` in five minutes and typ at+jwt, unless told otherwise; `undefined` takes a claim or header away. */
export function signToken(issuer: string, key: SigningKey, claims: Record<string, unknown> = {}, header: Record<string, unknown> = {}): Promise<string> {
  const now = Math.floor(Date.now() / 1_000);
  const all = { iss: issuer, sub: "u-1", aud: "https://mcp.example.com/mcp", iat: now, exp: now + 300, ...claims };
  const head = { alg: key.alg, kid: key.kid, typ: "at+jwt", ...header };
  const defined = <T extends object>(value: T): T => Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T;
  return new SignJWT(defined(all)).setProtectedHeader(defined(head)).sign(key.privateKey);
}

/** @param args.path of the issuer, default none; where its metadata is says `args.metadata`, default OpenID's place */
export async function startFakeIssuer(args: { path?: string; metadata?: string; port?: number } = {}): Promise<FakeIssuer> {
  const path = args.path ?? "";
  const hits = new Map<string, number>();
  const pages = new Map<string, Handler>();
  const keys: SigningKey[] = [];
  const sockets = new Set<Socket>();
  const open = async (port: number): Promise<ReturnType<typeof createServer>> => {
    const server = createServer((req, res) => {
      const at = (req.url ?? "").split("?")[0] ?? "";
      hits.set(at, (hits.get(at) ?? 0) + 1);
      let body = "";
      req.setEncoding("utf8");
      req.on("data", (chunk: string) => (body += chunk));
      req.on("end", () => void (pages.get(at) ?? json({ error: "not_found" }, 404))(req, res, body));
    });
    server.on("connection", (socket) => {
      sockets.add(socket);
      socket.once("close", () => sockets.delete(socket));
    });
    server.listen(port, "127.0.0.1");
    await once(server, "listening");
    return server;
  };
  let server = await open(args.port ?? 0);
  const { port } = server.address() as AddressInfo;
  const origin = `http://127.0.0.1:${port}`;
  const issuer = `${origin}${path}`;
  pages.set(args.metadata ?? `${path.replace(/\/$/, "")}/.well-known/openid-configuration`, (req, res, body) =>
    json({ issuer, jwks_uri: `${origin}/keys`, introspection_endpoint: `${origin}/introspect`, authorization_endpoint: `${issuer}/authorize` })(req, res, body),
  );
  pages.set("/keys", (req, res, body) => json({ keys: keys.map(({ jwk }) => jwk) })(req, res, body));
  const down = async (): Promise<void> => {
    const closed = server.listening ? once(server, "close") : null;
    server.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  return {
    issuer,
    origin,
    hits,
    pages,
    keys,
    down,
    up: async () => {
      server = await open(port);
    },
    [Symbol.asyncDispose]: down,
  };
}
