// Forward auth by the file alone: a gateway that forwards nothing and answers questions, and an edit of who may come in.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { startGateway } from "../components/gateway.ts";
import { fetchFrom } from "../components/http-client.ts";

const sha256 = (token: string): string => createHash("sha256").update(token).digest("hex");

const yaml = (names: string): string => `
trusted_proxies: [127.0.0.1]
listeners:
  web: { protocol: http, listen: "127.0.0.1:0", tls: { mode: behind_proxy } }
auth:
  tokens:
    - { name: ci, sha256: ${sha256("ci-token")} }
    - { name: ops, sha256: ${sha256("ops-token")} }
routes:
  - { name: app, host: app.example.com, upstream: none, auth: [{ token: { names: [${names}] } }] }
`;

test("a route without an upstream admits at /verify whom its file names, and nobody reaches anything through it", async () => {
  await using gateway = await startGateway({ yaml: yaml("ci") });
  const ask = (token: string, host = "app.example.com") =>
    fetchFrom(gateway.port("web"), "/verify", {
      headers: {
        host: "gateway:8080",
        authorization: `Bearer ${token}`,
        "x-forwarded-for": "203.0.113.7",
        "x-forwarded-method": "GET",
        "x-forwarded-proto": "https",
        "x-forwarded-host": host,
        "x-forwarded-uri": "/page",
      },
    });
  const admitted = await ask("ci-token");
  assert.deepEqual([admitted.status, admitted.headers["x-forwarded-user"], admitted.headers["x-forwarded-user-source"]], [200, "ci", "token"]);
  assert.equal((await ask("ops-token")).status, 401);
  assert.equal((await ask("ci-token", "other.example.com")).status, 403);
  const direct = await fetchFrom(gateway.port("web"), "/page", {
    headers: { host: "app.example.com", authorization: "Bearer ci-token", "x-forwarded-for": "203.0.113.7", "x-forwarded-proto": "https" },
  });
  assert.equal(direct.status, 404);
  await gateway.edit(yaml("ops"));
  assert.equal((await ask("ci-token")).status, 401);
  assert.equal((await ask("ops-token")).status, 200);
});
