// Who the client is, and who it is not: forwarded addresses, names and credentials are believed from nobody but whom they are trusted from.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AddressSet } from "../../src/lib/address.ts";
import { fetchFrom } from "../components/http-client.ts";
import { OTHER_TOKEN, startHttpGateway, TOKEN, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin } from "../components/origin.ts";
import { ALICE, BOT, match, NAMESAKE } from "../components/tailnet-listeners.ts";
import { waitFor } from "../components/wait.ts";

async function seenUpstream(options: Partial<HttpGatewayOptions>, headers: Record<string, string>) {
  let seen: Record<string, unknown> = {};
  await using origin = await startOrigin((req, res) => {
    seen = { ...req.headers, url: req.url };
    res.end("ok");
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], ...options });
  const answer = await fetchFrom(gateway.port, "/mcp/x?q=1", { headers: { host: "a.example", ...headers } });
  await waitFor(() => gateway.accessLog.length === 1);
  return { seen, answer, log: gateway.accessLog[0] ?? {} };
}

const FORGED = {
  "x-forwarded-for": "6.6.6.6, 10.1.1.1",
  "x-forwarded-proto": "https",
  "x-forwarded-host": "public.example",
  "x-real-ip": "6.6.6.6",
  forwarded: "for=6.6.6.6;proto=https",
  "x-request-id": "abcdefgh-1",
};

test("from an untrusted peer nothing is believed, and the upstream sees nothing of it", async () => {
  const { seen, log } = await seenUpstream({}, FORGED);
  assert.equal(seen["x-forwarded-for"], "127.0.0.1");
  assert.equal(seen["x-real-ip"], "127.0.0.1");
  assert.equal(seen["x-forwarded-proto"], "http");
  assert.equal(seen["x-forwarded-host"], "a.example");
  assert.equal(seen["forwarded"], 'for=127.0.0.1;host="a.example";proto=http');
  assert.notEqual(seen["x-request-id"], FORGED["x-request-id"]);
  assert.equal(seen["host"], "a.example");
  assert.equal(log["client"], "127.0.0.1");
  assert.equal(log["peer"], undefined);
});

test("from a trusted proxy the chain is followed from right to left, and what stands before the client is cut off", async () => {
  const { seen, log } = await seenUpstream({ trustedProxies: ["127.0.0.0/8", "10.0.0.0/8"] }, { ...FORGED, "x-forwarded-for": "1.1.1.1, 6.6.6.6, 10.1.1.1" });
  assert.equal(seen["x-forwarded-for"], "6.6.6.6, 10.1.1.1, 127.0.0.1");
  assert.equal(seen["x-real-ip"], "6.6.6.6");
  assert.equal(seen["x-forwarded-proto"], "https");
  assert.equal(seen["x-forwarded-host"], "public.example");
  assert.equal(seen["forwarded"], 'for=6.6.6.6;host="public.example";proto=https, for=10.1.1.1, for=127.0.0.1');
  assert.equal(seen["x-request-id"], FORGED["x-request-id"]);
  assert.deepEqual([log["client"], log["peer"], log["request_id"]], ["6.6.6.6", "127.0.0.1", FORGED["x-request-id"]]);
});

for (const [name, headers, client] of [
  ["Forwarded with IPv6 and a port", { forwarded: 'for=1.1.1.1, for="[2001:db8::1]:4711";proto=https;host=h.example' }, "2001:db8::1"],
  ["Forwarded with an obfuscated name", { forwarded: "for=6.6.6.6, for=_hidden" }, "127.0.0.1"],
  ["X-Real-IP alone", { "x-real-ip": "6.6.6.6" }, "6.6.6.6"],
  ["an IPv4-mapped address", { "x-forwarded-for": "::ffff:6.6.6.6" }, "6.6.6.6"],
  ["an entry that is no address", { "x-forwarded-for": "6.6.6.6, unknown" }, "127.0.0.1"],
  ["no entry", {}, "127.0.0.1"],
  ["X-Forwarded-For beside a Forwarded that the client may have sent", { "x-forwarded-for": "6.6.6.6", forwarded: "for=7.7.7.7" }, "6.6.6.6"],
] as [string, Record<string, string>, string][]) {
  test(`the client behind a trusted proxy: ${name}`, async () => {
    const { seen } = await seenUpstream({ trustedProxies: ["127.0.0.1"] }, headers);
    assert.equal(seen["x-real-ip"], client);
  });
}

