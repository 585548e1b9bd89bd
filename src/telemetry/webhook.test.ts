import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import { createServer as createTcpServer, type AddressInfo } from "node:net";
import { test, type TestContext } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { openLog } from "./log.ts";
import { openWebhook, type WebhookOptions, type WebhookTarget } from "./webhook.ts";

type Received = { readonly path: string; readonly headers: IncomingHttpHeaders; readonly body: string };
type Reply = number | ((response: ServerResponse, request: IncomingMessage) => void);

/** A receiver that gives the replies in turn, the last one for ever, and a webhook to it whose waits are over at once. */
async function setUp(t: TestContext, replies: Reply[], options: Partial<WebhookOptions> & { secret?: string; url?: (base: string) => string } = {}) {
  const received: Received[] = [];
  const server = createServer((request, response) => {
    let body = "";
    request.setEncoding("utf8");
    request.on("data", (chunk: string) => (body += chunk));
    request.on("end", () => {
      const reply = replies[Math.min(received.length, replies.length - 1)] ?? 200;
      received.push({ path: request.url ?? "", headers: request.headers, body });
      if (typeof reply === "number") response.writeHead(reply).end("ok");
      else reply(response, request);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const base = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const logged: string[] = [];
  const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void logged.push(text) });
  const results: string[] = [];
  const waits: number[] = [];
  let now = 0;
  const state: { target: WebhookTarget | null } = { target: { url: options.url?.(base) ?? `${base}/hook/s3cret?key=s3cret`, secret: options.secret ?? null } };
  const webhook = openWebhook({
    target: () => state.target,
    log,
    onResult: (result) => void results.push(result),
    now: () => now,
    delay: (ms) => {
      waits.push(ms);
      now += ms;
      return Promise.resolve();
    },
    ...options,
  });
  t.after(async () => {
    await webhook.close();
    server.closeAllConnections();
    server.close();
    assert.doesNotMatch(logged.join(""), /s3cret/);
  });
  return { webhook, received, results, waits, logged, state, base };
}

const isWithin = (value: number | undefined, seconds: number): boolean => value !== undefined && value >= seconds * 800 && value <= seconds * 1_200;

test("a message is posted once, with an id, a time and a signature over both and the body", async (t) => {
  for (const [secret, key] of [
    ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", Buffer.from("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "base64")],
    ["any text s3cret ü", Buffer.from("any text s3cret ü")],
  ] as const) {
    const { webhook, received, results } = await setUp(t, [200], { secret });
    webhook.send("certificate.expired", "It's over – ü", { names: ["a.example"], expires_at: null });
    await waitFor(() => results.length === 1);
    assert.deepEqual(results, ["delivered"]);
    const [{ path, headers, body }] = received as [Received];
    assert.equal(path, "/hook/s3cret?key=s3cret");
    assert.equal(headers["content-type"], "application/json");
    const { timestamp, ...rest } = JSON.parse(body) as Record<string, unknown>;
    assert.deepEqual(rest, { type: "certificate.expired", text: "It's over – ü", data: { names: ["a.example"], expires_at: null } });
    assert.ok(Math.abs(Date.parse(String(timestamp)) - Date.now()) < 10_000);
    const [id, time] = [String(headers["webhook-id"]), String(headers["webhook-timestamp"])];
    assert.match(id, /^msg_[\w-]{36}$/);
    assert.ok(Math.abs(Number(time) - Date.now() / 1_000) < 10);
    assert.equal(headers["webhook-signature"], `v1,${createHmac("sha256", key).update(`${id}.${time}.${body}`).digest("base64")}`);
  }
});

test("without a secret nothing is signed", async (t) => {
  const { webhook, received, results } = await setUp(t, [204]);
  webhook.send("a", "b", {});
  await waitFor(() => results.length === 1);
  assert.equal(received[0]?.headers["webhook-signature"], undefined);
});

