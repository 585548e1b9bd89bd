// A company's provider vouches for a person to an agent (Enterprise-Managed Authorization): the SDK's client gets to a tool without any browser.
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { test } from "node:test";
import { Client, CrossAppAccessProvider, discoverAndRequestJwtAuthGrant, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { jwtVerify } from "jose";
import { json, makeKey, signToken, startFakeIssuer, type FakeIssuer, type SigningKey } from "../components/fake-issuer.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startMcpServer } from "../components/mcp-server.ts";
import { Peer } from "../components/oauth-peer.ts";
import { runInProcess } from "../components/run-command.ts";
import { waitFor } from "../components/wait.ts";

const SECRET = "a-secret-of-the-agent-that-is-long-enough";
// Who the agent is at the provider, where it is another client.
const IDP_CLIENT = { id: "agent-at-corp", secret: "secret-at-corp" };

type Idp = { readonly fake: FakeIssuer; readonly key: SigningKey; groups: string[]; readonly given: string[] };

/** A provider that exchanges an ID token of its own for an identity assertion (RFC 8693), when its client and the audience are known to it. */
async function startIdp(audience: string): Promise<Idp> {
  const fake = await startFakeIssuer();
  const key = await makeKey("k1");
  fake.keys.push(key);
  const idp: Idp = { fake, key, groups: ["eng"], given: [] };
  fake.pages.set(
    "/.well-known/openid-configuration",
    json({
      issuer: fake.issuer,
      authorization_endpoint: `${fake.issuer}/authorize`,
      token_endpoint: `${fake.issuer}/token`,
      jwks_uri: `${fake.issuer}/keys`,
      response_types_supported: ["code"],
      subject_types_supported: ["public"],
      id_token_signing_alg_values_supported: ["ES256"],
    }),
  );
  fake.pages.set("/token", async (req, res, body) => {
    const form = new URLSearchParams(body);
    const fits =
      form.get("grant_type") === "urn:ietf:params:oauth:grant-type:token-exchange" &&
      form.get("requested_token_type") === "urn:ietf:params:oauth:token-type:id-jag" &&
      form.get("subject_token_type") === "urn:ietf:params:oauth:token-type:id_token" &&
      form.get("client_id") === IDP_CLIENT.id &&
      form.get("client_secret") === IDP_CLIENT.secret &&
      form.get("audience")?.replace(/\/$/, "") === audience;
    if (!fits) return json({ error: "invalid_request", error_description: body }, 400)(req, res, body);
    const { payload } = await jwtVerify(form.get("subject_token") ?? "", key.publicKey, { issuer: fake.issuer, audience: IDP_CLIENT.id, typ: "JWT" });
    const scope = form.get("scope") ?? undefined;
    const claims = {
      sub: payload.sub,
      groups: idp.groups,
      aud: form.get("audience"),
      client_id: "agent",
      jti: randomUUID(),
      resource: form.get("resource"),
      scope,
    };
    const assertion = await signToken(fake.issuer, key, claims, { typ: "oauth-id-jag+jwt" });
    idp.given.push(assertion);
    return json({ access_token: assertion, issued_token_type: "urn:ietf:params:oauth:token-type:id-jag", token_type: "N_A", expires_in: 300 })(req, res, body);
  });
  return idp;
}

test("#34 the SDK's client comes to a tool by the word of the company's provider, again after a revoke, and not when the provider says otherwise", async () => {
  const origin = `http://127.0.0.1:${await freePort()}`;
  const resource = `${origin}/mcp`;
  const idp = await startIdp(origin);
  await using _fake = idp.fake;
  await using mcp = await startMcpServer("streamableHttp");
  const yaml = `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  issuers:
    corp: { issuer: "${idp.fake.issuer}" }
  clients:
    - { id: agent, name: Agent, secret: ${SECRET} }
routes:
  - path: /mcp
    public_url: "${resource}"
    upstream: "http://127.0.0.1:${mcp.port}"
    auth:
      - oauth: { scopes: [mcp], grants: [client_credentials], allow: { groups: [eng] }, identity_assertions: [corp] }
  - { path: /other, public_url: "${origin}/other", upstream: "http://127.0.0.1:${mcp.port}", auth: [{ oauth: { scopes: [mcp], grants: [client_credentials], allow: { groups: [eng] }, identity_assertions: [corp] } }] }
`;
  await using gateway = await startGateway({ yaml });
  await using peer = new Peer();
  const run = (...args: string[]) => runInProcess(["auth", ...args], gateway.dir, { env: { SIDEGATE_CONFIG: gateway.file } });
  const idToken = await signToken(idp.fake.issuer, idp.key, { sub: "alice", aud: IDP_CLIENT.id }, { typ: "JWT" });
  const provider = new CrossAppAccessProvider({
    clientId: "agent",
    clientSecret: SECRET,
    expectedIssuer: origin,
    assertion: async ({ authorizationServerUrl, resourceUrl, scope, fetchFn }) => {
      const asked = { idpUrl: idp.fake.issuer, audience: authorizationServerUrl, resource: resourceUrl, idToken, clientId: IDP_CLIENT.id };
      const more = { clientSecret: IDP_CLIENT.secret, ...(scope === undefined ? {} : { scope }), ...(fetchFn === undefined ? {} : { fetchFn }) };
      return (await discoverAndRequestJwtAuthGrant({ ...asked, ...more })).jwtAuthGrant;
    },
  });
  const client = new Client({ name: "story", version: "1.0.0" });
  await client.connect(new StreamableHTTPClientTransport(new URL(resource), { authProvider: provider }));
  const callTool = async (): Promise<string> => JSON.stringify((await client.callTool({ name: "echo", arguments: { message: "hello" } })).content);
  assert.match(await callTool(), /hello/);
  assert.equal(idp.given.length, 1);
  const first = provider.tokens()?.access_token ?? assert.fail("no token");
  assert.equal(provider.tokens()?.refresh_token, undefined);
  assert.equal(await peer.status(`${origin}/other`, first), 401, "at no other route");
  assert.equal(await peer.status(resource, idp.given[0]), 401, "the assertion itself opens nothing");
  await waitFor(() => gateway.accessLog.some((line) => line["identity"] === "issuer:corp:alice" && line["status"] === 200));

  const { routes } = (await gateway.status()) as { routes: { auth: string[] }[] };
  assert.deepEqual(routes[0]?.auth, ["oauth groups:eng identity_assertions:corp with mcp"]);

  type Grant = { client: string; client_name: string; user: string; resources: string[]; scopes: string[] };
  const grants = async (): Promise<Grant[]> => JSON.parse((await run("grants", "--json")).stdout) as Grant[];
  const [grant] = await grants();
  assert.deepEqual(
    [grant?.client, grant?.client_name, grant?.user, grant?.resources, grant?.scopes],
    ["agent", "Agent", "issuer:corp:alice", [resource], ["mcp"]],
  );
  assert.match((await run()).stdout, /issuer:corp:alice +Agent/);

  assert.equal((await run("revoke", "--user", "issuer:corp:alice")).code, 0);
  assert.equal(await peer.status(resource, first), 401);
  assert.deepEqual(await grants(), []);
  // The provider still vouches for her: the client asks it once more, and nobody else.
  assert.match(await callTool(), /hello/);
  assert.equal(idp.given.length, 2);
  const second = provider.tokens()?.access_token ?? assert.fail("no token");
  assert.notEqual(second, first);

  idp.groups = ["sales"];
  assert.equal((await run("revoke", "--client", "agent")).code, 0);
  await assert.rejects(callTool(), /not admitted/);
  await waitFor(() => gateway.log.some(({ msg, groups }) => msg.includes("is not admitted") && String(groups) === "sales"));
  assert.equal(await peer.status(resource, second), 401);

  idp.groups = ["eng"];
  assert.match(await callTool(), /hello/);
  const third = provider.tokens()?.access_token ?? assert.fail("no token");
  // An edit elsewhere keeps the server and its tokens, with an issuer that was opened anew; one that takes the issuer out ends them.
  await gateway.edit(yaml.replace(`issuer: "${idp.fake.issuer}"`, `issuer: "${idp.fake.issuer}", user_claim: groups`));
  assert.notEqual(await peer.status(resource, third), 401);
  const again = await signToken(
    idp.fake.issuer,
    idp.key,
    { sub: "alice", groups: ["eng"], aud: origin, client_id: "agent", jti: "again" },
    { typ: "oauth-id-jag+jwt" },
  );
  const form = { grant_type: "urn:ietf:params:oauth:grant-type:jwt-bearer", assertion: again, client_id: "agent", client_secret: SECRET, resource };
  assert.equal((await peer.ask(`${origin}/token`, { body: new URLSearchParams(form) })).status, 200);
  // The same person, as the issuer tells of them now.
  assert.deepEqual(
    (await grants()).map(({ user }) => user),
    ["issuer:corp:eng", "issuer:corp:eng"],
  );
  const machines = yaml.replaceAll("allow: { groups: [eng] }, identity_assertions: [corp]", "allow: { clients: [agent] }");
  await gateway.edit(machines.replace(`secret: ${SECRET} }`, `secret: ${SECRET}, scopes: [mcp] }`));
  assert.equal(await peer.status(resource, third), 401);
  await client.close();

  const text = JSON.stringify([gateway.log, gateway.accessLog]);
  for (const secret of [SECRET, first, second, third, again, ...idp.given]) assert.ok(!text.includes(secret), "no secret is logged");
});
