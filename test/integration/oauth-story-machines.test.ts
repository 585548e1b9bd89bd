// Machines before one route, each with a way of its own, and nothing that leads from one way to another.
import assert from "node:assert/strict";
import { generateKeyPairSync, hash, randomUUID } from "node:crypto";
import { test } from "node:test";
import { SignJWT } from "jose";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { Peer, type PeerAnswer } from "../components/oauth-peer.ts";
import { startOidcIssuer } from "../components/oidc-issuer.ts";
import { approve } from "../components/person.ts";
import { waitFor } from "../components/wait.ts";

const SECRET = "a-secret-of-the-batch-that-is-long-enough";
const STATIC = "sgt_a-token-of-the-file-0123456789";

test("#33 #12 machines come in by secret, by key, by the company's token and by a token of the file, each by its way alone", async () => {
  await using github = await startGithub();
  await using corp = await startOidcIssuer();
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  const [all, one] = [`${origin}/all`, `${origin}/one`];
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const { privateKey: foreign } = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const yaml = `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
  tokens: [{ name: ci, sha256: "${hash("sha256", STATIC)}", scopes: [mcp] }]
  clients:
    - { id: batch, secret: ${SECRET}, scopes: [mcp] }
    - { id: signer, jwks_file: signer.jwks, scopes: [mcp] }
    - { id: ci, secret: ${SECRET}-2, scopes: [mcp] }
  issuers:
    corp: { issuer: "${corp.issuer}", audience: "${all}" }
routes:
  - path: /all
    public_url: "${all}"
    upstream: "http://127.0.0.1:${upstream.port}"
    identity_headers: true
    auth:
      - oauth: { scopes: [mcp], grants: [authorization_code, refresh_token, client_credentials], allow: { clients: [batch, signer], github_users: [octocat] } }
      - issuer: { name: corp, scopes: [mcp] }
      - token: { names: [ci] }
  - { path: /one, public_url: "${one}", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ oauth: { scopes: [mcp], grants: [client_credentials], allow: { clients: [batch] } } }] }
`;
  await using gateway = await startGateway({
    files: { "signer.jwks": JSON.stringify({ keys: [{ ...publicKey.export({ format: "jwk" }), kid: "k1", alg: "ES256", use: "sig" }] }) },
    yaml,
  });
  await using peer = new Peer();
  const token = async (form: Record<string, string>, basic?: string): Promise<PeerAnswer> =>
    await peer.ask(`${origin}/token`, {
      body: new URLSearchParams({ grant_type: "client_credentials", resource: all, scope: "mcp", ...form }),
      ...(basic === undefined ? {} : { headers: { authorization: `Basic ${Buffer.from(basic).toString("base64")}` } }),
    });
  const assertion = async (key: typeof privateKey, claims: Record<string, unknown> = {}): Promise<Record<string, string>> => ({
    client_id: "signer",
    client_assertion_type: "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
    client_assertion: await new SignJWT({ iss: "signer", sub: "signer", aud: origin, jti: randomUUID(), ...claims })
      .setProtectedHeader({ alg: "ES256", kid: "k1" })
      .setIssuedAt()
      .setExpirationTime("1m")
      .sign(key),
  });

  const batch = await token({}, `batch:${SECRET}`);
  assert.equal(batch.status, 200, batch.text);
  assert.equal(batch.json["refresh_token"], undefined);
  assert.equal(batch.headers["cache-control"], "no-store");
  const proof = await assertion(privateKey);
  const signer = await token(proof);
  assert.equal(signer.status, 200, signer.text);
  const company = await corp.accessToken({ resource: all, scope: "mcp" });
  const tokens = { batch: String(batch.json["access_token"]), signer: String(signer.json["access_token"]), company, ci: STATIC };
  for (const [who, access] of Object.entries(tokens)) {
    const answer = await peer.ask(all, { token: access });
    assert.equal(answer.status, 200, `${who}: ${answer.text}`);
    const { headers } = answer.json as { headers: Record<string, string> };
    assert.equal(headers["authorization"], undefined, who);
    assert.equal(await peer.status(one, access), 401, `${who} at the other route`);
  }

  const refused: [string, () => Promise<PeerAnswer>][] = [
    ["a wrong secret", () => token({}, `batch:${SECRET}x`)],
    ["the secret of somebody else", () => token({}, `batch:${SECRET}-2`)],
    ["a secret where a key is needed", () => token({ client_id: "signer", client_secret: SECRET })],
    ["no secret", () => token({ client_id: "batch" })],
    ["an assertion once more", () => token(proof)],
    ["a foreign key", async () => await token(await assertion(foreign))],
    ["an assertion for somebody else", async () => await token(await assertion(privateKey, { aud: "https://elsewhere.example" }))],
    ["the assertion of another client", async () => await token(await assertion(privateKey, { sub: "batch" }))],
    ["another client's assertion", async () => await token({ ...(await assertion(privateKey)), client_id: "batch" })],
  ];
  for (const [name, attempt] of refused) {
    const { status, json, text } = await attempt();
    const isMixedUp = name.includes("another client");
    assert.deepEqual([status, json["error"]], isMixedUp ? [400, "invalid_request"] : [401, "invalid_client"], `${name}: ${text}`);
  }
  // What may log in is not what is admitted, though a token of the file has its name; nor can a client that registered itself act for itself.
  const namesake = await token({}, `ci:${SECRET}-2`);
  assert.deepEqual([namesake.status, namesake.json["error"]], [400, "unauthorized_client"], namesake.text);
  const registered = await peer.ask(`${origin}/register`, {
    body: { redirect_uris: ["http://127.0.0.1/cb"], grant_types: ["authorization_code", "client_credentials"] },
  });
  if (registered.status === 201) {
    const { client_id: id, client_secret: secret } = registered.json;
    const answer = await token({}, `${String(id)}:${String(secret)}`);
    assert.ok(answer.status >= 400, answer.text);
  }
  // Scopes that the file does not give are not to be had.
  const wide = await token({ scope: "mcp admin" }, `batch:${SECRET}`);
  assert.ok(wide.status === 400 || wide.json["scope"] === "mcp", wide.text);
  assert.equal((await token({ resource: `${origin}/none` }, `batch:${SECRET}`)).json["error"], "invalid_target");

  // The company's issuer is believed for the route's audience, and for tokens alone that are for it.
  const bad = {
    "for another audience": await corp.accessToken({ resource: one, scope: "mcp" }),
    "of another issuer": await corp.sign({ iss: origin, aud: all, scope: "mcp", sub: "u" }, { typ: "at+jwt" }),
    "an id token": await corp.sign({ aud: all, scope: "mcp", sub: "u" }, { typ: "id_token" }),
    "that is over": await corp.sign({ aud: all, scope: "mcp", sub: "u", exp: 1 }, { typ: "at+jwt" }),
    "not yet": await corp.sign({ aud: all, scope: "mcp", sub: "u", nbf: Math.floor(Date.now() / 1000) + 600 }, { typ: "at+jwt" }),
    "without a signature": `${Buffer.from(JSON.stringify({ alg: "none", typ: "at+jwt" })).toString("base64url")}.${company.split(".")[1]}.`,
  };
  for (const [name, access] of Object.entries(bad)) assert.equal(await peer.status(all, access), 401, name);
  assert.equal(await peer.status(all, await corp.accessToken({ resource: all })), 403, "without the scope");

  const person = await peer.login(origin, all, approve);
  assert.equal(await peer.status(all, person.access), 200);
  // Whom the file does not admit any more is out with the next request, and nobody else is.
  await gateway.edit(yaml.replace("clients: [batch, signer]", "clients: [signer]").replace("      - token: { names: [ci] }\n", ""));
  const now = await Promise.all([tokens.batch, tokens.ci, tokens.signer, company, person.access].map((access) => peer.status(all, access)));
  assert.deepEqual(now, [403, 401, 200, 200, 200]);
  await waitFor(() =>
    ["client:batch", "client:signer", "token:ci", "github:octocat"].every((name) => gateway.accessLog.some((line) => line["identity"] === name)),
  );
  const text = JSON.stringify([gateway.log, gateway.accessLog]);
  for (const secret of [SECRET, ...Object.values(tokens), proof["client_assertion"] ?? "?"]) assert.ok(!text.includes(secret), "no secret is logged");
});
