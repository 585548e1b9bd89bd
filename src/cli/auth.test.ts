import assert from "node:assert/strict";
import { type TestContext, test } from "node:test";
import { NO_AUTH, startTestAdmin } from "../../test/components/admin.ts";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";
import type { AdminAuth } from "../admin/auth.ts";
import type { BrowserSessionInfo, OAuthClientInfo, OAuthGrantInfo, Revocation } from "../authorization-server/grants.ts";
import { StateError } from "../state/state-error.ts";
import { formatClients, formatGrants, formatSessions } from "./auth-text.ts";

const NOW = new Date("2026-11-21T10:00:00.000Z");
const SERVER = "https://mcp.example";
const GRANT: OAuthGrantInfo = {
  server: SERVER,
  id: "g-1",
  client: "https://claude.ai/oauth/client.json",
  client_name: "Claude",
  user: "github:octocat",
  resources: ["https://mcp.example/mcp"],
  scopes: ["mcp", "mcp:write"],
  created_at: "2026-11-18T10:00:00.000Z",
  expires_at: "2026-12-18T10:00:00.000Z",
};
const NEWER: OAuthGrantInfo = {
  ...GRANT,
  id: "g-2",
  client: "c-2",
  client_name: "Evil\u001b[2J\nclient",
  scopes: [],
  created_at: "2026-11-21T09:00:00.000Z",
  expires_at: null,
};
const CLIENTS: OAuthClientInfo[] = [
  { server: SERVER, id: "ci", name: "", kind: "static", redirect_uris: [], created_at: null },
  {
    server: SERVER,
    id: "c-2",
    name: "Evil\u001b[2J\nclient",
    kind: "registered",
    redirect_uris: ["http://127.0.0.1/cb", "cursor://cb", "vscode://cb"],
    created_at: "2026-11-21T09:00:00.000Z",
  },
  { server: SERVER, id: GRANT.client, name: "Claude", kind: "document", redirect_uris: ["https://claude.ai/cb"], created_at: "2026-11-18T10:00:00.000Z" },
];
const NEWEST_CLIENTS = [1, 2, 0].map((i) => CLIENTS[i] ?? assert.fail());

const SESSION: BrowserSessionInfo = {
  server: SERVER,
  id: "s-1",
  user: "github:octocat",
  origin: "https://app.example",
  created_at: "2026-11-18T10:00:00.000Z",
  expires_at: "2026-11-21T22:00:00.000Z",
};
const SESSIONS = [SESSION, { ...SESSION, id: "s-2", user: "oidc:evil\u001b[2J\nuser", created_at: "2026-11-21T09:00:00.000Z" }];

async function setUp(t: TestContext, auth: Partial<AdminAuth> = {}) {
  const asked: Revocation[] = [];
  const { dir, file } = await startTestAdmin(t, {
    auth: {
      clients: () => Promise.resolve(CLIENTS),
      grants: () => Promise.resolve([GRANT, NEWER]),
      sessions: () => Promise.resolve(SESSIONS),
      revoke: (what) => {
        asked.push(what);
        if ("user" in what || "all" in what) return Promise.resolve(3);
        return Promise.resolve(("grant" in what && what.grant === "g-1") || ("session" in what && what.session === "s-1") ? 1 : 0);
      },
      ...auth,
    },
  });
  const run = (...args: string[]): Promise<CommandRun> => runInProcess(["auth", ...args], dir, { env: { SIDEGATE_CONFIG: file } });
  return { run, asked };
}

test("grants, clients and sessions read as tables, and no name steers the terminal", () => {
  assert.equal(
    formatGrants([NEWER, GRANT], NOW, false),
    `USER            CLIENT       RESOURCES                SCOPES         GRANTED  ENDS    GRANT
github:octocat  Evil client  https://mcp.example/mcp                 1h ago   never   g-2
github:octocat  Claude       https://mcp.example/mcp  mcp mcp:write  3d ago   in 27d  g-1
`,
  );
  assert.equal(
    formatClients(NEWEST_CLIENTS, NOW, false),
    `NAME         KIND         REDIRECTS                           SINCE   CLIENT
Evil client  registered   http://127.0.0.1/cb cursor://cb +1  1h ago  c-2
Claude       document     https://claude.ai/cb                3d ago  https://claude.ai/oauth/client.json
no name      of the file                                              ci
`,
  );
  assert.equal(
    formatSessions(SESSIONS.toReversed(), NOW, false),
    `USER            ORIGIN               LOGGED IN  ENDS    SESSION
oidc:evil user  https://app.example  1h ago     in 12h  s-2
github:octocat  https://app.example  3d ago     in 12h  s-1
`,
  );
  assert.match(
    formatGrants([{ ...NEWER, server: "https://b.example" }, GRANT], NOW, false),
    /^SERVER +USER.*\nhttps:\/\/b\.example +github.*\nhttps:\/\/mcp\.example +github/,
  );
});

