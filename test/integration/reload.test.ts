// Reload: an edit changes what it says, at once, and nothing else. The invariants of the architecture, one story each.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readdir, readFile, readlink, utimes, writeFile } from "node:fs/promises";
import { connect as connectHttp2, type Settings } from "node:http2";
import { connect, createServer, type AddressInfo } from "node:net";
import { join } from "node:path";
import { test } from "node:test";
import { connect as connectTls } from "node:tls";
import { setTimeout as delay } from "node:timers/promises";
import { startOrigin, startTcpEcho } from "../components/echo.ts";
import { startGateway, type Gateway } from "../components/gateway.ts";
import { fetchFrom, openRequest } from "../components/http-client.ts";
import { waitFor } from "../components/wait.ts";

const web = (routes: string, rest = ""): string => `listeners:\n  web: { protocol: http, listen: "127.0.0.1:0" }\n${rest}routes:\n${routes}`;
const route = (path: string, port: number, more = ""): string => `  - { path: ${path}, upstream: "http://127.0.0.1:${port}", auth: none${more} }\n`;

function events(gateway: Gateway, event: string): number {
  return gateway.log.filter((line) => line["event"] === event).length;
}

function ended(stream: NodeJS.EventEmitter): Promise<void> {
  return new Promise((resolve) => stream.once("close", resolve));
}

function isRefused(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.once("connect", () => resolve(false));
    socket.once("error", () => resolve(true));
    socket.once("connect", () => socket.destroy());
  });
}

test("an edit serves within a second, on the same socket and the same kept-alive connection", async () => {
  await using origin = await startOrigin();
  await using gateway = await startGateway({ yaml: web(route("/a", origin.port)) });
  const port = gateway.port("web");
  assert.equal((await fetchFrom(port, "/b")).status, 404);
  const startedAt = performance.now();
  await gateway.save(web(route("/a", origin.port) + route("/b", origin.port)));
  await waitFor(async () => (await fetchFrom(port, "/b")).status === 200);
  assert.ok(performance.now() - startedAt < 1_000, `took ${performance.now() - startedAt} ms`);
  assert.equal((await fetchFrom(port, "/a")).status, 200);
});

test("a touched file and an edit that means the same change nothing", async () => {
  await using origin = await startOrigin();
  const yaml = web(route("/a", origin.port));
  await using gateway = await startGateway({ yaml });
  const socket = connect(gateway.port("web"), "127.0.0.1");
  await once(socket, "connect");
  await utimes(gateway.file, new Date(), new Date());
  await gateway.save(`# a comment\n${yaml}`);
  assert.equal(JSON.parse((await gateway.admin("/reload", "POST")).body).outcome, "unchanged");
  await gateway.edit(web(route("/a", origin.port) + route("/b", origin.port)));
  assert.equal(events(gateway, "reloaded"), 1);
  assert.equal(socket.destroyed, false);
  socket.destroy();
});

test("a bad edit leaves everything as it was, is told with its place, and the next good one serves", async () => {
  await using origin = await startOrigin();
  const good = web(route("/a", origin.port));
  await using gateway = await startGateway({ yaml: good, expectErrors: true });
  const port = gateway.port("web");
  await gateway.save(`${good}  - { path: /b, uptream: "http://127.0.0.1:1", auth: none }\n`);
  const line = await waitFor(() => gateway.log.find((entry) => entry["event"] === "reload_refused"));
  assert.match(JSON.stringify(line["problems"]), /uptream.*did you mean 'upstream'/);
  assert.equal((await fetchFrom(port, "/a")).status, 200);
  const ready = await gateway.admin("/ready");
  assert.match(ready.body, /"what":"config".*refused, the last good one serves/);
  assert.match((await gateway.admin("/metrics")).body, /sidegate_config_last_reload_successful 0/);
  assert.equal((await gateway.admin("/reload", "POST")).status, 422);
  await gateway.edit(good + route("/b", origin.port));
  assert.equal((await fetchFrom(port, "/b")).status, 200);
  assert.equal((await gateway.admin("/ready")).status, 200);
  assert.match((await gateway.admin("/metrics")).body, /sidegate_config_last_reload_successful 1/);
});

