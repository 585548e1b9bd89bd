// Stories of tokens from an issuer elsewhere: a real OpenID provider, a gateway as its users run it, and what happens when the provider changes its mind.
import assert from "node:assert/strict";
import { test } from "node:test";
import { request } from "undici";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom, type Answer } from "../components/http-client.ts";
import { startOidcIssuer, type OidcIssuer } from "../components/oidc-issuer.ts";
import { startOrigin } from "../components/origin.ts";
import { createTestCa } from "../components/pki.ts";
import { waitFor } from "../components/wait.ts";

const AUDIENCE = "https://mcp.example.com/mcp";

function yaml(issuer: OidcIssuer, upstream: string, more = ""): string {
  return `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: disabled } }
auth:
  issuers:
    corp: { issuer: "${issuer.issuer}", audience: "${AUDIENCE}"${more} }
routes:
  - host: mcp.example.com
    path: /mcp
    upstream: "${upstream}"
    identity_headers: true
    auth:
      - issuer: { name: corp, scopes: [mcp] }
`;
}

function call(gateway: Gateway, token: string | null, path = "/mcp"): Promise<Answer> {
  return fetchFrom(gateway.port("web"), path, { headers: { host: "mcp.example.com", ...(token !== null && { authorization: `Bearer ${token}` }) } });
}

const challengeOf = (answer: Answer): string => answer.headers["www-authenticate"] ?? "";

