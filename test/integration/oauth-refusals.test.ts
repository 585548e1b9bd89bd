// What the endpoints of OAuth and the routes refuse, through a running gateway: what the client is told, what its operator finds in the log, and secrets that clients write as they are.
import assert from "node:assert/strict";
import { test } from "node:test";
import { startOrigin } from "../components/echo.ts";
import { makeKey, signToken, startFakeIssuer } from "../components/fake-issuer.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { Peer, type PeerAnswer } from "../components/oauth-peer.ts";
import { waitFor } from "../components/wait.ts";

const SECRET = "a+secret:of%41the+batch%that:is-long-enough";

type Story = { readonly gateway: Gateway; readonly peer: Peer; readonly origin: string };

/** A gateway for clients alone: nobody can log in. */
async function withClients(story: (story: Story) => Promise<void>, issuers = "", ways = ""): Promise<void> {
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  clients: [{ id: batch, secret: "${SECRET}", scopes: [mcp] }]
${issuers}
routes:
  - path: /mcp
    public_url: "${origin}/mcp"
    upstream: "http://127.0.0.1:${upstream.port}"
    auth:
      - oauth: { scopes: [mcp], grants: [client_credentials], allow: { clients: [batch] } }
${ways}
`,
  });
  await using peer = new Peer();
  await story({ gateway, peer, origin });
}

function basic(id: string, secret: string): Record<string, string> {
  return { authorization: `Basic ${Buffer.from(`${id}:${secret}`).toString("base64")}` };
}

async function lineOf({ gateway }: Story, { headers }: PeerAnswer): Promise<Record<string, unknown>> {
  const id = headers["x-request-id"];
  await waitFor(() => gateway.accessLog.some((line) => line["request_id"] === id));
  return gateway.accessLog.find((line) => line["request_id"] === id) ?? {};
}

test("a secret with '+', '%' and ':' opens /token, /introspect and /revoke, as curl writes it and as RFC 6749 has it", async () => {
  await withClients(async ({ peer, origin }) => {
    for (const secret of [SECRET, encodeURIComponent(SECRET), new URLSearchParams({ s: SECRET }).toString().slice(2)]) {
      const ask = (path: string, form: Record<string, string>): Promise<PeerAnswer> =>
        peer.ask(`${origin}${path}`, { body: new URLSearchParams(form), headers: basic("batch", secret) });
      const given = await ask("/token", { grant_type: "client_credentials" });
      assert.equal(given.status, 200, `${secret}: ${given.text}`);
      const token = String(given.json["access_token"]);
      assert.equal((await ask("/introspect", { token })).json["active"], true, secret);
      assert.equal((await ask("/revoke", { token })).status, 200, secret);
      assert.equal((await ask("/introspect", { token })).json["active"], false, secret);
    }
    for (const [id, secret] of [
      ["batch", SECRET.replaceAll("+", " ")],
      ["batch", SECRET.slice(0, -1)],
      ["batch", decodeURIComponent(SECRET.replace("%that", "%25that"))],
      ["other", SECRET],
      ["batch", ""],
    ] as const) {
      const refused = await peer.ask(`${origin}/token`, { body: new URLSearchParams({ grant_type: "client_credentials" }), headers: basic(id, secret) });
      assert.ok([400, 401].includes(refused.status), `${id}:${secret} ${refused.text}`);
    }
  });
});

test("the access log says why an endpoint refused a request and which client it named, and holds no secret and no token", async () => {
  await withClients(async (story) => {
    const { peer, origin, gateway } = story;
    const form = (fields: Record<string, string>): URLSearchParams => new URLSearchParams(fields);
    const grant = { grant_type: "client_credentials" };
    const wrong = "wrong-secret-0123456789";
    const told = async (path: string, body: URLSearchParams | Record<string, unknown>, headers: Record<string, string> = {}): Promise<unknown[]> => {
      const { status, error, client_id: id } = await lineOf(story, await peer.ask(`${origin}${path}`, { body, headers }));
      return [status, error, id];
    };
    const noSecret = "ERR_OAUTH: invalid_client: client authentication failed (invalid secret provided)";
    for (const path of ["/token", "/introspect", "/revoke"])
      assert.deepEqual(await told(path, form({ ...grant, token: "a-token-0123456789" }), basic("batch", wrong)), [401, noSecret, "batch"], path);
    assert.deepEqual(await told("/token", form({ ...grant, client_id: "batch", client_secret: wrong })), [401, noSecret, "batch"]);
    const stranger = await told("/token", form({ ...grant, client_id: `x\u202e\n${"y".repeat(500)}` }));
    assert.match(String(stranger[1]), /^ERR_OAUTH: invalid_client: .* \(client not found\)$/);
    assert.match(String(stranger[2]), /^x y{198}\.\.\.$/);
    const refresh = await told("/token", form({ grant_type: "refresh_token", refresh_token: "a-token-0123456789" }), basic("batch", SECRET));
    assert.deepEqual(refresh, [400, "ERR_OAUTH: invalid_request: requested grant type is not allowed for this client", "batch"]);
    assert.match(String((await told("/token", { grant_type: "x" }))[1]), /^ERR_OAUTH: invalid_request: the body must be a form/);
    assert.match(String((await told("/register", { redirect_uris: [] }))[1]), /^ERR_OAUTH: access_denied: nobody can log in here/);
    const good = await told("/token", form(grant), basic("batch", SECRET));
    assert.deepEqual(good, [200, undefined, undefined]);
    const log = JSON.stringify([gateway.log, gateway.accessLog]);
    for (const secret of [wrong, SECRET, "a-token-0123456789"]) assert.ok(!log.includes(secret), secret);
  });
});

test("where nobody can log in the metadata offers no login, nobody registers, and a browser reads why", async () => {
  await withClients(async (story) => {
    const { peer, origin } = story;
    const { json } = await peer.ask(`${origin}/.well-known/oauth-authorization-server`);
    assert.deepEqual(json["grant_types_supported"], ["client_credentials"]);
    assert.deepEqual(json["response_types_supported"], []);
    for (const name of ["registration_endpoint", "code_challenge_methods_supported", "client_id_metadata_document_supported"]) assert.ok(!(name in json), name);
    assert.equal(json["token_endpoint"], `${origin}/token`);
    assert.equal(json["authorization_endpoint"], `${origin}/authorize`, "the SDK of MCP takes no metadata without it");
    const registered = await peer.ask(`${origin}/register`, { body: { client_name: "x", redirect_uris: ["http://127.0.0.1:1/c"] } });
    assert.deepEqual([registered.status, registered.json["error"]], [403, "access_denied"]);
    assert.match(String(registered.json["error_description"]), /nobody can log in here/);
    const page = await peer.ask(peer.authorization(origin, "batch", { resource: `${origin}/mcp` }).url);
    assert.equal(page.status, 403);
    assert.match(page.text, /<h1>Nobody can log in here<\/h1>/);
    assert.equal((await lineOf(story, page))["error"], "ERR_OAUTH: access_denied: nobody can log in here");
  });
});

test("a token of an issuer that the route does not know is refused, and the log alone says whose it is", async () => {
  await using corp = await startFakeIssuer();
  const key = await makeKey("k1");
  await withClients(
    async (story) => {
      const { peer, origin } = story;
      for (const [iss, told] of [
        ["https://typo.example.com/", "no issuer of this route is 'https://typo.example.com/'"],
        [`x\n"${"y".repeat(500)}`, `no issuer of this route is 'x "${"y".repeat(197)}...'`],
      ] as const) {
        const answer = await peer.ask(`${origin}/mcp`, { token: await signToken(iss, key, { aud: "x" }) });
        assert.equal(answer.status, 401);
        assert.equal((await lineOf(story, answer))["error"], `ERR_INVALID_TOKEN: The token is not valid here: ${told}`);
        assert.ok(!`${answer.text}${JSON.stringify(answer.headers)}`.includes("issuer"), "the client learns nothing of it");
      }
      const opaque = await peer.ask(`${origin}/mcp`, { token: "no-jwt-at-all" });
      assert.equal((await lineOf(story, opaque))["error"], "ERR_INVALID_TOKEN: The token is not valid here");
    },
    `  issuers: { corp: { issuer: "${corp.issuer}", audience: x } }`,
    "      - issuer: { name: corp, scopes: [mcp] }",
  );
});

test("a person of an issuer whose address is not verified is refused, and the log says that it did not count", async () => {
  await using corp = await startFakeIssuer();
  const key = await makeKey("k1");
  corp.keys.push(key);
  await withClients(
    async (story) => {
      const { peer, origin } = story;
      const claims = { sub: "u-1", aud: "x", scope: "mcp", email: "ann@example.com" };
      const unverified = await peer.ask(`${origin}/mcp`, { token: await signToken(corp.issuer, key, claims) });
      assert.equal(unverified.status, 403, unverified.text);
      assert.equal((await lineOf(story, unverified))["error"], "ERR_NOT_ADMITTED: 'u-1' (issuer:corp) is not in 'allow'; email_unverified: ann@example.com");
      assert.ok(!unverified.text.includes("ann"));
      const verified = await peer.ask(`${origin}/mcp`, { token: await signToken(corp.issuer, key, { ...claims, email_verified: true }) });
      assert.equal(verified.status, 200, verified.text);
    },
    `  issuers: { corp: { issuer: "${corp.issuer}", audience: x } }`,
    "      - issuer: { name: corp, scopes: [mcp], allow: { emails: [ann@example.com] } }",
  );
});
