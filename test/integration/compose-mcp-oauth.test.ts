// compose/mcp-oauth as it is shipped: a client logs in with GitHub, and goes on after restarts and upgrades without a person.
import assert from "node:assert/strict";
import { readdir, readFile, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { Agent, fetch as undiciFetch } from "undici";
import { UnauthorizedError } from "@modelcontextprotocol/sdk/client/auth.js";
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { approve, scriptedBrowser } from "../components/browser.ts";
import { docker, healthOf, missingDocker, startCompose, type ComposeProject } from "../components/docker.ts";
import { freePort } from "../components/free-port.ts";
import { startGithub, type Github } from "../components/github.ts";
import { MemoryOAuth } from "../components/oauth-client.ts";
import { createTestCa } from "../components/pki.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const FOLDER = new URL("../../compose/mcp-oauth/", import.meta.url).pathname;
const GITHUB_HOST = "github.example.test";
const WAIT_MS = 60_000;
const CLIENT_SECRET = "the-secret-of-the-app";

let missing: string | null = null;
const started = new AsyncDisposableStack();
let github: Github;
let project: ComposeProject;
let url = "";
/** Of the stand-in and of Sidegate: what the person's browser and the client trust. */
let trusted = "";

before(async () => {
  missing = await missingDocker();
  if (missing !== null) return;
  const port = await freePort();
  const authority = createTestCa();
  const tls = authority.issue(`/CN=${GITHUB_HOST}`, { san: `DNS:${GITHUB_HOST}` });
  const app = { clientId: "Ov23liStory", clientSecret: CLIENT_SECRET, callbackUrl: `https://localhost:${port}/callback` };
  github = started.use(await startGithub({ ...app, host: GITHUB_HOST, tls }));

  // What the user writes, for another port.
  url = `https://localhost:${port}/mcp`;
  const values = { GITHUB_CLIENT_ID: app.clientId, GITHUB_CLIENT_SECRET: CLIENT_SECRET, GITHUB_USER: "octocat" };
  let env = await readFile(join(FOLDER, ".env.example"), "utf8");
  for (const [name, value] of Object.entries(values)) env = replaceOnce(env, `\n${name}=\n`, `\n${name}=${value}\n`);
  env = `${replaceOnce(env, "# PUBLIC_URL=https://localhost:8443/mcp", `PUBLIC_URL=${url}`)}MCP_PORT=${port}\n`;
  // And what makes GitHub the stand-in.
  const secret = 'client_secret: "${GITHUB_CLIENT_SECRET}"';
  const yaml = replaceOnce(
    await readFile(join(FOLDER, "config/sidegate.yaml"), "utf8"),
    secret,
    `${secret}, base_url: "${github.url}", ca_file: github-ca.crt`,
  );
  const files = { ".env": env, "config/github-ca.crt": authority.cert };
  project = started.use(await startCompose("mcp-oauth", { yaml, files, hosts: [GITHUB_HOST] }));

  await project.compose("cp", "sidegate:/var/lib/sidegate/internal-ca/ca.crt", join(project.dir, "ca.crt"));
  trusted = authority.cert + (await readFile(join(project.dir, "ca.crt"), "utf8"));
});
after(() => started.disposeAsync());

function replaceOnce(text: string, part: string, by: string): string {
  assert.equal(text.split(part).length, 2, `'${part}' stands in it once:\n${text}`);
  return text.replace(part, () => by);
}

/** The person at the browser, who consents. */
async function person(authorization: URL): Promise<URL> {
  await using browser = scriptedBrowser({ ca: trusted });
  return await approve(browser, authorization, { stopAt: authorization.searchParams.get("redirect_uri") ?? "" });
}

type McpClient = AsyncDisposable & { readonly client: Client };

/** Connects with what the client has kept, and lets a person log in where that is not enough. */
async function connect(oauth: MemoryOAuth): Promise<McpClient> {
  const dispatcher = new Agent({ connect: { ca: trusted } });
  const transport = (): StreamableHTTPClientTransport =>
    new StreamableHTTPClientTransport(new URL(url), { authProvider: oauth, fetch: (to, init) => undiciFetch(to, { ...init, dispatcher }) });
  const open = async (): Promise<Client> => {
    const client = new Client({ name: "story", version: "1.0.0" });
    const through = transport();
    try {
      await client.connect(through);
      return client;
    } catch (error) {
      if (!(error instanceof UnauthorizedError)) throw error;
      await through.finishAuth(oauth.code());
      await client.close();
      return await open();
    }
  };
  try {
    const client = await open();
    const close = async (): Promise<void> => {
      await client.close();
      await dispatcher.destroy();
    };
    return { client, [Symbol.asyncDispose]: close };
  } catch (error) {
    await dispatcher.destroy();
    throw error;
  }
}

async function call({ client }: McpClient, name: string, values: Record<string, unknown> = {}): Promise<string> {
  const { content } = await client.callTool({ name, arguments: values });
  return (content as { text: string }[])[0]?.text ?? "";
}

/** The client comes in with what it has kept; one that has nothing, after a person has logged in. */
async function assertServed(oauth: MemoryOAuth): Promise<void> {
  // The gateway is up at once, and Node.js in the server's container takes its time.
  await using connected = await waitFor(() => connect(oauth), { timeoutMs: WAIT_MS, what: () => "the server behind the gateway" });
  assert.equal(await call(connected, "echo", { message: "through the sidecar" }), "through the sidecar");
}

/** A client that somebody logged in for. */
async function loggedIn(): Promise<MemoryOAuth> {
  const oauth = new MemoryOAuth(person);
  await assertServed(oauth);
  assert.equal(oauth.asked, 1);
  return oauth;
}

/** Its access token is over, as an hour later: it has to refresh, and does without a person. */
async function assertRefreshes(oauth: MemoryOAuth): Promise<void> {
  const { asked, saved } = oauth;
  assert.ok(saved?.refresh_token !== undefined);
  oauth.saved = { ...saved, access_token: "over" };
  await assertServed(oauth);
  assert.deepEqual([oauth.asked, oauth.saved.refresh_token === saved.refresh_token], [asked, false]);
}

test("a client that knows the address alone comes from a 401 over consent and GitHub to a tool, which sees who calls", async (t) => {
  if (skipWithout(t, missing)) return;
  const oauth = await loggedIn();
  await using connected = await connect(oauth);
  assert.match(await call(connected, "whoami"), /x-forwarded-user: octocat[^]*authorization: none/);
  assert.match(await project.compose("exec", "-T", "sidegate", "sidegate", "auth"), /github:octocat/);

  github.signIn({ id: 2, login: "hubot" });
  try {
    await assert.rejects(connect(new MemoryOAuth(person)), /shows a page, 403: .*logged in as hubot.*has not admitted this account/);
  } finally {
    github.signIn({ id: 583_231, login: "octocat" });
  }
  assert.doesNotMatch(await project.logs(), new RegExp(CLIENT_SECRET));
});

test("what is missing in .env is told before anything starts", async (t) => {
  if (skipWithout(t, missing)) return;
  const compose = (...env: string[]): Promise<string> =>
    docker(["compose", "--env-file", "/dev/null", "config", "--quiet"], { cwd: FOLDER, env: Object.fromEntries(env.map((name) => [name, "x"])) });
  await assert.rejects(
    compose(),
    /missing a value: (?:register an OAuth app on GitHub|put the secret of the OAuth app into \.env|put your GitHub name into \.env)/,
  );
  await compose("GITHUB_CLIENT_ID", "GITHUB_CLIENT_SECRET", "GITHUB_USER");
});

test("after 'docker compose restart' a client goes on with its refresh token, and no person is asked", async (t) => {
  if (skipWithout(t, missing)) return;
  const oauth = await loggedIn();
  await project.compose("restart", "sidegate");
  const id = await project.id("sidegate");
  await waitFor(async () => (await healthOf(id)).Status === "healthy", { timeoutMs: WAIT_MS, what: () => "HEALTHCHECK to be content" });
  await assertServed(oauth);
  await assertRefreshes(oauth);
  assert.equal(oauth.asked, 1);
});

test("the volume is all that a login needs after 'docker compose down' and an upgrade, and it shows no secret", async (t) => {
  if (skipWithout(t, missing)) return;
  const oauth = await loggedIn();
  const copy = join(project.dir, "volume");
  await project.compose("cp", "sidegate:/var/lib/sidegate", copy);
  const names = await readdir(copy);
  for (const name of ["internal-ca", "state.db", "state.key"]) assert.ok(names.includes(name), `${name} in ${names.join(" ")}`);
  assert.equal((await stat(join(copy, "state.key"))).mode & 0o77, 0);
  const secrets = [oauth.saved?.access_token, oauth.saved?.refresh_token, "octocat", CLIENT_SECRET, "gho_"];
  for (const name of names.filter((one) => one.startsWith("state."))) {
    const bytes = await readFile(join(copy, name));
    for (const secret of secrets) assert.equal(bytes.includes(secret ?? ""), false, name);
  }
  await rm(copy, { recursive: true });

  await project.compose("down", "--timeout", "10");
  await project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", "60");
  await assertServed(oauth);
  await assertRefreshes(oauth);
  assert.equal(oauth.asked, 1);
  await project.compose("exec", "-T", "sidegate", "sidegate", "auth", "revoke", "--user", "github:octocat");
  await assertServed(oauth);
  assert.equal(oauth.asked, 2);
});