test("#12 #16 a token of the company's provider opens the route that it is for; one for another audience, or without the scope, does not", async () => {
  await using issuer = await startOidcIssuer();
  await using origin = await startOrigin((req, res) => void res.end(JSON.stringify(req.headers)));
  await using gateway = await startGateway({ yaml: yaml(issuer, origin.url) });

  const bare = await call(gateway, null);
  assert.equal(bare.status, 401);
  assert.equal(challengeOf(bare), 'Bearer resource_metadata="https://mcp.example.com/.well-known/oauth-protected-resource/mcp", scope="mcp"');
  const described = JSON.parse((await call(gateway, null, "/.well-known/oauth-protected-resource/mcp")).body) as Record<string, unknown>;
  assert.deepEqual(described["authorization_servers"], [issuer.issuer]);
  assert.deepEqual(issuer.calls, [], "nothing is asked before a token comes");

  const good = await call(gateway, await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" }));
  assert.equal(good.status, 200, good.body);
  const seen = JSON.parse(good.body) as Record<string, string>;
  assert.deepEqual([seen["x-forwarded-user"], seen["x-forwarded-user-source"], seen["x-forwarded-scopes"]], ["robot", "issuer:corp", "mcp"]);
  assert.equal(seen["authorization"], undefined, "the token goes no further");

  const elsewhere = await call(gateway, await issuer.accessToken({ resource: "https://mcp.example.com/other", scope: "mcp" }));
  assert.equal(elsewhere.status, 401);
  assert.match(challengeOf(elsewhere), /error="invalid_token", error_description="The token is for another audience"/);
  const weak = await call(gateway, await issuer.accessToken({ resource: AUDIENCE, scope: "other" }));
  assert.equal(weak.status, 403);
  assert.match(challengeOf(weak), /error="insufficient_scope".*scope="other mcp"/);
  const expired = await call(gateway, await issuer.sign({ sub: "x", aud: AUDIENCE, scope: "mcp", exp: 1 }, { typ: "at+jwt" }));
  assert.match(challengeOf(expired), /The token has expired/);
  assert.equal(issuer.calls.filter((one) => one === "GET /jwks").length, 1);
});

test("while the provider is down its tokens go on, and are 503 where its keys were never known", async () => {
  await using issuer = await startOidcIssuer({ algorithm: "ES256" });
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  await using gateway = await startGateway({ yaml: yaml(issuer, origin.url) });
  const token = await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" });
  const later = await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" });
  await issuer.stop();
  const down = await call(gateway, token);
  assert.deepEqual([down.status, Number(down.headers["retry-after"]) > 0], [503, true]);
  assert.match(down.body, /The token cannot be checked at the moment/);
  assert.doesNotMatch(down.body, /127\.0\.0\.1/, "where it is asked is not told");
  await issuer.start();
  await waitFor(async () => (await call(gateway, token)).status === 200);
  await issuer.stop();
  assert.equal((await call(gateway, later)).status, 200, "a token that was never seen, verified with the keys that are known");
  assert.ok(!JSON.stringify([gateway.log, gateway.accessLog]).includes(token.split(".")[2] ?? "-"));
});

test("when the provider rotates its keys, tokens of the new one pass at once, and those of one that is gone are refused", async () => {
  await using issuer = await startOidcIssuer();
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  await using gateway = await startGateway({ yaml: yaml(issuer, origin.url) });
  const old = await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" });
  const alsoOld = await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" });
  assert.equal((await call(gateway, old)).status, 200);
  issuer.rotateKeys({ keepOld: false });
  assert.equal((await call(gateway, await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" }))).status, 200);
  const refused = await call(gateway, alsoOld);
  assert.equal(refused.status, 401);
  assert.match(challengeOf(refused), /The token is signed with an unknown key/);
});

test("#18 an opaque token is asked about, and refused soon after it was revoked", async () => {
  await using issuer = await startOidcIssuer({
    machines: [
      { id: "robot", secret: "robot-secret" },
      { id: "gateway", secret: "p:ss w/ord" },
    ],
  });
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  const introspection = `, introspection: { client_id: gateway, client_secret: "p:ss w/ord", cache: 100ms }`;
  await using gateway = await startGateway({ yaml: yaml(issuer, origin.url, introspection) });
  const token = await issuer.accessToken({ resource: AUDIENCE, scope: "mcp", format: "opaque" });
  const passed = await call(gateway, token);
  assert.equal(passed.status, 200, passed.body);
  assert.equal((await call(gateway, await issuer.accessToken({ resource: "https://other.example.com", scope: "mcp", format: "opaque" }))).status, 401);
  assert.match(challengeOf(await call(gateway, "invented")), /The token is not active/);
  const revoked = await request(`${issuer.issuer}/token/revocation`, {
    method: "POST",
    headers: { authorization: `Basic ${Buffer.from("robot:robot-secret").toString("base64")}`, "content-type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams({ token }).toString(),
  });
  await revoked.body.dump();
  assert.equal(revoked.statusCode, 200);
  await waitFor(async () => (await call(gateway, token)).status === 401, { timeoutMs: 2_000 });
  assert.ok(!JSON.stringify([gateway.log, gateway.accessLog]).includes(token));
});

test("a provider with a certificate of a private CA is trusted by 'ca_file', and by nothing else", async () => {
  const ca = createTestCa("Company CA");
  await using issuer = await startOidcIssuer({ tls: ca.issue("/CN=idp", { san: "IP:127.0.0.1" }), ca: ca.cert });
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  await using gateway = await startGateway({ yaml: yaml(issuer, origin.url), files: { "ca.crt": ca.cert } });
  const token = await issuer.accessToken({ resource: AUDIENCE, scope: "mcp" });
  assert.equal((await call(gateway, token)).status, 503);
  assert.match(JSON.stringify(gateway.log), /signed by an unknown CA: name it in 'ca_file'/);
  await gateway.edit(yaml(issuer, origin.url, ", ca_file: ca.crt"));
  assert.equal((await call(gateway, token)).status, 200);
});

test("#17 an edit of what a scope includes counts for tokens that were seen before", async () => {
  await using issuer = await startOidcIssuer();
  await using origin = await startOrigin((_req, res) => void res.end("ok"));
  const before = yaml(issuer, origin.url);
  await using gateway = await startGateway({ yaml: before });
  const token = await issuer.accessToken({ resource: AUDIENCE, scope: "admin" });
  assert.equal((await call(gateway, token)).status, 403);
  await gateway.edit(before.replace("auth:\n", "auth:\n  scopes: { admin: { includes: [mcp] } }\n"));
  assert.equal((await call(gateway, token)).status, 200);
  await gateway.edit(before);
  assert.equal((await call(gateway, token)).status, 403);
});