test("a failure is tried again with the same id, each time later, and logged once", async (t) => {
  const broken: Reply = (response) => response.destroy();
  const { webhook, received, results, waits, logged } = await setUp(t, [500, broken, 429, 408, 200]);
  webhook.send("a", "b", {});
  await waitFor(() => results.length === 1);
  assert.deepEqual(results, ["delivered"]);
  assert.equal(received.length, 5);
  assert.equal(new Set(received.map(({ headers }) => headers["webhook-id"])).size, 1);
  assert.equal(waits.length, 4);
  [5, 10, 20, 40].forEach((seconds, i) => assert.ok(isWithin(waits[i], seconds), `${waits[i]} ms for ${seconds} s`));
  const warnings = logged.map((line) => JSON.parse(line) as { level: string; msg: string }).filter(({ level }) => level !== "debug");
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]?.msg ?? "", /^Cannot deliver an alert to http:\/\/127\.0\.0\.1:\d+, tried again in \d+(\.\d)?s: it answers with status 500$/);
});

test("it goes on for a day, at least once in an hour or so, and then gives up", async (t) => {
  const { webhook, received, results, waits, logged } = await setUp(t, [503]);
  webhook.send("a", "b", {});
  await waitFor(() => results.length === 1);
  assert.deepEqual(results, ["failed"]);
  const total = waits.reduce((sum, ms) => sum + ms, 0);
  assert.ok(total > 22 * 3_600_000 && total <= 86_400_000, String(total));
  assert.ok(Math.max(...waits) <= 1.2 * 3_600_000);
  assert.ok(received.length > 25 && received.length < 45, String(received.length));
  assert.match(logged.at(-1) ?? "", /"level":"error".*given up: it answers with status 503/);
});

test("what says that it will never take it is not asked again, and a redirect is not followed", async (t) => {
  for (const status of [400, 401, 404, 410, 301, 307]) {
    const { webhook, received, results, waits, base } = await setUp(t, [(response) => response.writeHead(status, { Location: "/elsewhere" }).end()]);
    webhook.send("a", "b", {});
    await waitFor(() => results.length === 1);
    assert.deepEqual([results, received.length, waits.length], [["failed"], 1, 0], `${status} ${base}`);
  }
});

test("Retry-After is respected, as seconds or as a date", async (t) => {
  const after =
    (value: string): Reply =>
    (response) =>
      response.writeHead(429, { "Retry-After": value }).end();
  const { webhook, results, waits } = await setUp(t, [after("120"), after(new Date(Date.now() + 600_000).toUTCString()), after("soon"), 200]);
  webhook.send("a", "b", {});
  await waitFor(() => results.length === 1);
  assert.equal(waits[0], 120_000);
  assert.ok((waits[1] ?? 0) > 590_000 && (waits[1] ?? 0) <= 600_000, String(waits[1]));
  assert.ok(isWithin(waits[2], 20), String(waits[2]));
});

test("a receiver that hangs costs the timeout, and one whose answer has no end nothing", async (t) => {
  const endless: Reply = (response) => {
    response.writeHead(200);
    const more = (): void => void (response.destroyed || response.write("x".repeat(65_536), () => setImmediate(more)));
    more();
  };
  const { webhook, results, logged } = await setUp(t, [() => {}, endless], { timeoutMs: 100 });
  webhook.send("a", "b", {});
  await waitFor(() => results.length === 1);
  assert.deepEqual(results, ["delivered"]);
  assert.match(logged[0] ?? "", /no answer within 100ms/);
});

test("of more than a hundred that wait the oldest are dropped and counted, and a new one does not wait for the old ones", async (t) => {
  const { webhook, received, results } = await setUp(t, [500, 500, 500, 200], {
    delay: (_, signal) => new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(new Error("woken")))),
    now: () => 0,
  });
  for (let i = 0; i < 3; i += 1) webhook.send(`old ${i}`, "", {});
  await waitFor(() => received.length === 3);
  webhook.send("new", "", {});
  await waitFor(() => results.length === 1);
  assert.match(received[3]?.body ?? "", /"type":"new"/);
  for (let i = 0; i < 100; i += 1) webhook.send(`more ${i}`, "", {});
  assert.deepEqual(results, ["delivered", "dropped", "dropped", "dropped"]);
  await waitFor(() => results.length === 104);
  assert.equal(received.length, 104);
});

