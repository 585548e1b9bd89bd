// Edits of the file while people are logged in: whom it lets in, and what it asks for, counts from the next request on.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { scriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { startMcpServer } from "../components/mcp-server.ts";
import { MemoryOAuth } from "../components/oauth-client.ts";
import { Peer } from "../components/oauth-peer.ts";
import { approve } from "../components/person.ts";

test("an edit of 'allow' takes a person out who is logged in, token and session, with the next request, and lets back in", async () => {
  await using github = await startGithub();
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  const to = `upstream: "http://127.0.0.1:${upstream.port}"`;
  const yaml = (allow: string): string => `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", ${to}, auth: [{ oauth: { scopes: [mcp], allow: { ${allow} } } }] }
  - { path_prefix: /pages, public_url: "${origin}/pages", ${to}, auth: [{ session: { allow: { ${allow} } } }] }
`;
  const before = yaml("github_users: [octocat]");
  await using gateway = await startGateway({ yaml: before });
  await using peer = new Peer();
  await using browser = scriptedBrowser();
  const had = await peer.login(origin, `${origin}/mcp`, approve);
  const works = async (): Promise<[number, number]> => [await peer.status(`${origin}/mcp`, had.access), (await browser.open(`${origin}/pages/x`)).status];
  assert.deepEqual(await works(), [200, 200]);

  await gateway.edit(yaml("github_users: [hubot]"));
  assert.deepEqual(await works(), [403, 403]);
  const refused = await peer.ask(`${origin}/mcp`, { token: had.access });
  // It is the person, not the token: no client should throw it away and ask anew, for ever.
  assert.ok(!String(refused.headers["www-authenticate"] ?? "").includes("invalid_token"));

  for (const allow of ["github_orgs: [acme]", "github_teams: [acme/ops]", "emails: [octocat@example.com]"]) {
    await gateway.edit(yaml(allow));
    // The login asks GitHub for what the file needs, and that was nothing but the name: who is let in for more logs in again.
    const again = await peer.login(origin, `${origin}/mcp`, approve);
    assert.equal(await peer.status(`${origin}/mcp`, again.access), 200, allow);
    await gateway.edit(yaml("github_users: [hubot], github_orgs: [other]"));
    assert.equal(await peer.status(`${origin}/mcp`, again.access), 403, allow);
  }
  await gateway.edit(before);
  assert.deepEqual(await works(), [200, 200]);
  // Who was out meanwhile has lost nothing.
  const refreshed = await peer.refresh(origin, had.clientId, had.refresh);
  assert.equal(refreshed.status, 200, refreshed.text);
});

test("#16 after an edit that adds a scope a token is told all that is needed, and the SDK's client gets it by asking again", async () => {
  await using github = await startGithub();
  await using mcp = await startMcpServer("streamableHttp");
  const origin = `http://127.0.0.1:${await freePort()}`;
  const yaml = (scopes: string): string => `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", upstream: "http://127.0.0.1:${mcp.port}", auth: [{ oauth: { scopes: [${scopes}], allow: { github_users: [octocat] } } }] }
`;
  await using gateway = await startGateway({ yaml: yaml("mcp") });
  await using peer = new Peer();
  const oauth = new MemoryOAuth(approve);
  const transport = (): StreamableHTTPClientTransport => new StreamableHTTPClientTransport(new URL(`${origin}/mcp`), { authProvider: oauth as never });
  const newClient = (): Client => new Client({ name: "story", version: "1.0.0" });
  /** As the SDK's documentation says: try, let the person log in, bring the code, try again. */
  const logIn = async (): Promise<Client> => {
    const first = transport();
    await assert.rejects(newClient().connect(first));
    await first.finishAuth(oauth.callback?.searchParams ?? new URLSearchParams());
    const client = newClient();
    await client.connect(transport());
    return client;
  };
  const client = await logIn();
  assert.deepEqual([oauth.asked, oauth.saved?.scope], [1, "mcp"]);

  await gateway.edit(yaml("mcp, admin"));
  const challenge = await peer.ask(`${origin}/mcp`, { body: {}, token: oauth.saved?.access_token ?? "" });
  assert.equal(challenge.status, 403);
  const words = String(challenge.headers["www-authenticate"]);
  assert.match(words, /error="insufficient_scope"/);
  assert.match(words, /scope="mcp admin"/);
  assert.ok(words.includes(`resource_metadata="${origin}/.well-known/oauth-protected-resource/mcp"`), words);
  await client.close();

  const again = await logIn();
  assert.equal(oauth.asked, 2);
  assert.deepEqual(oauth.saved?.scope?.split(" ").toSorted(), ["admin", "mcp"]);
  const { tools } = await again.listTools();
  assert.ok(tools.some(({ name }) => name === "echo"));
  await again.close();
  // What a person did not grant is not to be had by a refresh (RFC 6749, 6).
  const narrow = await peer.login(origin, `${origin}/mcp`, approve, { scope: "mcp" });
  const asking = { grant_type: "refresh_token", refresh_token: narrow.refresh, client_id: narrow.clientId, scope: "mcp admin" };
  const wider = await peer.ask(`${origin}/token`, { body: new URLSearchParams(asking) });
  assert.ok(wider.status === 400 || wider.json["scope"] === "mcp", wider.text);
});
