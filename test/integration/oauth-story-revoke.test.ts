// The operator takes back what people granted, with the commands, while they and their clients are at work.
import assert from "node:assert/strict";
import { test, type TestContext } from "node:test";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { scriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { startGithub, type Github, type GithubPerson } from "../components/github.ts";
import { startMcpServer } from "../components/mcp-server.ts";
import { MemoryOAuth } from "../components/oauth-client.ts";
import { Peer, type Tokens } from "../components/oauth-peer.ts";
import { approve } from "../components/person.ts";
import { runInProcess, type CommandRun } from "../components/run-command.ts";

const OCTOCAT: GithubPerson = { id: 1, login: "octocat" };
const HUBOT: GithubPerson = { id: 2, login: "hubot" };

type Setting = {
  readonly github: Github;
  readonly gateway: Gateway;
  readonly origin: string;
  readonly peer: Peer;
  readonly run: (...args: string[]) => Promise<CommandRun>;
};
type Login = Tokens & { readonly clientId: string };

/** /mcp takes tokens, /pages sessions. */
async function open(t: TestContext): Promise<Setting> {
  const github = await startGithub({ people: [OCTOCAT] });
  const upstream = await startOrigin();
  const mcp = await startMcpServer("streamableHttp");
  const origin = `http://127.0.0.1:${await freePort()}`;
  const allow = "allow: { github_users: [octocat, hubot] }";
  const gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", upstream: "http://127.0.0.1:${mcp.port}", auth: [{ oauth: { scopes: [mcp], ${allow} } }] }
  - { path: /jwt, public_url: "${origin}/jwt", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ oauth: { scopes: [mcp], access_token_format: jwt, ${allow} } }] }
  - { path_prefix: /pages, public_url: "${origin}/pages", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ session: { ${allow} } }] }
