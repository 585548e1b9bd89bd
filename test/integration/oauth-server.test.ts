// The authorization server of a running gateway: what outlives it, and what several of them share.
import assert from "node:assert/strict";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { request } from "undici";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { startOrigin } from "../components/origin.ts";
import { approve } from "../components/person.ts";

const REDIRECT = "http://127.0.0.1:33418/callback";

type Json = Record<string, unknown>;

async function post(url: string, body: Json | URLSearchParams): Promise<{ status: number; json: Json }> {
  const isForm = body instanceof URLSearchParams;
  const answer = await request(url, {
    method: "POST",
    headers: { "content-type": isForm ? "application/x-www-form-urlencoded" : "application/json" },
    body: isForm ? body.toString() : JSON.stringify(body),
  });
  const text = await answer.body.text();
  return { status: answer.statusCode, json: text === "" ? {} : (JSON.parse(text) as Json) };
}

/** From a registration to tokens, with the person at the browser. */
async function getTokens(origin: string): Promise<{ clientId: string; tokens: Json }> {
  const { json } = await post(`${origin}/register`, { client_name: "Story", redirect_uris: [REDIRECT], token_endpoint_auth_method: "none" });
  const clientId = String(json["client_id"]);
  const verifier = randomBytes(32).toString("base64url");
  const url = new URL(`${origin}/authorize`);
  url.search = new URLSearchParams({
    response_type: "code",
    client_id: clientId,
    redirect_uri: REDIRECT,
    state: "s",
    code_challenge: createHash("sha256").update(verifier).digest("base64url"),
    code_challenge_method: "S256",
    resource: `${origin}/mcp`,
  }).toString();
  const back = await approve(url);
  assert.equal(back.searchParams.get("iss"), origin);
  const code = back.searchParams.get("code") ?? assert.fail(back.href);
  const exchange = { grant_type: "authorization_code", code, code_verifier: verifier, client_id: clientId, redirect_uri: REDIRECT };
  const { status, json: tokens } = await post(`${origin}/token`, new URLSearchParams(exchange));
  assert.equal(status, 200, JSON.stringify(tokens));
  return { clientId, tokens };
}

async function statusWith(origin: string, token: unknown): Promise<number> {
  const answer = await request(`${origin}/mcp`, { headers: { authorization: `Bearer ${String(token)}` } });
  await answer.body.dump();
  return answer.statusCode;
}

test("#29 #18 clients and grants outlive a restart of the gateway, and a revocation takes them at once", async () => {
  await using github = await startGithub();
  await using upstream = await startOrigin((_req, res) => void res.end("served"));
  const state = await mkdtemp(join(tmpdir(), "sidegate-oauth-state-"));
  try {
    const port = await freePort();
    const origin = `http://127.0.0.1:${port}`;
    const yaml = `state: { dir: "${state}" }
listeners:
  web: { protocol: http, listen: "127.0.0.1:${port}", tls: { mode: disabled } }
auth:
  login:
    github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ oauth: { scopes: [mcp], allow: { github_users: [octocat] } } }] }
`;
    let had: Awaited<ReturnType<typeof getTokens>>;
    {
      await using _first = await startGateway({ yaml });
      had = await getTokens(origin);
      assert.equal(await statusWith(origin, had.tokens["access_token"]), 200);
    }
    await using gateway = await startGateway({ yaml });
    assert.equal(await statusWith(origin, had.tokens["access_token"]), 200);
    const refresh = { grant_type: "refresh_token", refresh_token: String(had.tokens["refresh_token"]), client_id: had.clientId };
    const refreshed = await post(`${origin}/token`, new URLSearchParams(refresh));
    assert.equal(refreshed.status, 200);
    assert.equal(await statusWith(origin, refreshed.json["access_token"]), 200);
    const revocation = { token: String(refreshed.json["refresh_token"]), client_id: had.clientId };
    assert.equal((await post(`${origin}/revoke`, new URLSearchParams(revocation))).status, 200);
    for (const tokens of [had.tokens, refreshed.json]) assert.equal(await statusWith(origin, tokens["access_token"]), 401);
    const text = JSON.stringify([gateway.log, gateway.accessLog]);
    for (const secret of [refreshed.json["access_token"], refreshed.json["refresh_token"]]) assert.ok(!text.includes(String(secret)), "no token is logged");
  } finally {
    await rm(state, { recursive: true, force: true });
  }
});
