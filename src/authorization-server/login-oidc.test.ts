import assert from "node:assert/strict";
import { suite, test } from "node:test";
import { startOidcIssuer, type OidcIssuer, type OidcIssuerOptions } from "../../test/components/oidc-issuer.ts";
import { createTestCa } from "../../test/components/pki.ts";
import { waitFor } from "../../test/components/wait.ts";
import type { Person } from "../identity/person.ts";
import type { LoginPlan } from "../plan/auth-model.ts";
import { openLog } from "../telemetry/log.ts";
import { openOidcLogin } from "./login-oidc.ts";
import { LoginError, type LoginSource } from "./login-source.ts";

type Plan = NonNullable<LoginPlan["oidc"]>;
type Setup = AsyncDisposable & { readonly issuer: OidcIssuer; readonly source: LoginSource; readonly lines: string[]; login(): Promise<Person> };

const REDIRECT = "https://gw.example.com/callback";

async function setUp(options: OidcIssuerOptions = {}, plan: Partial<Plan> = {}): Promise<Setup> {
  const issuer = await startOidcIssuer(options);
  const lines: string[] = [];
  const log = openLog({ level: "trace", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(text) });
  const source = openOidcLogin(
    {
      issuer: issuer.issuer,
      clientId: issuer.clientId,
      clientSecret: issuer.clientSecret,
      name: "Acme",
      scopes: ["openid", "profile", "email"],
      groupsClaim: ["groups"],
      ca: null,
      ...plan,
    },
    log,
    { timeoutMs: 500 },
  );
  return {
    issuer,
    source,
    lines,
    login: async () => await (await begin(source, issuer)).finish(),
    [Symbol.asyncDispose]: async () => {
      source.close();
      await issuer[Symbol.asyncDispose]();
    },
  };
}

type Begun = { readonly callback: URL; readonly memory: string; finish(change?: { callback?: URL; memory?: string; state?: string }): Promise<Person> };

async function begin(source: LoginSource, issuer: OidcIssuer, state = "state-1"): Promise<Begun> {
  const { location, memory } = await source.start({ redirectUri: REDIRECT, state });
  const callback = await issuer.visit(location);
  return { callback, memory, finish: async (change = {}) => await source.finish({ callback, memory, state, redirectUri: REDIRECT, ...change }) };
}

function isLoginError(reason: LoginError["reason"], message: RegExp, detail?: RegExp) {
  return (error: unknown): boolean => {
    assert.ok(error instanceof LoginError, String(error));
    assert.equal(error.reason, reason, `${error.message} / ${error.detail}`);
    assert.match(error.message, message);
    if (detail !== undefined) assert.match(error.detail ?? "", detail);
    assert.doesNotMatch(`${error.message} ${error.detail}`, /company-secret|wrong-secret|eyJ/);
    return true;
  };
}

function withoutAuthMethods(metadata: Record<string, unknown>): unknown {
  return Object.fromEntries(Object.entries(metadata).filter(([name]) => name !== "token_endpoint_auth_methods_supported"));
}

const isStale = (detail: RegExp) => isLoginError("failed", /begin anew/, detail);

