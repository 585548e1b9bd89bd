// On the tailnet a connection says who it is: no login, but the page for clients stays, and elsewhere nothing of it counts.
import assert from "node:assert/strict";
import { test } from "node:test";
import { scriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { Peer, PEER_REDIRECT, tokensOf } from "../components/oauth-peer.ts";
import { skipWithout } from "../components/require.ts";
import { startTailnetGateway } from "../components/tailnet-gateway.ts";
import { missingTailnet, startTailnet, type TailnetNode } from "../components/tailnet.ts";

test("on the tailnet a person consents without a login and pages open by themselves; a tagged node and a stranger are nobody", async (t) => {
  if (skipWithout(t, missingTailnet())) return;
  await using tailnet = await startTailnet();
  await using upstream = await startOrigin();
  const [laptop, bot] = await Promise.all([tailnet.node("laptop"), tailnet.node("bot", { tags: ["tag:agents"] })]);
  const port = await freePort();
  const origin = `https://gateway:${port}`;
  const to = `upstream: "http://127.0.0.1:${upstream.port}", identity_headers: true`;
  await using gateway = await startTailnetGateway(tailnet, {
    yaml: `listeners:
  https: { protocol: http, listen: "tailnet:${port}", tls: { internal: true } }
  local: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }
auth:
  login: { tailnet: true }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", ${to}, auth: [{ oauth: { scopes: [mcp] } }] }
  - { path_prefix: /pages, public_url: "${origin}/pages", ${to}, auth: [{ session: {} }] }
`,
  });
  const ca = await gateway.ca();
  const at = async (node: TailnetNode): Promise<AsyncDisposable & { readonly names: { ca: string; ports: Record<string, number> } }> => {
    const forward = await node.forward("gateway", port);
    return { names: { ca, ports: { gateway: forward.port } }, [Symbol.asyncDispose]: () => forward[Symbol.asyncDispose]() };
  };
  await using onLaptop = await at(laptop);
  await using onBot = await at(bot);
  const here = { ca, ports: { gateway: gateway.port("local") } };
  await using peer = new Peer(onLaptop.names);
  await using browser = scriptedBrowser(onLaptop.names);

  const clientId = await peer.register(origin);
  const asked = peer.authorization(origin, clientId, { resource: `${origin}/mcp` });
  const consent = await browser.open(asked.url);
  assert.equal(consent.status, 200);
  assert.match(consent.text, /Connect Story/);
  const end = await browser.submit(consent, `Continue as ${laptop.loginName}`, {}, { stopAt: PEER_REDIRECT });
  const { access, refresh } = tokensOf(await peer.exchange(origin, clientId, asked, end.url.searchParams.get("code") ?? assert.fail(end.text)));
  const answer = await peer.ask(`${origin}/mcp`, { token: access });
  assert.equal((answer.json as { headers: Record<string, string> }).headers["x-forwarded-user"], laptop.loginName);
  assert.equal((await peer.refresh(origin, clientId, refresh)).status, 200);
  // Without the token its node alone is no way in here.
  assert.equal(await peer.status(`${origin}/mcp`), 401);

  const page = await browser.open(`${origin}/pages/report?x=1`);
  assert.deepEqual([page.status, page.url.href], [200, `${origin}/pages/report?x=1`]);
  assert.ok(page.text.includes(laptop.loginName));

  for (const [name, names] of [
    ["a tagged node", onBot.names],
    ["somebody who is not on the tailnet", here],
  ] as const) {
    await using other = scriptedBrowser(names);
    const offered = await other.open(asked.url.href);
    assert.doesNotMatch(offered.body, /value="tailnet"/, name);
    const login = await other.open(`${origin}/pages/x`);
    assert.notEqual(login.url.pathname, "/pages/x", name);
    assert.doesNotMatch(login.body, /value="tailnet"/, name);
    // A form that says so by itself makes nobody of the tailnet either.
    const forged = await other.submit(
      { ...consent, url: new URL(offered.url), forms: consent.forms.map((form) => ({ ...form, action: offered.url.pathname })) },
      "way=tailnet",
      {},
      { stopAt: PEER_REDIRECT },
    );
    assert.ok(forged.status >= 400, name);
  }
});
