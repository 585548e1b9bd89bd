// Stories of clients that look for the authorization server at the resource's own origin, as MCP 2025-03-26 has it, where that server is elsewhere.
import assert from "node:assert/strict";
import { test } from "node:test";
import { json, startFakeIssuer } from "../components/fake-issuer.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom, type Answer } from "../components/http-client.ts";
import { startOrigin } from "../components/origin.ts";
import { waitFor } from "../components/wait.ts";

const PLACES = ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"];

const get = (gateway: Gateway, host: string, path: string, method = "GET", headers: Record<string, string> = {}): Promise<Answer> =>
  fetchFrom(gateway.port("web"), path, { method, headers: { ...headers, host } });

test("#36 the metadata of the issuer stands at the origin of the route, byte for byte, for scripts of any page", async () => {
  await using issuer = await startFakeIssuer({ path: "/realm" });
  await using other = await startFakeIssuer();
  await using origin = await startOrigin((_req, res) => void res.end("upstream"));
  const document = `{ "issuer":  ${JSON.stringify(issuer.issuer)},\n "jwks_uri": "${issuer.origin}/keys", "name": "Zoë" }\n`;
  issuer.pages.set("/realm/.well-known/openid-configuration", json(document));
  const route = (host: string, ...ways: string[]): string => `
  - host: ${host}
    path_prefix: /
    upstream: "${origin.url}"
    auth: [${ways.join(", ")}]`;
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: disabled } }
auth:
  tokens: [{ name: ci, sha256: "${"a".repeat(64)}" }]
  issuers:
    corp: { issuer: "${issuer.issuer}", audience: x }
    other: { issuer: "${other.issuer}", audience: x }
routes:${route("one.example.com", "issuer: { name: corp }")}${route("two.example.com", "issuer: { name: corp }", "issuer: { name: other }")}${route("none.example.com", "token: {}")}
`,
  });
  for (const path of PLACES) {
    const found = await get(gateway, "one.example.com", path);
    assert.deepEqual([found.status, found.body], [200, document]);
    assert.equal(found.headers["access-control-allow-origin"], "*");
    assert.equal(found.headers["content-type"], "application/json");
    const preflight = await get(gateway, "one.example.com", path, "OPTIONS", { origin: "https://app.example", "access-control-request-method": "GET" });
    assert.deepEqual([preflight.status, preflight.headers["access-control-allow-origin"]], [204, "*"]);
    assert.deepEqual([(await get(gateway, "one.example.com", path, "HEAD")).body], [""]);
    assert.equal((await get(gateway, "one.example.com", path, "POST")).status, 405);
    // Where two are named, or none, nobody can say which one is meant: what is there is the route's.
    for (const host of ["two.example.com", "none.example.com"]) assert.equal((await get(gateway, host, path)).status, 401, host);
  }
  assert.equal(issuer.hits.get("/realm/.well-known/openid-configuration"), 1, "it is kept");
  assert.equal((await get(gateway, "one.example.com", `${PLACES[0]}/x`)).status, 401);
  assert.equal(other.hits.size, 0);
});

test("#36 while the issuer has not been reached it is 503, and soon after it is there it is told", async () => {
  await using issuer = await startFakeIssuer();
  await issuer.down();
  await using origin = await startOrigin((_req, res) => void res.end("upstream"));
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: disabled } }
auth:
  issuers: { corp: { issuer: "${issuer.issuer}", audience: x } }
routes:
  - { host: one.example.com, path: /mcp, upstream: "${origin.url}", auth: [issuer: { name: corp }] }
`,
  });
  const [place = ""] = PLACES;
  const down = await get(gateway, "one.example.com", place);
  assert.deepEqual([down.status, down.headers["retry-after"]], [503, "5"]);
  assert.doesNotMatch(down.body, /127\.0\.0\.1/);
  await issuer.up();
  await waitFor(async () => (await get(gateway, "one.example.com", place)).status === 200);
  await issuer.down();
  assert.equal((await get(gateway, "one.example.com", place)).status, 200, "what is known goes on");
});
