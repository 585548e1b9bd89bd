import assert from "node:assert/strict";
import { existsSync, mkdtempSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { request, type IncomingHttpHeaders } from "node:http";
import { connect, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { NO_AUTH, STATUS } from "../../test/components/admin.ts";
import { openLog } from "../telemetry/log.ts";
import { AdminListenError, startAdmin, type AdminOptions } from "./admin.ts";
import type { ReloadResult } from "./status.ts";

const dir = mkdtempSync(join(tmpdir(), "sidegate-admin-"));
after(() => rmSync(dir, { recursive: true, force: true }));
let next = 0;
const NO_WARNINGS = { warnings: [], text: "" };

type Answer = { status: number; headers: IncomingHttpHeaders; body: string };

async function setUp(t: { after(fn: () => Promise<void>): void }, options: Partial<AdminOptions> = {}) {
  const logged: string[] = [];
  const log = openLog({ level: "info", format: "json" }, { isTty: false, colors: false, write: (text) => void logged.push(text) });
  const admin = await startAdmin({
    address: { kind: "tcp", host: "127.0.0.1", port: 0 },
    status: () => STATUS,
    metrics: { text: () => Promise.resolve("up 1\n") },
    reload: () => Promise.resolve({ outcome: "unchanged", ...NO_WARNINGS }),
    renew: () => Promise.resolve({ ok: true, message: "Renewed" }),
    logout: () => Promise.resolve({ ok: true, message: "Logged out" }),
    auth: NO_AUTH,
    log,
    ...options,
  });
  t.after(() => admin.close());
  const port = Number(admin.address.split(":").at(-1));
  const ask = (path: string, method = "GET", headers: Record<string, string> = {}): Promise<Answer> => send({ host: "127.0.0.1", port }, path, method, headers);
  return { admin, ask, logged, port };
}

function send(to: { host: string; port: number } | { socketPath: string }, path: string, method: string, headers: Record<string, string>): Promise<Answer> {
  const { promise, resolve, reject } = Promise.withResolvers<Answer>();
  request({ ...to, path, method, headers, agent: false }, (response) => {
    let body = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => (body += chunk));
    response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body }));
  })
    .on("error", reject)
    .end();
  return promise;
}

test("each path answers, with nothing to cache", async (t) => {
  const { ask } = await setUp(t);
  const health = await ask("/health");
  assert.deepEqual([health.status, health.body, health.headers["cache-control"]], [200, '{"status":"ok"}\n', "no-store"]);
  assert.deepEqual(JSON.parse((await ask("/ready?x=1")).body), { status: "ready", problems: [], config: { file: "/x.yaml" } });
  assert.deepEqual(JSON.parse((await ask("/status")).body), STATUS);
  const metrics = await ask("/metrics");
  assert.deepEqual([metrics.body, metrics.headers["content-type"]], ["up 1\n", "text/plain; version=0.0.4; charset=utf-8"]);
});

test("readiness is 503 only when the gateway cannot do its work", async (t) => {
  const unhealthy = { url: "http://127.0.0.1:1", health: "unhealthy", reason: "connection refused", active: 0, ejected: false } as const;
  const { ask } = await setUp(t, { status: () => ({ ...STATUS, upstreams: [{ name: "bus", verified: true, targets: [unhealthy] }] }) });
  const answer = await ask("/ready");
  assert.equal(answer.status, 503);
  assert.deepEqual(JSON.parse(answer.body), {
    status: "unready",
    problems: [{ what: "upstream", name: "bus", reason: "connection refused" }],
    config: { file: "/x.yaml" },
  });
  assert.equal((await ask("/health")).status, 200);
});

test("a reload is answered when it has ended", async (t) => {
  const { promise, resolve } = Promise.withResolvers<ReloadResult>();
  const { ask } = await setUp(t, { reload: () => promise });
  let done = false;
  const answer = ask("/reload", "POST").finally(() => (done = true));
  await ask("/health");
  assert.equal(done, false);
  const warnings = [{ file: "/x.yaml", line: 3, column: 1, message: "Nobody can be admitted" }];
  resolve({ outcome: "changed", warnings, text: "for people\n" });
  const told = { outcome: "changed", changed: true, loaded_at: STATUS.config.loaded_at, warnings, text: "for people\n" };
  assert.deepEqual([(await answer).status, JSON.parse((await answer).body)], [200, told]);
});

test("a refused reload is 422 with its problems and warnings", async (t) => {
  const problems = [{ file: "/x.yaml", line: 3, column: 1, message: "Unknown key 'lisen'" }];
  const warnings = [{ file: "/x.yaml", line: 7, column: 1, message: "Nobody can be admitted" }];
  const { ask } = await setUp(t, { reload: () => Promise.resolve({ outcome: "refused", problems, warnings, text: "for people\n" }) });
  const answer = await ask("/reload", "POST");
  assert.deepEqual([answer.status, JSON.parse(answer.body)], [422, { outcome: "refused", problems, warnings, text: "for people\n" }]);
});