test("allow and deny look at the client, not at the proxy, and deny is the stronger", async () => {
  const trusted = { trustedProxies: ["127.0.0.1"] };
  const allow = new AddressSet(["6.0.0.0/8"]);
  const from = (address: string): Record<string, string> => ({ "x-forwarded-for": address });
  assert.equal((await seenUpstream({ ...trusted, listener: { allow } }, from("6.6.6.6"))).answer.status, 200);
  assert.equal((await seenUpstream({ ...trusted, listener: { allow } }, from("7.7.7.7"))).answer.status, 403);
  assert.equal((await seenUpstream({ ...trusted, listener: { allow, deny: new AddressSet(["6.6.6.6"]) } }, from("6.6.6.6"))).answer.status, 403);
  assert.equal((await seenUpstream({ listener: { allow } }, from("6.6.6.6"))).answer.status, 403, "a forged address admits nobody");
});

const WITH_TOKEN = [{ kind: "token", names: null, scopes: ["mcp"] }] as const;

test("401 and 403 say what is missing, and no more", async () => {
  const route = { routes: [{ auth: WITH_TOKEN }] };
  const bare = (await seenUpstream(route, {})).answer;
  assert.deepEqual([bare.status, bare.headers["www-authenticate"]], [401, "Bearer"]);
  const wrong = (await seenUpstream(route, { authorization: "Bearer wrong" })).answer;
  assert.deepEqual([wrong.status, wrong.headers["www-authenticate"]], [401, 'Bearer error="invalid_token"']);
  const weak = await seenUpstream(route, { authorization: `Bearer ${OTHER_TOKEN}` });
  assert.deepEqual([weak.answer.status, weak.answer.headers["www-authenticate"]], [403, 'Bearer error="insufficient_scope", scope="mcp"']);
  assert.deepEqual(weak.seen, {});
  const named = (await seenUpstream({ routes: [{ auth: [{ kind: "token", names: new Set(["other"]), scopes: [] }] }] }, { authorization: `Bearer ${TOKEN}` }))
    .answer;
  assert.equal(named.status, 401);
});

test("identity headers are set when asked for, and never pass from clients", async () => {
  const forged = { "x-forwarded-user": "root", "x-forwarded-scopes": "all", authorization: `Bearer ${TOKEN}` };
  const told = (await seenUpstream({ routes: [{ auth: WITH_TOKEN, identityHeaders: true }] }, forged)).seen;
  assert.deepEqual([told["x-forwarded-user"], told["x-forwarded-scopes"], told["authorization"]], ["ci", "mcp", undefined]);
  const silent = (await seenUpstream({ routes: [{ auth: WITH_TOKEN }] }, forged)).seen;
  assert.deepEqual([silent["x-forwarded-user"], silent["x-forwarded-scopes"]], [undefined, undefined]);
  const untold = (await seenUpstream({ trustedProxies: ["127.0.0.1"], routes: [{ auth: null, identityHeaders: true }] }, forged)).seen;
  assert.deepEqual([untold["x-forwarded-user"], untold["x-forwarded-scopes"], untold["authorization"]], [undefined, undefined, undefined]);
});

test("the upstream's own credential goes in place of the client's", async () => {
  const { seen } = await seenUpstream({ upstream: { authorization: "Basic dXA=" }, routes: [{ auth: WITH_TOKEN }] }, { authorization: `Bearer ${TOKEN}` });
  assert.equal(seen["authorization"], "Basic dXA=");
});

test("no log line holds a token or a query", async () => {
  const { log } = await seenUpstream({ routes: [{ auth: WITH_TOKEN }] }, { authorization: `Bearer ${TOKEN}` });
  assert.equal(log["identity"], "token:ci");
  assert.equal(log["path"], "/mcp/x");
  assert.ok(!JSON.stringify(log).includes(TOKEN));
});

