// Stories of people who are asked for consent: what the page does, and what it does not let happen.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LoginError } from "../../src/authorization-server/login-source.ts";
import { approve, scriptedBrowser, type Page } from "../components/browser.ts";
import { ALICE_PEER, fakeSource, person, startLoginFlow, type Flow } from "../components/login-flow.ts";
import { NOBODY } from "../../src/plan/build-people.ts";

const CONSENT = "/.sidegate/consent/u1";

function clientOf({ port }: Flow): string {
  return `http://127.0.0.1:${port}/client`;
}

function header(page: Page, name: string): string {
  return String(page.headers[name] ?? "");
}

test("a person whom one of several ways admits is let in with its scopes, though the client asked for those of all", async () => {
  const admin = { name: "admin", description: null, includes: new Set<string>(), allow: { ...NOBODY, githubUsers: new Set(["hubot"]) } };
  const resource = { scopes: ["mcp", "admin"], scopeSets: [["mcp"], ["admin"]] };
  await using server = await startLoginFlow({ resource, pending: { scopes: ["mcp", "admin"] }, plan: { scopes: new Map([["admin", admin]]) } });
  await using browser = scriptedBrowser();
  await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github", {}, { stopAt: clientOf(server) });
  assert.deepEqual(
    server.told.filter((line) => line.startsWith("approve")),
    ["approve octocat mcp"],
  );
});

test("#31 a login begins with a page that says who asks, where it leads, and for what", async () => {
  const source = fakeSource();
  await using server = await startLoginFlow({ external: [source], pending: { clientName: "<b>Bank</b>\u202e" } });
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.issuer}${CONSENT}`);
  assert.equal(page.status, 200);
  assert.match(page.text, /Connect <b>Bank<\/b> \?/);
  assert.match(page.text, /registered itself, and nobody has checked its name/);
  assert.match(page.text, /An application on this computer at 127\.0\.0\.1:\d+/);
  assert.ok(page.text.includes(`${server.issuer}/mcp`));
  assert.match(page.text, /Use the tools of this server mcp/);
  assert.ok(!page.body.includes("<b>Bank"));
  assert.ok(!page.body.includes("\u202e"));
  assert.ok(!/<script|javascript:|\son\w+=/i.test(page.body));
  const policy = header(page, "content-security-policy");
  assert.match(policy, /default-src 'none'; style-src 'sha256-[^']+'; form-action 'self' https: http:; frame-ancestors 'none'; base-uri 'none'/);
  assert.equal(header(page, "x-frame-options"), "DENY");
  assert.equal(header(page, "cache-control"), "no-store");
  assert.equal(header(page, "referrer-policy"), "no-referrer");
  // Nobody was sent to the provider, and no state exists yet.
  assert.equal(source.started.length, 0);
  assert.equal(server.store.entries.size, 0);
});

test("#31 consent and a login lead back to the client, once", async () => {
  const source = fakeSource();
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  const end = await approve(browser, `${server.issuer}${CONSENT}`, { stopAt: clientOf(server) });
  assert.equal(end.search, "?code=granted");
  assert.deepEqual(server.told, ["approve octocat mcp"]);
  assert.equal(source.started[0]?.redirectUri, `${server.issuer}/callback`);
  // The same answer of the provider again.
  const again = await browser.open(`${server.issuer}/callback?code=c-1&state=${source.started[0]?.state}`);
  assert.equal(again.status, 400);
  assert.match(again.text, /This login is over/);
  assert.equal(server.told.length, 1);
  const logged = JSON.stringify(server.logged);
  assert.match(logged, /A person has consented/);
  assert.ok(!logged.includes(source.started[0]?.state ?? "?"));
});

test("#31 the answer of a provider is worth nothing in another browser, and is used up by the attempt", async () => {
  const source = fakeSource({ at: "http://idp.localhost/authorize" });
  await using server = await startLoginFlow({ external: [source] });
  await using victim = scriptedBrowser();
  await using attacker = scriptedBrowser();
  const walk = { stopAt: "http://idp.localhost" };
  for (const browser of [victim, attacker]) await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github", {}, walk);
  const [mine, theirs] = source.started;
  const crossed = await victim.open(`${server.issuer}/callback?code=c-2&state=${theirs?.state}`);
  assert.equal(crossed.status, 400);
  const late = await attacker.open(`${server.issuer}/callback?code=c-2&state=${theirs?.state}`);
  assert.equal(late.status, 400);
  const right = await victim.open(`${server.issuer}/callback?code=c-1&state=${mine?.state}`, { stopAt: clientOf(server) });
  assert.equal(right.url.search, "?code=granted");
});

test("#31 a state is over after 10 minutes", async () => {
  const source = fakeSource({ at: "http://idp.localhost/authorize" });
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github", {}, { stopAt: "http://idp.localhost" });
  server.skew = 600_001;
  const late = await browser.open(`${server.issuer}/callback?code=c-1&state=${source.started[0]?.state}`);
  assert.equal(late.status, 400);
  assert.deepEqual(server.told, []);
});

test("#31 a form that no page of ours gave to this browser does nothing", async (t) => {
  const source = fakeSource();
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  await using other = scriptedBrowser();
  const page = await browser.open(`${server.issuer}${CONSENT}`);
  const foreign = await other.open(`${server.issuer}${CONSENT}`);
  const tries: [string, () => Promise<Page>][] = [
    ["without a token", () => browser.submit(page, "way=github", { csrf: "" })],
    ["with another browser's token", () => browser.submit(page, "way=github", { csrf: foreign.forms[0]?.fields["csrf"] ?? "" })],
    ["from another site", () => browser.submit(page, "way=github", {}, { headers: { "sec-fetch-site": "cross-site" } })],
    ["from a sibling host", () => browser.submit(page, "way=github", {}, { headers: { "sec-fetch-site": "same-site" } })],
    ["with a foreign Origin", () => browser.submit(page, "way=github", {}, { headers: { origin: "https://evil.example" } })],
    ["as JSON", () => browser.submit(page, "way=github", {}, { headers: { "content-type": "text/plain" } })],
    ["cancelled by a stranger", () => browser.submit(page, "way=cancel", { csrf: "x" })],
  ];
  for (const [name, attempt] of tries) {
    await t.test(name, async () => {
      const answer = await attempt();
      assert.equal(answer.status, 403);
      assert.match(answer.text, /The form was not accepted/);
      assert.equal(source.started.length, 0);
      assert.deepEqual(server.told, []);
    });
  }
  await t.test("without the cookie", async () => {
    browser.clearCookies();
    assert.match((await browser.submit(page, "way=github")).text, /Allow cookies/);
  });
  await t.test("the token of one request is not that of another", async () => {
    const fresh = await browser.open(`${server.issuer}${CONSENT}`);
    assert.equal(
      (await browser.submit({ ...fresh, forms: fresh.forms.map((form) => ({ ...form, action: "/.sidegate/consent/u2" })) }, "way=github")).status,
      400,
    );
  });
});

test("a person cancels, and the client is told", async () => {
  await using server = await startLoginFlow();
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.issuer}${CONSENT}`);
  const end = await browser.submit(page, "Cancel", {}, { stopAt: clientOf(server) });
  assert.equal(end.url.search, "?error=access_denied");
  assert.deepEqual(server.told, ["deny access_denied: The person did not consent"]);
});