test("a certificate is ordered by its name, and the answer comes when that has ended", async (t) => {
  const asked: string[] = [];
  const { ask } = await setUp(t, {
    renew: (name) => {
      asked.push(name);
      return Promise.resolve(name === "a.example" ? { ok: true, message: "Got it" } : { ok: false, message: "The CA says no" });
    },
  });
  const good = await ask("/certificates/renew?name=A.Example.", "POST");
  assert.deepEqual([good.status, JSON.parse(good.body)], [200, { ok: true, message: "Got it" }]);
  const bad = await ask("/certificates/renew?name=*.b.example", "POST");
  assert.deepEqual([bad.status, JSON.parse(bad.body)], [422, { ok: false, message: "The CA says no" }]);
  assert.deepEqual(asked, ["a.example", "*.b.example"]);
  for (const query of ["", "?name=", "?name=a&name=b", `?name=${"a".repeat(254)}`])
    assert.equal((await ask(`/certificates/renew${query}`, "POST")).status, 400);
  const get = await ask("/certificates/renew?name=a.example");
  assert.deepEqual([get.status, get.headers.allow], [405, "POST"]);
  for (const headers of [{ host: "evil.example" }, { host: "localhost", origin: "http://localhost" }, { host: "localhost", "sec-fetch-site": "same-site" }])
    assert.equal((await ask("/certificates/renew?name=a.example", "POST", headers)).status, 403);
  assert.equal(asked.length, 2);
});

test("a logout is answered with what came of it, and no web page can ask for one", async (t) => {
  const results = [
    { ok: true, message: "Logged out" },
    { ok: false, message: "Nothing is on the tailnet" },
  ];
  const { ask } = await setUp(t, { logout: () => Promise.resolve(results.shift() ?? assert.fail("asked")) });
  assert.equal((await ask("/tailnet/logout", "POST", { host: "localhost", origin: "http://localhost" })).status, 403);
  const get = await ask("/tailnet/logout");
  assert.deepEqual([get.status, get.headers.allow], [405, "POST"]);
  const good = await ask("/tailnet/logout", "POST");
  assert.deepEqual([good.status, JSON.parse(good.body)], [200, { ok: true, message: "Logged out" }]);
  const bad = await ask("/tailnet/logout", "POST");
  assert.deepEqual([bad.status, JSON.parse(bad.body)], [422, { ok: false, message: "Nothing is on the tailnet" }]);
});

test("OAuth's clients, grants and sessions are shown, and exactly what one query names is taken back", async (t) => {
  const client = { server: "https://a.example", id: "c", name: "C", kind: "registered", redirect_uris: [], created_at: null } as const;
  const session = { server: "https://a.example", id: "s", user: "github:a", origin: "https://p.example", created_at: "", expires_at: "" };
  const asked: unknown[] = [];
  const revoke = (what: unknown): Promise<number> => Promise.resolve(asked.push(what));
  const { ask } = await setUp(t, { auth: { ...NO_AUTH, clients: () => Promise.resolve([client]), sessions: () => Promise.resolve([session]), revoke } });
  assert.deepEqual(JSON.parse((await ask("/auth/clients")).body), { clients: [client] });
  assert.deepEqual(JSON.parse((await ask("/auth/grants")).body), { grants: [] });
  assert.deepEqual(JSON.parse((await ask("/auth/sessions")).body), { sessions: [session] });
  const wrong = [
    "",
    "grant=",
    "grant=a&grant=b",
    "session=",
    "session=a&grant=b",
    "grant=a&user=github:b",
    "all",
    "all=1",
    "all=true&x=1",
    "user=octocat",
    "user=github:",
    "x=1",
  ];
  for (const query of [...wrong, `client=${"c".repeat(2_049)}`]) {
    const answer = await ask(`/auth/revoke?${query}`, "POST");
    assert.deepEqual(
      [answer.status, JSON.parse(answer.body)],
      [400, { error: "One of them is needed: /auth/revoke?grant=ID, session=ID, client=ID, user=SOURCE:NAME, all=true" }],
    );
  }
  assert.equal((await ask("/auth/revoke", "POST")).status, 400);
  for (const headers of [{ host: "evil.example" }, { host: "localhost", origin: "http://localhost" }, { host: "localhost", "sec-fetch-site": "same-site" }])
    for (const [path, method] of [
      ["/auth/revoke?all=true", "POST"],
      ["/auth/grants", "GET"],
      ["/auth/sessions", "GET"],
      ["/auth/clients", "GET"],
    ] as const)
      assert.equal((await ask(path, method, headers)).status, 403);
  for (const [path, allowed, method] of [
    ["/auth/revoke?all=true", "POST", "GET"],
    ["/auth/grants", "GET", "POST"],
    ["/auth/sessions", "GET", "POST"],
  ] as const) {
    const answer = await ask(path, method);
    assert.deepEqual([answer.status, answer.headers.allow], [405, allowed]);
  }
  assert.deepEqual(asked, []);
  const queries = ["grant=g%2F1", "session=s-1", "client=https://x.example/?a=b?c", "user=github:octocat", "all=true"];
  for (const [i, query] of queries.entries()) assert.deepEqual(JSON.parse((await ask(`/auth/revoke?${query}`, "POST")).body), { revoked: i + 1 });
  assert.deepEqual(asked, [{ grant: "g/1" }, { session: "s-1" }, { client: "https://x.example/?a=b?c" }, { user: "github:octocat" }, { all: true }]);
});

