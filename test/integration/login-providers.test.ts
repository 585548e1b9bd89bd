// Stories of people who log in at real providers: from a page or a client's request to the provider and back.
import assert from "node:assert/strict";
import { test } from "node:test";
import { openGithubLogin } from "../../src/authorization-server/login-github.ts";
import { openOidcLogin } from "../../src/authorization-server/login-oidc.ts";
import type { LoginSource } from "../../src/authorization-server/login-source.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { approve, scriptedBrowser } from "../components/browser.ts";
import { startGithub, type Github } from "../components/github.ts";
import { startLoginFlow, type Flow } from "../components/login-flow.ts";
import { NOBODY } from "../../src/plan/build-people.ts";
import { startOidcIssuer, type OidcIssuer } from "../components/oidc-issuer.ts";
import { waitFor } from "../components/wait.ts";

const LOG = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
const CONSENT = "/.sidegate/consent/u1";

function githubSource(github: Github): LoginSource {
  return openGithubLogin({ clientId: github.clientId, clientSecret: github.clientSecret, baseUrl: github.url, apiUrl: `${github.url}/api/v3`, ca: null }, LOG);
}

function oidcSource(issuer: OidcIssuer): LoginSource {
  return openOidcLogin(
    {
      issuer: issuer.issuer,
      clientId: issuer.clientId,
      clientSecret: issuer.clientSecret,
      name: "Acme",
      scopes: ["openid", "profile", "email"],
      groupsClaim: ["groups"],
      ca: null,
    },
    LOG,
  );
}

function clientOf({ port }: Flow): string {
  return `http://127.0.0.1:${port}/client`;
}

test("a person logs in to a page with GitHub, whose token does not stay with us", async () => {
  await using github = await startGithub();
  const source = githubSource(github);
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  assert.equal((await browser.open(`${server.app}/report`)).text, "at /report as octocat");
  await waitFor(() => github.tokens.size === 0);
  assert.doesNotMatch(JSON.stringify([...server.store.entries]), /gho_/);
  assert.doesNotMatch(JSON.stringify(server.logged), /gho_|test-secret/);
  source.close();
});

test("a member of an organisation is let in for it, and an invited one is not", async () => {
  await using github = await startGithub();
  const source = githubSource(github);
  await using server = await startLoginFlow({ external: [source], resource: { allow: [{ ...NOBODY, githubOrgs: new Set(["acme"]) }] } });
  for (const [state, told] of [
    ["pending", []],
    ["active", ["approve hubot mcp"]],
  ] as const) {
    github.signIn({ id: 9, login: "hubot", orgs: [{ login: "Acme", state }] });
    await using browser = scriptedBrowser();
    await approve(browser, `${server.issuer}${CONSENT}`, { stopAt: clientOf(server) }).catch(() => undefined);
    assert.deepEqual(server.told, told);
  }
  source.close();
});

test("a person logs in with the company's provider and is known by its groups", async () => {
  await using issuer = await startOidcIssuer();
  const source = oidcSource(issuer);
  await using server = await startLoginFlow({ external: [source], resource: { allow: [{ ...NOBODY, groups: new Set(["ops"]) }] } });
  await using browser = scriptedBrowser();
  const end = await approve(browser, `${server.issuer}${CONSENT}`, { way: "oidc", stopAt: clientOf(server) });
  assert.equal(end.search, "?code=granted");
  assert.deepEqual(server.told, ["approve alice@example.com mcp"]);
  source.close();
});

test("the answer of one provider is not taken for that of the other (mix-up)", async () => {
  await using issuer = await startOidcIssuer();
  await using github = await startGithub();
  const [toGithub, toIssuer] = [githubSource(github), oidcSource(issuer)];
  await using server = await startLoginFlow({ external: [toGithub, toIssuer] });
  await using browser = scriptedBrowser();
  // The browser is at the honest provider, and a code of the other one comes back with its state.
  const asked = await browser.open(`${server.issuer}${CONSENT}`);
  const atGithub = await browser.submit(asked, "way=github", {}, { stopAt: github.url });
  const state = atGithub.url.searchParams.get("state") ?? "";
  const back = new URL(`${server.issuer}/callback`);
  back.search = new URLSearchParams({ code: "a-code-of-the-issuer", state, iss: issuer.issuer }).toString();
  const page = await browser.open(back);
  assert.equal(page.status, 400);
  assert.deepEqual(server.told, []);
  assert.ok(!github.calls.includes("POST /login/oauth/access_token"), "the code did not go to GitHub");
  toGithub.close();
  toIssuer.close();
});

test("a provider that is down is a page with a time to come back, and when it is up logins work by themselves", async () => {
  await using issuer = await startOidcIssuer();
  await issuer.stop();
  const source = oidcSource(issuer);
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  const down = await browser.open(`${server.app}/report`);
  assert.equal(down.status, 503);
  assert.match(String(down.headers["retry-after"]), /^\d+$/);
  assert.match(down.text, /Acme does not answer now/);
  assert.doesNotMatch(down.text, /refused|127\.0\.0\.1/);
  await issuer.start();
  const page = await waitFor(async () => {
    const next = await browser.open(`${server.app}/report`);
    return next.status === 200 ? next : null;
  });
  assert.equal(page.text, "at /report as alice@example.com");
  source.close();
});

test("GitHub fails between the pages: nobody is logged in, and the next attempt works", async () => {
  await using github = await startGithub();
  const source = githubSource(github);
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  github.trouble("GET /api/v3/user", { status: 502, body: "Bad gateway" });
  assert.equal((await browser.open(`${server.app}/report`)).status, 503);
  assert.ok(!browser.cookies(server.app).has("sidegate"));
  github.trouble("GET /api/v3/user", null);
  assert.equal((await browser.open(`${server.app}/report`)).text, "at /report as octocat");
  source.close();
});