test("'auth' shows grants, 'auth clients' clients, 'auth sessions' sessions, the newest first, as text or JSON", async (t) => {
  const { run } = await setUp(t);
  for (const args of [[], ["grants"], ["sidegate.yaml"], ["grants", "./sidegate.yaml"]])
    assert.match((await run(...args)).stdout, /^USER .*\n.* g-2\n.* g-1\n$/);
  assert.match((await run("clients")).stdout, /^NAME .*\n.* c-2\n/);
  assert.match((await run("sessions")).stdout, /^USER .*\n.* s-2\n.* s-1\n$/);
  assert.deepEqual(JSON.parse((await run("--json")).stdout), [NEWER, GRANT]);
  assert.deepEqual(JSON.parse((await run("sessions", "--json", "sidegate.yaml")).stdout), SESSIONS.toReversed());
  assert.deepEqual(JSON.parse((await run("clients", "--json", "sidegate.yaml")).stdout), NEWEST_CLIENTS);
});

test("a gateway without OAuth has no clients, no grants and no sessions", async (t) => {
  const { run } = await setUp(t, NO_AUTH);
  assert.deepEqual(await run(), { code: 0, stdout: "No grants: nobody has let a client in\n", stderr: "" });
  assert.deepEqual(await run("clients"), { code: 0, stdout: "No clients: none is in the file, and none has registered\n", stderr: "" });
  assert.deepEqual(await run("sessions"), { code: 0, stdout: "No sessions: nobody is logged in with a browser\n", stderr: "" });
  for (const word of ["clients", "sessions"]) assert.equal((await run(word, "--json")).stdout, "[]\n");
});

test("'auth revoke' takes back what is named, and says how much that was", async (t) => {
  const { run, asked } = await setUp(t);
  assert.deepEqual(await run("revoke", "--grant", "g-1"), { code: 0, stdout: "Revoked 1 grant\n", stderr: "" });
  assert.deepEqual(await run("revoke", "--session", "s-1"), { code: 0, stdout: "Revoked 1 session\n", stderr: "" });
  assert.deepEqual(await run("revoke", "--user", "github:octocat", "sidegate.yaml"), { code: 0, stdout: "Revoked 3 grants and sessions\n", stderr: "" });
  assert.deepEqual(await run("revoke", "--all", "--json"), { code: 0, stdout: '{"revoked":3}\n', stderr: "" });
  // Its registration went.
  assert.deepEqual(await run("revoke", "--client", "c-2"), { code: 0, stdout: "Took back the registration; there were no grants\n", stderr: "" });
  assert.deepEqual(await run("revoke", "--client", "ci"), {
    code: 0,
    stdout: "There were no grants; tokens that the client got for itself are worthless now\n",
    stderr: "",
  });
  assert.equal((await run("revoke", "--client", "https://x.example/?a=b&all=true?c#d+e é")).code, 1);
  assert.deepEqual(asked, [
    { grant: "g-1" },
    { session: "s-1" },
    { user: "github:octocat" },
    { all: true },
    { client: "c-2" },
    { client: "ci" },
    { client: "https://x.example/?a=b&all=true?c#d+e é" },
  ]);
});

test("'auth revoke --client' tells of the grants and of what else went", async (t) => {
  const { run } = await setUp(t, { revoke: () => Promise.resolve(2) });
  const told = async (id: string): Promise<string> => (await run("revoke", "--client", id)).stdout;
  assert.equal(await told("c-2"), "Revoked 2 grants and the registration\n");
  assert.equal(await told("ci"), "Revoked 2 grants; tokens that the client got for itself are worthless now\n");
  assert.equal(await told(GRANT.client), "Revoked 2 grants\n");
});

test("a name without its login is led to those who may be meant", async (t) => {
  const { run, asked } = await setUp(t, {
    grants: () => Promise.resolve([GRANT, { ...GRANT, user: "password:bob" }, NEWER]),
    sessions: () => Promise.resolve([SESSION, { ...SESSION, user: "oidc:bob" }, { ...SESSION, user: "password:bob" }]),
  });
  const told = async (user: string): Promise<string> => (await run("revoke", "--user", user)).stderr.split("\n")[0] ?? "";
  assert.equal(await told("octocat"), "'octocat' of --user names no login. Did you mean 'github:octocat'?");
  assert.equal(await told("bob"), "'bob' of --user names no login. Did you mean 'password:bob' or 'oidc:bob'?");
  assert.equal(await told("ob\u001b[2J"), "'ob' of --user names no login; 'sidegate auth grants' and 'sidegate auth sessions' show users as 'github:octocat'");
  assert.deepEqual(asked, []);
  const alone = await runInProcess(["auth", "revoke", "--user", "bob", "nowhere.yaml"], "/nowhere");
  assert.deepEqual([alone.code, alone.stderr.split("; ")[0]], [2, "'bob' of --user names no login"]);
});

