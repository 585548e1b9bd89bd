// A CA's http-01 look at the gateway is answered whatever else stands in its way, and nothing answers in its place.
import assert from "node:assert/strict";
import { test } from "node:test";
import { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";
import { AddressSet } from "../../src/lib/address.ts";
import { fetchFrom } from "../components/http-client.ts";
import { certificate, startHttpGateway, type HttpGatewayOptions } from "../components/http-gateway.ts";
import { startOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";
import { waitFor } from "../components/wait.ts";

const TOKEN = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr_oA";
const PROOF = `${TOKEN}.9jg46WB3rR_AHD-EBXdN7cBkH1WOu0tA3M9fm21mqTI`;
const DIR = "/.well-known/acme-challenge";

async function startStory(options: Partial<HttpGatewayOptions> = {}) {
  const seen: string[] = [];
  const origin = await startOrigin((req, res) => {
    seen.push(req.url ?? "");
    res.end("from the upstream");
  });
  const challenges = new AcmeChallenges();
  const hide = challenges.showHttp(TOKEN, PROOF);
  const gateway = await startHttpGateway({ targets: [origin.url], challenges, ...options });
  return {
    gateway,
    hide,
    seen,
    get: (path: string, method = "GET") => fetchFrom(gateway.port, path, { method, headers: { host: "a.example" } }),
    [Symbol.asyncDispose]: async () => {
      await gateway[Symbol.asyncDispose]();
      await origin[Symbol.asyncDispose]();
    },
  };
}

const IN_ITS_WAY: [string, Partial<HttpGatewayOptions>][] = [
  ["a route for the very path", { routes: [{ path: { kind: "exact", path: `${DIR}/${TOKEN}` }, priority: 100 }] }],
  ["routes that ask for a token", { routes: [{ auth: [{ kind: "token", names: null, scopes: [] }] }] }],
  ["no route at all", { routes: [] }],
  ["deny", { listener: { deny: new AddressSet(["0.0.0.0/0"]) } }],
  ["allow", { listener: { allow: new AddressSet(["192.0.2.1"]) } }],
  ["mode behind_proxy, to which the CA is no proxy", { listener: { tls: { mode: "behind_proxy" } } }],
  ["the redirect to https", { listener: { redirectToHttps: true } }],
];

for (const [what, options] of IN_ITS_WAY) {
  test(`the CA gets its proof in spite of ${what}`, async () => {
    await using story = await startStory(options);
    const answer = await story.get(`${DIR}/${TOKEN}`);
    assert.deepEqual([answer.status, answer.headers["content-type"], answer.body], [200, "application/octet-stream", PROOF]);
    assert.equal(answer.headers["content-length"], String(PROOF.length));
    const unknown = await story.get(`${DIR}/${TOKEN}x`);
    assert.deepEqual([unknown.status, unknown.headers["location"]], [404, undefined]);
    assert.match(unknown.body, /ERR_NO_CHALLENGE/);
    assert.deepEqual(story.seen, []);
    await waitFor(() => story.gateway.accessLog.length === 2);
    assert.deepEqual(
      story.gateway.accessLog.map(({ status }) => status),
      [200, 404],
    );
  });
}

test("a look without a Host, in the absolute form, with HEAD or in another spelling of the same path is answered too", async () => {
  await using story = await startStory();
  const head = await story.get(`${DIR}/${TOKEN}`, "HEAD");
  assert.deepEqual([head.status, head.headers["content-length"], head.body], [200, String(PROOF.length), ""]);
  for (const request of [
    `GET ${DIR}/${TOKEN} HTTP/1.0\r\n\r\n`,
    `GET http://a.example${DIR}/${TOKEN} HTTP/1.1\r\nHost: a.example\r\n\r\n`,
    `GET ${DIR.replace("acme", "%61cme")}/${TOKEN}?x HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n`,
  ]) {
    const { text } = await sendRaw(story.gateway.port, [request], 1);
    assert.match(text, /^HTTP\/1\.1 200 /, request);
    assert.ok(text.endsWith(PROOF), request);
  }
  assert.deepEqual(story.seen, []);
});

test("all of the path is the gateway's: no spelling, method or upgrade leads to a route", async () => {
  await using story = await startStory();
  for (const [path, status] of [
    [`${DIR}/`, 404],
    [`${DIR}/a/b`, 404],
    [`${DIR}/a%2Fb`, 404],
    [`${DIR}/${TOKEN}/`, 404],
    [`${DIR}/${TOKEN}%00`, 400],
    [`${DIR}/../x`, 400],
    [`${DIR}/__proto__`, 404],
    [`${DIR}/${TOKEN};a`, 404],
  ] as const) {
    assert.equal((await story.get(path)).status, status, path);
  }
  const post = await story.get(`${DIR}/${TOKEN}`, "POST");
  assert.deepEqual([post.status, post.headers["allow"]], [405, "GET, HEAD"]);
  const upgrade = await sendRaw(
    story.gateway.port,
    [`GET ${DIR}/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n\r\n`],
    1,
  );
  assert.deepEqual(upgrade.statuses, [404]);
  assert.deepEqual(story.seen, []);
});

test("the proof is gone when its order has ended", async () => {
  await using story = await startStory();
  story.hide();
  assert.equal((await story.get(`${DIR}/${TOKEN}`)).status, 404);
});

test("over TLS, beside it, and where no listener has ACME, such a path is like any other", async () => {
  await using secure = await startStory({ tls: true });
  const answer = await fetchFrom(secure.gateway.port, `${DIR}/${TOKEN}`, { ca: certificate().cert });
  assert.deepEqual([answer.status, answer.body], [200, "from the upstream"]);

  await using beside = await startStory();
  for (const path of [DIR, `${DIR}s/x`, `/x${DIR}/${TOKEN}`]) assert.equal((await beside.get(path)).body, "from the upstream", path);

  await using origin = await startOrigin((_req, res) => void res.end("the upstream's own challenge"));
  await using without = await startHttpGateway({ targets: [origin.url] });
  assert.equal((await fetchFrom(without.port, `${DIR}/x`)).body, "the upstream's own challenge");
});
