// A hundred edits under load: not one failed request, not one dropped connection, and the memory comes back.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { Agent, request, type IncomingMessage } from "node:http";
import { connect, type Socket } from "node:net";
import { test } from "node:test";
import { setTimeout as delay } from "node:timers/promises";
import { startOrigin, startTcpEcho } from "../components/echo.ts";
import { startGateway } from "../components/gateway.ts";
import { openRequest } from "../components/http-client.ts";
import { waitFor } from "../components/wait.ts";

const EDITS = 100;
const BUSY = 32;
const STREAMS = 50;
const SESSIONS = 20;
// The heap has found its size for this load by then.
const WARM_EDITS = 40;
const MAX_GROWTH_BYTES = 24 * 1024 ** 2;

test("a hundred edits under 32 busy connections, 50 event streams and 20 TCP sessions drop nothing", async () => {
  await using origin = await startOrigin((_, response) => void response.end('{"ok":true}'));
  await using echo = await startTcpEcho();
  // Each edit changes routes, headers, limits and upstream settings, but no address.
  const yaml = (edit: number): string => `upstreams:
  up: { targets: ["http://127.0.0.1:${origin.port}"], timeouts: { read: ${edit % 2 === 0 ? "0s" : "90s"} } }
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", max_connections: ${1_000 + edit} }
  tcp: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${echo.port}", max_connections: ${100 + edit} }
access_log: off
routes:
  - { path: /busy, upstream: up, auth: none, response_headers: { set: { X-Edit: "${edit}" } } }
  - { path: /events, upstream: up, auth: none }
${Array.from({ length: edit % 10 }, (_, i) => `  - { path: /more/${i}, upstream: up, auth: none }\n`).join("")}`;
  await using gateway = await startGateway({ yaml: yaml(0), env: { SIDEGATE_LOG_LEVEL: "info" } });
  const port = gateway.port("web");

  const failures: string[] = [];
  let ended = false;
  let answers = 0;
  const seenEdits = new Set<string>();
  const agent = new Agent({ keepAlive: true, maxSockets: BUSY });
  const busy = async (): Promise<void> => {
    while (!ended) {
      const { promise, resolve } = Promise.withResolvers<void>();
      const call = request({ host: "127.0.0.1", port, path: "/busy", agent }, (response) => {
        if (response.statusCode !== 200) failures.push(`status ${response.statusCode}`);
        seenEdits.add(String(response.headers["x-edit"]));
        response.resume();
        response.on("end", () => {
          answers += 1;
          resolve();
        });
      });
      call.on("error", (error) => {
        failures.push(error.message);
        resolve();
      });
      call.end();
      await promise;
    }
  };

  const streams: { response: IncomingMessage; received: number }[] = [];
  for (let i = 0; i < STREAMS; i += 1) {
    const { response } = await openRequest(port, "/events");
    const stream = { response, received: 0 };
    response.on("data", () => (stream.received += 1));
    for (const event of ["close", "error", "aborted"]) response.on(event, () => ended || failures.push(`stream ${event}`));
    streams.push(stream);
  }
  const sessions: Socket[] = [];
  for (let i = 0; i < SESSIONS; i += 1) {
    const socket = connect(gateway.port("tcp"), "127.0.0.1");
    await once(socket, "connect");
    for (const event of ["close", "error"]) socket.on(event, () => ended || failures.push(`session ${event}`));
    sessions.push(socket);
  }

  const workers = Array.from({ length: BUSY }, busy);
  let memoryBefore = 0;
  for (let edit = 1; edit <= EDITS; edit += 1) {
    await gateway.edit(yaml(edit));
    if (edit === WARM_EDITS) memoryBefore = rssOf(gateway.child.pid);
  }
  for (const [i, socket] of sessions.entries()) {
    socket.write(`session ${i}`);
    const [chunk] = (await once(socket, "data")) as [Buffer];
    assert.equal(chunk.toString(), `session ${i}`);
  }
  const before = streams.map(({ received }) => received);
  await waitFor(() => streams.every(({ received }, i) => received > (before[i] ?? 0)));
  ended = true;
  await Promise.all(workers);
  agent.destroy();
  for (const { response } of streams) response.destroy();
  for (const socket of sessions) socket.destroy();

  assert.deepEqual([...new Set(failures)], []);
  assert.ok(answers > EDITS, `only ${answers} answers`);
  assert.ok(seenEdits.size > EDITS / 2, `only ${seenEdits.size} of the edits were seen to serve`);
  const status = (await gateway.status()) as { listeners: { name: string; connections: number }[] };
  await waitFor(async () => ((await gateway.status()) as typeof status).listeners.every(({ connections }) => connections === 0));
  await delay(500);
  const growth = rssOf(gateway.child.pid) - memoryBefore;
  assert.ok(growth < MAX_GROWTH_BYTES, `grew by ${Math.round(growth / 1024 ** 2)} MiB`);
});

function rssOf(pid: number | undefined): number {
  const match = /^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"));
  return Number(match?.[1]) * 1024;
}
