import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { startGithub, type Github, type GithubOptions } from "../../test/components/github.ts";
import { createTestCa } from "../../test/components/pki.ts";
import { waitFor } from "../../test/components/wait.ts";
import { openLog, type Log } from "../telemetry/log.ts";
import type { Person } from "../identity/person.ts";
import { openGithubLogin } from "./login-github.ts";
import { LoginError, type LoginSource } from "./login-source.ts";

const REDIRECT = "https://gw.example.com/callback";

type Setup = AsyncDisposable & { readonly github: Github; readonly source: LoginSource; readonly lines: string[]; login(): Promise<Person> };

async function setUp(options: GithubOptions = {}, plan: { secret?: string; ca?: string; id?: string } = {}): Promise<Setup> {
  const github = await startGithub({ callbackUrl: REDIRECT, ...options });
  const lines: string[] = [];
  const source = openGithubLogin(
    {
      clientId: plan.id ?? github.clientId,
      clientSecret: plan.secret ?? github.clientSecret,
      baseUrl: github.url,
      apiUrl: `${github.url}/api/v3`,
      ca: plan.ca ?? null,
    },
    collect(lines),
    { timeoutMs: 500 },
  );
  return {
    github,
    source,
    lines,
    login: async () => await logIn(source, github),
    [Symbol.asyncDispose]: async () => {
      source.close();
      await github[Symbol.asyncDispose]();
    },
  };
}

function collect(lines: string[]): Log {
  return openLog({ level: "trace", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(text) });
}

async function logIn(source: LoginSource, github: Github, redirectUri = REDIRECT): Promise<Person> {
  const { location, memory } = await source.start({ redirectUri, state: "state-1" });
  const callback = await github.visit(location);
  return await source.finish({ callback, redirectUri, state: "state-1", memory });
}

/** Level and text of the lines that tell of an outage. */
function tellings(lines: readonly string[]): string[] {
  return lines
    .map((line) => JSON.parse(line) as { level: string; msg: string })
    .filter(({ msg }) => msg.includes("identity provider"))
    .map(({ level, msg }) => `${level} ${msg}`);
}

/** What a person is told must hold none of what the operator is told, and neither a secret. */
function isLoginError(reason: LoginError["reason"], message: RegExp, detail?: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof LoginError, String(error));
    assert.equal(error.reason, reason, `${error.message} / ${error.detail}`);
    assert.match(error.message, message);
    if (detail !== undefined) assert.match(error.detail ?? "", detail);
    assert.doesNotMatch(`${error.message} ${error.detail}`, /test-secret|wrong-secret|gho_/);
    return true;
  };
}

