// Stories of people with browsers who log in to pages.
import assert from "node:assert/strict";
import { test } from "node:test";
import { LoginError } from "../../src/authorization-server/login-source.ts";
import { StateError } from "../../src/state/state-error.ts";
import { scriptedBrowser } from "../components/browser.ts";
import { ALICE_PEER, fakeSource, person, startLoginFlow } from "../components/login-flow.ts";

test("a page leads to the login on the issuer's host and back, and the cookie is for its host alone", async () => {
  await using server = await startLoginFlow();
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.app}/report?month=5&x=%2F`);
  assert.equal(page.text, "at /report?month=5&x=%2F as octocat");
  assert.ok(browser.cookies(server.app).has("sidegate"));
  assert.ok(!browser.cookies(server.issuer).has("sidegate"));
  const cookie = browser.cookies(server.app).get("sidegate") ?? "";
  assert.deepEqual(await server.flow.findSession(cookie, server.issuer), { kind: "none" });
  const found = await server.flow.findSession(cookie, server.app);
  assert.equal(found.kind === "identity" && found.by, "session");
  assert.equal(found, await server.flow.findSession(cookie, server.app));
  // Nothing that is kept is the value of a cookie.
  assert.ok(![...server.store.entries].flat().some((one) => JSON.stringify(one).includes(cookie)));
});

test("the cookie of a session is for https, this host and no script", async () => {
  await using server = await startLoginFlow({
    plan: { issuer: "https://id.test", sessionOrigins: new Set(["https://id.test"]), sessionLifetimesMs: new Map([["https://id.test", 3_600_000]]) },
    tailnet: true,
  });
  const request = {
    method: "GET",
    path: "/.sidegate/login",
    origin: "https://id.test",
    body: Buffer.alloc(0),
    client: "192.0.2.1",
    peer: ALICE_PEER,
    requestId: "r",
  };
  const first = await server.flow.handle({ ...request, target: "/.sidegate/login?return_to=/x", headers: [] });
  const browser = /^(__Host-sidegate-browser=[^;]+); Path=\/; HttpOnly; SameSite=Lax; Secure$/.exec(
    first.headers[first.headers.indexOf("Set-Cookie") + 1] ?? "",
  );
  assert.ok(browser !== null);
  const second = await server.flow.handle({ ...request, target: "/.sidegate/login?return_to=/x", headers: ["cookie", browser[1] ?? ""] });
  assert.equal(second.headers[second.headers.indexOf("Location") + 1], "/x");
  assert.match(
    second.headers[second.headers.indexOf("Set-Cookie") + 1] ?? "",
    /^__Host-sidegate=[\w-]{43}; Path=\/; HttpOnly; SameSite=Lax; Secure; Max-Age=3600$/,
  );
});

test("a login that somebody else began does not become this browser's", async () => {
  const source = fakeSource({ at: "http://idp.localhost/authorize" });
  await using server = await startLoginFlow({ external: [source] });
  await using attacker = scriptedBrowser();
  await using victim = scriptedBrowser();
  await attacker.open(`${server.app}/x`, { stopAt: "http://idp.localhost" });
  const handoff = await attacker.open(`${server.issuer}/callback?code=c-1&state=${source.started[0]?.state}`, { stopAt: `${server.app}/.sidegate/session` });
  assert.match(handoff.url.search, /^\?code=[\w-]{43}$/);
  // It has begun a login of its own: it is known here.
  await victim.open(`${server.app}/y`, { stopAt: "http://idp.localhost" });
  const page = await victim.open(handoff.url);
  assert.equal(page.status, 400);
  assert.ok(!victim.cookies(server.app).has("sidegate"));
  // And the attempt has used it up.
  assert.equal((await attacker.open(handoff.url)).status, 400);
  assert.ok(!attacker.cookies(server.app).has("sidegate"));
});

test("a session that somebody else has put into the browser is not made good by a login", async () => {
  await using server = await startLoginFlow();
  await using browser = scriptedBrowser();
  const planted = "A".repeat(43);
  browser.setCookie(server.app, "sidegate", planted);
  await browser.open(`${server.app}/x`);
  assert.notEqual(browser.cookies(server.app).get("sidegate"), planted);
  assert.deepEqual(await server.flow.findSession(planted, server.app), { kind: "none" });
});

test("a login leads back to its own host alone", async () => {
  await using server = await startLoginFlow();
  for (const target of [
    "//evil.example/x",
    "https://evil.example",
    "/\\evil.example",
    "/.//evil.example",
    "javascript:alert(1)",
    "/x\r\nSet-Cookie: a=b",
    "/.sidegate/logout",
  ]) {
    await using browser = scriptedBrowser();
    const page = await browser.open(`${server.app}/.sidegate/login?return_to=${encodeURIComponent(target)}`);
    assert.equal(page.text, "at / as octocat", target);
    assert.equal(page.url.origin, server.app);
  }
});

test("nobody can have a login end where they like", async () => {
  const source = fakeSource();
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  for (const origin of ["https://evil.example", server.app]) {
    const asked = { kind: "session", origin, returnTo: "/", browser: "x", choose: false, untilMs: 9e15 };
    const text = Buffer.from(JSON.stringify(asked)).toString("base64url");
    for (const request of [text, `${text}.`, `${text}.AAAA`])
      assert.equal((await browser.open(`${server.issuer}/.sidegate/login?request=${request}`)).status, 400);
  }
  assert.equal(source.started.length, 0);
});

test("a person signs out, and the session is gone at once", async () => {
  await using server = await startLoginFlow();
  await using browser = scriptedBrowser();
  await browser.open(`${server.app}/x`);
  const cookie = browser.cookies(server.app).get("sidegate") ?? "";
  assert.equal((await server.flow.findSession(cookie, server.app)).kind, "identity");
  const page = await browser.open(`${server.app}/.sidegate/logout`);
  assert.match(page.text, /Sign out\?.*octocat/);
  assert.equal((await server.flow.findSession(cookie, server.app)).kind, "identity");
  assert.equal((await browser.submit(page, "Sign out", { csrf: "" })).status, 403);
  const out = await browser.submit(page, "Sign out");
  assert.match(out.text, /You are signed out/);
  assert.ok(!browser.cookies(server.app).has("sidegate"));
  assert.deepEqual(await server.flow.findSession(cookie, server.app), { kind: "none" });
});

test("sessions end by time and by the operator", async () => {
  await using server = await startLoginFlow();
  await using browser = scriptedBrowser();
  const login = async (): Promise<string> => {
    await browser.open(`${server.app}/x`);
    return browser.cookies(server.app).get("sidegate") ?? "";
  };
  const first = await login();
  assert.equal(await server.flow.revokeUser("github:hubot"), 0);
  assert.equal((await server.flow.findSession(first, server.app)).kind, "identity");
  assert.equal(await server.flow.revokeUser("github:octocat"), 1);
  assert.equal((await server.flow.findSession(first, server.app)).kind, "none");
  const second = await login();
  assert.notEqual(second, first);
  assert.equal((await server.flow.findSession(second, server.app)).kind, "identity");
  server.skew = 3_600_001;
  assert.equal((await server.flow.findSession(second, server.app)).kind, "none");
});

test("the operator sees the sessions that count, and ends one by an id that opens nothing", async () => {
  const source = fakeSource();
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  await using other = scriptedBrowser();
  const shown = async (): Promise<string[]> => (await server.flow.sessions()).map(({ person: { name }, origin }) => `${name} ${origin}`).toSorted();
  const isIn = async (cookie: string): Promise<boolean> => (await server.flow.findSession(cookie, server.app)).kind === "identity";
  const logIn = async (who: typeof browser): Promise<string> => {
    await who.open(`${server.app}/x`);
    return who.cookies(server.app).get("sidegate") ?? "";
  };
  assert.deepEqual(await shown(), []);
  const mine = await logIn(browser);
  source.who = person("hubot");
  const theirs = await logIn(other);
  assert.deepEqual(await shown(), [`hubot ${server.app}`, `octocat ${server.app}`]);

  const about = (await server.flow.sessions()).find(({ person: { name } }) => name === "octocat");
  assert.ok(about !== undefined);
  assert.equal(about.expiresAtMs - about.createdAtMs, 3_600_000);
  // Whoever reads the list over the operator's shoulder has got nothing to log in with.
  assert.notEqual(about.id, mine);
  assert.equal(await isIn(about.id), false);
  // Nor does a cookie end anything as an id.
  assert.equal(await server.flow.endSession(mine), false);
  assert.equal(await server.flow.endSession(about.id), true);
  assert.deepEqual([await isIn(mine), await isIn(theirs)], [false, true]);
  assert.deepEqual(await shown(), [`hubot ${server.app}`]);
  assert.equal(await server.flow.endSession(about.id), false);

  await other.submit(await other.open(`${server.app}/.sidegate/logout`), "Sign out");
  assert.deepEqual(await shown(), []);
  await logIn(browser);
  assert.deepEqual(await shown(), [`hubot ${server.app}`]);
  server.skew = 3_600_001;
  assert.deepEqual(await shown(), []);
});

test("a state that fails is no login and no crash", async () => {
  await using server = await startLoginFlow();
  server.store.fail(new Error("disk full"));
  const found = await server.flow.findSession("B".repeat(43), server.app);
  assert.equal(found.kind, "unavailable");
});

test("a login that meets a full disk ends with a page that says so, and the next one works", async () => {
  const source = fakeSource({ at: "http://idp.localhost/authorize" });
  await using server = await startLoginFlow({ external: [source] });
  await using browser = scriptedBrowser();
  await browser.open(`${server.app}/x`, { stopAt: "http://idp.localhost" });
  server.store.fail(new StateError("Cannot write the state file: the disk is full"));
  const page = await browser.open(`${server.issuer}/callback?code=c-1&state=${source.started[0]?.state}`);
  assert.equal(page.status, 503);
  assert.match(page.text, /no fault of yours/);
  assert.ok(!page.text.includes("state file"));
  assert.ok(server.logged.some(({ fields }) => String(fields["err"]).includes("disk is full")));
  server.store.fail(null);
  assert.equal((await browser.open(`${server.issuer}/callback?code=c-1&state=${source.started[0]?.state}`)).text, "at /x as octocat");
});

test("where there is a choice people choose, with a password they stay on our page", async () => {
  await using server = await startLoginFlow({ password: ["alice", "correct horse"] });
  await using browser = scriptedBrowser();
  const page = await browser.open(`${server.app}/x`);
  assert.match(page.text, /Log in to continue to app\.localhost/);
  assert.equal(page.url.origin, server.issuer);
  const wrong = await browser.submit(page, "way=password", { name: "alice", password: "no" });
  assert.equal(wrong.status, 401);
  const right = await browser.submit(wrong, "way=password", { name: "alice", password: "correct horse" });
  assert.equal(right.text, "at /x as alice");
  const other = scriptedBrowser();
  const forged = await other.submit({ ...page, url: new URL(page.url) }, "way=password", { name: "alice", password: "correct horse" });
  assert.equal(forged.status, 403);
  await other[Symbol.asyncDispose]();
});

test("on the tailnet there is no page", async () => {
  await using server = await startLoginFlow({ tailnet: true, peer: ALICE_PEER });
  await using browser = scriptedBrowser();
  assert.equal((await browser.open(`${server.app}/x`)).text, "at /x as alice@example.com");
});

test("a browser without cookies and a provider that is down get a page, not a loop", async () => {
  {
    await using server = await startLoginFlow();
    await using browser = scriptedBrowser({ headers: { cookie: "" } });
    const page = await browser.open(`${server.app}/x`);
    assert.equal(page.status, 400);
    assert.match(page.text, /Cookies are needed/);
  }
  {
    const down = new LoginError("unavailable", "GitHub does not answer; try again in a minute");
    await using server = await startLoginFlow({ external: [fakeSource({ startError: down })] });
    await using browser = scriptedBrowser();
    const page = await browser.open(`${server.app}/x`);
    assert.equal(page.status, 503);
    assert.equal(page.headers["retry-after"], "30");
  }
});