test("other methods and paths do nothing", async (t) => {
  let reloads = 0;
  const { ask } = await setUp(t, {
    reload: () => {
      reloads += 1;
      return Promise.resolve({ outcome: "unchanged", ...NO_WARNINGS });
    },
  });
  const get = await ask("/reload");
  assert.deepEqual([get.status, get.headers.allow], [405, "POST"]);
  const post = await ask("/status", "POST");
  assert.deepEqual([post.status, post.headers.allow], [405, "GET"]);
  for (const path of ["/", "/reload/", "//reload", "/RELOAD", "http://localhost/reload", "/__proto__"])
    assert.equal((await ask(path, "POST")).status, 404, path);
  assert.equal(reloads, 0);
});

test("web pages are refused, and reload nothing", async (t) => {
  let reloads = 0;
  const { ask } = await setUp(t, {
    reload: () => {
      reloads += 1;
      return Promise.resolve({ outcome: "unchanged", ...NO_WARNINGS });
    },
  });
  const foreign: Record<string, string>[] = [
    { host: "evil.example" },
    { host: "evil.example:2019" },
    { host: "localhost", origin: "http://localhost:2019" },
    { host: "localhost", "sec-fetch-site": "cross-site" },
  ];
  for (const headers of foreign) {
    assert.equal((await ask("/reload", "POST", headers)).status, 403, JSON.stringify(headers));
    const status = await ask("/status", "GET", headers);
    assert.equal(status.status, 403);
    assert.ok(!status.body.includes("x.yaml"));
  }
  assert.equal(reloads, 0);
});

test("a failure inside is 500 without its details, which the log has", async (t) => {
  const { ask, logged } = await setUp(t, { metrics: { text: () => Promise.reject(new Error("inner detail")) } });
  const answer = await ask("/metrics");
  assert.equal(answer.status, 500);
  assert.ok(!answer.body.includes("inner"));
  assert.match(logged.join(""), /inner detail/);
});

test("a unix socket belongs to its owner alone, and one that was left behind is replaced", async (t) => {
  const path = join(dir, `${(next += 1)}.sock`);
  await leaveSocketBehind(path);
  assert.ok(existsSync(path));
  const { admin } = await setUp(t, { address: { kind: "unix", path } });
  assert.equal(admin.address, `unix:${path}`);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.equal((await send({ socketPath: path }, "/health", "GET", {})).status, 200);
  assert.equal((await send({ socketPath: path }, "/health", "GET", { host: "evil.example" })).status, 403);
  await admin.close();
  assert.ok(!existsSync(path));
});

test("a socket that somebody answers on, and a file that is no socket, are left alone", async (t) => {
  const path = join(dir, `${(next += 1)}.sock`);
  const { admin } = await setUp(t, { address: { kind: "unix", path } });
  await assert.rejects(
    setUp(t, { address: { kind: "unix", path } }),
    /^AdminListenError: Cannot listen on unix:.* for the admin interface: address already in use$/,
  );
  assert.equal((await send({ socketPath: path }, "/health", "GET", {})).status, 200);
  await admin.close();
  const file = join(dir, "precious.txt");
  writeFileSync(file, "precious");
  await assert.rejects(setUp(t, { address: { kind: "unix", path: file } }), AdminListenError);
  assert.ok(existsSync(file));
});

test("a port that is taken is said with its address", async (t) => {
  const { port } = await setUp(t);
  await assert.rejects(setUp(t, { address: { kind: "tcp", host: "127.0.0.1", port } }), (error) => {
    assert.ok(error instanceof AdminListenError);
    assert.equal(error.code, "ERR_LISTEN");
    assert.equal(error.message, `Cannot listen on 127.0.0.1:${port} for the admin interface: address already in use`);
    return true;
  });
});

test("closing stops listening at once, and lets a reply under way end", async (t) => {
  const { promise, resolve } = Promise.withResolvers<ReloadResult>();
  const { admin, ask } = await setUp(t, { reload: () => promise });
  const answer = ask("/reload", "POST");
  await ask("/health");
  await admin.close();
  await assert.rejects(ask("/health"), { code: "ECONNREFUSED" });
  resolve({ outcome: "changed", ...NO_WARNINGS });
  assert.equal((await answer).status, 200);
});

test("requests in a row on one connection get one answer", async (t) => {
  const { port } = await setUp(t);
  const socket = connect(port, "127.0.0.1");
  socket.end("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /status HTTP/1.1\r\nHost: localhost\r\n\r\n");
  let text = "";
  for await (const chunk of socket.setEncoding("utf8")) text += chunk;
  assert.equal(text.split("HTTP/1.1 200").length, 2, text);
});

// A process that is killed leaves its socket's file behind; here the file is renamed so that closing does not remove it.
async function leaveSocketBehind(path: string): Promise<void> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(`${path}.live`, resolve));
  renameSync(`${path}.live`, path);
  await new Promise((resolve) => server.close(resolve));
}
