import assert from "node:assert/strict";
import { test } from "node:test";
import { withDefaults } from "./defaults.ts";
import type { Config } from "./types.ts";

function complete(data: unknown): Config {
  return withDefaults(data) as Config;
}

test("defaults reach into the branches of a choice", () => {
  const config = complete({
    access_log: { dir: "logs" },
    listeners: { raw: { protocol: "tcp", health: { check: "ib_api" } }, web: { protocol: "http" } },
    upstreams: { a: { targets: ["http://127.0.0.1:1"], health: { path: "/" } }, b: "http://127.0.0.1:2" },
  });
  assert.deepEqual({ ...(config.access_log as object) }, { dir: "logs", retention: "7d", max_size: "100MiB" });
  assert.equal(config.state.dir, "/var/lib/sidegate");
  assert.ok(config.listeners["raw"]?.protocol === "tcp" && typeof config.listeners["raw"].health === "object");
  assert.equal(config.listeners["raw"].health.interval, "30s");
  assert.ok(config.listeners["web"]?.protocol === "http");
  assert.equal(config.listeners["web"].timeouts.headers, "10s");
  assert.ok(typeof config.upstreams["a"] === "object");
  assert.equal(config.upstreams["a"].health?.interval, "10s");
  assert.equal(config.upstreams["a"].ejection.failures, 3);
  assert.equal(config.upstreams["b"], "http://127.0.0.1:2");
});

test("what is optional without a default stays away, what is written stays", () => {
  const config = complete({ routes: [{ upstream: "x", auth: "none", priority: 0 }] });
  assert.equal(config.routes[0]?.priority, 0);
  assert.ok(config.routes[0] !== undefined && !("cors" in config.routes[0]) && !("tls" in config));
});

test("neither the data nor another result is touched", () => {
  const shared = { read: "1s" };
  const data = { listeners: { a: { protocol: "http", timeouts: shared }, b: { protocol: "http", timeouts: shared } } };
  const first = complete(data);
  const second = complete(data);
  assert.deepEqual(shared, { read: "1s" });
  assert.notEqual(first.listeners["a"]?.timeouts, first.listeners["b"]?.timeouts);
  assert.notEqual(first.trusted_proxies, second.trusted_proxies);
});

test("data of any shape is let through", () => {
  for (const data of [null, 5, "x", [], [[]], { listeners: [], routes: {}, tls: 3, log: null }]) withDefaults(data);
});
