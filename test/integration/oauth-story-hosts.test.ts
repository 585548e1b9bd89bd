// Several services of one gateway: on one host, on two hosts with one server for all, and pages on a third.
import assert from "node:assert/strict";
import { test } from "node:test";
import { approve, scriptedBrowser, type BrowserOptions } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub, type Github, type GithubPerson } from "../components/github.ts";
import { Peer, PEER_REDIRECT, type Tokens } from "../components/oauth-peer.ts";
import { approve as approveAtOnce } from "../components/person.ts";
import { waitFor } from "../components/wait.ts";

const OCTOCAT: GithubPerson = { id: 1, login: "octocat" };
const HUBOT: GithubPerson = { id: 2, login: "hubot" };

function loginYaml(github: Github): string {
  return `  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }`;
}

test("#7 #11 two services of one host have each its metadata, scopes and people, and a token for one is 401 at the other", async () => {
  await using github = await startGithub({ people: [OCTOCAT] });
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
${loginYaml(github)}
routes:
  - { path_prefix: /bus, public_url: "${origin}/bus", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ oauth: { scopes: [bus], allow: { github_users: [octocat] } } }] }
  - { path_prefix: /docs, public_url: "${origin}/docs", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ oauth: { scopes: [docs], optional_scopes: ["docs:write"], allow: { github_users: [hubot] } } }] }
`,
  });
  await using peer = new Peer();
  const [bus, docs] = [`${origin}/bus`, `${origin}/docs`];
  for (const [path, resource, scopes] of [
    ["/bus", bus, ["bus"]],
    ["/docs", docs, ["docs", "docs:write"]],
  ] as const) {
    const { json } = await peer.ask(`${origin}/.well-known/oauth-protected-resource${path}`);
    assert.deepEqual([json["resource"], json["scopes_supported"], json["authorization_servers"]], [resource, scopes, [origin]]);
  }
  const forBus = await peer.login(origin, bus, approveAtOnce);
  assert.equal(forBus.scope, "bus");
  assert.equal(await peer.status(bus, forBus.access), 200);
  const wrong = await peer.ask(docs, { token: forBus.access });
  assert.equal(wrong.status, 401);
  assert.match(String(wrong.headers["www-authenticate"]), /error="invalid_token".*resource_metadata="[^"]+\/oauth-protected-resource\/docs"/);

  // Octocat is nobody at the other one, and is told so on the page.
  await using browser = scriptedBrowser();
  const clientId = await peer.register(origin);
  const page = await browser.open(peer.authorization(origin, clientId, { resource: docs }).url);
  const refused = await browser.submit(page, "way=github");
  assert.equal(refused.status, 403);
  assert.match(refused.text, /octocat/);
  github.signIn(HUBOT);
  const forDocs = await peer.login(origin, docs, approveAtOnce, { scope: "docs docs:write bus" });
  assert.equal(forDocs.scope, "docs docs:write");
  assert.deepEqual([await peer.status(docs, forDocs.access), await peer.status(bus, forDocs.access)], [200, 401]);
  // Nor does a refresh lead over.
  const form = { grant_type: "refresh_token", refresh_token: forDocs.refresh, client_id: forDocs.clientId, resource: bus };
  const over = await peer.ask(`${origin}/token`, { body: new URLSearchParams(form) });
  assert.deepEqual([over.status, over.json["error"]], [400, "invalid_target"]);
  await waitFor(() => gateway.accessLog.some((line) => line["identity"] === "github:hubot"));
});

test("#7 #9 #11 one server for all hosts: tokens are for one host each, and pages of a third have sessions of their own", async () => {
  await using github = await startGithub({ people: [OCTOCAT] });
  await using upstream = await startOrigin();
  const to = `upstream: "http://127.0.0.1:${upstream.port}"`;
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
auth:
  server: { host: auth.example.test }
${loginYaml(github)}
routes:
  - { host: one.example.test, path: /mcp, ${to}, auth: [{ oauth: { scopes: [one], allow: { github_users: [octocat] } } }] }
  - { host: two.example.test, path: /mcp, ${to}, auth: [{ oauth: { scopes: [two], allow: { github_users: [octocat, hubot] } } }] }
  - { host: pages.example.test, ${to}, auth: [{ session: { allow: { github_users: [octocat] } } }] }
  - { host: more.example.test, ${to}, auth: [{ session: { allow: { github_users: [hubot] } } }] }
`,
  });
  const port = gateway.port("web");
  const names: BrowserOptions = {
    ca: await gateway.ca(),
    ports: Object.fromEntries(["auth", "one", "two", "pages", "more"].map((name) => [`${name}.example.test`, port])),
  };
  const issuer = "https://auth.example.test";
  const [one, two, pages, more] = ["https://one.example.test/mcp", "https://two.example.test/mcp", "https://pages.example.test", "https://more.example.test"];
  await using peer = new Peer(names);
  await using browser = scriptedBrowser(names);

  for (const [resource, scope] of [
    [one, "one"],
    [two, "two"],
  ] as const) {
    const asked = await peer.ask(resource);
    const metadata = new URL("/.well-known/oauth-protected-resource/mcp", resource).href;
    assert.equal(asked.headers["www-authenticate"], `Bearer resource_metadata="${metadata}", scope="${scope}"`);
    const { json } = await peer.ask(metadata);
    assert.deepEqual([json["resource"], json["authorization_servers"], json["scopes_supported"]], [resource, [issuer], [scope]]);
  }
  assert.equal((await peer.ask(`${issuer}/.well-known/oauth-authorization-server`)).json["issuer"], issuer);
  // The server stands on its host alone.
  assert.equal((await peer.ask("https://one.example.test/register", { body: {} })).status, 404);
  assert.equal((await peer.ask(`${issuer}/mcp`)).status, 404);

  const person = (url: URL): Promise<URL> => approve(browser, url, { stopAt: PEER_REDIRECT });
  const tokens = new Map<string, Tokens>();
  for (const resource of [one, two]) tokens.set(resource, await peer.login(issuer, resource, person));
  for (const resource of [one, two])
    for (const [made, { access }] of tokens) assert.equal(await peer.status(resource, access), made === resource ? 200 : 401, `${made} at ${resource}`);
  // A login for a client is none for pages, and no token opens one.
  assert.equal(browser.cookies(pages).size, 0);
  assert.equal(await peer.status(pages, tokens.get(one)?.access), 401);

  const page = await browser.open(`${pages}/report?month=5`);
  assert.deepEqual([page.status, page.url.href], [200, `${pages}/report?month=5`]);
  const session = browser.cookies(pages).get("__Host-sidegate") ?? assert.fail("no session");
  assert.equal(browser.cookies(issuer).get("__Host-sidegate"), undefined);
  // The session is for its host: on another one the same value is nobody's.
  const borrowed = await peer.ask(more, { headers: { cookie: `__Host-sidegate=${session}` } });
  assert.equal(borrowed.status, 401);
  assert.equal((await peer.ask(one, { headers: { cookie: `__Host-sidegate=${session}` } })).status, 401);
  const notAdmitted = await browser.open(more);
  assert.equal(notAdmitted.status, 403);
  assert.equal((await browser.open(pages)).status, 200);
});