test("a login that is cancelled at the provider comes back to the page", async () => {
  const source = fakeSource({ at: "http://idp.localhost/authorize" });
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github", {}, { stopAt: "http://idp.localhost" });
  const back = await browser.open(`${server.issuer}/callback?error=access_denied&state=${source.started[0]?.state}`);
  assert.equal(back.status, 200);
  assert.match(back.body, /role="alert"/);
  assert.match(back.text, /The login was cancelled/);
  assert.deepEqual(server.told, []);
});

test("what a provider says went wrong is told in the words of its source, and in those of no other", async () => {
  const source = fakeSource({ at: "http://idp.localhost/authorize" });
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  const answer = async (query: string): Promise<Page> => {
    await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github", {}, { stopAt: "http://idp.localhost" });
    return browser.open(`${server.issuer}/callback?${query}&state=${source.started.at(-1)?.state}`);
  };
  assert.match((await answer("error=redirect_uri_mismatch")).text, /GitHub has words of its own for this/);
  // An answer that is not of the provider is no word that the person has cancelled.
  source.isOther = true;
  const mixed = await answer("error=access_denied&iss=https%3A%2F%2Fevil.example");
  assert.equal(mixed.status, 400);
  assert.match(mixed.text, /another provider's answer/);
});

test("a provider that is not set up correctly is told as that, and not as a person who was refused", async () => {
  const startError = new LoginError("misconfigured", "The login with GitHub is not set up correctly");
  await using server = await startLoginFlow({ external: [fakeSource({ startError })] });
  await using browser = scriptedBrowser();
  const page = await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github");
  assert.equal(page.status, 403);
  assert.match(page.text, /The login does not work/);
});

test("a person who is not admitted is told the account and how to be somebody else", async () => {
  const source = fakeSource({ who: { ...person("mallory"), claims: { email: "mallory@example.com", email_verified: false } } });
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  const page = await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github");
  assert.equal(page.status, 403);
  assert.ok(server.logged.some(({ fields }) => fields["email"] === null && fields["email_unverified"] === "mallory@example.com"));
  assert.match(page.text, /You logged in as mallory \(GitHub\)/);
  assert.match(page.text, /sign out of GitHub first/);
  assert.match(page.text, /Request id request-1/);
  assert.deepEqual(server.told, []);
  assert.ok(server.logged.some(({ fields, text }) => text === "A person who logged in is not admitted" && fields["user"] === "github:mallory"));
  // The application learns that it is not the person who refuses.
  {
    await using other = await startLoginFlow({ external: [fakeSource({ who: person("mallory") })] });
    await using theirs = scriptedBrowser();
    const refused = await theirs.submit(await theirs.open(`${other.issuer}${CONSENT}`), "way=github");
    await theirs.submit(refused, "way=leave", {}, { stopAt: clientOf(other) });
    assert.deepEqual(other.told, ["deny access_denied: The account is not admitted"]);
  }
  // From there somebody else logs in.
  source.who = person("octocat");
  await approve(browser, `${server.issuer}${CONSENT}`, { stopAt: clientOf(server) });
  assert.deepEqual(server.told, ["approve octocat mcp"]);
});

test("a person gets no scope that is for others, and no login ends without those that all need", async () => {
  const write = { name: "mcp:write", description: null, includes: new Set<string>(), allow: { ...NOBODY, githubUsers: new Set(["hubot"]) } };
  const asked = { pending: { scopes: ["mcp", "mcp:write"] } };
  {
    await using server = await startLoginFlow({ ...asked, plan: { scopes: new Map([["mcp:write", write]]) } });
    await using browser = scriptedBrowser();
    await approve(browser, `${server.issuer}${CONSENT}`, { stopAt: clientOf(server) });
    assert.deepEqual(server.told, ["approve octocat mcp"]);
  }
  {
    await using server = await startLoginFlow({ ...asked, plan: { scopes: new Map([["mcp", { ...write, name: "mcp" }]]) } });
    await using browser = scriptedBrowser();
    const page = await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github");
    assert.equal(page.status, 403);
    assert.deepEqual(server.told, []);
  }
});

test("a provider that is down is a page with a time to wait, not a loop", async () => {
  const down = new LoginError("unavailable", "GitHub does not answer; try again in a minute", { detail: "connection refused", retryAfterS: 20 });
  for (const source of [fakeSource({ startError: down }), fakeSource({ finishError: down })]) {
    await using server = await startLoginFlow({ external: [source] });
    await using browser = scriptedBrowser();
    const page = await browser.submit(await browser.open(`${server.issuer}${CONSENT}`), "way=github");
    assert.equal(page.status, 503);
    assert.equal(header(page, "retry-after"), "20");
    assert.match(page.text, /GitHub does not answer/);
    assert.ok(!page.text.includes("connection refused"));
    assert.ok(JSON.stringify(server.logged).includes("connection refused"));
  }
});

test("a wrong password comes back to the page with the name in it, a right one leads on", async () => {
  await using server = await startLoginFlow({ external: [], password: ["alice", "correct horse"] });
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.issuer}${CONSENT}`);
  const wrong = await browser.submit(page, "Log in and allow", { name: 'al"ice', password: "hunter2" });
  assert.equal(wrong.status, 401);
  assert.match(wrong.body, /role="alert"[\s\S]*The user name or the password is not right\./);
  assert.equal(wrong.forms[0]?.fields["name"], 'al"ice');
  assert.ok(!wrong.body.includes("hunter2"));
  const slow = await browser.submit(wrong, "Log in and allow", { name: "slow", password: "x" });
  assert.equal(slow.status, 429);
  assert.equal(header(slow, "retry-after"), "30");
  const end = await browser.submit(slow, "Log in and allow", { name: "alice", password: "correct horse" }, { stopAt: clientOf(server) });
  assert.equal(end.url.search, "?code=granted");
  assert.deepEqual(server.told, ["approve alice mcp"]);
});

test("on the tailnet the login is skipped, the consent is not", async () => {
  await using server = await startLoginFlow({ external: [], tailnet: true, peer: ALICE_PEER });
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.issuer}${CONSENT}`);
  assert.equal(page.status, 200);
  assert.deepEqual(server.told, []);
  const end = await browser.submit(page, "Continue as alice@example.com", {}, { stopAt: clientOf(server) });
  assert.equal(end.url.search, "?code=granted");
  assert.deepEqual(server.told, ["approve alice@example.com mcp"]);
});

test("nobody is of the tailnet by saying so", async () => {
  await using server = await startLoginFlow({ tailnet: true });
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.issuer}${CONSENT}`, { headers: { "tailscale-user-login": "alice@example.com" } });
  assert.ok(!page.text.includes("alice"));
  const forms = page.forms.map((form) => ({ ...form, buttons: form.buttons.map((button) => ({ ...button, value: "tailnet" })) }));
  assert.equal((await browser.submit({ ...page, forms }, "way=tailnet")).status, 400);
  assert.deepEqual(server.told, []);
});

test("a request that is over is a page, and paths beside the pages are none", async () => {
  await using server = await startLoginFlow();
  await using browser = scriptedBrowser();
  assert.match((await browser.open(`${server.issuer}/.sidegate/consent/other`)).text, /This request is over/);
  assert.equal((await browser.open(`${server.issuer}/.sidegate/consent/../x`)).status, 404);
  assert.equal((await browser.open(`${server.app}/.sidegate/consent/u1`)).status, 404);
  assert.equal((await browser.open(`${server.issuer}/callback?state=x`)).status, 400);
});
