// The commands around OAuth, and what a state that cannot be used does to a gateway.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { request } from "node:http";
import { chmod, mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { parsePasswordFile, verifyPassword } from "../../src/lib/password-file.ts";
import { runSidegate } from "../components/command.ts";
import { startGateway } from "../components/gateway.ts";

const LAUNCHER = new URL("../../src/sidegate.js", import.meta.url).pathname;
const OPEN = `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
routes:
  - { name: mcp, path: /mcp, upstream: "http://127.0.0.1:1", auth: none }
`;
const OAUTH = `
listeners:
  web: { protocol: http, listen: "127.0.0.1:0" }
auth: { login: { password: { users_file: users } } }
routes:
  - { name: mcp, host: localhost, path: /mcp, upstream: "http://127.0.0.1:1", auth: [{ oauth: { scopes: [mcp] } }] }
`;
const USERS = { users: `alice:$scrypt$ln=17,r=8,p=1$${"A".repeat(22)}$${"A".repeat(43)}\n` };

test("a gateway without OAuth tells of no clients and no grants, and keeps no state for it", async () => {
  await using gateway = await startGateway({ yaml: OPEN });
  const env = { SIDEGATE_CONFIG: gateway.file };
  assert.deepEqual(await runSidegate(["auth"], { env }), { code: 0, stdout: "No grants: nobody has let a client in\n", stderr: "" });
  assert.deepEqual(await runSidegate(["auth", "clients", gateway.file, "--json"]), { code: 0, stdout: "[]\n", stderr: "" });
  assert.deepEqual(await runSidegate(["auth", "revoke", "--all"], { env }), { code: 0, stdout: "There were no grants and sessions\n", stderr: "" });
  assert.equal((await runSidegate(["auth", "revoke", "--grant", "x"], { env })).code, 1);
  await assert.rejects(stat(join(gateway.dir, "state", "state.db")), { code: "ENOENT" });
});

test("a start with a damaged state exits with 69, names the file, and leaves it as it is", async (t) => {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-auth-cli-"));
  t.after(() => rm(dir, { recursive: true, force: true }));
  await mkdir(join(dir, "state"));
  await writeFile(join(dir, "users"), USERS.users);
  await writeFile(join(dir, "sidegate.yaml"), `version: 1\nstate: { dir: state }\nadmin: { listen: "unix:${dir}/admin.sock" }\n${OAUTH}`);
  await writeFile(join(dir, "state", "state.db"), "precious but damaged");
  await writeFile(join(dir, "state", "state.key"), `${Buffer.alloc(32, 1).toString("base64url")}\n`);
  const { code, stdout, stderr } = await runSidegate(["run", "sidegate.yaml"], { cwd: dir });
  assert.deepEqual([code, stdout], [69, ""]);
  const file = join(dir, "state", "state.db");
  assert.equal(
    stderr,
    `The state file '${file}' is damaged; bring it back from a backup, or move it away together with '${file}-wal' and '${file}-shm': without it the gateway begins anew: clients register and everybody logs in again\n`,
  );
  assert.equal(await readFile(file, "utf8"), "precious but damaged");
});

test("a reload that needs a state which cannot be used is refused in its words, and the last good configuration goes on", async () => {
  await using gateway = await startGateway({ yaml: OPEN, files: USERS, expectErrors: true });
  const state = join(gateway.dir, "state");
  await mkdir(state, { recursive: true });
  await writeFile(join(state, "state.db"), "");
  await chmod(join(state, "state.db"), 0o600);
  await gateway.save(OAUTH);
  const { code, stderr } = await runSidegate(["reload", gateway.file]);
  assert.equal(code, 64);
  assert.match(
    stderr,
    /The key '.*state\.key' is missing, and the state file '.*state\.db' cannot be read without it; .*\nThe last good configuration goes on\n$/,
  );
  assert.deepEqual((await gateway.status()).routes[0].auth, ["none"]);
  assert.equal((await gateway.admin("/ready")).status, 200);
});

test("'hash-password' makes from what is piped in a line of the file, as its users run it", async () => {
  const child = spawn(process.execPath, [LAUNCHER, "hash-password"], { stdio: ["pipe", "pipe", "inherit"] });
  child.stdin.write("correct horse\n");
  let hash = "";
  for await (const text of child.stdout.setEncoding("utf8")) hash += text;
  const { users, problems } = parsePasswordFile(`alice:${hash}`);
  assert.deepEqual(problems, []);
  assert.equal(await verifyPassword("correct horse", users.get("alice")?.hash ?? ""), true);
});

test("a client that registered is shown, and is unknown once it was revoked", async () => {
  await using gateway = await startGateway({ yaml: OAUTH, files: USERS });
  const env = { SIDEGATE_CONFIG: gateway.file };
  const origin = { host: "127.0.0.1", port: gateway.port("web"), headers: { host: "localhost" } };
  const body = JSON.stringify({ client_name: "Probe", redirect_uris: ["http://127.0.0.1/cb"], token_endpoint_auth_method: "none" });
  const registered = await post(origin, "/register", "application/json", body);
  assert.equal(registered.status, 201, registered.body);
  const { client_id: id } = JSON.parse(registered.body) as { client_id: string };
  const refresh = (): Promise<{ status: number; body: string }> =>
    post(origin, "/token", "application/x-www-form-urlencoded", `grant_type=refresh_token&refresh_token=none&client_id=${encodeURIComponent(id)}`);
  assert.equal((JSON.parse((await refresh()).body) as { error: string }).error, "invalid_grant");
  const shown = await runSidegate(["auth", "clients"], { env });
  assert.equal(shown.code, 0);
  assert.match(shown.stdout, new RegExp(`^NAME .*\\nProbe +registered +http://127\\.0\\.0\\.1/cb +\\S+ ago +${id}\\n$`));
  assert.deepEqual(await runSidegate(["auth"], { env }), { code: 0, stdout: "No grants: nobody has let a client in\n", stderr: "" });
  assert.deepEqual(await runSidegate(["auth", "revoke", "--client", id], { env }), {
    code: 0,
    stdout: "Took back the registration; there were no grants\n",
    stderr: "",
  });
  assert.equal((await runSidegate(["auth", "clients"], { env })).stdout, "No clients: none is in the file, and none has registered\n");
  const unknown = await refresh();
  assert.deepEqual([unknown.status, (JSON.parse(unknown.body) as { error: string }).error], [401, "invalid_client"]);
  assert.equal((await runSidegate(["auth", "revoke", "--client", id], { env })).code, 1);
});

function post(
  to: { host: string; port: number; headers: Record<string, string> },
  path: string,
  type: string,
  body: string,
): Promise<{ status: number; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  request(
    { ...to, path, method: "POST", agent: false, headers: { ...to.headers, "content-type": type, "content-length": Buffer.byteLength(body) } },
    (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      response.on("end", () => resolve({ status: response.statusCode ?? 0, body: text }));
    },
  )
    .on("error", reject)
    .end(body);
  return promise;
}