test("what is not there exits with 1 and says where to look", async (t) => {
  const { run } = await setUp(t, { revoke: () => Promise.resolve(0) });
  const look = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run("revoke", ...args);
    assert.deepEqual([code, stdout], [1, ""]);
    return stderr;
  };
  assert.equal(await look("--grant", "nope\u001b[2J"), "There is no grant 'nope'; 'sidegate auth grants' shows those that there are\n");
  assert.equal(await look("--session", "nope"), "There is no session 'nope'; 'sidegate auth sessions' shows those that there are\n");
  assert.equal(await look("--client", "nope"), "There is no client 'nope'; 'sidegate auth clients' shows those that there are\n");
  assert.equal(
    await look("--user", "github:nobody"),
    "There is no grant or session of 'github:nobody'; 'sidegate auth grants' and 'sidegate auth sessions' show whose there are\n",
  );
  assert.deepEqual(await run("revoke", "--all"), { code: 0, stdout: "There were no grants and sessions\n", stderr: "" });
  assert.deepEqual(await run("revoke", "--grant", "nope", "--json"), { code: 1, stdout: '{"revoked":0}\n', stderr: "" });
});

test("not one choice, or one in the wrong place, is wrong usage and asks for nothing", async (t) => {
  const { run, asked } = await setUp(t);
  const usage = async (...args: string[]): Promise<string> => {
    const { code, stdout, stderr } = await run(...args);
    assert.deepEqual([code, stdout], [2, ""], args.join(" "));
    return stderr;
  };
  assert.match(
    await usage("revoke"),
    /^'auth revoke' needs one of --grant ID, --session ID, --client ID, --user USER and --all\nRun 'sidegate auth --help'\.\n$/,
  );
  for (const args of [
    ["--grant", "a", "--all"],
    ["--grant", "a", "--grant", "b"],
    ["--user", "github:a", "--client", "b"],
    ["--session", "a", "--grant", "b"],
  ])
    assert.match(
      await usage("revoke", ...args),
      /^'auth revoke' takes only one of --grant ID, --session ID, --client ID, --user USER and --all\nRun 'sidegate auth --help'\.\n$/,
    );
  assert.match(await usage("revoke", "--grant", ""), /^'--grant' names nothing\n/);
  assert.match(await usage("revoke", "--user", "nobody"), /^'nobody' of --user names no login; .*'github:octocat'\n/);
  assert.match(await usage("sessions", "--session", "s-1"), /^'--session' is for 'auth revoke'\n/);
  assert.match(await usage("grants", "--all"), /^'--all' is for 'auth revoke'\n/);
  assert.match(await usage("revok", "--all"), /^Unknown word 'revok'. Did you mean 'revoke'\?\n/);
  assert.match(await usage("revoke", "--al"), /^Unknown option '--al'. Did you mean '--all'\?\n/);
  assert.match(await usage("revoke", "--all", "a.yaml", "b.yaml"), /^Unexpected argument 'b\.yaml'\n/);
  assert.deepEqual(asked, []);
});

test("a state that fails is said in its own words", async (t) => {
  const { run } = await setUp(t, {
    revoke: () => Promise.reject(new StateError("Cannot write the state file '/state/state.db': the disk is full; make room there")),
  });
  assert.deepEqual(await run("revoke", "--all"), {
    code: 1,
    stdout: "",
    stderr: "The gateway cannot do it: Cannot write the state file '/state/state.db': the disk is full; make room there\n",
  });
});

test("an id that begins with '-' is the id of what is taken back, and no option", async (t) => {
  const { run, asked } = await setUp(t);
  const id = "-kQ8r_Xw2LmVn4PzT6YbC9DfG1HjK3sA5uE7iOqR0xZ";
  for (const kind of ["client", "grant", "session"]) await run("revoke", `--${kind}`, id);
  assert.deepEqual(asked, [{ client: id }, { grant: id }, { session: id }]);
  assert.equal((await run("revoke", "--client", "--all")).code, 2);
  assert.equal(asked.length, 3);
});
