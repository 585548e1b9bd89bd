import assert from "node:assert/strict";
import { test } from "node:test";
import { auth } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { startMcpServer } from "../components/mcp-server.ts";
import { MemoryOAuth } from "../components/oauth-client.ts";
import { Peer } from "../components/oauth-peer.ts";
import { approve } from "../components/person.ts";

test("#16 an SDK client of the older revisions that would only refresh is led to its person when the file asks for more", async () => {
  await using github = await startGithub();
  await using mcp = await startMcpServer("streamableHttp");
  const origin = `http://127.0.0.1:${await freePort()}`;
  const yaml = (scopes: string, scopeWords = ""): string => `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }${scopeWords}
routes:
  - { path: /mcp, public_url: "${origin}/mcp", upstream: "http://127.0.0.1:${mcp.port}", auth: [{ oauth: { scopes: [${scopes}], allow: { github_users: [octocat] } } }] }
`;
  await using gateway = await startGateway({ yaml: yaml("mcp") });
  await using peer = new Peer();
  const oauth = new MemoryOAuth(approve);
  const serverUrl = `${origin}/mcp`;
  assert.equal(await auth(oauth, { serverUrl }), "REDIRECT");
  assert.equal(await auth(oauth, { serverUrl, authorizationCode: oauth.code() }), "AUTHORIZED");
  const other = await peer.login(origin, serverUrl, approve);
  await gateway.edit(yaml("mcp, admin"));
  const transport = new StreamableHTTPClientTransport(new URL(serverUrl), { authProvider: oauth });
  const client = new Client({ name: "story", version: "1.0.0" });
  // The SDK's types do not know exactOptionalPropertyTypes.
  // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
  await assert.rejects(client.connect(transport as Parameters<Client["connect"]>[0]));
  assert.equal(oauth.asked, 2);
  await transport.finishAuth(oauth.code());
  const again = new Client({ name: "story", version: "1.0.0" });
  // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
  await again.connect(new StreamableHTTPClientTransport(new URL(serverUrl), { authProvider: oauth }) as Parameters<Client["connect"]>[0]);
  assert.deepEqual(oauth.saved?.scope?.split(" ").toSorted(), ["admin", "mcp"]);
  await again.close();
  // Nothing is lost: as soon as the file asks for less again, or what was granted includes the rest, what was refused works.
  const refused = await peer.refresh(origin, other.clientId, other.refresh);
  assert.deepEqual([refused.status, refused.json["error"]], [400, "invalid_grant"]);
  await gateway.edit(yaml("mcp, admin", "\n  scopes: { mcp: { includes: [admin] } }"));
  const included = await peer.refresh(origin, other.clientId, other.refresh);
  assert.equal(included.status, 200, included.text);
  await gateway.edit(yaml("mcp"));
  assert.equal((await peer.refresh(origin, other.clientId, String(included.json["refresh_token"]))).status, 200);
});