test("when one of two new ports is taken, neither is opened and the old configuration goes on", async () => {
  await using origin = await startOrigin();
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const takenPort = (taken.address() as AddressInfo).port;
  const free = createServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const freePort = (free.address() as AddressInfo).port;
  await new Promise((resolve) => free.close(resolve));
  await using gateway = await startGateway({ yaml: web(route("/a", origin.port)), expectErrors: true });
  const more = `  one: { protocol: http, listen: "127.0.0.1:${freePort}" }\n  two: { protocol: http, listen: "127.0.0.1:${takenPort}" }\n`;
  await gateway.save(web(route("/a", origin.port) + route("/b", origin.port), more));
  const line = await waitFor(() => gateway.log.find((entry) => entry["event"] === "reload_refused"));
  assert.match(JSON.stringify(line["problems"]), new RegExp(`listener 'two'.*already in use|${takenPort}.*already in use`));
  await assert.rejects(fetchFrom(freePort, "/a"), /ECONNREFUSED/);
  assert.equal((await fetchFrom(gateway.port("web"), "/b")).status, 404);
  taken.close();
  await once(taken, "close");
  assert.equal((await gateway.admin("/reload", "POST")).status, 200);
  assert.equal((await fetchFrom(freePort, "/b")).status, 200);
  assert.equal((await fetchFrom(takenPort, "/b")).status, 200);
});

test("a port can move from all interfaces to one and back", async () => {
  await using origin = await startOrigin();
  const free = createServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const port = (free.address() as AddressInfo).port;
  await new Promise((resolve) => free.close(resolve));
  const yaml = (address: string): string => `listeners:\n  web: { protocol: http, listen: "${address}:${port}" }\nroutes:\n${route("/a", origin.port)}`;
  await using gateway = await startGateway({ yaml: yaml("") });
  const { response, request } = await openRequest(port, "/a");
  response.resume();
  await gateway.edit(yaml("127.0.0.1"));
  assert.equal((await fetchFrom(port, "/a")).status, 200);
  await gateway.edit(yaml(""));
  assert.equal((await fetchFrom(port, "/a")).status, 200);
  request.destroy();
});

test("a request keeps the plan it began with; the next one on the same connection has the new one", async () => {
  let answer: (() => void) | null = null;
  await using slow = await startOrigin((_, response) => (answer = () => response.end("old upstream")));
  await using other = await startOrigin((_, response) => void response.end("new upstream"));
  await using gateway = await startGateway({ yaml: web(route("/a", slow.port, ", response_headers: { set: { X-Plan: old } }")) });
  const pending = fetchFrom(gateway.port("web"), "/a");
  await waitFor(() => answer);
  await gateway.edit(web(route("/a", other.port, ", response_headers: { set: { X-Plan: new } }")));
  assert.equal((await fetchFrom(gateway.port("web"), "/a")).body, "new upstream");
  answer!();
  const old = await pending;
  assert.equal(old.body, "old upstream");
  assert.equal(old.headers["x-plan"], "old");
});

test("a removed listener stops accepting at once and lets its streams and TCP connections end until the deadline", async () => {
  await using origin = await startOrigin();
  await using echo = await startTcpEcho();
  const keep = `  keep: { protocol: http, listen: "127.0.0.1:0" }\n`;
  const tcp = `  tcp: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${echo.port}" }\n`;
  await using gateway = await startGateway({ yaml: `drain_timeout: 1500ms\n${web(route("/events", origin.port), keep + tcp)}` });
  const { response } = await openRequest(gateway.port("web"), "/events");
  let received = 0;
  response.on("data", () => (received += 1));
  response.on("error", () => {});
  const socket = connect(gateway.port("tcp"), "127.0.0.1");
  socket.on("error", () => {});
  socket.write("hello");
  await once(socket, "data");
  const [webPort, tcpPort] = [gateway.port("web"), gateway.port("tcp")];
  const editedAt = performance.now();
  await gateway.edit(`drain_timeout: 1500ms\nlisteners:\n${keep}routes:\n${route("/events", origin.port)}`);
  assert.deepEqual([await isRefused(webPort), await isRefused(tcpPort)], [true, true]);
  const before = received;
  await waitFor(() => received > before + 1);
  socket.write("still here");
  await once(socket, "data");
  await Promise.all([ended(response), ended(socket)]);
  const lasted = performance.now() - editedAt;
  assert.ok(lasted > 1_000 && lasted < 4_000, `cut after ${lasted} ms`);
});

