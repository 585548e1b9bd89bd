// The conformance suite of the protocol's authors against the authorization server of a gateway, with a scripted person where it asks for a browser.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { request } from "undici";
import { freePort } from "../components/free-port.ts";
import { startGateway } from "../components/gateway.ts";
import { startGithub } from "../components/github.ts";
import { approve } from "../components/person.ts";

const PROGRAM = new URL("../../node_modules/@modelcontextprotocol/conformance/dist/index.js", import.meta.url).pathname;
const TIMEOUT_MS = 60_000;

type Check = { readonly id: string; readonly status: string; readonly errorMessage?: string };

test("#38 the authorization server passes all checks of the conformance suite", { timeout: 2 * TIMEOUT_MS }, async () => {
  await using github = await startGithub();
  const [port, callbackPort] = [await freePort(), await freePort()];
  const origin = `http://127.0.0.1:${port}`;
  await using _gateway = await startGateway({
    yaml: `listeners:
  web: { protocol: http, listen: "127.0.0.1:${port}", tls: { mode: disabled } }
auth:
  login:
    github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" }
routes:
  - { path: /mcp, public_url: "${origin}/mcp", upstream: "http://127.0.0.1:9", auth: [{ oauth: { scopes: [mcp], allow: { github_users: [octocat] } } }] }
`,
  });
  const redirectUri = `http://127.0.0.1:${callbackPort}/callback`;
  const registration = await request(`${origin}/register`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ client_name: "Conformance", redirect_uris: [redirectUri], token_endpoint_auth_method: "none" }),
  });
  const { client_id: clientId } = (await registration.body.json()) as { client_id: string };
  const dir = await mkdtemp(join(tmpdir(), "sidegate-conformance-"));
  try {
    const args = ["authorization", "--url", origin, "--client-id", clientId, "--resource", `${origin}/mcp`, "-p", String(callbackPort), "-o", dir];
    const child = spawn(process.execPath, [PROGRAM, ...args], { stdio: ["ignore", "pipe", "pipe"], timeout: TIMEOUT_MS });
    let output = "";
    const visits: Promise<unknown>[] = [];
    const read = (chunk: unknown): void => {
      output += String(chunk);
      const url = new RegExp(`^${origin}/authorize\\S+(?=\\n)`, "m").exec(output)?.[0];
      if (url !== undefined && visits.length === 0) visits.push(approve(new URL(url)).then(async (back) => (await request(back)).body.dump()));
    };
    child.stdout.on("data", read);
    child.stderr.on("data", read);
    await once(child, "close");
    await Promise.all(visits);
    const checks: Check[] = [];
    for (const run of await readdir(dir)) checks.push(...(JSON.parse(await readFile(join(dir, run, "checks.json"), "utf8")) as Check[]));
    assert.deepEqual(
      checks.map(({ id, status, errorMessage }) => ({ id, status, errorMessage })).toSorted((a, b) => a.id.localeCompare(b.id)),
      ["authorization-code-grant", "authorization-server-metadata", "authorization-server-metadata-cimd"].map((id) => ({
        id,
        status: "SUCCESS",
        errorMessage: undefined,
      })),
      output,
    );
  } finally {
    await rm(dir, { recursive: true, force: true });
  }
});
