import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync, mkdirSync } from "node:fs";
import { createServer, type IncomingMessage, type RequestListener, type ServerResponse } from "node:http";
import { createServer as createRawServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { LocalApiError } from "./local-api-error.ts";
import type { BusMessage, LocalApi } from "./local-api-types.ts";
import { openLocalApi } from "./local-api.ts";

// Long enough for a machine that is busy with other things, where an answer is awaited.
const PATIENT_MS = 60_000;
const IMPATIENT_MS = 300;
const LEISURELY_MS = 3_000;
const PAIR = "-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n-----BEGIN CERTIFICATE-----\nBB\n-----END CERTIFICATE-----\n";

type Request = { readonly line: string; readonly headers: IncomingMessage["headers"]; readonly body: string };

function directory(t: TestContext): string {
  const path = mkdtempSync(join(tmpdir(), "sidegate-local-api-"));
  t.after(() => rmSync(path, { recursive: true, force: true }));
  return path;
}

async function listen(t: TestContext, server: Server): Promise<string> {
  const socket = join(directory(t), "s.sock");
  server.listen(socket);
  await once(server, "listening");
  const sockets = new Set<Socket>();
  server.on("connection", (connection: Socket) => sockets.add(connection.on("error", () => {})));
  t.after(() => {
    server.close();
    for (const connection of sockets) connection.destroy();
  });
  return socket;
}

/** A client of a stand-in that answers as it is told. */
async function standIn(t: TestContext, answer: RequestListener, timeoutMs = PATIENT_MS): Promise<LocalApi> {
  return client(t, await listen(t, createServer(answer)), timeoutMs);
}

function client(t: TestContext, socket: string, timeoutMs = PATIENT_MS): LocalApi {
  const api = openLocalApi(socket, { timeoutMs });
  t.after(() => api.close());
  return api;
}

/** A client, and what it asked; each answer is the next of the list, with status 200 unless it says otherwise. */
async function scripted(t: TestContext, answers: readonly (string | { status: number; text: string; headers?: Record<string, string> })[]) {
  const requests: Request[] = [];
  const api = await standIn(t, (request, response) => {
    void readBody(request).then((body) => {
      const next = answers[requests.length] ?? { status: 599, text: "nothing more was expected" };
      requests.push({ line: `${request.method} ${request.url}`, headers: request.headers, body });
      const { status, text, headers = {} } = typeof next === "string" ? { status: 200, text: next } : next;
      response.writeHead(status, headers).end(text);
    });
  });
  return { api, requests };
}

async function readBody(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
  return Buffer.concat(chunks).toString();
}

async function failure(call: Promise<unknown>): Promise<LocalApiError> {
  const error = await call.then(
    () => assert.fail("it succeeded"),
    (reason: unknown) => reason,
  );
  assert.ok(error instanceof LocalApiError, String(error));
  return error;
}

test("each call is asked as tailscaled wants it", async (t) => {
  const { api, requests } = await scripted(t, [
    `{"BackendState":"Stopped"}`,
    `{"Node":{"StableID":"n1"}}`,
    `{"Node":{"StableID":"n2"}}`,
    `{"Node":{"StableID":"n3"}}`,
    `{"Hostname":"gw"}`,
    `{"Hostname":"new"}`,
    `{"Hostname":"gw","Later":[1],"Config":{"PrivateNodeKey":"x"}}`,
    { status: 204, text: "" },
    { status: 204, text: "" },
    { status: 204, text: "" },
    { status: 200, text: "null", headers: { etag: "e1" } },
    "",
    PAIR,
  ]);
  assert.equal((await api.status()).state, "Stopped");
  assert.equal((await api.whois("127.0.0.1:4003"))?.id, "n1");
  assert.equal((await api.whois("[fd7a::1]:4003"))?.id, "n2");
  assert.equal((await api.whois("fd7a::1"))?.id, "n3");
  assert.equal((await api.prefs()).Hostname, "gw");
  assert.equal((await api.editPrefs({ Hostname: "new" })).Hostname, "new");
  await api.start("tskey-auth-1", { WantRunning: true });
  await api.loginInteractive();
  await api.logout();
  assert.deepEqual(await api.serveConfig(), { config: {}, etag: "e1" });
  await api.setServeConfig({ TCP: { 1: { TCPForward: "127.0.0.1:0" } } }, "e1");
  assert.match((await api.certificate("gw.tail.test", 86_400_000)).key, /PRIVATE KEY/);

  assert.deepEqual(
    requests.map(({ line, body }) => `${line.replace("/localapi/v0/", "")} ${body}`.trim()),
    [
      "GET status?peers=false",
      "GET whois?addr=127.0.0.1%3A4003&proto=tcp",
      "GET whois?addr=%5Bfd7a%3A%3A1%5D%3A4003&proto=tcp",
      "GET whois?addr=fd7a%3A%3A1",
      "GET prefs",
      `PATCH prefs {"Hostname":"new","HostnameSet":true}`,
      "GET prefs",
      `POST start {"AuthKey":"tskey-auth-1","UpdatePrefs":{"Hostname":"gw","Later":[1],"WantRunning":true}}`,
      "POST login-interactive",
      "POST logout",
      "GET serve-config",
      `POST serve-config {"TCP":{"1":{"TCPForward":"127.0.0.1:0"}}}`,
      "GET cert/gw.tail.test?type=pair&min_validity=86400000ms",
    ],
  );
  for (const { headers } of requests) {
    assert.equal(headers.host, "local-tailscaled.sock");
    assert.deepEqual([headers.origin, headers.referer], [undefined, undefined]);
  }
  assert.equal(requests[11]?.headers["if-match"], "e1");
});

test("nobody is null, and every other refusal is an error", async (t) => {
  const { api } = await scripted(t, [
    { status: 404, text: "no match for IP:port\n" },
    { status: 400, text: "invalid 'addr' parameter\n" },
    { status: 500, text: "" },
  ]);
  assert.equal(await api.whois("127.0.0.1:1"), null);
  assert.equal((await failure(api.whois("127.0.0.1:1"))).message, "tailscaled answered GET whois with status 400: invalid 'addr' parameter");
  assert.equal((await failure(api.whois("127.0.0.1:1"))).message, "tailscaled answered GET whois with status 500");
});

test("a question that takes long does not hold up the others", async (t) => {
  let held: ServerResponse | undefined;
  const api = await standIn(t, (_request, response) => {
    if (held === undefined) held = response;
    else response.end(`{"Node":{"StableID":"n"}}`);
  });
  const first = api.whois("127.0.0.1:1");
  await waitFor(() => held, { timeoutMs: PATIENT_MS });
  const answers = await Promise.all(Array.from({ length: 100 }, (_, index) => api.whois(`127.0.0.1:${1_000 + index}`)));
  assert.deepEqual(new Set(answers.map((answer) => answer?.id)), new Set(["n"]));
  held?.end(`{"Node":{"StableID":"late"}}`);
  assert.equal((await first)?.id, "late");
});

test("strangers who make it ask without end neither flood tailscaled nor hold up what keeps the tailnet running", async (t) => {
  let questions = 0;
  const api = await standIn(t, (request, response) => {
    if (request.url?.includes("whois?addr=127.") === true) questions += 1;
    else response.end(`{"BackendState":"Running","Node":{"StableID":"n"}}`);
  });
  const flood = Array.from({ length: 400 }, (_, index) => failure(api.whois(`127.0.0.1:${1_000 + index}`)));
  await waitFor(() => questions === 2, { timeoutMs: PATIENT_MS, what: () => `2 questions, ${questions} so far` });
  assert.equal((await api.status()).state, "Running");
  assert.equal((await api.whois("100.64.0.2"))?.id, "n", "a node is not asked for in that queue");
  await api.close();
  for (const error of await Promise.all(flood)) assert.equal(error.failure, "closed");
  assert.equal(questions, 2);
});

test("it says why tailscaled cannot be reached", async (t) => {
  const dir = directory(t);
  const missing = join(dir, "none.sock");
  assert.equal((await failure(client(t, missing).status())).message, `tailscaled does not answer on '${missing}': no such file or directory`);
  const file = join(dir, "file");
  writeFileSync(file, "");
  const refused = await failure(client(t, file).whois("127.0.0.1:1"));
  assert.deepEqual(
    [refused.message, refused.status, refused.failure, refused.code],
    [`tailscaled does not answer on '${file}': connection refused`, 0, "unreachable", "local_api_unreachable"],
  );
});

test("without permission it says who the gateway must be", async (t) => {
  const { geteuid, seteuid } = process;
  if (geteuid?.() !== 0 || seteuid === undefined) return t.skip("only root can give up its rights for a moment");
  const dir = join(directory(t), "closed");
  mkdirSync(dir, { mode: 0o700 });
  const api = client(t, join(dir, "s.sock"));
  await failure(api.status()); // loads what would not be readable
  seteuid.call(process, 65_534);
  try {
    assert.match(
      (await failure(api.status())).message,
      /^tailscaled does not answer on '\/.+s\.sock': permission denied: the gateway must run as the same user as tailscaled, as root or as its operator$/,
    );
  } finally {
    seteuid.call(process, 0);
  }
});

test("a refusal is told in tailscaled's words, with what to do and without the key", async (t) => {
  const { api } = await scripted(t, [
    { status: 403, text: "prefs write access denied\n" },
    { status: 400, text: `{"Error":"can't reconfigure tailscaled when using a config file"}` },
    { status: 500, text: `{"error":"decoding config: json:\\n cannot unmarshal"}` },
    "{}",
    { status: 500, text: "the key tskey-auth-SECRET was not liked" },
    { status: 412, text: "etag mismatch\n" },
    { status: 429, text: "too many certificates", headers: { "retry-after": "3600" } },
    { status: 500, text: "x".repeat(3_000_000) },
  ]);
  const advice = "the gateway must run as the same user as tailscaled, as root or as its operator";
  assert.equal((await failure(api.editPrefs({}))).message, `tailscaled answered PATCH prefs with status 403: prefs write access denied; ${advice}`);
  assert.match((await failure(api.editPrefs({}))).message, /with status 400: can't reconfigure tailscaled when using a config file$/);
  assert.match((await failure(api.setServeConfig({}, "e"))).message, /with status 500: decoding config: json: cannot unmarshal$/);
  assert.equal((await failure(api.start("tskey-auth-SECRET", {}))).message, "tailscaled answered POST start with status 500: the key *** was not liked");
  const changed = await failure(api.setServeConfig({}, "e"));
  assert.deepEqual([changed.status, changed.failure], [412, "refused"]);
  assert.equal((await failure(api.certificate("gw.tail.test", 0))).retryAfterMs, 3_600_000);
  assert.ok((await failure(api.status())).message.length < 600);
});

test("a tailscaled that is silent is given up, before and within its answer", async (t) => {
  const api = await standIn(
    t,
    (request, response) => {
      if (request.url?.includes("prefs") === true) response.write("{");
    },
    IMPATIENT_MS,
  );
  const silent = await failure(api.status());
  assert.deepEqual([silent.failure, silent.status], ["timeout", 0]);
  assert.equal(silent.message, `tailscaled did not answer GET status within 300ms on '${api.socket}'`);
  assert.equal((await failure(api.prefs())).failure, "timeout");
  assert.equal((await failure(api.whois("127.0.0.1:1"))).failure, "timeout");
  assert.equal((await failure(api.watch(() => {}, new AbortController().signal))).failure, "timeout");
});

test("an answer that is too long is not taken in; a serve config of all ports is", async (t) => {
  const TCP = Object.fromEntries(Array.from({ length: 65_535 }, (_, index) => [index + 1, { TCPForward: "127.0.0.1:0" }]));
  let endless: ServerResponse | undefined;
  const api = await standIn(t, (request, response) => {
    if (request.url?.includes("serve-config") === true) return void response.setHeader("etag", "e").end(JSON.stringify({ TCP }));
    endless = response;
    const more = (): void => {
      while (!response.destroyed && response.write("x".repeat(65_536)));
    };
    response.on("drain", more);
    more();
  });
  assert.equal((await failure(api.status())).message, "tailscaled's answer to GET status cannot be used: it is too long");
  await waitFor(() => endless?.destroyed, { timeoutMs: PATIENT_MS, what: () => "the end of that connection" });
  assert.equal(Object.keys((await api.serveConfig()).config.TCP ?? {}).length, 65_535);
  assert.deepEqual([await api.isServeConfig("e"), await api.isServeConfig("f")], [true, false]);
});

test("an answer that makes no sense is an error that says what is wrong", async (t) => {
  const { api } = await scripted(t, ["<html>", `{"BackendState":6}`, `{"UserProfile":{}}`, "{}", `{"a":1}`, "[]"]);
  const wrong = await failure(api.status());
  assert.deepEqual([wrong.message, wrong.failure], ["tailscaled's answer to GET status cannot be used: it is not JSON", "bad_answer"]);
  assert.match((await failure(api.status())).message, /cannot be used: 'BackendState' is not a text$/);
  assert.match((await failure(api.whois("127.0.0.1:1"))).message, /^tailscaled's answer to GET whois cannot be used: 'Node.StableID' is missing$/);
  assert.match((await failure(api.serveConfig())).message, /it has no ETag$/);
  assert.match((await failure(api.certificate("gw.tail.test", 0))).message, /it is not a key and a certificate in PEM$/);
  assert.match((await failure(api.start("", {}))).message, /^tailscaled's answer to GET prefs cannot be used: it is not a JSON object$/);
});

test("what breaks off, or is no HTTP at all, is an error, and the next call has a new connection", async (t) => {
  const begin = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{";
  const answers = [`SSH-2.0-OpenSSH_9\r\n`, begin, "", `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}`];
  const socket = await listen(
    t,
    createRawServer((connection) => void connection.once("data", () => connection.end(answers.shift() ?? ""))),
  );
  const api = client(t, socket);
  assert.equal((await failure(api.status())).message, `What answers on '${socket}' does not speak HTTP: it is not tailscaled`);
  for (const _ of [1, 2]) assert.match((await failure(api.status())).message, /^tailscaled does not answer on '.+': it closed the connection$/);
  assert.equal((await api.status()).state, "NoState");
});

test("the bus is followed from its first line on, through silence, to its end", async (t) => {
  const streams: ServerResponse[] = [];
  const api = await standIn(
    t,
    (request, response) => {
      assert.equal(request.url, "/localapi/v0/watch-ipn-bus?mask=278");
      response.write(`{"SessionID":"s${streams.push(response)}","State":2,"Prefs":{}}\n{"Engine":{}}\n`);
    },
    LEISURELY_MS,
  );
  const messages: BusMessage[] = [];
  const done = api.watch((message) => messages.push(message), new AbortController().signal);
  await waitFor(() => messages.length === 1, { timeoutMs: PATIENT_MS });
  // Longer than any other call may take.
  assert.equal((await failure(silence(t))).failure, "timeout");
  streams[0]?.write(`{"State":`);
  streams[0]?.end(`6}\n{"State":4}`);
  await done;
  assert.deepEqual(
    messages.map(({ sessionId, state }) => [sessionId, state]),
    [
      ["s1", "NeedsLogin"],
      [undefined, "Running"],
    ],
  );
});

/** A call that ends by its time limit. */
async function silence(t: TestContext): Promise<unknown> {
  return (await standIn(t, () => {}, LEISURELY_MS * 1.2)).status();
}

test("the bus is left when the signal says so, and its connection ends", async (t) => {
  let stream: ServerResponse | undefined;
  const api = await standIn(t, (_request, response) => {
    stream = response;
    response.write(`{"State":2}\n`);
  });
  const stop = new AbortController();
  await api.watch(() => stop.abort(), stop.signal);
  await waitFor(() => stream?.destroyed, { timeoutMs: PATIENT_MS, what: () => "the end of the connection" });
  await api.watch(() => assert.fail("nothing comes after the end"), stop.signal);
});

test("a bus that cannot be had, breaks off, or makes no sense is an error", async (t) => {
  const answers: ((response: ServerResponse) => void)[] = [
    (response) => void response.writeHead(403).end("watch ipn bus access denied"),
    (response) => void response.write(`{"State":2}\n`, () => response.destroy()),
    (response) => void response.write(`{"State":"Running"}\n`),
    () => {},
  ];
  const api = await standIn(t, (_request, response) => answers.shift()?.(response));
  const follow = (): Promise<LocalApiError> => failure(api.watch(() => {}, new AbortController().signal));
  assert.match((await follow()).message, /^tailscaled answered GET watch-ipn-bus with status 403: watch ipn bus access denied; the gateway must/);
  assert.equal((await follow()).failure, "unreachable");
  assert.equal((await follow()).message, "tailscaled's answer to GET watch-ipn-bus cannot be used: 'State' is not a number");
  const last = follow();
  await waitFor(() => answers.length === 0, { timeoutMs: PATIENT_MS });
  await api.close();
  assert.equal((await last).failure, "closed");
});

test("a client that is closed asks nothing more", async (t) => {
  const { api, requests } = await scripted(t, []);
  await api.close();
  assert.equal((await failure(api.status())).message, "GET status was given up: the gateway is done with tailscaled");
  assert.equal((await failure(api.whois("127.0.0.1:1"))).failure, "closed");
  assert.equal((await failure(api.watch(() => {}, new AbortController().signal))).failure, "closed");
  assert.equal(requests.length, 0);
});