test("SIGTERM lets a request end, refuses new connections, and exits with 0", async () => {
  let answer: (() => void) | null = null;
  await using origin = await startOrigin((_, response) => (answer = () => response.end("done")));
  await using gateway = await startGateway({ yaml: web(route("/a", origin.port)) });
  const port = gateway.port("web");
  const pending = fetchFrom(port, "/a");
  await waitFor(() => answer);
  const stopped = gateway.stop("SIGTERM");
  await waitFor(() => isRefused(port));
  answer!();
  assert.equal((await pending).body, "done");
  assert.equal(await stopped, 0);
});

test("SIGHUP and an edit during a reload end with the newest bytes serving", async () => {
  await using origin = await startOrigin();
  await using gateway = await startGateway({ yaml: web(route("/p0", origin.port)) });
  for (let i = 1; i <= 10; i += 1) {
    await gateway.save(web(route(`/p${i}`, origin.port)));
    gateway.child.kill("SIGHUP");
    if (i % 3 === 0) await delay(20);
  }
  await waitFor(async () => (await fetchFrom(gateway.port("web"), "/p10")).status === 200);
  assert.equal(JSON.parse((await gateway.admin("/reload", "POST")).body).outcome, "unchanged");
});

test("secrets stand in no log, status, metric or error", async () => {
  const secrets = ["s3cr3t-authorization", "s3cr3t-from-env", "s3cr3t-token-of-client", "s3cr3t-in-query"];
  await using origin = await startOrigin();
  const yaml = (extra: string): string => `upstreams:
  up: { targets: ["http://127.0.0.1:${origin.port}"], authorization_file: secret }
  env: { targets: ["http://127.0.0.1:${origin.port}"], authorization: "\${UPSTREAM_AUTH}" }
${web(`  - { path: /a, upstream: up, auth: none }\n  - { path: /e, upstream: env, auth: none }\n${extra}`)}`;
  await using gateway = await startGateway({
    yaml: yaml(""),
    files: { secret: "Bearer s3cr3t-authorization\n" },
    env: { UPSTREAM_AUTH: "Bearer s3cr3t-from-env", BAD: "s3cr3t-from-env bad" },
    expectErrors: true,
  });
  const port = gateway.port("web");
  const got = JSON.parse((await fetchFrom(port, "/a?access_token=s3cr3t-in-query", { headers: { authorization: "Bearer s3cr3t-token-of-client" } })).body) as {
    headers: Record<string, string>;
  };
  assert.equal(got.headers["authorization"], "Bearer s3cr3t-authorization");
  await gateway.save(yaml(`  - { path: "\${BAD}", upstream: up, auth: none }\n`));
  await waitFor(() => events(gateway, "reload_refused") > 0);
  await writeFile(`${gateway.dir}/config/secret`, "two\nlines s3cr3t-authorization");
  await waitFor(() => events(gateway, "reload_refused") > 1);
  const shown = [JSON.stringify(gateway.log), JSON.stringify(gateway.accessLog)];
  for (const path of ["/status", "/ready", "/metrics", "/health"]) shown.push((await gateway.admin(path)).body);
  shown.push((await gateway.admin("/reload", "POST")).body, await readFile(gateway.file, "utf8"));
  assert.equal(gateway.accessLog.length, 1);
  for (const secret of secrets) for (const text of shown) assert.ok(!text.includes(secret), `'${secret}' is in ${text.slice(0, 300)}`);
});