test("header rules and strip_prefix change the request, and the response leads back", async () => {
  await using origin = await startOrigin((req, res) => {
    res.setHeader("Location", "/next?a=b");
    res.setHeader("Server", "secret/1.0");
    res.end(JSON.stringify({ url: req.url, a: req.headers["x-a"], b: req.headers["x-b"] }));
  });
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    routes: [
      {
        path: { kind: "prefix", path: "/mcp" },
        stripPrefix: "/mcp",
        requestHeaders: { set: [["X-A", "ours"]], remove: new Set(["x-b"]) },
        responseHeaders: { set: [["X-C", "d"]], remove: new Set(["server"]) },
      },
    ],
  });
  const ask = (path: string) => fetchFrom(gateway.port, path, { headers: { "x-a": "theirs", "x-b": "1" } });
  const { headers, body } = await ask("/mcp/x%20y?q=%2F");
  assert.deepEqual(JSON.parse(body), { url: "/x%20y?q=%2F", a: "ours" });
  assert.equal(headers["location"], "/mcp/next?a=b");
  assert.equal(headers["server"], undefined);
  assert.equal(headers["x-c"], "d");
  assert.equal((JSON.parse((await ask("/mcp")).body) as { url: string }).url, "/");
  assert.equal((JSON.parse((await ask("/mcp?q")).body) as { url: string }).url, "/?q");
  assert.equal((JSON.parse((await ask("/%6dcp/z")).body) as { url: string }).url, "/z");
  assert.equal((await ask("/mcpx")).status, 404);
});

const CORS = {
  origins: new Set(["https://app.example"]),
  methods: "GET, POST",
  headers: null,
  exposeHeaders: "Mcp-Session-Id",
  credentials: false,
  maxAgeSeconds: 600,
};

test("a preflight is answered before auth; an origin that is not allowed gets no leave", async () => {
  const routes = [{ auth: WITH_TOKEN, cors: CORS, methods: new Set(["GET", "POST"]) }];
  await using origin = await startOrigin((_req, res) => void res.setHeader("Access-Control-Allow-Origin", "*").end("ok"));
  await using gateway = await startHttpGateway({ targets: [origin.url], routes });
  const preflight = (from: string) =>
    fetchFrom(gateway.port, "/", {
      method: "OPTIONS",
      headers: { origin: from, "access-control-request-method": "POST", "access-control-request-headers": "authorization" },
    });
  const allowed = await preflight("https://app.example");
  assert.equal(allowed.status, 204);
  assert.equal(allowed.headers["access-control-allow-origin"], "https://app.example");
  assert.equal(allowed.headers["access-control-allow-headers"], "authorization");
  assert.equal(allowed.headers["access-control-max-age"], "600");
  assert.equal((await preflight("https://evil.example")).headers["access-control-allow-origin"], undefined);
  const refused = await fetchFrom(gateway.port, "/", { headers: { origin: "https://app.example" } });
  assert.deepEqual([refused.status, refused.headers["access-control-allow-origin"]], [401, "https://app.example"]);
  const served = await fetchFrom(gateway.port, "/", { headers: { origin: "https://app.example", authorization: `Bearer ${TOKEN}` } });
  assert.deepEqual(
    [served.status, served.headers["access-control-allow-origin"], served.headers["access-control-expose-headers"]],
    [200, "https://app.example", "Mcp-Session-Id"],
  );
  const other = await fetchFrom(gateway.port, "/", { headers: { origin: "https://evil.example", authorization: `Bearer ${TOKEN}` } });
  assert.deepEqual([other.status, other.headers["access-control-allow-origin"]], [200, undefined]);
});

test("no route is 404, another method 405 with Allow", async () => {
  const options = { routes: [{ path: { kind: "prefix", path: "/mcp" }, methods: new Set(["POST"]) }] } as const;
  const { answer } = await seenUpstream({ routes: [...options.routes] }, {});
  assert.deepEqual([answer.status, answer.headers["allow"]], [405, "POST"]);
  assert.equal((await seenUpstream({ routes: [{ host: "b.example" }] }, {})).answer.status, 404);
});

const ON_TAILNET = { listener: { listen: { kind: "tailnet", port: 1 } }, peer: ALICE } as const;
const TAILSCALE_SERVE = {
  "tailscale-user-login": "root@example.com",
  "Tailscale-User-Name": "Root",
  "tailscale-user-profile-pic": "https://example.com/x",
  tailscale_user_login: "root@example.com",
  "tailscale-anything": "x",
  "x-forwarded-user-node": "server",
  "x-tailscale": "passes",
};