`,
  });
  const peer = new Peer();
  t.after(async () => {
    for (const one of [peer, gateway, mcp, upstream, github]) await one[Symbol.asyncDispose]();
  });
  return { github, gateway, origin, peer, run: (...args) => runInProcess(["auth", ...args], gateway.dir, { env: { SIDEGATE_CONFIG: gateway.file } }) };
}

test("#18 revoking a person's grants, one grant or all makes tokens worthless at once, refreshing too, and ends sessions", async (t) => {
  const { github, origin, peer, run } = await open(t);
  await using browser = scriptedBrowser();
  const logIn = (person: GithubPerson, path: string): Promise<Login> => {
    github.signIn(person);
    return peer.login(origin, `${origin}${path}`, approve);
  };
  const first = await logIn(OCTOCAT, "/mcp");
  const second = await logIn(OCTOCAT, "/jwt");
  const other = await logIn(HUBOT, "/jwt");
  github.signIn(OCTOCAT);
  assert.equal((await browser.open(`${origin}/pages/x`)).status, 200);
  const at = async (path: string, { access }: Login): Promise<number> => {
    const { status } = await peer.ask(`${origin}${path}`, { token: access, headers: { accept: "application/json" } });
    return status === 401 ? 401 : 200;
  };
  const isGone = async (path: string, login: Login): Promise<void> => {
    assert.equal(await at(path, login), 401);
    const answer = await peer.refresh(origin, login.clientId, login.refresh);
    assert.deepEqual([answer.status, answer.json["error"]], [400, "invalid_grant"]);
  };
  assert.deepEqual([await at("/mcp", first), await at("/jwt", second), await at("/jwt", other)], [200, 200, 200]);

  const grants = JSON.parse((await run("grants", "--json")).stdout) as { id: string; user: string; client: string; resources: string[]; scopes: string[] }[];
  assert.deepEqual(grants.map(({ user, resources }) => `${user} ${resources.join(" ")}`).toSorted(), [
    `github:hubot ${origin}/jwt`,
    `github:octocat ${origin}/jwt`,
    `github:octocat ${origin}/mcp`,
  ]);
  const table = await run();
  assert.equal(table.stdout.match(/github:octocat +Story/g)?.length, 2);
  assert.ok(
    ![first, second, other].some(({ access, refresh }) => `${table.stdout}${JSON.stringify(grants)}`.includes(access) || table.stdout.includes(refresh)),
  );

  const one = grants.find(({ client }) => client === first.clientId) ?? assert.fail("no grant");
  assert.equal((await run("revoke", "--grant", one.id)).code, 0);
  await isGone("/mcp", first);
  assert.equal(await at("/jwt", second), 200);
  assert.equal((await run("revoke", "--grant", one.id)).code, 1);

  assert.equal((await browser.open(`${origin}/pages/x`)).status, 200);
  github.answer("deny");
  assert.equal((await run("revoke", "--user", "github:octocat")).code, 0);
  await isGone("/jwt", second);
  assert.notEqual((await browser.open(`${origin}/pages/x`)).status, 200, "the session is gone");
  assert.equal(await at("/jwt", other), 200);
  github.answer("approve");

  assert.equal((await run("revoke", "--all")).code, 0);
  await isGone("/jwt", other);
  assert.match((await run("grants")).stdout, /^No grants/);
  // The clients are still known, and a new login is enough.
  const asked = peer.authorization(origin, other.clientId, { resource: `${origin}/jwt` });
  const code = (await approve(asked.url)).searchParams.get("code") ?? assert.fail("no code");
  const again = await peer.exchange(origin, other.clientId, asked, code);
  assert.equal(again.status, 200, again.text);
});

test("the operator sees who is logged in with which browser, and signs one browser of a person out", async (t) => {
  const { github, gateway, origin, run } = await open(t);
  await using laptop = scriptedBrowser();
  await using lost = scriptedBrowser();
  const page = `${origin}/pages/x`;
  const shown = async (): Promise<{ id: string; user: string; origin: string }[]> =>
    JSON.parse((await run("sessions", "--json")).stdout) as { id: string; user: string; origin: string }[];
  github.signIn(OCTOCAT);
  assert.equal((await laptop.open(page)).status, 200);
  const [mine] = await shown();
  assert.equal((await lost.open(page)).status, 200);
  const both = await shown();
  assert.deepEqual(
    both.map(({ user, origin: at }) => `${user} ${at}`),
    [`github:octocat ${origin}`, `github:octocat ${origin}`],
  );
  const { stdout } = await run("sessions");
  for (const { id } of both) assert.match(stdout, new RegExp(`^github:octocat +${origin} +\\S+ ago +in \\d.* +${id}$`, "m"));
  for (const browser of [laptop, lost]) assert.ok(![...browser.cookies(origin).values()].some((value) => stdout.includes(value)));

  const other = both.find(({ id }) => id !== mine?.id) ?? assert.fail("no second session");
  assert.equal((await gateway.admin("/auth/revoke?session=x&all=true", "POST")).status, 400);
  assert.deepEqual(await run("revoke", "--session", other.id), { code: 0, stdout: "Revoked 1 session\n", stderr: "" });
  github.answer("deny");
  assert.equal((await laptop.open(page)).status, 200);
  assert.notEqual((await lost.open(page)).status, 200);
  assert.deepEqual(await shown(), [mine]);
  assert.equal((await run("revoke", "--session", other.id)).code, 1);
  await laptop.submit(await laptop.open(`${origin}/.sidegate/logout`), "Sign out");
  assert.equal((await run("sessions")).stdout, "No sessions: nobody is logged in with a browser\n");
});

test("#29 a client whose registration the operator took away registers again by itself, asks its person once, and goes on", async (t) => {
  const { origin, run } = await open(t);
  const oauth = new MemoryOAuth(approve);
  const transport = (): StreamableHTTPClientTransport => new StreamableHTTPClientTransport(new URL(`${origin}/mcp`), { authProvider: oauth });
  const connect = async (over: StreamableHTTPClientTransport): Promise<Client> => {
    const client = new Client({ name: "story", version: "1.0.0" });
    // The SDK's types do not know exactOptionalPropertyTypes.
    // oxlint-disable-next-line typescript/no-unnecessary-type-assertion
    await client.connect(over as Parameters<Client["connect"]>[0]);
    return client;
  };
  const first = transport();
  await assert.rejects(connect(first), UnauthorizedError);
  await first.finishAuth(oauth.code());
  const inUse = transport();
  const client = await connect(inUse);
  const id = oauth.client?.client_id ?? assert.fail("not registered");
  assert.ok((await client.listTools()).tools.length > 0);

  const revoked = await run("revoke", "--client", id);
  assert.equal(revoked.code, 0, revoked.stderr);
  assert.ok(!(await run("clients")).stdout.includes(id));
  // It is refused, finds that nobody knows it, registers and leads its person to the page: all with one call.
  await assert.rejects(client.listTools(), UnauthorizedError);
  assert.equal(oauth.asked, 2);
  assert.notEqual(oauth.client?.client_id, id);
  await inUse.finishAuth(oauth.code());
  assert.ok((await client.listTools()).tools.length > 0);
  await client.close();
});