test("a replaced certificate serves the next connections within a second, and a pair that does not fit is refused while the old one serves", async () => {
  await using origin = await startOrigin();
  const files = new URL("../config/files/", import.meta.url);
  const read = (name: string): Promise<string> => readFile(new URL(name, files), "utf8");
  const [oneCert, oneKey, otherCert, otherKey] = await Promise.all(["mcp.crt", "mcp.key", "docs.crt", "docs.key"].map(read));
  await using gateway = await startGateway({
    yaml: `tls: { cert_file: tls.crt, key_file: tls.key }\n${web(route("/a", origin.port))}`,
    files: { "tls.crt": oneCert ?? "", "tls.key": oneKey ?? "" },
    expectErrors: true,
  });
  const port = gateway.port("web");
  const servedCertificate = (): Promise<string> =>
    new Promise((resolve, reject) => {
      const socket = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false }, () => {
        resolve(socket.getPeerX509Certificate()?.fingerprint256 ?? "");
        socket.destroy();
      });
      socket.once("error", reject);
    });
  const before = await servedCertificate();
  const kept = connectTls({ port, host: "127.0.0.1", rejectUnauthorized: false });
  await once(kept, "secureConnect");
  await writeFile(`${gateway.dir}/config/tls.key`, otherKey ?? "");
  await waitFor(() => events(gateway, "reload_refused") > 0);
  assert.equal(await servedCertificate(), before);
  await writeFile(`${gateway.dir}/config/tls.crt`, otherCert ?? "");
  await waitFor(async () => (await servedCertificate()) !== before, { timeoutMs: 2_000 });
  kept.write("GET /a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
  const [answer] = (await once(kept, "data")) as [Buffer];
  assert.match(answer.toString(), /^HTTP\/1.1 200/);
  kept.destroy();
});

test("a stop does not wait for a pair that does not fit yet", async () => {
  await using origin = await startOrigin();
  const files = new URL("../config/files/", import.meta.url);
  const read = (name: string): Promise<string> => readFile(new URL(name, files), "utf8");
  const [cert, key, otherKey] = await Promise.all(["mcp.crt", "mcp.key", "docs.key"].map(read));
  await using gateway = await startGateway({
    yaml: `tls: { cert_file: tls.crt, key_file: tls.key }\n${web(route("/a", origin.port))}`,
    files: { "tls.crt": cert ?? "", "tls.key": key ?? "" },
  });
  await writeFile(`${gateway.dir}/config/tls.key`, otherKey ?? "");
  const reload = gateway.admin("/reload", "POST").catch(() => null);
  // Answered after the reload began.
  await gateway.status();
  assert.equal(await gateway.stop(), 0);
  await reload;
  assert.equal(events(gateway, "stopped"), 1);
  assert.equal(events(gateway, "reload_refused"), 0);
});

test("a changed secret file is a change of the configuration", async () => {
  await using origin = await startOrigin();
  const yaml = `upstreams:\n  up: { targets: ["http://127.0.0.1:${origin.port}"], authorization_file: secret }\n${web("  - { path: /a, upstream: up, auth: none }\n")}`;
  await using gateway = await startGateway({ yaml, files: { secret: "Bearer one\n" } });
  const authorization = async (): Promise<unknown> =>
    (JSON.parse((await fetchFrom(gateway.port("web"), "/a")).body) as { headers: Record<string, string> }).headers["authorization"];
  assert.equal(await authorization(), "Bearer one");
  await writeFile(`${gateway.dir}/config/secret`, "Bearer two\n");
  await waitFor(async () => (await authorization()) === "Bearer two");
});

test("a port can move between two names of the same address", async () => {
  await using origin = await startOrigin();
  const free = createServer().listen(0, "127.0.0.1");
  await once(free, "listening");
  const port = (free.address() as AddressInfo).port;
  await new Promise((resolve) => free.close(resolve));
  const yaml = (host: string): string => `listeners:\n  web: { protocol: http, listen: "${host}:${port}" }\nroutes:\n${route("/a", origin.port)}`;
  await using gateway = await startGateway({ yaml: yaml("127.0.0.1") });
  await gateway.edit(yaml("localhost"));
  assert.equal((await fetchFrom(port, "/a")).status, 200);
});

