import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import test, { type TestContext } from "node:test";
import { OAuthServer } from "../../test/components/oauth-server.ts";
import { createTestCa } from "../../test/components/pki.ts";
import { FETCH_DEPS, isPublicAddress, type FetchDeps } from "./client-document.ts";

type Answer = { status?: number; headers?: Record<string, string>; body?: unknown; isSilent?: boolean };

/** A client's site, whose name leads to this machine, which counts as public here. */
async function open(t: TestContext, answer: (url: string) => Answer): Promise<{ id: string; seen: string[]; deps: FetchDeps; addresses: string[] }> {
  const ca = createTestCa();
  const seen: string[] = [];
  const server = createServer(ca.issue("/CN=client.example", { san: "DNS:client.example" }), (req, res) => {
    seen.push(req.url ?? "");
    const { status = 200, headers = {}, body, isSilent = false } = answer(`https://client.example:${port}${req.url ?? ""}`);
    if (isSilent) return;
    res.writeHead(status, { "content-type": "application/json", ...headers });
    res.end(typeof body === "string" ? body : JSON.stringify(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  t.after(() => {
    server.closeAllConnections();
    server.close();
  });
  const addresses = ["127.0.0.1"];
  const deps = { resolve: () => Promise.resolve(addresses), isPublic: (address: string) => address === "127.0.0.1" || isPublicAddress(address), ca: ca.cert };
  return { id: `https://client.example:${port}/oauth/client.json`, seen, deps, addresses };
}

function claudeCode(id: string): Record<string, unknown> {
  return {
    client_id: id,
    client_name: "Claude Code",
    client_uri: "https://claude.ai",
    redirect_uris: ["http://localhost/callback", "http://127.0.0.1/callback"],
    grant_types: ["authorization_code", "refresh_token"],
    response_types: ["code"],
    token_endpoint_auth_method: "none",
  };
}

const FIELDS = { redirect_uri: "http://localhost:49152/callback" };

test("#30 a client known by its document gets tokens, with a loopback redirect whose port is free, and is fetched once", async (t) => {
  const site = await open(t, (id) => ({ body: claudeCode(id), headers: { "cache-control": "max-age=600" } }));
  const oauth = await OAuthServer.open({}, { documents: site.deps });
  const tokens = await oauth.tokens({ client_id: site.id, ...FIELDS });
  assert.equal((await oauth.server.tokens.find(String(tokens["access_token"])))?.kind, "identity");
  const { uid } = await oauth.begin({ client_id: site.id, ...FIELDS });
  const found = await oauth.pending.find(oauth.request("/"), uid);
  assert.equal(found?.clientKind, "document");
  assert.equal(found?.clientName, "Claude Code");
  assert.deepEqual(site.seen, ["/oauth/client.json"]);
  assert.deepEqual(
    (await oauth.server.clients()).map(({ id, kind }) => ({ id, kind })),
    [{ id: site.id, kind: "document" }],
  );
  const wrong = await oauth.begin({ client_id: site.id, redirect_uri: "http://localhost:49152/other" });
  assert.equal(wrong.reply.status, 400);
});

for (const [what, answer] of Object.entries<(id: string) => Answer>({
  "another client_id": (id) => ({ body: { ...claudeCode(id), client_id: `${id}x` } }),
  "a redirect": () => ({ status: 302, headers: { location: "https://169.254.169.254/" } }),
  "an error": () => ({ status: 500, body: {} }),
  "more than 64 KiB": (id) => ({ body: { ...claudeCode(id), padding: "x".repeat(70_000) } }),
  "no JSON": () => ({ body: "<html>" }),
  "a secret": (id) => ({ body: { ...claudeCode(id), client_secret: "x" } }),
  "a way to authenticate with a secret": (id) => ({ body: { ...claudeCode(id), token_endpoint_auth_method: "client_secret_basic" } }),
  "a redirect in the clear": (id) => ({ body: { ...claudeCode(id), redirect_uris: ["http://app.example/cb"] } }),
  silence: () => ({ isSilent: true }),
}))
  test(`#30 a document is refused: ${what}`, async (t) => {
    const site = await open(t, answer);
    const oauth = await OAuthServer.open({}, { documents: site.deps });
    const { reply } = await oauth.begin({ client_id: site.id, ...FIELDS });
    assert.equal(reply.status, 400);
    assert.equal(reply.header("location"), null);
    assert.equal(site.seen.length, 1);
  });

test("#30 nothing is fetched from addresses that are not public, or whose name has one of those", async (t) => {
  const site = await open(t, (id) => ({ body: claudeCode(id) }));
  const oauth = await OAuthServer.open({}, { documents: { ...site.deps, isPublic: FETCH_DEPS.isPublic } });
  assert.equal((await oauth.begin({ client_id: site.id, ...FIELDS })).reply.status, 400);
  const mixed = await OAuthServer.open({}, { documents: site.deps });
  site.addresses.push("10.0.0.1");
  assert.equal((await mixed.begin({ client_id: site.id, ...FIELDS })).reply.status, 400);
  for (const id of ["https://127.0.0.1/client", "https://[::1]/client", "http://client.example/client"])
    assert.equal((await mixed.begin({ client_id: id, ...FIELDS })).reply.status, 400, id);
  assert.deepEqual(site.seen, []);
});

test("#30 one address of a client may have 20 documents fetched in 10 minutes", async (t) => {
  const site = await open(t, () => ({ status: 404, body: {} }));
  const oauth = await OAuthServer.open({}, { documents: site.deps });
  for (let i = 0; i < 22; i += 1) await oauth.begin({ client_id: `${site.id}?${i}`, ...FIELDS });
  assert.equal(site.seen.length, 20);
});

test("#30 which addresses are public", () => {
  for (const address of ["93.184.216.34", "1.1.1.1", "2606:4700::1111"]) assert.equal(isPublicAddress(address), true, address);
  for (const address of [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:93.184.216.34",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::1",
    "2001::1",
    "2001:db8::1",
    "fc00::1",
    "fd7a:115c:a1e0::1",
    "fe80::1",
    "fe80::1%eth0",
    "ff02::1",
    "nonsense",
    "",
  ])
    assert.equal(isPublicAddress(address), false, address);
});