suite("login with GitHub", { timeout: 30_000 }, () => {
  test("a person is known by the numeric id, with organisations, teams and the verified address", async () => {
    await using setup = await setUp();
    const person = await setup.login();
    assert.deepEqual(person, {
      source: "github",
      subject: "583231",
      name: "octocat",
      email: "octocat@example.com",
      domain: "example.com",
      orgs: ["acme"],
      teams: ["acme/ops"],
      groups: [],
      claims: {},
      peer: null,
    });
    assert.deepEqual(setup.github.askedScopes, ["read:org", "user:email"]);
  });

  test("GitHub's token is given back at once, and is in no log", async () => {
    await using setup = await setUp();
    await setup.login();
    await waitFor(() => setup.github.calls.includes("DELETE /api/v3/applications/test-client/token"));
    await waitFor(() => setup.github.tokens.size === 0);
    assert.doesNotMatch(setup.lines.join(""), /gho_|test-secret/);
  });

  test("the token is given back when GitHub fails in between, too", async () => {
    await using setup = await setUp();
    setup.github.trouble("GET /api/v3/user/teams", { status: 502, body: "Bad gateway" });
    await assert.rejects(setup.login(), isLoginError("unavailable", /does not answer now/, /user\/teams.* 502/));
    await waitFor(() => setup.github.tokens.size === 0);
  });

  test("lists of more than one page are read to their end", async () => {
    const orgs = Array.from({ length: 250 }, (_, index) => ({ login: `Org-${index}` }));
    await using setup = await setUp({ people: [{ id: 1, login: "joiner", orgs }] });
    const person = await setup.login();
    assert.equal(person.orgs.length, 250);
    assert.equal(person.orgs[249], "org-249");
  });

  test("an invitation to an organisation is no membership, and an address that is not verified or not primary is none", async () => {
    const emails = [
      { email: "boss@acme.example", primary: true, verified: false },
      { email: "old@acme.example", primary: false, verified: true },
    ];
    await using setup = await setUp({ people: [{ id: 2, login: "guest", orgs: [{ login: "acme", state: "pending" }], emails }] });
    const person = await setup.login();
    assert.deepEqual([person.orgs, person.email, person.domain], [[], null, null]);
  });

  test("a pending membership in the answer does not count, even if GitHub sends one", async () => {
    await using setup = await setUp();
    setup.github.trouble("GET /api/v3/user/memberships/orgs", {
      status: 200,
      body: '[{"state":"pending","organization":{"login":"acme"}}]',
      headers: { "content-type": "application/json" },
    });
    assert.deepEqual((await setup.login()).orgs, []);
  });

  test("what the person did not allow to be seen is empty, and the log says so", async () => {
    await using setup = await setUp();
    setup.github.withhold(["read:org"]);
    const person = await setup.login();
    assert.deepEqual([person.orgs, person.teams, person.email], [[], [], "octocat@example.com"]);
    assert.match(setup.lines.join(""), /does not show a part.*permissions/);
  });

  test("a person who says no is told how to say yes", async () => {
    await using setup = await setUp();
    setup.github.answer("deny");
    await assert.rejects(setup.login(), isLoginError("refused", /log in again to allow it/));
    assert.deepEqual(setup.github.calls, ["GET /login/oauth/authorize"]);
  });

  test("a code is good for one login", async () => {
    await using setup = await setUp();
    const { location, memory } = await setup.source.start({ redirectUri: REDIRECT, state: "s" });
    const callback = await setup.github.visit(location);
    const back = { callback, redirectUri: REDIRECT, state: "s", memory };
    await setup.source.finish(back);
    await assert.rejects(setup.source.finish(back), isLoginError("failed", /begin anew/, /does not know the code/));
  });

  test("a code of another login is refused: its PKCE verifier does not fit", async () => {
    await using setup = await setUp();
    const victim = await setup.source.start({ redirectUri: REDIRECT, state: "victim" });
    const stolen = await setup.github.visit(victim.location);
    const attacker = await setup.source.start({ redirectUri: REDIRECT, state: "attacker" });
    stolen.searchParams.set("state", "attacker");
    await assert.rejects(
      setup.source.finish({ callback: stolen, redirectUri: REDIRECT, state: "attacker", memory: attacker.memory }),
      isLoginError("failed", /begin anew/, /does not know the code/),
    );
    assert.equal(setup.github.tokens.size, 0);
  });

  for (const [what, change] of [
    ["another state", (url: URL) => url.searchParams.set("state", "other")],
    ["no state", (url: URL) => url.searchParams.delete("state")],
    ["two states", (url: URL) => url.searchParams.append("state", "state-1")],
    ["an issuer, which GitHub never sends (mix-up)", (url: URL) => url.searchParams.set("iss", "https://login.example.com")],
    ["no code", (url: URL) => url.searchParams.delete("code")],
    ["two codes", (url: URL) => url.searchParams.append("code", "abc")],
  ] as const) {
    test(`an answer with ${what} is refused before GitHub is asked`, async () => {
      await using setup = await setUp();
      const { location, memory } = await setup.source.start({ redirectUri: REDIRECT, state: "state-1" });
      const callback = await setup.github.visit(location);
      change(callback);
      await assert.rejects(setup.source.finish({ callback, redirectUri: REDIRECT, state: "state-1", memory }), isLoginError("failed", /begin anew/));
      assert.deepEqual(setup.github.calls, ["GET /login/oauth/authorize"]);
    });
  }

  test("a wrong client secret is for the operator to mend", async () => {
    await using setup = await setUp({}, { secret: "wrong-secret" });
    await assert.rejects(setup.login(), isLoginError("misconfigured", /not set up correctly; tell whoever runs/, /'client_secret' of 'auth\.login\.github'/));
  });

  test("a callback URL that the application does not have is named to the operator", async () => {
    await using setup = await setUp({ callbackUrl: "https://gw.example.com/elsewhere" });
    await assert.rejects(setup.login(), isLoginError("misconfigured", /not set up correctly/, /is not 'https:\/\/gw\.example\.com\/callback'/));
  });

  for (const [what, trouble, detail] of [
    ["is overloaded", { status: 503, body: "Unicorn!", headers: { "retry-after": "7" } }, /503/],
    ["has its rate limit (429)", { status: 429, body: "{}", headers: { "retry-after": "7" } }, /429/],
    ["has its rate limit (403)", { status: 403, body: "{}", headers: { "retry-after": "7" } }, /rate limit/],
    ["is a page of something else", { status: 200, body: "<html>Sign in to the hotel</html>" }, /not GitHub's/],
    ["answers with half a text", { status: 200, body: '{"id": 5' }, /not GitHub's/],
    ["answers with a name for an id", { status: 200, body: '{"id": "583231", "login": "octocat"}' }, /not GitHub's/],
    ["does not answer", "hang", /no answer within/],
    ["cuts the line", "cut", /GET http:/],
  ] as const) {
    test(`when GitHub's API ${what}, the person is asked to try again`, async () => {
      await using setup = await setUp();
      setup.github.trouble("GET /api/v3/user", trouble);
      await assert.rejects(setup.login(), (error) => {
        isLoginError("unavailable", /does not answer now; try again/, detail)(error);
        assert.ok(error instanceof LoginError);
        assert.equal(error.retryAfterS, typeof trouble === "object" && "headers" in trouble ? 7 : 5);
        return true;
      });
    });
  }

  for (const [what, trouble] of [
    ["does not answer", "hang"],
    ["is malformed", { status: 200, body: "access_token=gho_123&token_type=bearer" }],
    ["has a token with a line end", { status: 200, body: JSON.stringify({ access_token: "a\r\nX: y" }) }],
  ] as const) {
    test(`a token endpoint that ${what} is no login`, async () => {
      await using setup = await setUp();
      setup.github.trouble("POST /login/oauth/access_token", trouble);
      await assert.rejects(setup.login(), isLoginError("unavailable", /try again/));
    });
  }

  test("GitHub is back: the next login works", async () => {
    await using setup = await setUp();
    setup.github.trouble("POST /login", { status: 500, body: "" });
    await assert.rejects(setup.login());
    setup.github.trouble("POST /login", null);
    assert.equal((await setup.login()).name, "octocat");
  });

  for (const [what, trouble, error] of [
    ["answers with 503", { status: 503, body: "Unicorn!" }, /^POST http:\/\/127\.0\.0\.1:\d+\/login\/oauth\/access_token answered with status 503$/],
    ["does not answer", "hang", /access_token: no answer within/],
    ["is something else", { status: 200, body: "<html>hotel" }, /^The token endpoint gave an answer that is not GitHub's \(status 200\)$/],
  ] as const) {
    test(`a GitHub that ${what} is told as failing, once in the log, until somebody logs in`, async () => {
      await using setup = await setUp();
      assert.deepEqual(setup.source.provider(), { kind: "login", name: "github", url: setup.github.url, outage: null });
      setup.github.trouble("POST /login/oauth/access_token", trouble);
      await assert.rejects(setup.login());
      const { outage } = setup.source.provider();
      assert.match(outage?.error ?? "", error);
      await assert.rejects(setup.login());
      assert.equal(setup.source.provider().outage?.sinceMs, outage?.sinceMs);
      setup.github.trouble("POST /login/oauth/access_token", null);
      await setup.login();
      assert.equal(setup.source.provider().outage, null);
      assert.deepEqual(tellings(setup.lines), ["warn Logins with the identity provider fail", "info The identity provider answers again"]);
    });
  }

  test("a client secret that GitHub does not take is an outage: nobody can log in", async () => {
    await using setup = await setUp({}, { secret: "wrong-secret" });
    await assert.rejects(setup.login());
    assert.match(setup.source.provider().outage?.error ?? "", /check 'client_id' and 'client_secret' of 'auth\.login\.github'/);
    assert.doesNotMatch(setup.source.provider().outage?.error ?? "", /wrong-secret/);
  });

  test("what a person or a browser can bring about is no outage: a no, an error or a code of one's own, one's rate limit", async () => {
    await using setup = await setUp();
    const finish = async (query: Record<string, string>, redirectUri = REDIRECT): Promise<void> => {
      const { memory } = await setup.source.start({ redirectUri, state: "s" });
      const callback = new URL(`${redirectUri}?${new URLSearchParams({ state: "s", ...query }).toString()}`);
      await assert.rejects(setup.source.finish({ callback, redirectUri, state: "s", memory }));
    };
    for (const error of ["access_denied", "redirect_uri_mismatch", "application_suspended", "server_error"]) await finish({ error });
    await finish({ code: "made-up" });
    const { location, memory } = await setup.source.start({ redirectUri: REDIRECT, state: "s" });
    const callback = await setup.github.visit(location);
    const other = `${REDIRECT}/other`;
    await assert.rejects(
      setup.source.finish({ callback, redirectUri: other, state: "s", memory }),
      isLoginError("misconfigured", /not set up/, /callback URL/),
    );
    for (const [status, body] of [
      [200, '{"error":"invalid_request"}'],
      [400, "<html>This code looks like an attack"],
      [403, "<html>This code looks like an attack"],
      [422, "{}"],
    ] as const) {
      setup.github.trouble("POST /login/oauth/access_token", { status, body });
      await finish({ code: "made-up" });
    }
    setup.github.trouble("POST /login/oauth/access_token", null);
    for (const status of [403, 429]) {
      setup.github.trouble("GET /api/v3/user", { status, body: "{}", headers: { "retry-after": "7" } });
      await assert.rejects(setup.login());
    }
    assert.equal(setup.source.provider().outage, null);
    assert.deepEqual(tellings(setup.lines), []);
  });

  test("a login that began at another GitHub does not end here", async () => {
    await using other = await setUp();
    await using setup = await setUp();
    const { memory } = await other.source.start({ redirectUri: REDIRECT, state: "s" });
    const { location } = await setup.source.start({ redirectUri: REDIRECT, state: "s" });
    const callback = await setup.github.visit(location);
    await assert.rejects(setup.source.finish({ callback, redirectUri: REDIRECT, state: "s", memory }), isLoginError("failed", /begin anew/, /another GitHub/));
    assert.equal(setup.github.calls.length, 1);
  });

  test("Enterprise with a private CA: trusted with it, and refused without", async () => {
    const ca = createTestCa();
    const tls = ca.issue("/CN=github", { san: "IP:127.0.0.1" });
    await using right = await setUp({ tls, ca: ca.cert }, { ca: ca.cert });
    assert.equal((await right.login()).name, "octocat");
    await using wrong = await setUp({ tls, ca: ca.cert });
    await assert.rejects(wrong.login(), isLoginError("unavailable", /does not answer/, /unknown CA: name it in 'ca_file'/));
  });

  test("a redirect of the token endpoint is not followed: the secret is for GitHub alone", async () => {
    await using thief = await startGithub();
    await using setup = await setUp();
    setup.github.trouble("POST /login", { status: 307, body: "", headers: { location: `${thief.url}/login/oauth/access_token` } });
    await assert.rejects(setup.login(), isLoginError("unavailable", /try again/));
    assert.deepEqual(thief.calls, []);
  });
});