test("on the tailnet the identity headers tell the person and the device, and what names a caller elsewhere never passes", async () => {
  const auth = [{ kind: "tailnet", match: match({ users: ["alice@example.com"] }) }] as const;
  const told = await seenUpstream({ ...ON_TAILNET, routes: [{ auth, identityHeaders: true }] }, TAILSCALE_SERVE);
  const names = (seen: Record<string, unknown>): Record<string, unknown> =>
    Object.fromEntries(Object.entries(seen).filter(([name]) => /tailscale|x-forwarded-(user|scopes)/.test(name)));
  assert.deepEqual(names(told.seen), {
    "x-forwarded-user": "alice@example.com",
    "x-forwarded-user-source": "tailnet",
    "x-forwarded-scopes": "",
    "x-forwarded-user-node": "laptop",
    "x-tailscale": "passes",
  });
  assert.deepEqual([told.log["client"], told.log["identity"], told.log["node"]], ["100.64.0.1", "tailnet:alice@example.com", "laptop"]);
  // Known and logged, but not permitted as anybody.
  const open = await seenUpstream({ ...ON_TAILNET, routes: [{ auth: null, identityHeaders: true }] }, TAILSCALE_SERVE);
  assert.deepEqual(names(open.seen), { "x-tailscale": "passes" });
  assert.deepEqual([open.log["identity"], open.log["node"]], ["tailnet:alice@example.com", "laptop"]);
  // Elsewhere they are as little believed, also from trusted proxies.
  const elsewhere = await seenUpstream({ trustedProxies: ["127.0.0.1"], routes: [{ auth: null, identityHeaders: true }] }, TAILSCALE_SERVE);
  assert.deepEqual(names(elsewhere.seen), { "x-tailscale": "passes" });
  assert.equal(elsewhere.log["node"], undefined);
});

test("a token on the tailnet is who permits and is told; the device stays in the log", async () => {
  const auth = [...WITH_TOKEN, { kind: "tailnet", match: match({ tags: ["tag:bots"] }) }] as const;
  const options = { ...ON_TAILNET, routes: [{ auth, identityHeaders: true }] };
  const { seen, log } = await seenUpstream(options, { authorization: `Bearer ${TOKEN}` });
  assert.deepEqual([seen["x-forwarded-user"], seen["x-forwarded-user-node"]], ["ci", undefined]);
  assert.deepEqual([log["identity"], log["node"]], ["token:ci", "laptop"]);
  assert.equal((await seenUpstream(options, {})).answer.status, 401);
  assert.equal((await seenUpstream({ ...options, peer: BOT }, {})).seen["x-forwarded-user"], "tag:bots,tag:ci");
});

test("403 says whether the connection or its owner is not admitted", async () => {
  const auth = [{ kind: "tailnet", match: match({ nodes: ["laptop"] }) }] as const;
  const codeOf = async (options: Partial<HttpGatewayOptions>): Promise<unknown[]> => {
    const { answer, seen } = await seenUpstream({ routes: [{ auth }], ...options }, {});
    assert.deepEqual(seen, {});
    return [answer.status, (JSON.parse(answer.body) as { error: { code: string } }).error.code];
  };
  assert.deepEqual(await codeOf({}), [403, "ERR_NOT_ON_TAILNET"]);
  assert.deepEqual(await codeOf({ ...ON_TAILNET, peer: NAMESAKE }), [403, "ERR_TAILNET"]);
});

test("on the tailnet the client is the node: a proxy trusted on loopback is nobody there, and one that is trusted in the tailnet speaks for others", async () => {
  const allow = new AddressSet(["127.0.0.0/8", "6.6.6.6"]);
  const refused = await seenUpstream({ ...ON_TAILNET, trustedProxies: ["127.0.0.0/8"], listener: { ...ON_TAILNET.listener, allow } }, FORGED);
  assert.deepEqual([refused.answer.status, refused.log["client"]], [403, "100.64.0.1"]);
  const { seen, log } = await seenUpstream({ ...ON_TAILNET, trustedProxies: ["100.64.0.1"] }, { "x-forwarded-for": "6.6.6.6" });
  assert.equal(seen["x-forwarded-for"], "6.6.6.6, 100.64.0.1");
  assert.deepEqual([log["client"], log["peer"], log["identity"]], ["6.6.6.6", "100.64.0.1", "tailnet:alice@example.com"]);
  // It is still its own node that is asked for.
  const stranger = { ...ON_TAILNET, trustedProxies: ["100.64.0.1"], listener: { ...ON_TAILNET.listener, allowTailnet: match({ nodes: ["phone"] }) } };
  assert.equal((await seenUpstream(stranger, { "x-forwarded-for": "6.6.6.6" })).answer.status, 403);
});
