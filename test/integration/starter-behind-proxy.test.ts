// The starter file for a place behind a proxy, as it is shipped but for its ports: the proxy's clients are let in.
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { startGateway } from "../components/gateway.ts";
import { fetchFrom } from "../components/http-client.ts";
import { startOrigin } from "../components/origin.ts";

const STARTER = new URL("../../examples/behind-proxy/sidegate.yaml", import.meta.url);

test("a client that the proxy tells of reaches the route of its Host, and X-Forwarded-Host chooses none", async () => {
  await using origin = await startOrigin((_req, res) => {
    res.end("docs");
  });
  const yaml = (await readFile(STARTER, "utf8"))
    .replace('listen: ":8080"', 'listen: "127.0.0.1:0"')
    .replace("http://127.0.0.1:3001", origin.url)
    .replace(/^admin:\n.*\n/m, "");
  await using gateway = await startGateway({ yaml, env: { MCP_TOKEN_SHA256: "0".repeat(64), PROXY_NETWORK: "127.0.0.0/8" } });
  const get = (headers: Record<string, string>) => fetchFrom(gateway.port("web"), "/", { headers: { "x-forwarded-for": "203.0.113.7", ...headers } });

  const answer = await get({ host: "docs.example.com" });
  assert.deepEqual([answer.status, answer.body], [200, "docs"]);
  assert.equal((await get({ host: "proxy.internal", "x-forwarded-host": "docs.example.com" })).status, 404);
});
