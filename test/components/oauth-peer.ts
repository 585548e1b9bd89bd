// An OAuth client that speaks HTTP by itself, to hosts by name: for stories that need each step, or a wrong one.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { Agent, buildConnector, request } from "undici";

export const PEER_REDIRECT = "http://127.0.0.1:33418/callback";

export type PeerOptions = {
  /** PEM; default: the system's CAs. */
  readonly ca?: string;
  /** Where hosts really listen: all names are 127.0.0.1. */
  readonly ports?: Readonly<Record<string, number>>;
};

export type PeerAnswer = {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** {} for what is no JSON object. */
  readonly json: Readonly<Record<string, unknown>>;
};

export type PeerRequest = {
  readonly method?: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** An object is sent as JSON, parameters as a form. */
  readonly body?: URLSearchParams | Readonly<Record<string, unknown>>;
  readonly token?: string;
};

export type Tokens = { readonly access: string; readonly refresh: string; readonly scope: string };

/** What an authorization request was, for the exchange of its code. */
export type Asked = { readonly url: URL; readonly verifier: string; readonly redirectUri: string };

export class Peer implements AsyncDisposable {
  readonly #agent: Agent;

  constructor({ ca, ports = {} }: PeerOptions = {}) {
    const connect = buildConnector(ca === undefined ? {} : { ca });
    this.#agent = new Agent({
      connect: (options, callback) =>
        connect(
          { ...options, hostname: "127.0.0.1", servername: options.servername ?? options.hostname, port: String(ports[options.hostname] ?? options.port) },
          callback,
        ),
    });
  }

  /** Follows no redirect. */
  async ask(url: string | URL, { method, headers = {}, body, token }: PeerRequest = {}): Promise<PeerAnswer> {
    const isForm = body instanceof URLSearchParams;
    const answer = await request(url, {
      method: method ?? (body === undefined ? "GET" : "POST"),
      dispatcher: this.#agent,
      headers: {
        ...(body === undefined ? {} : { "content-type": isForm ? "application/x-www-form-urlencoded" : "application/json" }),
        ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
        ...headers,
      },
      body: body === undefined ? null : isForm ? body.toString() : JSON.stringify(body),
    });
    const text = await answer.body.text();
    return { status: answer.statusCode, headers: answer.headers, text, json: objectOf(text) };
  }

  async status(url: string | URL, token?: string): Promise<number> {
    return (await this.ask(url, token === undefined ? {} : { token })).status;
  }

  /** @returns the id of a public client */
  async register(issuer: string, metadata: Readonly<Record<string, unknown>> = {}): Promise<string> {
    const body = { client_name: "Story", redirect_uris: [PEER_REDIRECT], token_endpoint_auth_method: "none", ...metadata };
    const answer = await this.ask(`${issuer}/register`, { body });
    assert.equal(answer.status, 201, answer.text);
    return String(answer.json["client_id"]);
  }

  authorization(issuer: string, clientId: string, params: Readonly<Record<string, string>> = {}): Asked {
    const verifier = randomBytes(32).toString("base64url");
    const redirectUri = params["redirect_uri"] ?? PEER_REDIRECT;
    const url = new URL(`${issuer}/authorize`);
    url.search = new URLSearchParams({
      response_type: "code",
      client_id: clientId,
      redirect_uri: redirectUri,
      state: "s",
      code_challenge: createHash("sha256").update(verifier).digest("base64url"),
      code_challenge_method: "S256",
      ...params,
    }).toString();
    return { url, verifier, redirectUri };
  }

  exchange(issuer: string, clientId: string, { verifier, redirectUri }: Omit<Asked, "url">, code: string): Promise<PeerAnswer> {
    const form = { grant_type: "authorization_code", code, code_verifier: verifier, client_id: clientId, redirect_uri: redirectUri };
    return this.ask(`${issuer}/token`, { body: new URLSearchParams(form) });
  }

  refresh(issuer: string, clientId: string, token: string): Promise<PeerAnswer> {
    return this.ask(`${issuer}/token`, { body: new URLSearchParams({ grant_type: "refresh_token", refresh_token: token, client_id: clientId }) });
  }

  /** From a registration to tokens. @param person who goes to the address and back to ours */
  async login(
    issuer: string,
    resource: string,
    person: (url: URL) => Promise<URL>,
    params: Readonly<Record<string, string>> = {},
  ): Promise<Tokens & { readonly clientId: string }> {
    const clientId = await this.register(issuer);
    const asked = this.authorization(issuer, clientId, { resource, ...params });
    const back = await person(asked.url);
    assert.equal(back.searchParams.get("iss"), issuer);
    const answer = await this.exchange(issuer, clientId, asked, back.searchParams.get("code") ?? assert.fail(back.href));
    assert.equal(answer.status, 200, answer.text);
    return { clientId, ...tokensOf(answer) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#agent.destroy();
  }
}

export function tokensOf({ json, text }: PeerAnswer): Tokens {
  const { access_token: access, refresh_token: refresh, scope } = json;
  if (typeof access !== "string") assert.fail(text);
  return { access, refresh: typeof refresh === "string" ? refresh : "", scope: String(scope ?? "") };
}

function objectOf(text: string): Readonly<Record<string, unknown>> {
  try {
    const value = JSON.parse(text) as unknown;
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}
