// Many streams at once: each is asked about again, and an issuer that takes few questions at a time has room for new requests meanwhile.
import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { test } from "node:test";
import { checkLive } from "../../src/http/live-check.ts";
import type { Authentication } from "../../src/identity/authenticate.ts";
import { openRequest } from "../components/http-client.ts";
import { startHttpGateway } from "../components/http-gateway.ts";
import { startOrigin } from "../components/origin.ts";
import { waitFor } from "../components/wait.ts";

const STREAMS = 100;
const MOST = 40;

test("#19 a hundred streams are asked about some at a time, and all whose token is over end", async () => {
  await using origin = await startOrigin((_req, res) => void res.writeHead(200, { "Content-Type": "text/event-stream" }).write(": hello\n\n"));
  let underWay = 0;
  let isOver = false;
  const find = async (token: string): Promise<Authentication> => {
    // As introspection.ts does when too many are under way.
    if (underWay >= MOST) return { kind: "unavailable", message: "busy", retryAfterS: 1 };
    underWay += 1;
    await setImmediate();
    underWay -= 1;
    const identity = { source: "issuer:corp", name: token, scopes: [] } as const;
    return isOver ? { kind: "invalid" } : { kind: "identity", by: "issuer", identity, person: null, issuer: "corp", resource: null, expiresAtMs: null };
  };
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    issuers: { corp: { find } },
    routes: [{ auth: [{ kind: "issuer", issuer: "corp", scopes: [], allow: null }] }],
  });
  for (let i = 0; i < STREAMS; i += 1) {
    const { request, response } = await openRequest(gateway.port, "/", { headers: { authorization: `Bearer t${i}` } });
    request.on("error", () => {});
    response.on("error", () => {}).resume();
  }
  assert.equal(gateway.state.live.active, STREAMS);
  isOver = true;
  await checkLive(performance.now() + 3_600_000);
  await waitFor(() => gateway.state.live.active === 0, { what: () => `${gateway.state.live.active} streams to end` });
});

test("#19 while an issuer cannot be asked, a stream goes on to the end of its token and no longer", async () => {
  await using origin = await startOrigin((_req, res) => void res.writeHead(200, { "Content-Type": "text/event-stream" }).write(": hello\n\n"));
  let isDown = false;
  const find = (token: string): Authentication => {
    if (isDown) return { kind: "unavailable", message: "down", retryAfterS: 1 };
    const identity = { source: "issuer:corp", name: token, scopes: [] } as const;
    const expiresAtMs = Date.now() + (token === "long" ? 3_600_000 : 1);
    return { kind: "identity", by: "issuer", identity, person: null, issuer: "corp", resource: null, expiresAtMs };
  };
  await using gateway = await startHttpGateway({
    targets: [origin.url],
    issuers: { corp: { find } },
    routes: [{ auth: [{ kind: "issuer", issuer: "corp", scopes: [], allow: null }] }],
  });
  const ended: string[] = [];
  for (const token of ["long", "short"]) {
    const { request, response } = await openRequest(gateway.port, "/", { headers: { authorization: `Bearer ${token}` } });
    request.on("error", () => {});
    response.on("error", () => ended.push(token)).resume();
  }
  isDown = true;
  await waitFor(async () => {
    await checkLive(performance.now() + 3_600_000);
    return ended.length > 0;
  });
  assert.deepEqual([ended, gateway.state.live.active], [["short"], 1]);
});
