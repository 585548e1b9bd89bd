// Stories of an operator whose identity provider fails: every place that tells how the gateway fares says so, and nothing is taken out of service for it.
import assert from "node:assert/strict";
import { test } from "node:test";
import { scriptedBrowser } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { fetchFrom } from "../components/http-client.ts";
import { startOidcIssuer } from "../components/oidc-issuer.ts";
import { runInProcess } from "../components/run-command.ts";
import { waitFor } from "../components/wait.ts";

type Problem = { readonly what: string; readonly name: string; readonly reason: string };

/** Nothing is unwell, in any place, and no place says more than it would without a provider. */
async function isWell(gateway: Gateway, kind: string, name: string): Promise<void> {
  const { status, body } = await gateway.admin("/ready");
  assert.deepEqual([status, JSON.parse(body)], [200, { status: "ready", problems: [], config: { file: gateway.file } }]);
  assert.deepEqual(await runInProcess(["health", gateway.file], gateway.dir), { code: 0, stdout: "ready\n", stderr: "" });
  const [provider, ...more] = (await gateway.status())["identity_providers"] as Record<string, unknown>[];
  assert.deepEqual([provider?.["kind"], provider?.["name"], provider?.["error"], provider?.["since"], more], [kind, name, "", null, []]);
  assert.match(await metrics(gateway), new RegExp(`^sidegate_identity_provider_up\\{kind="${kind}",name="${name}"\\} 1$`, "m"));
  assert.doesNotMatch((await runInProcess(["status", gateway.file], gateway.dir)).stdout, new RegExp(`${kind} '${name}'`));
}

/** The provider is told as failing in each place. @returns the error */
async function isTold(gateway: Gateway, kind: string, name: string, error: RegExp): Promise<string> {
  const { status, body } = await gateway.admin("/ready");
  const ready = JSON.parse(body) as { status: string; problems: Problem[] };
  assert.deepEqual([status, ready.status, ready.problems.length], [200, "degraded", 1], body);
  const [problem] = ready.problems;
  assert.deepEqual([problem?.what, problem?.name], [kind, name]);
  const [provider, ...more] = (await gateway.status())["identity_providers"] as { error: string; since: string }[];
  assert.ok(provider !== undefined && more.length === 0, "one, whatever the number of servers");
  assert.match(provider.error, error);
  assert.ok(Math.abs(Date.now() - Date.parse(provider.since)) < 60_000, provider.since);
  assert.equal(problem?.reason, `fails since ${provider.since}: ${provider.error.replace(/^Issuer 'corp' /, "")}`);
  assert.match(await metrics(gateway), new RegExp(`^sidegate_identity_provider_up\\{kind="${kind}",name="${name}"\\} 0$`, "m"));
  const line = `${kind} '${name}': ${problem.reason}`;
  assert.deepEqual(await runInProcess(["health", gateway.file], gateway.dir), { code: 0, stdout: `degraded: ${line}\n`, stderr: "" });
  const shown = (await runInProcess(["status", gateway.file], gateway.dir)).stdout;
  assert.match(shown, /^Sidegate \S+, degraded, /);
  assert.ok(shown.includes(`\n${line}\n`), shown);
  return provider.error;
}

async function metrics(gateway: Gateway): Promise<string> {
  return (await gateway.admin("/metrics")).body;
}

function lines({ log }: Gateway, msg: string): Gateway["log"] {
  return log.filter((line) => line.msg === msg);
}

