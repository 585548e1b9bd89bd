// Plain HTTP where https is wanted: the client is sent to the same address with https, never elsewhere, and nothing of its request is used.
import assert from "node:assert/strict";
import { test } from "node:test";
import type { HttpListenerPlan, TlsTermination } from "../../src/plan/model.ts";
import { AddressSet } from "../../src/lib/address.ts";
import { fetchFrom, type Answer } from "../components/http-client.ts";
import { certificate, startHttpGateway, TOKEN, type HttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin, type Origin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const AUTO: TlsTermination = {
  mode: "auto",
  certificates: [],
  acme: null,
  tailscale: false,
  internal: true,
  hosts: [],
  protocol: { minVersion: "TLSv1.2", ciphers: null, clientAuth: null, key: "k" },
};
const LISTENERS: [string, Partial<HttpListenerPlan>][] = [
  ["mode auto", { tls: AUTO, redirectToHttps: true, httpsPort: 8443 }],
  ["redirect_to_https", { tls: { mode: "disabled" }, redirectToHttps: true, httpsPort: 8443 }],
];

async function startStory(options: Partial<HttpGatewayOptions> & { listener: NonNullable<HttpGatewayOptions["listener"]> }) {
  const origin = await startOrigin((req, res) => void res.end(String(req.headers["x-forwarded-proto"])));
  const gateway = await startHttpGateway({ targets: [origin.url], routes: [{ auth: [{ kind: "token", names: null, scopes: [] }] }], ...options });
  return {
    origin,
    gateway,
    ask: (headers: Record<string, string | string[]>, path = "/p?q=1"): Promise<Answer> =>
      fetchFrom(gateway.port, path, { headers: { host: "a.example", authorization: `Bearer ${TOKEN}`, ...headers } }),
    [Symbol.asyncDispose]: async () => {
      await gateway[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
    },
  };
}

for (const [what, listener] of LISTENERS) {
  test(`${what}: plain HTTP goes to the same address with https, and gets no further`, async () => {
    await using story = await startStory({ listener });
    // In mode auto the port speaks both.
    const port = what === "mode auto" ? 8080 : 8443;
    for (const [host, location] of [
      ["a.example", "https://a.example/p?q=1"],
      ["A.Example", "https://a.example/p?q=1"],
      ["a.example.", "https://a.example/p?q=1"],
      ["a.example:80", "https://a.example/p?q=1"],
      ["a.example:", "https://a.example/p?q=1"],
      ["a.example:8080", `https://a.example:${port}/p?q=1`],
      ["192.0.2.7", "https://192.0.2.7/p?q=1"],
      ["[2001:db8::1]", "https://[2001:db8::1]/p?q=1"],
      ["[2001:db8::1]:8080", `https://[2001:db8::1]:${port}/p?q=1`],
    ] as const) {
      const answer = await story.ask({ host });
      assert.deepEqual([answer.status, answer.headers["location"], answer.body], [308, location, ""], host);
      assert.deepEqual([answer.headers["cache-control"], answer.headers["content-length"]], ["no-store", "0"]);
    }
    assert.equal(story.origin.connections(), 0);
    await waitFor(() => story.gateway.accessLog.length === 9);
    for (const line of story.gateway.accessLog) {
      assert.deepEqual([line["status"], line["identity"], line["route"], line["target"], line["error"]], [308, undefined, undefined, undefined, undefined]);
    }
    assert.deepEqual([...story.gateway.state.noRoute.codes], [[308, 9]]);
  });

  test(`${what}: a trusted proxy's word for https is believed, and nobody else's`, async () => {
    await using behind = await startStory({ listener, trustedProxies: ["127.0.0.1"] });
    const served = await behind.ask({ "x-forwarded-proto": "https" });
    assert.deepEqual([served.status, served.body], [200, "https"]);
    const plain = await behind.ask({ "x-forwarded-proto": "http", "x-forwarded-host": "public.example" });
    assert.deepEqual([plain.status, plain.headers["location"]], [308, "https://public.example/p?q=1"]);
    assert.equal((await behind.ask({})).status, 308, "silence is not https");

    await using exposed = await startStory({ listener, trustedProxies: ["127.0.0.2"] });
    const forged = await exposed.ask({
      "x-forwarded-proto": "https",
      "x-forwarded-host": "evil.example",
      forwarded: "for=1.1.1.1;proto=https;host=evil.example",
    });
    assert.deepEqual([forged.status, forged.headers["location"]], [308, "https://a.example/p?q=1"]);
    assert.equal(exposed.origin.connections(), 0);
  });
}

test("port 443 is left out", async () => {
  await using story = await startStory({ listener: { redirectToHttps: true, httpsPort: 443 } });
  assert.equal((await story.ask({ host: "a.example:8080" })).headers["location"], "https://a.example/p?q=1");
});

test("over TLS only a trusted proxy whose client used plain HTTP is redirected", async () => {
  const ask = async (trustedProxies: string[], headers: Record<string, string>): Promise<number> => {
    await using story = await startStory({ tls: true, listener: { tls: AUTO, redirectToHttps: true }, trustedProxies });
    return (await fetchFrom(story.gateway.port, "/", { ca: certificate().cert, headers: { authorization: `Bearer ${TOKEN}`, ...headers } })).status;
  };
  assert.equal(await ask([], { "x-forwarded-proto": "http" }), 200);
  assert.equal(await ask(["127.0.0.1"], {}), 200);
  assert.equal(await ask(["127.0.0.1"], { "x-forwarded-proto": "https" }), 200);
  assert.equal(await ask(["127.0.0.1"], { "x-forwarded-proto": "http" }), 308);
});

/** What a trusted proxy may say of its client, over a plain connection, and whether that is https. */
const WORDS: [string, string[], "https" | "http"][] = [
  ["https", ["X-Forwarded-Proto: https"], "https"],
  ["upper case", ["X-FORWARDED-PROTO: HTTPS"], "https"],
  ["white space", ["X-Forwarded-Proto: \t https \t"], "https"],
  ["every proxy of the chain says https", ["X-Forwarded-Proto: https, https"], "https"],
  ["several lines that all say https", ["X-Forwarded-Proto: https", "x-forwarded-proto: https"], "https"],
  ["a WebSocket's scheme, as Traefik writes it", ["X-Forwarded-Proto: wss"], "https"],
  ["Forwarded alone", ['Forwarded: for=6.6.6.6;Proto="https"'], "https"],
  ["both agree", ["X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6;proto=https"], "https"],
  ["http", ["X-Forwarded-Proto: http"], "http"],
  ["ws", ["X-Forwarded-Proto: ws"], "http"],
  ["the client's word before the proxy's", ["X-Forwarded-Proto: https, http"], "http"],
  ["the proxy before it came over http", ["X-Forwarded-Proto: http, https"], "http"],
  ["two lines, the client's first", ["X-Forwarded-Proto: https", "X-Forwarded-Proto: http"], "http"],
  ["two lines, the client's last", ["X-Forwarded-Proto: http", "X-Forwarded-Proto: https"], "http"],
  ["an empty member", ["X-Forwarded-Proto: https,"], "http"],
  ["an empty member before", ["X-Forwarded-Proto: ,https"], "http"],
  ["an empty value", ["X-Forwarded-Proto:"], "http"],
  ["a second line that is empty", ["X-Forwarded-Proto: https", "X-Forwarded-Proto:"], "http"],
  ["quotes", ['X-Forwarded-Proto: "https"'], "http"],
  ["a semicolon", ["X-Forwarded-Proto: https;q=1"], "http"],
  ["a URL", ["X-Forwarded-Proto: https://a"], "http"],
  ["a longer word", ["X-Forwarded-Proto: httpsx"], "http"],
  ["letters of another alphabet", ["X-Forwarded-Proto: http\xc5\xbf"], "http"],
  ["an underscore in the name", ["X_Forwarded_Proto: https"], "http"],
  ["its relatives alone", ["X-Forwarded-Ssl: on", "X-Forwarded-Scheme: https", "Front-End-Https: on"], "http"],
  ["a Forwarded that disagrees", ["X-Forwarded-Proto: https", "Forwarded: for=6.6.6.6;proto=http"], "http"],
  ["an X-Forwarded-Proto that disagrees", ["Forwarded: for=6.6.6.6;proto=http", "X-Forwarded-Proto: https"], "http"],
  ["a Forwarded that the client sent through a proxy that writes X-Forwarded-For", ["X-Forwarded-For: 6.6.6.6", "Forwarded: for=7.7.7.7;proto=https"], "http"],
  ["an element of Forwarded before the proxy's, which says nothing", ["Forwarded: for=7.7.7.7;proto=https, for=6.6.6.6"], "http"],
  ["an element of Forwarded before the proxy's, which says otherwise", ["Forwarded: proto=https, for=6.6.6.6;proto=http"], "http"],
  ["the parameter twice in an element", ["Forwarded: for=6.6.6.6;proto=https;proto=http"], "http"],
  ["the parameter within quotes of another", ['Forwarded: for="_a;proto=https"'], "http"],
  ["a quote that does not end", ['Forwarded: for=6.6.6.6;by="x;proto=https'], "http"],
];

test("what is ambiguous about the client's scheme is not https", async () => {
  await using origin = await startOrigin((req, res) => void res.end(`proto=${String(req.headers["x-forwarded-proto"])} ${String(req.headers["forwarded"])}`));
  await using gateway = await startHttpGateway({ targets: [origin.url], listener: { tls: { mode: "behind_proxy" } }, trustedProxies: ["127.0.0.1"] });
  await using auto = await startHttpGateway({ targets: [origin.url], listener: { tls: AUTO, redirectToHttps: true }, trustedProxies: ["127.0.0.1"] });
  const tell = async ([what, lines, scheme]: (typeof WORDS)[number]): Promise<void> => {
    const request = `GET / HTTP/1.1\r\nHost: a.example\r\n${lines.join("\r\n")}\r\n\r\n`;
    const told = await sendRaw(gateway.port, [request], 1);
    assert.match(told.text, new RegExp(`proto=${scheme} .*;proto=${scheme}`), what);
    assert.deepEqual((await sendRaw(auto.port, [request], 1)).statuses, [scheme === "https" ? 200 : 308], what);
  };
  await Promise.all(WORDS.map(tell));
});

test("no other header tells the upstream that a client over plain HTTP used https", async () => {
  const words = { "x-forwarded-ssl": "on", "x-forwarded-scheme": "https", "X-Forwarded-Protocol": "ssl", "x-url-scheme": "https", "Front-End-Https": "on" };
  const names = Object.keys(words).map((name) => name.toLowerCase());
  await using origin = await startOrigin((req, res) => void res.end(JSON.stringify(names.filter((name) => req.headers[name] !== undefined))));
  await using gateway = await startHttpGateway({ targets: [origin.url], trustedProxies: ["127.0.0.1"] });
  const told = async (localAddress: string, proto: string) =>
    JSON.parse((await fetchFrom(gateway.port, "/", { localAddress, headers: { ...words, "x-forwarded-proto": proto } })).body) as string[];
  assert.deepEqual(await told("127.0.0.1", "http"), []);
  assert.deepEqual(await told("127.0.0.2", "https"), []);
  assert.deepEqual(await told("127.0.0.1", "https"), names);
});

test("no target, host or header makes the redirect lead elsewhere", async () => {
  await using story = await startStory({ listener: { redirectToHttps: true } });
  await using believed = await startStory({ listener: { redirectToHttps: true }, trustedProxies: ["127.0.0.1"] });
  const host = "Host: a.example";
  const cases: [gateway: HttpGateway, request: string, expected: string | number][] = [
    [story.gateway, `GET //evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET /\\evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET \\\\evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET /%5Cevil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET /%0d%0aLocation:%20https://evil.example HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET /x?%0d%0aLocation:%20https://evil.example HTTP/1.1\r\n${host}`, "https://a.example/x?%0d%0aLocation:%20https://evil.example"],
    [story.gateway, `GET /x?a#//evil.example HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET /@evil.example HTTP/1.1\r\n${host}`, "https://a.example/@evil.example"],
    [story.gateway, `GET @evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET .evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET :443@evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET http://evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET http://a.example@evil.example/ HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET http://a.example/x?y HTTP/1.1\r\n${host}`, "https://a.example/x?y"],
    [story.gateway, `GET https://a.example/x HTTP/1.1\r\n${host}`, "https://a.example/x"],
    [story.gateway, `GET http://a.example HTTP/1.1\r\n${host}`, "https://a.example/"],
    [story.gateway, `GET http://a.example//evil.example HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `GET /a/../..//evil.example HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `OPTIONS * HTTP/1.1\r\n${host}`, "https://a.example"],
    [story.gateway, `GET * HTTP/1.1\r\n${host}`, 400],
    [story.gateway, `TRACE / HTTP/1.1\r\n${host}`, 501],
    [story.gateway, `GET / HTTP/1.0`, 400],
    [story.gateway, `GET / HTTP/1.1\r\nHost: a.example@evil.example`, 400],
    [story.gateway, `GET / HTTP/1.1\r\nHost: a.example/evil`, 400],
    [story.gateway, `GET / HTTP/1.1\r\nHost: a.example:1:2`, 400],
    [story.gateway, `GET / HTTP/1.1\r\nHost:`, 400],
    [story.gateway, `GET / HTTP/1.1\r\n${host}\r\nHost: evil.example`, 400],
    [story.gateway, `GET / HTTP/1.1\r\n${host}\r\nX-Forwarded-Host: evil.example`, "https://a.example/"],
    [believed.gateway, `GET / HTTP/1.1\r\n${host}\r\nX-Forwarded-Host: evil.example, b.example`, "https://b.example/"],
    [believed.gateway, `GET / HTTP/1.1\r\n${host}\r\nX-Forwarded-Host: b.example@evil.example`, "https://a.example/"],
    [believed.gateway, `GET / HTTP/1.1\r\n${host}\r\nX-Forwarded-Host: b.example/evil`, "https://a.example/"],
    [believed.gateway, `GET / HTTP/1.1\r\n${host}\r\nX-Forwarded-Host: evil.example\r\nForwarded: for=1.1.1.1;host=b.example;proto=http`, "https://b.example/"],
  ];
  for (const [gateway, request, expected] of cases) {
    const { statuses, text } = await sendRaw(gateway.port, [`${request}\r\nAuthorization: Bearer ${TOKEN}\r\n\r\n`], 1);
    const location = /^Location: (.*)$/im.exec(text)?.[1]?.trim();
    if (typeof expected === "number") assert.deepEqual([statuses, location], [[expected], undefined], request);
    else assert.deepEqual([statuses, location, text.match(/^Location:/gim)?.length], [[308], expected, 1], request);
  }
  assert.deepEqual([story.origin.connections(), believed.origin.connections()], [0, 0]);
});

test("a WebSocket over plain HTTP is redirected, and its connection ends", async () => {
  await using story = await startStory({ listener: { redirectToHttps: true } });
  const upgrade = "GET /ws HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
  const { statuses, text } = await sendRaw(story.gateway.port, [upgrade, "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"], 2);
  assert.deepEqual(statuses, [308]);
  assert.match(text, /Location: https:\/\/a\.example\/ws\r\n[^]*Connection: close\r\n/);
  assert.equal(story.origin.connections(), 0);
});

test("a body is not asked for, and one that comes is read away: the connection goes on", async () => {
  await using story = await startStory({ listener: { redirectToHttps: true } });
  const expecting = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
  assert.deepEqual((await sendRaw(story.gateway.port, [expecting], 1)).statuses, [308]);
  const post = "POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nhello";
  const reply = await sendRaw(story.gateway.port, [post, post], 2);
  assert.deepEqual([reply.statuses, reply.closed], [[308, 308], false]);
  assert.equal(story.origin.connections(), 0);
});

test("whom 'deny' keeps out is not even redirected", async () => {
  await using story = await startStory({ listener: { redirectToHttps: true, deny: new AddressSet(["127.0.0.0/8"]) } });
  assert.equal((await story.ask({})).status, 403);
});

test("a client that comes round the proxy gets 403 with a sentence, whatever it says and asks for", async () => {
  const origin: Origin = await startOrigin((_req, res) => void res.end("ok"));
  await using _ = origin;
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    listener: { tls: { mode: "behind_proxy" }, redirectToHttps: true },
    trustedProxies: ["127.0.0.1"],
  });
  const from = (localAddress: string, headers: Record<string, string> = {}) => fetchFrom(gateway.port, "/", { localAddress, headers });
  for (const headers of [
    {},
    { "x-forwarded-for": "127.0.0.1" },
    { "x-forwarded-proto": "https" },
    { forwarded: "for=127.0.0.1;proto=https" },
    { "x-real-ip": "127.0.0.1" },
  ]) {
    const answer = await from("127.0.0.2", headers);
    assert.equal(answer.status, 403);
    assert.deepEqual((JSON.parse(answer.body) as { error: unknown }).error, {
      status: 403,
      code: "ERR_NOT_PROXY",
      message: "Only trusted proxies are served here",
    });
  }
  assert.equal(origin.connections(), 0);
  assert.match(String(gateway.accessLog[0]?.["error"]), /'127\.0\.0\.2' is not in 'trusted_proxies'/);
  assert.equal((await from("127.0.0.1", { "x-forwarded-proto": "https" })).status, 200);
  assert.equal((await from("127.0.0.1", { "x-forwarded-proto": "http" })).status, 308);
});

test("bytes of the PROXY protocol are no request", async () => {
  await using story = await startStory({ listener: { tls: { mode: "behind_proxy" } }, trustedProxies: ["127.0.0.1"] });
  const request = "GET / HTTP/1.1\r\nHost: a.example\r\n\r\n";
  const v2 = Buffer.concat([
    Buffer.from("\r\n\r\n\0\r\nQUIT\n", "latin1"),
    Buffer.from([0x21, 0x11, 0, 12, 6, 6, 6, 6, 127, 0, 0, 1, 0x10, 0, 0, 80]),
    Buffer.from(request),
  ]);
  for (const bytes of [`PROXY TCP4 6.6.6.6 127.0.0.1 4096 80\r\n${request}`, `PROXY UNKNOWN\r\n${request}`, v2]) {
    assert.deepEqual((await sendRaw(story.gateway.port, [bytes], 1)).statuses, [400]);
  }
  // In pieces, as a slow proxy may send it.
  assert.deepEqual((await sendRaw(story.gateway.port, [v2.subarray(0, 4), 20, v2.subarray(4)], 1)).statuses, [400]);
  assert.equal(story.origin.connections(), 0);
});