suite("login with an OpenID provider", { timeout: 60_000 }, () => {
  for (const claimsIn of ["userinfo", "id_token"] as const) {
    for (const algorithm of ["RS256", "ES256"] as const) {
      test(`a person with claims in the ${claimsIn}, signed with ${algorithm}`, async () => {
        await using setup = await setUp({ claimsIn, algorithm });
        const { claims, ...person } = await setup.login();
        assert.deepEqual(person, {
          source: "oidc",
          subject: "248289761001",
          name: "alice@example.com",
          email: "alice@example.com",
          domain: "example.com",
          orgs: [],
          teams: [],
          groups: ["ops"],
          peer: null,
        });
        assert.deepEqual([claims["name"], claims["nonce"], claims["aud"]], ["Alice Example", undefined, undefined]);
        assert.equal(setup.issuer.calls.includes("GET /me"), claimsIn === "userinfo");
        assert.doesNotMatch(setup.lines.join(""), /eyJ|company-secret/);
      });
    }
  }

  test("a public client, by PKCE alone", async () => {
    await using setup = await setUp({ clientSecret: null });
    assert.equal((await setup.login()).subject, "248289761001");
  });

  test("a provider that wants the secret in the header gets it there", async () => {
    await using setup = await setUp();
    setup.issuer.tamper("/.well-known/openid-configuration", withoutAuthMethods);
    assert.equal((await setup.login()).subject, "248289761001");
    assert.deepEqual(setup.issuer.secretsIn, ["header"]);
  });

  test("a secret with signs that forms escape reaches the provider as it is, in body and header", async () => {
    await using setup = await setUp({ clientSecret: "a+b/c d:e%f&g=h" });
    assert.equal((await setup.login()).subject, "248289761001");
    await using other = await setUp({ clientSecret: "a+b/c d:e%f&g=h" });
    other.issuer.tamper("/.well-known/openid-configuration", withoutAuthMethods);
    assert.equal((await other.login()).subject, "248289761001");
    assert.deepEqual([...setup.issuer.secretsIn, ...other.issuer.secretsIn], ["body", "header"]);
  });

  test("groups stand at a path of claims", async () => {
    const account = { sub: "1", claims: { realm_access: { roles: ["trader", "viewer"] } } };
    await using setup = await setUp({ accounts: [account] }, { groupsClaim: ["realm_access", "roles"] });
    assert.deepEqual((await setup.login()).groups, ["trader", "viewer"]);
  });

  test("an address that is not verified is none", async () => {
    await using setup = await setUp({ accounts: [{ sub: "mallory", claims: { email: "boss@acme.example", email_verified: false } }] });
    const person = await setup.login();
    assert.deepEqual([person.email, person.domain, person.name], [null, null, "mallory"]);
  });

  test("userinfo of somebody else is refused", async () => {
    await using setup = await setUp();
    setup.issuer.tamper("/me", (body) => ({ ...body, sub: "somebody-else" }));
    await assert.rejects(setup.login(), isStale(/sub/));
  });

  for (const [what, change, detail] of [
    ["another state", (url: URL) => url.searchParams.set("state", "other"), /"state"/],
    ["no state", (url: URL) => url.searchParams.delete("state"), /"state"/],
    ["the iss of another issuer (mix-up, RFC 9207)", (url: URL) => url.searchParams.set("iss", "https://evil.example"), /"iss"/],
    ["no iss, though the provider sends one", (url: URL) => url.searchParams.delete("iss"), /"iss"/],
    ["no code", (url: URL) => url.searchParams.delete("code"), /code/],
  ] as const) {
    test(`an answer with ${what} is refused before the token endpoint is asked`, async () => {
      await using setup = await setUp();
      const login = await begin(setup.source, setup.issuer);
      change(login.callback);
      await assert.rejects(login.finish(), isStale(detail));
      assert.ok(!setup.issuer.calls.includes("POST /token"));
    });
  }

  test("a code is good for one login", async () => {
    await using setup = await setUp();
    const login = await begin(setup.source, setup.issuer);
    await login.finish();
    await assert.rejects(login.finish(), isStale(/invalid_grant/));
  });

  test("a code of another session is refused: its PKCE verifier does not fit", async () => {
    await using setup = await setUp();
    const victim = await begin(setup.source, setup.issuer, "victim");
    const attacker = await begin(setup.source, setup.issuer, "attacker");
    victim.callback.searchParams.set("state", "attacker");
    await assert.rejects(attacker.finish({ callback: victim.callback }), isStale(/invalid_grant/));
  });

  test("a code of another provider is refused", async () => {
    await using setup = await setUp();
    await using other = await setUp();
    const login = await begin(setup.source, setup.issuer);
    const foreign = await begin(other.source, other.issuer);
    login.callback.searchParams.set("code", foreign.callback.searchParams.get("code") ?? "");
    await assert.rejects(login.finish(), isStale(/invalid_grant/));
  });

  test("a login that began at another issuer does not end here", async () => {
    await using setup = await setUp();
    await using other = await setUp();
    const login = await begin(setup.source, setup.issuer);
    const foreign = await begin(other.source, other.issuer);
    await assert.rejects(login.finish({ memory: foreign.memory }), isStale(/another issuer/));
  });

  for (const [what, claims, header, detail] of [
    ["of another login (nonce)", { nonce: "other" }, {}, /nonce/],
    ["without nonce", { nonce: undefined }, {}, /nonce/],
    ["for another client", { aud: "other" }, {}, /aud/],
    ["of another issuer", { iss: "https://evil.example" }, {}, /iss/],
    ["that is over", { exp: 1_000 }, {}, /exp/],
    ["without a subject", { sub: undefined }, {}, /sub/],
    ["signed with a key that is not the issuer's", {}, { kid: "unknown" }, /key/],
  ] as const) {
    test(`an id token ${what} is refused`, async () => {
      await using setup = await setUp();
      const login = await begin(setup.source, setup.issuer);
      const { nonce } = JSON.parse(login.memory) as { nonce: string };
      const token = await setup.issuer.sign({ sub: "248289761001", aud: "sidegate", nonce, ...claims }, header);
      setup.issuer.tamper("/token", (body) => ({ ...body, id_token: token }));
      await assert.rejects(login.finish(), isStale(detail));
    });
  }

  test("the same id token is taken when nothing is wrong with it", async () => {
    await using setup = await setUp();
    const login = await begin(setup.source, setup.issuer);
    const { nonce } = JSON.parse(login.memory) as { nonce: string };
    const token = await setup.issuer.sign({ sub: "248289761001", aud: "sidegate", nonce });
    setup.issuer.tamper("/token", (body) => ({ ...body, id_token: token }));
    assert.equal((await login.finish()).subject, "248289761001");
  });

  for (const [what, change] of [
    ["with alg none", (token: string) => `${Buffer.from('{"alg":"none"}').toString("base64url")}.${token.split(".")[1]}.`],
    ["with a broken signature", (token: string) => `${token.split(".").slice(0, 2).join(".")}.${"A".repeat(342)}`],
    ["that is missing", () => undefined],
  ] as const) {
    test(`an id token ${what} is refused`, async () => {
      await using setup = await setUp();
      setup.issuer.tamper("/token", (body) => ({ ...body, id_token: change(String(body["id_token"])) }));
      await assert.rejects(setup.login(), isStale(/./));
    });
  }

  test("keys that rotate do not keep people out, not even at once", async () => {
    await using setup = await setUp();
    await setup.login();
    setup.issuer.rotateKeys({ keepOld: false });
    // The library looks for new keys once a minute; the first one who meets them is asked to begin anew.
    await setup.login().catch((error: unknown) => assert.ok(error instanceof LoginError && error.reason === "failed"));
    assert.equal((await setup.login()).subject, "248289761001");
  });

  test("a person who says no is told how to say yes", async () => {
    await using setup = await setUp();
    setup.issuer.answer("deny");
    await assert.rejects(setup.login(), isLoginError("refused", /log in again to allow it/, /access_denied/));
  });

  for (const [error, reason] of [
    ["temporarily_unavailable", "unavailable"],
    ["server_error", "unavailable"],
    ["login_required", "failed"],
    ["unauthorized_client", "misconfigured"],
    ["invalid_scope", "misconfigured"],
  ] as const) {
    test(`the provider's '${error}' is ${reason}`, async () => {
      await using setup = await setUp();
      const login = await begin(setup.source, setup.issuer);
      login.callback.searchParams.delete("code");
      login.callback.searchParams.set("error", error);
      await assert.rejects(login.finish(), isLoginError(reason, /Acme/, new RegExp(error)));
    });
  }

  test("a wrong client secret is for the operator to mend", async () => {
    await using setup = await setUp({}, { clientSecret: "wrong-secret" });
    await assert.rejects(setup.login(), isLoginError("misconfigured", /not set up correctly; tell whoever runs/, /'client_secret' of 'auth\.login\.oidc'/));
  });

  test("a provider that is down is no error before somebody logs in, and when it is back logins work by themselves", async () => {
    await using setup = await setUp();
    await setup.issuer.stop();
    await assert.rejects(setup.source.start({ redirectUri: REDIRECT, state: "s" }), (error) => {
      isLoginError("unavailable", /Acme does not answer now/, /connection refused/)(error);
      assert.ok(error instanceof LoginError && error.retryAfterS !== null && error.retryAfterS > 0);
      return true;
    });
    await setup.issuer.start();
    const person = await waitFor(async () => await setup.login());
    assert.equal(person.subject, "248289761001");
    assert.match(setup.lines.join(""), /answers again/);
  });

  test("while it is down it is asked once for many people", async () => {
    await using setup = await setUp();
    setup.issuer.trouble("GET /.well-known", { status: 503, body: "" });
    const tries = Array.from({ length: 20 }, async () => await setup.source.start({ redirectUri: REDIRECT, state: "s" }));
    for (const one of await Promise.allSettled(tries)) assert.equal(one.status, "rejected");
    assert.equal(setup.issuer.calls.length, 1);
  });

  test("a provider that goes down between the pages, and comes back", async () => {
    await using setup = await setUp();
    const login = await begin(setup.source, setup.issuer);
    await setup.issuer.stop();
    await assert.rejects(login.finish(), isLoginError("unavailable", /does not answer now/, /connection refused/));
    await setup.issuer.start();
    assert.equal((await setup.login()).subject, "248289761001");
  });

  for (const [what, trouble] of [
    ["hangs", "hang"],
    ["cuts the line", "cut"],
    ["answers with 500", { status: 500, body: "" }],
    ["is a page of something else", { status: 200, body: "<html>", headers: { "content-type": "text/html" } }],
    ["answers with half a text", { status: 200, body: '{"issuer":', headers: { "content-type": "application/json" } }],
  ] as const) {
    for (const call of ["GET /.well-known", "POST /token", "GET /jwks", "GET /me"]) {
      test(`when '${call}' ${what}, the person is asked to try again`, async () => {
        await using setup = await setUp();
        setup.issuer.trouble(call, trouble);
        await assert.rejects(setup.login(), isLoginError("unavailable", /try again/));
      });
    }
  }

  test("a provider that is down is told as failing, once in the log, and as well again as soon as it can be asked", async () => {
    await using setup = await setUp();
    const who = { kind: "login", name: "Acme", url: setup.issuer.issuer };
    assert.deepEqual(setup.source.provider(), { ...who, outage: null });
    await setup.issuer.stop();
    for (let i = 0; i < 3; i += 1) await assert.rejects(setup.source.start({ redirectUri: REDIRECT, state: "s" }));
    const { outage, ...rest } = setup.source.provider();
    assert.deepEqual(rest, who);
    assert.match(outage?.error ?? "", /connection refused/);
    await setup.issuer.start();
    await waitFor(async () => await setup.source.start({ redirectUri: REDIRECT, state: "s" }));
    assert.equal(setup.source.provider().outage, null, "nobody had to finish a login");
    assert.equal(setup.lines.filter((line) => line.includes("Logins with the identity provider fail")).length, 1);
    assert.equal(setup.lines.filter((line) => line.includes("The identity provider answers again")).length, 1);
  });

  test("a client that the provider does not take is an outage, which its metadata do not end, and its own words are not in it", async (t) => {
    await using setup = await setUp({}, { clientSecret: "wrong-secret" });
    await assert.rejects(setup.login());
    const error = setup.source.provider().outage?.error ?? "";
    assert.match(error, /check 'client_id' and 'client_secret' of 'auth\.login\.oidc'/);
    assert.doesNotMatch(error, /wrong-secret|client authentication failed/);
    const now = performance.now.bind(performance);
    t.mock.method(performance, "now", () => now() + 3_600_000);
    const asked = setup.issuer.calls.length;
    await setup.source.start({ redirectUri: REDIRECT, state: "s" });
    assert.deepEqual(setup.issuer.calls.slice(asked), ["GET /.well-known/openid-configuration"]);
    assert.equal(setup.source.provider().outage?.error, error);
  });

  for (const [call, trouble] of [
    ["POST /token", { status: 500, body: "" }],
    ["POST /token", { status: 200, body: '{"access_token":secret-abc}', headers: { "content-type": "application/json" } }],
    ["GET /jwks", "cut"],
    ["GET /me", "hang"],
  ] as const) {
    test(`'${call}' with ${typeof trouble === "string" ? trouble : trouble.status} is an outage until a login ends well`, async () => {
      await using setup = await setUp();
      setup.issuer.trouble(call, trouble);
      await assert.rejects(setup.login());
      assert.notEqual(setup.source.provider().outage, null);
      assert.doesNotMatch(JSON.stringify([setup.source.provider(), setup.lines]), /secret-abc|cret-abc/);
      setup.issuer.trouble(call, null);
      await setup.login();
      assert.equal(setup.source.provider().outage, null);
    });
  }

  test("what a person or a browser can bring about is no outage: a no, an error or a code of one's own, too many requests", async () => {
    await using setup = await setUp();
    setup.issuer.answer("deny");
    await assert.rejects(setup.login());
    setup.issuer.answer("approve");
    for (const error of ["temporarily_unavailable", "server_error", "invalid_client", "unauthorized_client", "login_required"]) {
      const login = await begin(setup.source, setup.issuer);
      login.callback.searchParams.delete("code");
      login.callback.searchParams.set("error", error);
      await assert.rejects(login.finish());
    }
    for (const code of ["made-up", "x".repeat(9_000)]) {
      const login = await begin(setup.source, setup.issuer);
      login.callback.searchParams.set("code", code);
      await assert.rejects(login.finish());
    }
    setup.issuer.trouble("POST /token", { status: 400, body: '{"error":"invalid_request"}' });
    await assert.rejects(setup.login());
    for (const status of [400, 403, 406, 429]) {
      setup.issuer.trouble("POST /token", { status, body: "<html>This code looks like an attack</html>", headers: { "content-type": "text/html" } });
      await assert.rejects(setup.login());
    }
    assert.equal(setup.source.provider().outage, null);
    assert.doesNotMatch(setup.lines.join(""), /Logins with the identity provider fail/);
  });

  test("metadata of another issuer are refused, with what to write", async () => {
    await using setup = await setUp();
    setup.issuer.tamper("/.well-known/openid-configuration", (body) => ({ ...body, issuer: "https://evil.example" }));
    await assert.rejects(setup.login(), isLoginError("misconfigured", /not set up correctly/, /'issuer' of 'auth\.login\.oidc'/));
  });

  test("metadata that lead elsewhere without TLS are not followed", async () => {
    await using setup = await setUp();
    setup.issuer.tamper("/.well-known/openid-configuration", (body) => ({ ...body, token_endpoint: "http://10.0.0.1/token" }));
    await assert.rejects(setup.login(), isLoginError("misconfigured", /not set up correctly/, /no https URL/));
  });

  test("a private CA: trusted with it, and refused without", async () => {
    const ca = createTestCa();
    const tls = ca.issue("/CN=issuer", { san: "IP:127.0.0.1" });
    await using right = await setUp({ tls, ca: ca.cert }, { ca: ca.cert });
    assert.equal((await right.login()).subject, "248289761001");
    await using wrong = await setUp({ tls, ca: ca.cert });
    await assert.rejects(wrong.login(), isLoginError("unavailable", /does not answer/, /unknown CA: name it in 'ca_file'/));
  });
});