test("one that is dropped while it is under way counts once, and the next one after an empty queue is sent", async (t) => {
  const { promise, resolve } = Promise.withResolvers<void>();
  const { webhook, received, results } = await setUp(t, [200, (response) => void promise.then(() => response.end()), 200]);
  webhook.send("first", "", {});
  await waitFor(() => results.length === 1);
  webhook.send("slow", "", {});
  await waitFor(() => received.length === 2);
  for (let i = 0; i < 100; i += 1) webhook.send("more", "", {});
  assert.deepEqual(results, ["delivered", "dropped"]);
  resolve();
  await waitFor(() => received.length === 102);
  await waitFor(() => results.length >= 102);
  assert.deepEqual([results.length, results.filter((result) => result === "dropped").length], [102, 1]);
});

test("a reload counts for what waits: another address and secret, or nobody", async (t) => {
  const { webhook, received, results, state, base } = await setUp(t, [
    (response) => {
      state.target = { url: `${base}/other`, secret: "s3cret 2" };
      response.writeHead(500).end();
    },
    (response) => {
      state.target = null;
      response.writeHead(500).end();
    },
  ]);
  webhook.send("a", "b", {});
  await waitFor(() => results.length === 1);
  assert.deepEqual(results, ["dropped"]);
  assert.deepEqual(
    received.map(({ path }) => path),
    ["/hook/s3cret?key=s3cret", "/other"],
  );
  const { headers, body } = received[1] as Received;
  const expected = createHmac("sha256", "s3cret 2").update(`${String(headers["webhook-id"])}.${String(headers["webhook-timestamp"])}.${body}`);
  assert.equal(headers["webhook-signature"], `v1,${expected.digest("base64")}`);
  webhook.send("nobody", "", {});
  assert.equal(received.length, 2);
});

test("closing waits for an attempt that ends soon, and not for one that hangs", async (t) => {
  const { webhook, results, received } = await setUp(t, [(response) => void setTimeout(() => response.end(), 150)]);
  webhook.send("a", "b", {});
  await waitFor(() => received.length === 1);
  await webhook.close();
  assert.deepEqual(results, ["delivered"]);
  for (let i = 0; i < 200; i += 1) webhook.send("late", "", {});
  assert.deepEqual(results, ["delivered"]);

  const hanging = await setUp(t, [() => {}]);
  hanging.webhook.send("a", "b", {});
  hanging.webhook.send("b", "b", {});
  await waitFor(() => hanging.received.length === 1);
  const startedAt = performance.now();
  await hanging.webhook.close();
  const tookMs = performance.now() - startedAt;
  assert.ok(tookMs > 900 && tookMs < 2_000, String(tookMs));
  assert.match(hanging.logged.at(-1) ?? "", /"count":2.*given up/);
  assert.equal(received.length, 1);
});

test("a receiver that never ends the handshake costs the timeout, too", async (t) => {
  const server = createTcpServer(() => {}).listen(0, "127.0.0.1");
  t.after(() => server.close());
  await once(server, "listening");
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/s3cret`;
  const { webhook, logged } = await setUp(t, [200], {
    url: () => url,
    timeoutMs: 100,
    delay: (_, signal) => new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(new Error("woken")))),
  });
  webhook.send("a", "b", {});
  await waitFor(() => logged.length === 1);
  assert.match(logged[0] ?? "", /no answer within 100ms/);
});

test("closing ends a wait, and nothing of the address is logged when nobody is there", async (t) => {
  const { webhook, logged, results } = await setUp(t, [200], {
    url: () => "https://127.0.0.1:1/hook/s3cret",
    delay: (_, signal) => new Promise((_resolve, reject) => signal.addEventListener("abort", () => reject(new Error("woken")))),
  });
  webhook.send("a", "b", {});
  await waitFor(() => logged.length === 1);
  assert.match(logged[0] ?? "", /Cannot deliver an alert to https:\/\/127\.0\.0\.1:1, tried again in .*: connection refused/);
  await webhook.close();
  assert.deepEqual(results, []);
});
