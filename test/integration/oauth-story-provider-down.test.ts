// The identity provider is down or ill: people read so, with a time to come back, and it works by itself when it is well.
import assert from "node:assert/strict";
import { test } from "node:test";
import { approve, scriptedBrowser, type Page } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { Peer, PEER_REDIRECT } from "../components/oauth-peer.ts";
import { startOidcIssuer } from "../components/oidc-issuer.ts";
import { waitFor } from "../components/wait.ts";

function isToldToWait(page: Page): void {
  assert.equal(page.status, 503, page.text);
  assert.match(String(page.headers["retry-after"]), /^[1-9]\d*$/);
  assert.equal(page.headers["cache-control"], "no-store");
  assert.doesNotMatch(page.text, /ECONN|undici|stack|127\.0\.0\.1:\d+\/(?:token|auth)/);
}

test("while the provider is down a page and a client's request say so with 503, and both go on when it is back", async () => {
  await using corp = await startOidcIssuer();
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  const to = `upstream: "http://127.0.0.1:${upstream.port}"`;
  await corp.stop();
  // Its gateway starts without it.
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { oidc: { issuer: "${corp.issuer}", client_id: ${corp.clientId}, client_secret: "${corp.clientSecret}" } }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", ${to}, auth: [{ oauth: { scopes: [mcp], allow: { emails: [alice@example.com] } } }] }
  - { path_prefix: /pages, public_url: "${origin}/pages", ${to}, auth: [{ session: { allow: { emails: [alice@example.com] } } }] }
`,
  });
  await using peer = new Peer();
  await using browser = scriptedBrowser();
  const clientId = await peer.register(origin);
  const asked = peer.authorization(origin, clientId, { resource: `${origin}/mcp` });
  isToldToWait(await browser.open(`${origin}/pages/report`));
  const consent = await browser.open(asked.url);
  assert.equal(consent.status, 200);
  isToldToWait(await browser.submit(consent, "way=oidc"));
  assert.equal(upstream.requests.length, 0);

  await corp.start();
  const page = await waitFor(async () => {
    const next = await browser.open(`${origin}/pages/report`);
    return next.status === 200 ? next : null;
  });
  assert.equal(page.url.href, `${origin}/pages/report`);
  // The request of the client has not been used up by the attempt.
  const end = await approve(browser, asked.url, { way: "oidc", stopAt: PEER_REDIRECT });
  const answer = await peer.exchange(origin, clientId, asked, end.searchParams.get("code") ?? assert.fail(end.href));
  const access = String(answer.json["access_token"]);
  assert.equal(await peer.status(`${origin}/mcp`, access), 200);

  // Whoever is logged in needs no provider.
  await corp.stop();
  assert.equal(await peer.status(`${origin}/mcp`, access), 200);
  assert.equal((await browser.open(`${origin}/pages/report`)).status, 200);
  const refreshed = await peer.refresh(origin, clientId, String(answer.json["refresh_token"]));
  assert.equal(refreshed.status, 200, refreshed.text);
  assert.ok(
    gateway.log.some(({ level }) => level === "warn"),
    "the operator is told",
  );
});

test("when GitHub fails between the pages nobody is logged in, the page says when to try again, and the next attempt works", async () => {
  await using github = await startGithub();
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { path_prefix: /pages, public_url: "${origin}/pages", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ session: { allow: { github_users: [octocat] } } }] }
`,
  });
  await using browser = scriptedBrowser();
  for (const [call, trouble] of [
    ["POST /login/oauth/access_token", { status: 503, body: "unicorn" }],
    ["POST /login/oauth/access_token", "cut"],
    ["GET /api/v3/user", { status: 502, body: "<html>bad gateway</html>" }],
    ["GET /api/v3/user", { status: 429, body: "{}", headers: { "retry-after": "17" } }],
  ] as const) {
    github.trouble(call, trouble);
    const page = await browser.open(`${origin}/pages/x`);
    isToldToWait(page);
    assert.doesNotMatch(page.body, /unicorn|bad gateway/);
    assert.ok(!browser.cookies(origin).has("sidegate"));
    github.trouble(call, null);
  }
  assert.equal(upstream.requests.length, 0);
  assert.equal((await browser.open(`${origin}/pages/x`)).status, 200);
  const text = JSON.stringify([gateway.log, gateway.accessLog]);
  assert.ok(!text.includes(github.clientSecret));
  assert.doesNotMatch(text, /gho_/);
});
