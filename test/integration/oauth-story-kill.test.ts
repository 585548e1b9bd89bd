// The gateway is killed while clients register, log in and refresh: what a client was given is good after the restart.
import assert from "node:assert/strict";
import { randomInt } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { waitFor } from "../components/wait.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { Peer, tokensOf } from "../components/oauth-peer.ts";
import { approve } from "../components/person.ts";

const ROUNDS = 12;
const BUDGET_MS = 20_000;
const WORKERS = 3;

/** What a client has: the last refresh token that came, and all access tokens. */
type Holding = { readonly clientId: string; refresh: string | null; readonly access: string[] };

test("#29 killed at any moment, the gateway comes back with all that it acknowledged: clients, access tokens, refresh tokens", async (t) => {
  const state = await mkdtemp(join(tmpdir(), "sidegate-kill-"));
  t.after(() => rm(state, { recursive: true, force: true }));
  await using github = await startGithub();
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  const resource = `${origin}/mcp`;
  const yaml = `state: { dir: "${state}" }
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { path: /mcp, public_url: "${resource}", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ oauth: { scopes: [mcp], allow: { github_users: [octocat] } } }] }
`;
  const holdings: Holding[] = [];
  let isKilled = true;

  /** One thing that a client does, chosen by chance; what the answer brings is kept. */
  async function act(peer: Peer): Promise<void> {
    const holding = holdings.length < 3 || randomInt(4) === 0 ? null : holdings[randomInt(holdings.length)];
    if (holding === null || holding === undefined) {
      const registered = await peer.ask(`${origin}/register`, {
        body: { redirect_uris: ["http://127.0.0.1:33418/callback"], token_endpoint_auth_method: "none" },
      });
      if (registered.status === 429) return;
      assert.equal(registered.status, 201, registered.text);
      holdings.push({ clientId: String(registered.json["client_id"]), refresh: null, access: [] });
      return;
    }
    if (holding.refresh === null) {
      const asked = peer.authorization(origin, holding.clientId, { resource });
      const code = (await approve(asked.url)).searchParams.get("code") ?? assert.fail("no code");
      const answer = await peer.exchange(origin, holding.clientId, asked, code);
      assert.equal(answer.status, 200, answer.text);
      const { access, refresh } = tokensOf(answer);
      holding.access.push(access);
      holding.refresh = refresh;
      return;
    }
    await refreshOf(peer, holding);
  }

  async function refreshOf(peer: Peer, holding: Holding): Promise<void> {
    const answer = await peer.refresh(origin, holding.clientId, holding.refresh ?? "");
    assert.equal(answer.status, 200, `refresh: ${answer.text}`);
    const { access, refresh } = tokensOf(answer);
    holding.access.push(access);
    holding.refresh = refresh;
  }

  async function work(peer: Peer): Promise<void> {
    while (!isKilled) {
      try {
        await act(peer);
      } catch (error) {
        // Read anew: the kill may have come meanwhile.
        if (!(isKilled as boolean)) throw error;
      }
    }
  }

  /** All that is held is good. */
  async function check(peer: Peer): Promise<void> {
    for (const holding of holdings) {
      for (const access of holding.access) assert.equal(await peer.status(resource, access), 200, "an access token that was given out");
      if (holding.refresh !== null) await refreshOf(peer, holding);
      // The registration is known: another client would be 401.
      else assert.equal((await peer.refresh(origin, holding.clientId, "none")).json["error"], "invalid_grant");
    }
  }

  const until = performance.now() + BUDGET_MS;
  let rounds = 0;
  for (; rounds < ROUNDS && performance.now() < until; rounds += 1) {
    const gateway = await startGateway({ yaml });
    await using peer = new Peer();
    try {
      await check(peer);
      // So many are enough to look at after each start.
      for (const holding of holdings) holding.access.splice(0, holding.access.length - 2);
      holdings.splice(0, Math.max(0, holdings.length - 12));
      isKilled = false;
      const workers = Array.from({ length: WORKERS }, () => work(peer));
      const dying = delay(randomInt(30, 400)).then(async () => {
        // On a busy machine a login takes longer.
        await waitFor(() => holdings.some(({ refresh }) => refresh !== null), { timeoutMs: 20_000, what: () => "somebody to log in" });
        isKilled = true;
        await gateway.stop("SIGKILL");
      });
      await Promise.all([...workers, dying]);
    } finally {
      isKilled = true;
      await gateway.stop("SIGKILL");
      await gateway[Symbol.asyncDispose]();
    }
  }
  assert.ok(rounds >= 3, `${rounds} rounds`);
  assert.ok(holdings.some(({ refresh }) => refresh !== null));
  await using _last = await startGateway({ yaml });
  await using peer = new Peer();
  await check(peer);
  t.diagnostic(`${rounds} kills, ${holdings.length} clients, ${holdings.flatMap(({ access }) => access).length} access tokens`);
});