test("another state directory means another local CA", async () => {
  const yaml = (dir: string): string => `state: { dir: ${dir} }\nlisteners:\n  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true } }\n`;
  await using gateway = await startGateway({ yaml: yaml("one") });
  await gateway.edit(yaml("two"));
  const ca = await readFile(join(gateway.dir, "config/two/internal-ca/ca.crt"), "utf8");
  const socket = connectTls({ host: "127.0.0.1", port: gateway.port("web"), ca, servername: "localhost" });
  await once(socket, "secureConnect");
  socket.destroy();
});

test("a changed header limit counts for the next HTTP/2 connection", async () => {
  const yaml = (size: string): string => `listeners:\n  web: { protocol: http, listen: "127.0.0.1:0", tls: { internal: true }, max_header_size: ${size} }\n`;
  await using gateway = await startGateway({ yaml: yaml("16KiB") });
  await gateway.edit(yaml("32KiB"));
  const session = connectHttp2(`https://localhost:${gateway.port("web")}`, { ca: await gateway.ca() });
  const [settings] = (await once(session, "remoteSettings")) as [Settings];
  assert.equal(settings.maxHeaderListSize, 32 * 1024);
  session.destroy();
});

test("a refused reload leaves neither log files open nor metrics", async () => {
  const taken = createServer().listen(0, "127.0.0.1");
  await once(taken, "listening");
  const { port } = taken.address() as AddressInfo;
  await using gateway = await startGateway({ yaml: web("  []\n"), expectErrors: true });
  for (let i = 0; i < 5; i += 1) {
    await gateway.save(
      web(
        "  []\n",
        `  log${i}: { protocol: http, listen: "127.0.0.1:0", access_log: { dir: logs } }\n  other: { protocol: http, listen: "127.0.0.1:${port}" }\n`,
      ),
    );
    assert.equal((await gateway.admin("/reload", "POST")).status, 422);
  }
  const openLogs = async (): Promise<string[]> => {
    const fds = `/proc/${gateway.child.pid}/fd`;
    const targets = await Promise.all((await readdir(fds)).map((fd) => readlink(join(fds, fd)).catch(() => "")));
    return targets.filter((target) => target.endsWith(".log"));
  };
  await waitFor(async () => (await openLogs()).length === 0, { what: () => "the log files to be closed" });
  assert.doesNotMatch((await gateway.admin("/metrics")).body, /listener="(?:log|other)/);
  taken.close();
});

test("denied clients that only connect take no place of those who are admitted", async () => {
  await using origin = await startOrigin();
  const listener = `listeners:\n  web: { protocol: http, listen: "127.0.0.1:0", deny: [127.0.0.2], max_connections: 2 }\n`;
  await using gateway = await startGateway({ yaml: `${listener}routes:\n${route("/a", origin.port)}` });
  const port = gateway.port("web");
  const strangers = await Promise.all(
    Array.from({ length: 3 }, async () => {
      const socket = connect({ port, host: "127.0.0.1", localAddress: "127.0.0.2" });
      await once(socket, "connect");
      return socket;
    }),
  );
  assert.equal((await fetchFrom(port, "/a")).status, 200);
  assert.equal((await fetchFrom(port, "/a", { localAddress: "127.0.0.2" })).status, 403);
  for (const socket of strangers) socket.destroy();
});

test("what the end of the drain cuts is logged as cut, not as the upstream's fault", async () => {
  await using origin = await startOrigin();
  await using gateway = await startGateway({ yaml: `drain_timeout: 300ms\n${web(route("/events", origin.port))}` });
  const { response } = await openRequest(gateway.port("web"), "/events");
  response.on("error", () => {});
  await once(response, "data");
  await gateway.stop();
  const line = await waitFor(() => gateway.accessLog.find((entry) => entry["path"] === "/events"));
  assert.match(String(line["error"]), /drain deadline/);
});

test("an HTTP upstream that cannot be reached is named by /ready and status, without a health check too", async () => {
  await using gateway = await startGateway({ yaml: web(route("/a", 1)) });
  const body = async (): Promise<string> => (await gateway.admin("/ready")).body;
  assert.doesNotMatch(await body(), /refused/);
  assert.equal((await fetchFrom(gateway.port("web"), "/a")).status, 502);
  assert.match(await body(), /"status":"degraded".*connection refused at 127.0.0.1:1/);
});
