// What an upstream answers to a browser with a session: its cookies and its caching must not reach beyond that browser.
import assert from "node:assert/strict";
import { test } from "node:test";
import { fetchFrom } from "../components/http-client.ts";
import { fakeServer, oauthWay, proofOf, protectedRoute, sessionWay, startHttpGateway } from "../components/http-gateway.ts";
import { startOrigin } from "../components/origin.ts";
import { sendRaw } from "../components/raw-client.ts";

const PAGES = "https://pages.example/";
const server = fakeServer({
  issuer: "https://pages.example",
  resources: [PAGES],
  sessionOrigins: ["https://pages.example"],
  tokens: { good: proofOf(PAGES) },
  sessions: { mine: proofOf(null) },
});
const BY_COOKIE = { host: "pages.example", cookie: "__Host-sidegate=mine" };

test("an upstream sets its own cookies and none of the gateway's, whoever asks", async () => {
  const cookies = ["app=1; Path=/", "__Host-sidegate=somebody-else; Path=/; Secure", "=sidegate=x", "sidegate-login=y", "sidegateway=2"];
  await using origin = await startOrigin((_req, res) => void res.writeHead(200, { "Set-Cookie": cookies }).end("ok"));
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    servers: [server],
    routes: [protectedRoute(PAGES, [sessionWay()]), { host: "open.example" }],
  });
  for (const headers of [BY_COOKIE, { host: "open.example" }])
    assert.deepEqual((await fetchFrom(gateway.port, "/", { headers })).headers["set-cookie"], ["app=1; Path=/", "sidegateway=2"]);
});

test("an interim response sets none of the gateway's cookies either", async () => {
  await using origin = await startOrigin((_req, res) => {
    res.writeEarlyHints({ link: "</a.css>; rel=preload", "set-cookie": "__Host-sidegate=somebody-else" });
    res.writeHead(200).end("ok");
  });
  await using gateway = await startHttpGateway({ targets: [origin.url] });
  const { statuses, text } = await sendRaw(gateway.port, ["GET / HTTP/1.1\r\nHost: open.example\r\n\r\n"], 2);
  assert.deepEqual(statuses, [103, 200]);
  assert.match(text, /a\.css/);
  assert.doesNotMatch(text, /sidegate/);
});

test("what a session permits is no matter for shared caches, whatever the upstream says", async () => {
  await using origin = await startOrigin((req, res) => {
    const said = decodeURIComponent((req.url ?? "").slice(2));
    res.writeHead(200, said === "" ? {} : { "Cache-Control": said, "CDN-Cache-Control": "max-age=60" }).end("balance");
  });
  await using gateway = await startHttpGateway({ targets: [origin.url], servers: [server], routes: [protectedRoute(PAGES, [sessionWay(), oauthWay(PAGES)])] });
  for (const [said, told] of [
    ["", "private"],
    ["public, max-age=600", "private, max-age=600"],
    ["PUBLIC,s-maxage=5, max-age=9,", "private, max-age=9"],
    ["no-store", "no-store"],
    ["private=x, no-cache", "private, no-cache"],
  ] as const) {
    const { headers } = await fetchFrom(gateway.port, `/?${encodeURIComponent(said)}`, { headers: BY_COOKIE });
    assert.equal(headers["cache-control"], told);
    assert.equal(headers["cdn-cache-control"], undefined);
  }
  const byToken = await fetchFrom(gateway.port, "/?public", { headers: { host: "pages.example", authorization: "Bearer good" } });
  assert.equal(byToken.headers["cache-control"], "public");
});
