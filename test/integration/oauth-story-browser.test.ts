// A person with a browser before pages that need a login, from the first page to the sign-out.
import assert from "node:assert/strict";
import { test } from "node:test";
import { scriptedBrowser, type ScriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub, type GithubPerson } from "../components/github.ts";
import { Peer } from "../components/oauth-peer.ts";
import { waitFor } from "../components/wait.ts";

const OCTOCAT: GithubPerson = { id: 1, login: "octocat", emails: [{ email: "octo@example.com", primary: true, verified: true }] };
const MALLORY: GithubPerson = { id: 2, login: "mallory" };
const APP = "https://app.example.test";

type Echo = { readonly method: string; readonly url: string; readonly headers: Readonly<Record<string, string>> };

test("a person is led from a page to GitHub and back to it, is known upstream by name, and is gone after the sign-out", async () => {
  await using github = await startGithub({ people: [OCTOCAT] });
  await using upstream = await startOrigin();
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { host: app.example.test, upstream: "http://127.0.0.1:${upstream.port}", identity_headers: true, auth: [{ session: { allow: { github_users: [octocat] } } }] }
`,
  });
  const names = { ca: await gateway.ca(), ports: { "app.example.test": gateway.port("web") } };
  await using peer = new Peer(names);
  await using browser = scriptedBrowser(names);
  const target = "/reports/2026?month=5&name=a%2Fb&empty=#later";
  browser.setCookie(APP, "theme", "dark");

  const page = await browser.open(`${APP}${target}`);
  assert.deepEqual([page.status, page.url.pathname + page.url.search], [200, "/reports/2026?month=5&name=a%2Fb&empty="]);
  const echo = JSON.parse(page.body) as Echo;
  assert.equal(echo.url, "/reports/2026?month=5&name=a%2Fb&empty=");
  assert.equal(echo.headers["x-forwarded-user"], "octocat");
  assert.equal(echo.headers["x-forwarded-user-source"], "github");
  assert.equal(echo.headers["x-forwarded-email"], "octo@example.com");
  // The person's own cookies go on, ours do not.
  assert.equal(echo.headers["cookie"], "theme=dark");
  assert.ok([...browser.cookies(APP).keys()].includes("__Host-sidegate"));
  const cookie = [...browser.cookies(APP)].map(([name, value]) => `${name}=${value}`).join("; ");
  const inside = { "sec-fetch-site": "same-origin", "sec-fetch-mode": "cors", "sec-fetch-dest": "empty", accept: "application/json", cookie };

  // A script of the page may do what the person may; without the session it is told so, and led nowhere.
  assert.equal((await peer.ask(`${APP}/api`, { body: { a: 1 }, headers: { ...inside, origin: APP } })).status, 200);
  const outside = await peer.ask(`${APP}/api`, { headers: { ...inside, cookie: "theme=dark" } });
  assert.deepEqual([outside.status, outside.headers["location"]], [401, undefined]);
  assert.equal((await peer.ask(`${APP}/api`, { headers: { accept: "*/*" } })).status, 401);

  const seen = upstream.requests.length;
  for (const [name, headers] of Object.entries({
    "another site": { ...inside, origin: "https://evil.example.test", "sec-fetch-site": "cross-site" },
    "a sibling host": { ...inside, origin: "https://other.example.test", "sec-fetch-site": "same-site" },
    "a sandboxed frame": { ...inside, origin: "null", "sec-fetch-site": "cross-site" },
    "plain http of the same host": { ...inside, origin: "http://app.example.test" },
    "another port": { ...inside, origin: `${APP}:8443` },
    "an old browser": { cookie, accept: "text/html", origin: "https://evil.example.test" },
  })) {
    const answer = await peer.ask(`${APP}/api`, { body: new URLSearchParams({ a: "1" }), headers });
    assert.equal(answer.status, 403, name);
  }
  assert.equal(upstream.requests.length, seen);

  const leaving = await browser.open(`${APP}/.sidegate/logout`);
  assert.match(leaving.text, /octocat/);
  const left = await browser.submit(leaving, "Sign out");
  assert.match(left.text, /You are signed out/);
  // The old cookie is worth nothing, wherever somebody kept it.
  assert.equal((await peer.ask(`${APP}/api`, { headers: inside })).status, 401);

  await waitFor(() => gateway.accessLog.some((line) => line["identity"] === "github:octocat"));
  const all = JSON.stringify([gateway.log, gateway.accessLog]);
  for (const value of cookie.split("; ").slice(1)) assert.ok(!all.includes(value.slice(value.indexOf("=") + 1)), "no cookie is logged");
});

test("a person who is not admitted gets a page that says who it is, and comes in as somebody else", async () => {
  await using github = await startGithub({ people: [MALLORY, OCTOCAT] });
  await using upstream = await startOrigin();
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { host: app.example.test, upstream: "http://127.0.0.1:${upstream.port}", auth: [{ session: { allow: { github_users: [octocat] } } }] }
`,
  });
  await using browser: ScriptedBrowser = scriptedBrowser({ ca: await gateway.ca(), ports: { "app.example.test": gateway.port("web") } });
  const page = await browser.open(`${APP}/report`);
  assert.deepEqual([page.status, page.url.href], [403, `${APP}/report`]);
  assert.match(page.text, /logged in as mallory \(github\)/);
  assert.equal(upstream.requests.length, 0);
  await browser.submit(await browser.open(`${APP}/.sidegate/logout`), "Sign out");
  github.signIn(OCTOCAT);
  assert.equal((await browser.open(`${APP}/report`)).status, 200);
});
