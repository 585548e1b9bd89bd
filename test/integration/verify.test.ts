// Forward auth: what other proxies are answered at /verify, from real nginx and Caddy and from a client that asks as Traefik does.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { CorsPlan, RoutePlan } from "../../src/plan/model.ts";
import { startForwardAuthProxy } from "../components/forward-auth-proxy.ts";
import { missingProxy } from "../components/front-proxy.ts";
import { fetchFrom } from "../components/http-client.ts";
import { fakeServer, oauthWay, proofOf, protectedRoute, sessionWay, startHttpGateway, TOKEN, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { NOBODY } from "../../src/plan/build-people.ts";
import { startRecordingOrigin } from "../components/origin.ts";
import { skipWithout } from "../components/require.ts";
import { ALICE, match } from "../components/tailnet-listeners.ts";
import { waitFor } from "../components/wait.ts";

const APP = "https://app.example";
const MCP = "https://app.example/mcp";
const CORS: CorsPlan = { origins: new Set(["https://page.example"]), methods: "GET", headers: null, exposeHeaders: "", credentials: false, maxAgeSeconds: 600 };
const server = fakeServer({
  issuer: APP,
  resources: [MCP],
  sessionOrigins: [APP],
  tokens: { good: proofOf(MCP), slow: Promise.resolve({ kind: "unavailable", message: "x", retryAfterS: 7 }) },
  sessions: { mine: proofOf(null) },
});
const asked = (url: string, ways: Parameters<typeof protectedRoute>[1], partial: Partial<RoutePlan> = {}) =>
  protectedRoute(url, ways, { upstream: null, ...partial });
const ROUTES = [
  asked(MCP, [oauthWay(MCP)], { name: "mcp" }),
  asked(MCP, [oauthWay(MCP, ["tools"])], { path: { kind: "prefix", path: "/tools" } }),
  asked(MCP, [oauthWay(MCP)], { path: { kind: "prefix", path: "/get" }, methods: new Set(["GET"]) }),
  asked(MCP, [oauthWay(MCP)], { path: { kind: "prefix", path: "/cors" }, cors: CORS, origins: new Set([APP, "https://page.example"]) }),
  asked(MCP, [oauthWay(MCP)], { path: { kind: "prefix", path: "/page-free" }, cors: CORS, origins: null }),
  asked(`${APP}/hubot`, [sessionWay({ ...NOBODY, githubUsers: new Set(["hubot"]) })]),
  asked(`${APP}/public`, [], { auth: null, resource: null, origins: null }),
  asked(`${APP}/tailnet`, [{ kind: "tailnet", match: match({}) }], { resource: null }),
  asked(`${APP}/cert`, [{ kind: "client_certificate", subjects: null, sans: null }], { resource: null }),
  asked(APP, [sessionWay()], { name: "app" }),
];

function start(options: Partial<HttpGatewayOptions> = {}) {
  return startHttpGateway({ targets: ["http://127.0.0.1:9"], servers: [server], routes: ROUTES, trustedProxies: ["127.0.0.1"], ...options });
}

/** The proxy is a node of the tailnet. */
const ON_TAILNET: Partial<HttpGatewayOptions> = { peer: ALICE, trustedProxies: [ALICE.address], listener: { listen: { kind: "tailnet", port: 80 } } };

/** As Traefik and Caddy describe a request. */
function forwarded(method: string, url: string, headers: Record<string, string> = {}): Record<string, string> {
  const { protocol, host } = new URL(url);
  return {
    host: "gateway.internal:9000",
    "x-forwarded-method": method,
    "x-forwarded-proto": protocol.slice(0, -1),
    "x-forwarded-host": host,
    "x-forwarded-uri": url.slice(url.indexOf(host) + host.length),
    "x-forwarded-for": "6.6.6.6",
    ...headers,
  };
}

/** As nginx does. */
function original(method: string, url: string, headers: Record<string, string> = {}): Record<string, string> {
  return { host: "gateway.internal:9000", "x-original-url": url, "x-original-method": method, "x-forwarded-for": "6.6.6.6", ...headers };
}

const NAVIGATION = { "sec-fetch-mode": "navigate", accept: "text/html" };
const SESSION = { cookie: "__Host-sidegate=mine" };
const GOOD = { authorization: "Bearer good" };

for (const [form, describe] of [
  ["X-Forwarded-*", forwarded],
  ["X-Original-*", original],
] as const) {
  test(`a request that ${form} describe is judged as its route judges it`, async () => {
    await using gateway = await start(ON_TAILNET);
    const ask = async (method: string, url: string, headers: Record<string, string> = {}) =>
      fetchFrom(gateway.port, "/verify", { headers: describe(method, url, headers) });
    const admitted = await ask("POST", `${MCP}?x=1`, { ...GOOD, "x-forwarded-user": "admin" });
    assert.equal(admitted.status, 200);
    assert.equal(admitted.headers["x-forwarded-user"], "octocat");
    assert.equal(admitted.headers["x-forwarded-email"], "octocat@example.com");
    assert.equal(admitted.headers["cache-control"], "no-store");
    assert.equal((await ask("GET", APP + "/page", SESSION)).status, 200);
    const open = await ask("GET", `${APP}/public`, { "x-forwarded-user": "admin" });
    assert.deepEqual([open.status, open.headers["x-forwarded-user"]], [200, undefined]);
    const challenged = await ask("POST", MCP);
    assert.deepEqual(
      [challenged.status, challenged.headers["www-authenticate"]],
      [401, `Bearer resource_metadata="${APP}/.well-known/oauth-protected-resource/mcp"`],
    );
    assert.match((await ask("POST", MCP, { authorization: "Bearer bad" })).headers["www-authenticate"] ?? "", /error="invalid_token"/);
    const lacking = await ask("GET", `${APP}/tools/x`, GOOD);
    assert.deepEqual([lacking.status, lacking.headers["www-authenticate"]?.includes('error="insufficient_scope"')], [403, true]);
    const busy = await ask("GET", MCP, { authorization: "Bearer slow" });
    assert.deepEqual([busy.status, busy.headers["retry-after"]], [503, "7"]);
    assert.equal((await ask("GET", `${APP}/hubot`, SESSION)).status, 403);
    // The connection is the proxy's: whose it is in the tailnet says nothing of the client.
    assert.equal((await ask("GET", `${APP}/tailnet`)).status, 403);
    assert.equal((await ask("GET", `${APP}/cert`)).status, 403);
    // No route, another method, another host, an endpoint of ours.
    assert.equal((await ask("GET", "https://nowhere.example/", GOOD)).status, 403);
    assert.equal((await ask("PUT", `${APP}/get`, { authorization: `Bearer ${TOKEN}` })).status, 401, "falls to the route of the whole host");
    assert.equal((await ask("GET", `${APP}/authorize?x=1`, GOOD)).status, 403);
    // Pages of strangers.
    assert.equal((await ask("POST", APP + "/", { ...SESSION, origin: "https://evil.example" })).status, 403);
    assert.equal((await ask("POST", APP + "/", { ...SESSION, "sec-fetch-site": "cross-site" })).status, 403);
    assert.equal((await ask("OPTIONS", `${APP}/cors`, { origin: "https://page.example", "access-control-request-method": "GET" })).status, 200);
    assert.equal((await ask("OPTIONS", `${APP}/cors`, { origin: "https://evil.example", "access-control-request-method": "GET" })).status, 403);
    assert.equal((await ask("OPTIONS", `${APP}/page-free`, { origin: "https://evil.example", "access-control-request-method": "GET" })).status, 401);
    assert.equal((await ask("OPTIONS", MCP, { origin: APP, "access-control-request-method": "GET" })).status, 401);
    // A described HEAD has an answer with a body like others.
    const head = await ask("HEAD", MCP);
    assert.deepEqual([head.status, head.body.length > 0], [401, true]);
  });

  test(`a request that ${form} describe in two ways, or not as one, is refused`, async () => {
    await using gateway = await start();
    const ask = async (method: string, url: string, headers: Record<string, string> = {}) =>
      (await fetchFrom(gateway.port, "/verify", { headers: { ...describe(method, url), ...GOOD, ...headers } })).status;
    assert.equal(await ask("GET", MCP), 200);
    assert.equal(await ask("GET", `${APP}/public/../mcp`), 403);
    assert.equal(await ask("GET", `${APP}//mcp`), 403);
    assert.equal(await ask("GET", `${APP}/public%2f..%2fmcp`), 403);
    assert.equal(await ask("GET", `${APP}/public%2fx%5c`), 403);
    assert.equal(await ask("CONNECT", MCP), 403);
    assert.equal(await ask("GET,POST", MCP), 403);
    assert.equal(await ask("get", MCP), 403);
    assert.equal(
      await ask("GET", MCP, describe === forwarded ? { "x-forwarded-host": "app.example, evil.example" } : { "x-original-url": "https://a@app.example/mcp" }),
      403,
    );
    assert.equal(await ask("GET", MCP, describe === forwarded ? { "x-forwarded-proto": "https, http" } : { "x-original-url": "ftp://app.example/mcp" }), 403);
    assert.equal(await ask("GET", MCP, describe === forwarded ? { "x-forwarded-uri": "mcp" } : { "x-original-url": "/mcp" }), 403);
    // The other form comes from the client: it may not say anything else.
    const other = describe === forwarded ? original : forwarded;
    assert.equal(await ask("GET", MCP, other("GET", MCP)), 200);
    assert.equal(await ask("GET", MCP, other("GET", `${APP}/public`)), 403);
    assert.equal(await ask("GET", `${APP}/public`, other("GET", MCP)), 403);
    assert.equal(await ask("GET", `${APP}/public`, other("POST", `${APP}/public`)), 403);
    // A proxy that adds its word to the client's: as a list both would be the path of the first.
    const twice = describe === forwarded ? { "x-forwarded-uri": ["/public/x", "/mcp"] } : { "x-original-url": [`${APP}/public/x`, MCP] };
    assert.equal((await fetchFrom(gateway.port, "/verify", { headers: { ...describe("GET", MCP), ...twice } })).status, 403);
    // Half a description is the proxy's configuration.
    for (const name of Object.keys(describe("GET", MCP)).filter((key) => key.startsWith("x-") && key !== "x-forwarded-for"))
      assert.equal(await ask("GET", MCP, { [name]: "" }), 400, name);
    await waitFor(() => gateway.accessLog.some(({ error }) => String(error).includes("the proxy must send")));
  });
}

test("browsers are sent to the login by proxies that pass redirects on, and nginx is told where", async () => {
  await using gateway = await start();
  const login = `${APP}/.sidegate/login?return_to=${encodeURIComponent("/page?a=1")}`;
  const redirected = await fetchFrom(gateway.port, "/verify", { headers: forwarded("GET", `${APP}/page?a=1`, NAVIGATION) });
  assert.deepEqual([redirected.status, redirected.headers.location], [302, login]);
  const told = await fetchFrom(gateway.port, "/verify", { headers: original("GET", `${APP}/page?a=1`, NAVIGATION) });
  assert.deepEqual([told.status, told.headers.location], [401, login]);
  for (const describe of [forwarded, original]) {
    const script = await fetchFrom(gateway.port, "/verify", { headers: describe("GET", `${APP}/page`, { accept: "application/json" }) });
    assert.deepEqual([script.status, script.headers.location], [401, undefined]);
    const posted = await fetchFrom(gateway.port, "/verify", { headers: describe("POST", `${APP}/page`, NAVIGATION) });
    assert.deepEqual([posted.status, posted.headers.location], [401, undefined]);
  }
});

test("a described request in the clear goes where the listener sends it", async () => {
  await using gateway = await start({ listener: { redirectToHttps: true } });
  const sent = await fetchFrom(gateway.port, "/verify", { headers: forwarded("GET", "http://app.example/mcp?x=1", GOOD) });
  assert.deepEqual([sent.status, sent.headers.location], [308, "https://app.example/mcp?x=1"]);
  assert.equal((await fetchFrom(gateway.port, "/verify", { headers: original("GET", "http://app.example/mcp", GOOD) })).status, 403);
  assert.equal((await fetchFrom(gateway.port, "/verify", { headers: original("GET", MCP, GOOD) })).status, 200);
});

test("nobody but a trusted proxy is answered, and /verify is a path like others for everybody else", async () => {
  await using origin = await startRecordingOrigin();
  const routes = [...ROUTES, { host: "plain.example" }];
  for (const trustedProxies of [[], ["127.0.0.1"]]) {
    origin.reset();
    await using gateway = await start({ targets: [origin.url], routes, trustedProxies });
    const stranger = await fetchFrom(gateway.port, "/verify", {
      headers: { ...(trustedProxies.length === 0 ? forwarded("GET", MCP, GOOD) : GOOD), host: "app.example" },
    });
    assert.deepEqual([stranger.status, stranger.headers["x-forwarded-user"]], [403, undefined]);
    assert.equal(
      (await fetchFrom(gateway.port, "/verify?a", { headers: { host: "plain.example", "x-forwarded-host": "plain.example", "x-forwarded-proto": "https" } }))
        .body,
      "ok",
    );
    assert.equal(origin.requests[0]?.target, "/verify?a");
    // What /verify admits has no other way to an upstream here.
    assert.equal((await fetchFrom(gateway.port, "/mcp", { headers: { host: "app.example", ...GOOD } })).status, 404);
    assert.equal((await fetchFrom(gateway.port, "/mcp", { headers: { host: "app.example" } })).status, 401);
  }
});

test("a question counts and is logged as the request that it describes", async () => {
  await using gateway = await start(ON_TAILNET);
  await fetchFrom(gateway.port, "/verify", { headers: forwarded("POST", `${MCP}/x?secret=1`, GOOD) });
  await waitFor(() => gateway.accessLog.length === 1);
  const { route, method, host, path, client, peer, identity, status, verify } = gateway.accessLog[0] ?? {};
  assert.deepEqual(
    { route, method, host, path, client, peer, identity, status, verify },
    {
      route: "mcp",
      method: "POST",
      host: "app.example",
      path: "/mcp/x",
      client: "6.6.6.6",
      peer: ALICE.address,
      identity: "github:octocat",
      status: 200,
      verify: true,
    },
  );
  assert.equal(gateway.state.live.active, 0);
  await fetchFrom(gateway.port, "/verify", { headers: forwarded("GET", MCP) });
  await waitFor(() => gateway.accessLog.length === 2);
  assert.deepEqual([gateway.accessLog[1]?.["identity"], gateway.accessLog[1]?.["status"]], [undefined, 401], "it is not the proxy that was refused");
});

for (const kind of ["nginx", "caddy"] as const) {
  test(`${kind} before an application lets through whom /verify admits, and tells the application who it is`, async (t) => {
    if (skipWithout(t, missingProxy(kind))) return;
    await using application = await startRecordingOrigin();
    await using gateway = await start();
    await using proxy = await startForwardAuthProxy(kind, { gatewayPort: gateway.port, applicationPort: application.port });
    const ask = (path: string, headers: Record<string, string> = {}, method = "GET") =>
      fetchFrom(proxy.port, path, { method, headers: { host: "app.example", ...headers }, ...(method === "POST" && { body: "{}" }) });
    const forged = {
      "x-forwarded-user": "admin",
      "x-forwarded-email": "admin",
      "x-forwarded-groups": "admin",
      "x-forwarded-user-source": "admin",
      "x-forwarded-scopes": "admin",
      "x-forwarded-user-node": "admin",
    };
    const admitted = await ask("/mcp?x=1", { ...GOOD, ...forged }, "POST");
    assert.deepEqual([admitted.status, admitted.body], [200, "ok"]);
    const headers = new Map(application.requests[0]?.headers);
    assert.deepEqual(
      [headers.get("x-forwarded-user"), headers.get("x-forwarded-user-source"), headers.get("x-forwarded-groups")],
      ["octocat", "github", "staff,a\\2Cb"],
    );
    assert.equal(JSON.stringify([...headers]).includes("admin"), false);
    assert.equal(application.requests[0]?.body, "{}");

    application.reset();
    assert.equal((await ask("/public", forged)).status, 200);
    assert.equal(JSON.stringify(application.requests[0]?.headers).includes("admin"), false);

    application.reset();
    assert.equal((await ask("/page", { cookie: `theme=dark; ${SESSION.cookie}` })).status, 200);
    assert.equal(new Map(application.requests[0]?.headers).get("cookie"), "theme=dark", "the session stays with the gateway");

    application.reset();
    const challenged = await ask("/mcp", {}, "POST");
    assert.equal(challenged.status, 401);
    assert.equal(challenged.headers["www-authenticate"], `Bearer resource_metadata="${APP}/.well-known/oauth-protected-resource/mcp"`);
    const browser = await ask("/page?a=1", NAVIGATION);
    assert.deepEqual([browser.status, browser.headers.location], [302, `${APP}/.sidegate/login?return_to=${encodeURIComponent("/page?a=1")}`]);
    assert.equal((await ask("/page", { accept: "application/json" })).status, 401);
    assert.equal((await ask("/hubot", SESSION)).status, 403);
    assert.equal((await ask("/tools", GOOD)).status, 403);
    assert.equal((await ask("/", { ...GOOD, host: "nowhere.example" })).status, 403);
    // A client cannot describe another request than its own.
    for (const described of [original("GET", `${APP}/public`), forwarded("GET", `${APP}/public`)]) {
      const { host: _, "x-forwarded-for": __, ...words } = described;
      assert.notEqual((await ask("/mcp", words)).status, 200);
    }
    assert.equal(application.requests.length, 0);
    assert.equal((await ask("/page", SESSION)).status, 200);
    // The login itself is the gateway's, past the question.
    assert.equal((await ask("/.sidegate/login")).body, `${APP}/.sidegate/login`);
  });
}