test("while GitHub fails for one of two hosts it is told everywhere, once in the log, and no more when people log in again", async () => {
  await using github = await startGithub();
  await using upstream = await startOrigin();
  const port = await freePort();
  const [a, b] = [`http://127.0.0.1:${port}`, `http://localhost:${port}`];
  const page = (origin: string): string =>
    `  - { host: "${new URL(origin).hostname}", path_prefix: /, public_url: "${origin}/", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ session: { allow: { github_users: [octocat] } } }] }`;
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:${port}", tls: { mode: disabled } }
auth:
  login: { github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" } }
routes:
${page(a)}
${page(b)}
`,
  });
  await isWell(gateway, "login", "github");
  github.trouble("POST /login/oauth/access_token", "cut");
  for (let people = 0; people < 3; people += 1) {
    await using browser = scriptedBrowser();
    assert.equal((await browser.open(`${a}/x`)).status, 503);
  }
  const error = await isTold(gateway, "login", "github", /^POST http:\/\/127\.0\.0\.1:\d+\/login\/oauth\/access_token: /);
  const [begin, ...more] = lines(gateway, "Logins with the identity provider fail");
  assert.deepEqual([begin?.level, begin?.["provider"], begin?.["reason"], more], ["warn", "github", error, []]);
  const people = lines(gateway, "A login did not work");
  assert.equal(new Set(people.map((line) => line["request_id"])).size, 3, "who asks about a request finds it");
  assert.deepEqual([...new Set(people.map(({ level }) => level))], ["info"]);

  github.trouble("POST /login/oauth/access_token", null);
  await using browser = scriptedBrowser();
  assert.equal((await browser.open(`${b}/x`)).status, 200);
  await isTold(gateway, "login", "github", /access_token/);
  assert.equal((await browser.open(`${a}/x`)).status, 200);
  await isWell(gateway, "login", "github");
  assert.equal(lines(gateway, "The identity provider answers again").length, 1);
});

test("a client secret that the OpenID provider does not take is told until it is mended, and a provider that dies until it is back", async () => {
  await using corp = await startOidcIssuer();
  await using upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  const yaml = (secret: string): string => `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login: { oidc: { issuer: "${corp.issuer}", client_id: ${corp.clientId}, client_secret: "${secret}", name: Acme } }
routes:
  - { path_prefix: /, public_url: "${origin}/", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ session: { allow: { emails: [alice@example.com] } } }] }
`;
  await using gateway = await startGateway({ yaml: yaml("wrong-secret") });
  await isWell(gateway, "login", "Acme");
  await using browser = scriptedBrowser();
  assert.equal((await browser.open(`${origin}/x`)).status, 403);
  const error = await isTold(gateway, "login", "Acme", /check 'client_id' and 'client_secret' of 'auth\.login\.oidc'$/);
  const told = JSON.stringify([error, await gateway.status(), gateway.log, gateway.accessLog]);
  assert.ok(!told.includes("wrong-secret"));

  await gateway.edit(yaml(corp.clientSecret ?? ""));
  await isWell(gateway, "login", "Acme");
  assert.equal((await browser.open(`${origin}/x`)).status, 200);
  await isWell(gateway, "login", "Acme");

  await corp.stop();
  await using other = scriptedBrowser();
  // What is known of the provider leads the browser there, which finds nobody.
  await assert.rejects(other.open(`${origin}/x`), /ECONNREFUSED/);
  await isWell(gateway, "login", "Acme");
  await gateway.edit(yaml(corp.clientSecret ?? "").replace("name: Acme", "name: Corp"));
  assert.equal((await other.open(`${origin}/x`)).status, 503);
  await isTold(gateway, "login", "Corp", /connection refused/);
  assert.equal((await browser.open(`${origin}/x`)).status, 200, "whoever is logged in goes on");
  await corp.start();
  await waitFor(async () => (await other.open(`${origin}/x`)).status === 200);
  await isWell(gateway, "login", "Corp");
});

test("an issuer whose keys cannot be fetched when the first token comes is told until they are there", async () => {
  await using issuer = await startOidcIssuer({ algorithm: "ES256" });
  await using upstream = await startOrigin();
  const audience = "https://mcp.example.com/mcp";
  await using gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: disabled } }
auth:
  issuers:
    corp: { issuer: "${issuer.issuer}", audience: "${audience}" }
routes:
  - { host: mcp.example.com, path: /mcp, upstream: "http://127.0.0.1:${upstream.port}", auth: [{ issuer: { name: corp, scopes: [mcp] } }] }
`,
  });
  await isWell(gateway, "issuer", "corp");
  const token = await issuer.accessToken({ resource: audience, scope: "mcp" });
  const ask = async (): Promise<number> =>
    (await fetchFrom(gateway.port("web"), "/mcp", { headers: { host: "mcp.example.com", authorization: `Bearer ${token}` } })).status;
  issuer.trouble("GET /jwks", { status: 500, body: "a stack trace" });
  assert.equal(await ask(), 503);
  const error = await isTold(gateway, "issuer", "corp", /^Issuer 'corp' answered with status 500 at 'http:\/\/127\.0\.0\.1:\d+\/jwks'$/);
  assert.ok(!error.includes("stack trace"));
  issuer.trouble("GET /jwks", null);
  await waitFor(async () => (await ask()) === 200);
  await isWell(gateway, "issuer", "corp");
});
