// Attacks on logins and tokens, each carried out on a running gateway.
import assert from "node:assert/strict";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { createServer } from "node:net";
import type { AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { exportJWK, importJWK, SignJWT, type JWK } from "jose";
import { scriptedBrowser, type Page } from "../components/browser.ts";
import { startOrigin } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { startGithub, type Github, type GithubPerson } from "../components/github.ts";
import { Peer, PEER_REDIRECT, tokensOf } from "../components/oauth-peer.ts";
import { startOidcIssuer, type OidcIssuer } from "../components/oidc-issuer.ts";
import { approve } from "../components/person.ts";

const OCTOCAT: GithubPerson = { id: 1, login: "octocat" };
const MALLORY: GithubPerson = { id: 2, login: "mallory" };

type Setting = {
  readonly origin: string;
  readonly gateway: Gateway;
  readonly github: Github;
  readonly corp: OidcIssuer;
  readonly peer: Peer;
  readonly upstream: { readonly port: number; readonly requests: string[] };
};

/** /mcp and /other take opaque tokens, /jwt ours as JWTs, /corp those of a company, /pages sessions; Mallory is a person like others. */
async function open(t: TestContext): Promise<Setting> {
  const github = await startGithub({ people: [OCTOCAT] });
  const corp = await startOidcIssuer();
  const upstream = await startOrigin();
  const origin = `http://127.0.0.1:${await freePort()}`;
  const allow = "allow: { github_users: [octocat, mallory] }";
  const route = (path: string, auth: string): string =>
    `  - { path_prefix: ${path}, public_url: "${origin}${path}", upstream: "http://127.0.0.1:${upstream.port}", auth: [{ ${auth} }] }`;
  const gateway = await startGateway({
    yaml: `
listeners:
  web: { protocol: http, listen: "${new URL(origin).host}", tls: { mode: disabled } }
auth:
  login:
    github: { client_id: ${github.clientId}, client_secret: ${github.clientSecret}, base_url: "${github.url}" }
    oidc: { issuer: "${corp.issuer}", client_id: ${corp.clientId}, client_secret: "${corp.clientSecret}" }
  issuers:
    corp: { issuer: "${corp.issuer}", audience: "${origin}/corp" }
routes:
${route("/mcp", `oauth: { scopes: [mcp], ${allow} }`)}
${route("/other", `oauth: { scopes: [other], ${allow} }`)}
${route("/jwt", `oauth: { scopes: [mcp], access_token_format: jwt, ${allow} }`)}
${route("/corp", "issuer: { name: corp, scopes: [mcp] }")}
${route("/pages", `session: { ${allow} }`)}
`,
  });
  const peer = new Peer();
  t.after(async () => {
    for (const one of [peer, gateway, upstream, corp, github]) await one[Symbol.asyncDispose]();
  });
  return { origin, gateway, github, corp, peer, upstream };
}

test("#10 forged Host and forwarded headers change no address in metadata, challenge, registration, redirect or page", async (t) => {
  const { origin, peer } = await open(t);
  const forged = {
    "x-forwarded-host": "evil.example",
    "x-forwarded-proto": "https",
    "x-forwarded-port": "666",
    "x-forwarded-prefix": "/evil.example",
    forwarded: 'host="evil.example";proto=https',
    "x-original-url": "https://evil.example/",
    "x-real-ip": "192.0.2.66",
  };
  const clientId = await peer.register(origin);
  const { url } = peer.authorization(origin, clientId, { resource: `${origin}/mcp` });
  for (const headers of [forged, { ...forged, host: "evil.example" }, { ...forged, host: "evil.example:666" }]) {
    for (const path of [
      "/mcp",
      "/pages/x",
      "/.well-known/oauth-protected-resource/mcp",
      "/.well-known/oauth-authorization-server",
      "/.well-known/openid-configuration",
      "/.sidegate/login?return_to=%2Fpages",
      "/.sidegate/logout",
      url.pathname + url.search,
    ]) {
      const answer = await peer.ask(`${origin}${path}`, { headers: { ...headers, accept: "text/html", "sec-fetch-mode": "navigate" } });
      assert.doesNotMatch(`${JSON.stringify(answer.headers)}${answer.text}`, /evil\.example|:666/, `${path} as ${"host" in headers ? headers.host : "itself"}`);
    }
  }
  const challenge = await peer.ask(`${origin}/mcp`, { headers: forged });
  assert.match(String(challenge.headers["www-authenticate"]), new RegExp(`resource_metadata="${origin}/`));
});

test("#23 a code is for the client, the redirect URI and the verifier that it was asked with, and once", async (t) => {
  const { origin, peer } = await open(t);
  const [mine, theirs] = [await peer.register(origin), await peer.register(origin)];
  const ask = async (): Promise<{ asked: ReturnType<Peer["authorization"]>; code: string }> => {
    const asked = peer.authorization(origin, mine, { resource: `${origin}/mcp` });
    return { asked, code: (await approve(asked.url)).searchParams.get("code") ?? assert.fail("no code") };
  };
  const other = peer.authorization(origin, theirs);
  for (const [name, attempt] of Object.entries({
    "another client": (asked, code) => peer.exchange(origin, theirs, asked, code),
    "another verifier": (asked, code) => peer.exchange(origin, mine, { ...asked, verifier: other.verifier }, code),
    "no verifier": (asked, code) => peer.exchange(origin, mine, { ...asked, verifier: "" }, code),
    "another redirect URI": (asked, code) => peer.exchange(origin, mine, { ...asked, redirectUri: "http://127.0.0.1:33419/callback" }, code),
  } satisfies Record<string, (asked: ReturnType<Peer["authorization"]>, code: string) => ReturnType<Peer["exchange"]>>)) {
    const { asked, code } = await ask();
    const stolen = await attempt(asked, code);
    assert.equal(stolen.status, 400, `${name}: ${stolen.text}`);
    assert.equal(stolen.json["access_token"], undefined);
  }
  // Used twice, it takes back what it gave.
  const { asked, code } = await ask();
  const { access, refresh } = tokensOf(await peer.exchange(origin, mine, asked, code));
  assert.equal(await peer.status(`${origin}/mcp`, access), 200);
  assert.equal((await peer.exchange(origin, mine, asked, code)).json["error"], "invalid_grant");
  assert.equal(await peer.status(`${origin}/mcp`, access), 401);
  assert.equal((await peer.refresh(origin, mine, refresh)).json["error"], "invalid_grant");
  // Nor does a refresh token know any other client.
  const login = await peer.login(origin, `${origin}/mcp`, approve);
  assert.equal((await peer.refresh(origin, theirs, login.refresh)).status, 400);
});

test("#24 no trick with a redirect URI leads a browser away: a page says so, and GitHub is never asked", async (t) => {
  const { origin, peer, github } = await open(t);
  const clientId = await peer.register(origin, { redirect_uris: ["http://127.0.0.1/callback", "https://app.example/cb"] });
  await using browser = scriptedBrowser();
  for (const uri of [
    "https://evil.example/cb",
    "https://app.example/cb/",
    "https://app.example/cb/../evil",
    "https://app.example/cb?next=https://evil.example",
    "https://app.example/cb#evil",
    "https://app.example:8443/cb",
    "http://app.example/cb",
    "https://app.example@evil.example/cb",
    "https://app.example.evil.example/cb",
    "https://app.example%2eevil.example/cb",
    "https://app.example\\@evil.example/cb",
    "http://127.0.0.1.evil.example/callback",
    "http://127.0.0.1:80@evil.example/callback",
    "http://127.0.0.1/callback/../x",
    "http://localhost/callback",
    "http://127.0.0.2/callback",
    "https://127.0.0.1/callback",
    "javascript:alert(1)",
    "data:text/html,x",
    "//evil.example",
    "",
  ]) {
    const { url } = peer.authorization(origin, clientId, { redirect_uri: uri, resource: `${origin}/mcp` });
    const page = await browser.open(url, { stopAt: "https://" });
    assert.equal(page.status, 400, uri);
    assert.equal(page.url.origin, origin);
    assert.ok(!/href="(?:https?:\/\/(?!127)|javascript|data)/i.test(page.body), uri);
  }
  const twice = peer.authorization(origin, clientId, { redirect_uri: "https://app.example/cb", resource: `${origin}/mcp` }).url;
  twice.searchParams.append("redirect_uri", "https://evil.example/cb");
  assert.equal((await browser.open(twice, { stopAt: "https://" })).status, 400);
  assert.deepEqual(github.calls, []);
  // On loopback the port is the client's to choose.
  const free = peer.authorization(origin, clientId, { redirect_uri: "http://127.0.0.1:41234/callback", resource: `${origin}/mcp` });
  assert.equal((await approve(free.url)).port, "41234");
});

test("#31 #32 nobody gets round the page: no GET approves, no form of another browser or of before does, and each request asks again", async (t) => {
  const { origin, peer, github } = await open(t);
  await using victim = scriptedBrowser();
  await using attacker = scriptedBrowser();
  const clientId = await peer.register(origin);
  const authorization = (params: Record<string, string> = {}): URL => peer.authorization(origin, clientId, { resource: `${origin}/mcp`, ...params }).url;
  const stopAt = PEER_REDIRECT;
  const page = await victim.open(authorization());
  assert.equal(page.status, 200);
  assert.deepEqual(github.calls, []);
  const [form] = page.forms;
  assert.ok(form !== undefined);

  // The attacker's browser is known, too: it has begun something of its own.
  assert.equal((await attacker.open(authorization())).status, 200);

  // As an image or a link of another page would.
  const query = new URLSearchParams({ ...form.fields, way: "github" });
  const byLink = await victim.open(new URL(`${form.action}?${query.toString()}`, page.url));
  assert.notEqual(byLink.status, 0);
  assert.deepEqual(github.calls, []);
  for (const [name, answer] of [
    ["the page in another browser", await attacker.open(page.url)],
    ["the form in another browser", await attacker.submit(page, "way=github", {}, { stopAt })],
    [
      "the form from another site",
      await victim.submit(page, "way=github", {}, { stopAt, headers: { origin: "https://evil.example", "sec-fetch-site": "cross-site" } }),
    ],
    ["the form from a frame", await victim.submit(page, "way=github", {}, { stopAt, headers: { origin: "null", "sec-fetch-site": "cross-site" } })],
    ["a form without its token", await victim.submit(page, "way=github", { csrf: "" }, { stopAt })],
  ] as [string, Page][]) {
    assert.ok(answer.status >= 400, `${name}: ${answer.status}`);
    assert.deepEqual(github.calls, [], name);
  }

  const end = await victim.submit(page, "way=github", {}, { stopAt });
  assert.ok(end.url.searchParams.has("code"));
  const calls = github.calls.length;
  const replayed = await victim.submit(page, "way=github", {}, { stopAt });
  assert.equal(replayed.status, 400, "the form once more");
  assert.equal(github.calls.length, calls);
  // The same client, person and browser: asked again, also for less, for another address, or when it says that nobody is to be asked.
  for (const params of [
    {},
    { scope: "mcp" },
    { redirect_uri: "http://127.0.0.1:41235/callback" },
    { prompt: "consent" },
    { login_hint: "octocat", id_token_hint: "x" },
  ])
    assert.equal((await victim.open(authorization(params))).status, 200, JSON.stringify(params));
  const silent = await victim.open(authorization({ prompt: "none" }), { stopAt });
  assert.equal(silent.status, 0);
  assert.match(silent.url.search, /error=(login|consent|interaction)_required/);
  assert.equal(github.calls.length, calls);
});

test("#25 #31 an answer of one provider is not taken for another's, nor one browser's for another's", async (t) => {
  const { origin, peer, github, corp, upstream } = await open(t);
  await using victim = scriptedBrowser();
  await using attacker = scriptedBrowser();
  const clientId = await peer.register(origin);
  const consent = async (browser: typeof victim): Promise<Page> => browser.open(peer.authorization(origin, clientId, { resource: `${origin}/mcp` }).url);

  // Mix-up: the browser began at GitHub, and a code of the company's provider comes with GitHub's state, with and without saying whose it is.
  for (const iss of [corp.issuer, "https://evil.example"]) {
    const atGithub = await victim.submit(await consent(victim), "way=github", {}, { stopAt: `${github.url}/login` });
    const back = new URL(`${origin}/callback`);
    back.search = new URLSearchParams({ code: "a-code-of-the-company", state: atGithub.url.searchParams.get("state") ?? "", iss }).toString();
    assert.equal((await victim.open(back, { stopAt: PEER_REDIRECT })).status, 400);
    assert.ok(!github.calls.includes("POST /login/oauth/access_token"), "the code went nowhere");
  }
  const atCorp = await victim.submit(await consent(victim), "way=oidc", {}, { stopAt: `${corp.issuer}/auth` });
  const swapped = new URL(`${origin}/callback`);
  swapped.search = new URLSearchParams({ code: "c", state: atCorp.url.searchParams.get("state") ?? "", iss: github.url }).toString();
  assert.equal((await victim.open(swapped, { stopAt: PEER_REDIRECT })).status, 400);
  assert.ok(!corp.calls.includes("POST /token"));

  // Login CSRF: Mallory begins, logs in as herself, and has the victim open the last address.
  github.signIn(MALLORY);
  for (const begin of [
    async () => attacker.submit(await consent(attacker), "way=github", {}, { stopAt: `${origin}/callback` }),
    async () => {
      const login = await attacker.open(`${origin}/pages/x`);
      return attacker.submit(login, "way=github", {}, { stopAt: `${origin}/callback` });
    },
  ]) {
    const { url } = await begin();
    assert.equal(url.pathname, "/callback");
    await victim.open(`${origin}/.sidegate/logout`);
    assert.equal((await victim.open(url, { stopAt: PEER_REDIRECT })).status, 400);
    assert.ok(!victim.cookies(origin).has("sidegate"));
    // And the attempt used it up.
    assert.equal((await attacker.open(url, { stopAt: PEER_REDIRECT })).status, 400);
  }
  assert.deepEqual(upstream.requests, []);
});

test("#12 #14 what is no access token of the route opens nothing: other kinds, other keys, other algorithms", async (t) => {
  const { origin, peer, corp } = await open(t);
  const login = await peer.login(origin, `${origin}/jwt`, approve);
  const opaque = await peer.login(origin, `${origin}/mcp`, approve);
  assert.equal(await peer.status(`${origin}/jwt`, login.access), 200);
  const [head = "", body = "", signature = ""] = login.access.split(".");
  const header = JSON.parse(Buffer.from(head, "base64url").toString()) as { kid: string; alg: string; typ: string };
  const claims = JSON.parse(Buffer.from(body, "base64url").toString()) as Record<string, unknown>;
  assert.deepEqual([header.alg, header.typ, claims["aud"], claims["iss"]], ["ES256", "at+jwt", `${origin}/jwt`, origin]);
  const { keys } = (await peer.ask(`${origin}/jwks`)).json as unknown as { keys: JWK[] };
  assert.ok(keys.length > 0 && keys.every((key) => !("d" in key)), "no private part is told");
  const own = keys.find(({ kid }) => kid === header.kid) ?? assert.fail("no key");

  const forger = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const forgerJwk = await exportJWK(forger.publicKey);
  const sign = (with_: Record<string, unknown>, key: Parameters<SignJWT["sign"]>[0] = forger.privateKey, more: Record<string, unknown> = {}): Promise<string> =>
    new SignJWT({ ...claims, ...more }).setProtectedHeader({ ...header, ...with_ }).sign(key);
  const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64url");
  const publicText = Buffer.from(JSON.stringify(own));
  const corpKey = (corp.publicKeys[0] ?? {}) as Record<string, unknown>;
  const tokens: Record<string, string> = {
    "alg none": `${encode({ ...header, alg: "none" })}.${body}.`,
    "alg None with its signature": `${encode({ ...header, alg: "None" })}.${body}.${signature}`,
    "HS256 with the public key": await sign({ alg: "HS256" }, new Uint8Array(publicText)),
    "another key": await sign({}),
    "another key that it brings along": await sign({ jwk: forgerJwk }),
    "another key at an address": await sign({ jku: `${origin}/pages/jwks`, kid: "mine" }),
    "another key in a certificate": await sign({ x5c: ["MIIB"] }),
    "a critical header that nobody knows": `${encode({ ...header, crit: ["exp", "x"], x: 1 })}.${body}.${signature}`,
    "changed claims": `${head}.${encode({ ...claims, aud: `${origin}/mcp` })}.${signature}`,
    "the company's key in our name": await corp.sign({ ...claims }, { typ: "at+jwt" }),
    "a refresh token": login.refresh,
    "a refresh token of an opaque one": opaque.refresh,
    "an opaque token of another route": opaque.access,
    "a client": login.clientId,
    "an empty one": "-",
  };
  for (const [name, access] of Object.entries(tokens)) {
    for (const path of ["/jwt", "/mcp", "/other", "/corp", "/pages"]) {
      if (name === "an opaque token of another route" && path === "/mcp") continue;
      assert.equal(await peer.status(`${origin}${path}`, access), 401, `${name} at ${path}`);
    }
  }
  assert.equal(await peer.status(`${origin}/other`, login.access), 401);
  // In the query it is not even looked at.
  assert.equal(await peer.status(`${origin}/mcp?access_token=${opaque.access}`), 401);
  // The company's keys: one that is swapped for the attacker's in the token's own header, and its public part as a secret.
  const company = await corp.accessToken({ resource: `${origin}/corp`, scope: "mcp" });
  assert.equal(await peer.status(`${origin}/corp`, company), 200);
  const shared = new Uint8Array(Buffer.from(JSON.stringify(corpKey)));
  const forgedRsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  for (const forged of [
    await new SignJWT({ iss: corp.issuer, aud: `${origin}/corp`, scope: "mcp", sub: "u" })
      .setProtectedHeader({ alg: "HS256", kid: String(corpKey["kid"]), typ: "at+jwt" })
      .setIssuedAt()
      .setExpirationTime("5m")
      .sign(shared),
    await new SignJWT({ iss: corp.issuer, aud: `${origin}/corp`, scope: "mcp", sub: "u" })
      .setProtectedHeader({ alg: "RS256", kid: String(corpKey["kid"]), typ: "at+jwt", jwk: await exportJWK(forgedRsa.publicKey) })
      .setIssuedAt()
      .setExpirationTime("5m")
      .sign(await importJWK(await exportJWK(forgedRsa.privateKey), "RS256")),
  ])
    assert.equal(await peer.status(`${origin}/corp`, forged), 401);
  assert.equal(await peer.status(`${origin}/mcp`, company), 401);
});

test("#30 a client's document is never fetched from this machine, its network or the metadata service of a cloud", async (t) => {
  const { origin, peer, gateway } = await open(t);
  let connections = 0;
  const server = createServer((socket) => {
    connections += 1;
    socket.destroy();
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.after(() => server.close());
  const { port } = server.address() as AddressInfo;
  await using browser = scriptedBrowser();
  for (const host of [
    `127.0.0.1:${port}`,
    `localhost:${port}`,
    `[::1]:${port}`,
    `[::ffff:127.0.0.1]:${port}`,
    `0.0.0.0:${port}`,
    `127.1:${port}`,
    `2130706433:${port}`,
    `0x7f.1:${port}`,
    "169.254.169.254",
    "[fe80::1]",
    "[fd00:ec2::254]",
    "10.0.0.1",
    "192.168.0.1",
    "100.100.100.100",
    "[64:ff9b::7f00:1]",
  ]) {
    const { url } = peer.authorization(origin, `https://${host}/client.json`, { resource: `${origin}/mcp` });
    const started = performance.now();
    const page = await browser.open(url, { stopAt: PEER_REDIRECT });
    assert.equal(page.status, 400, host);
    assert.ok(performance.now() - started < 2_000, `${host} was not dialled`);
  }
  const id = `https://127.0.0.1:${port}/client.json`;
  const exchange = await peer.exchange(origin, id, { verifier: "v".repeat(43), redirectUri: PEER_REDIRECT }, "x");
  assert.ok(exchange.status >= 400 && exchange.status < 500, exchange.text);
  assert.equal(connections, 0);
  assert.ok(!gateway.log.some(({ level }) => level === "error"));
});
