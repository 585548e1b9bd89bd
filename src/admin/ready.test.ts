import assert from "node:assert/strict";
import { test } from "node:test";
import { buildReadiness } from "./ready.ts";
import type { GatewayStatus, TargetStatus } from "./status.ts";

const WELL: GatewayStatus = {
  version: "1.0.0",
  pid: 1,
  started_at: "2026-11-21T09:30:00.000Z",
  uptime_seconds: 60,
  stopping: false,
  config: { file: "/etc/sidegate/sidegate.yaml", digest: "abc", loaded_at: "2026-11-21T09:30:00.000Z", refused: null },
  listeners: [{ name: "web", protocol: "http", address: "127.0.0.1:8080", tls: "disabled", connections: 0, down: "" }],
  draining_listeners: 0,
  routes: [],
  upstreams: [],
  certificates: [],
};

function target(health: TargetStatus["health"], reason = "", url = "http://127.0.0.1:1"): TargetStatus {
  return { url, health, reason, active: 0, ejected: false };
}

test("a gateway without troubles is ready, one whose targets are not checked yet too", () => {
  assert.deepEqual(buildReadiness(WELL), { status: "ready", problems: [] });
  assert.equal(buildReadiness({ ...WELL, upstreams: [{ name: "bus", targets: [target("unknown"), target("healthy")] }] }).status, "ready");
});

test("an upstream with no target left is unready, and says why", () => {
  const upstreams = [{ name: "bus", targets: [target("unhealthy", "connection refused")] }];
  assert.deepEqual(buildReadiness({ ...WELL, upstreams }), { status: "unready", problems: [{ what: "upstream", name: "bus", reason: "connection refused" }] });
});

test("an upstream that lost one of its targets, or is in its maintenance window, is degraded", () => {
  const one = [{ name: "bus", targets: [target("unhealthy", "timed out", "http://a"), target("healthy")] }];
  assert.deepEqual(buildReadiness({ ...WELL, upstreams: one }), {
    status: "degraded",
    problems: [{ what: "upstream", name: "bus", reason: "http://a: timed out" }],
  });
  assert.equal(buildReadiness({ ...WELL, upstreams: [{ name: "live", targets: [target("degraded", "in its maintenance window")] }] }).status, "degraded");
});

test("a refused configuration degrades only, with its first problem", () => {
  const problem = { file: "/x.yaml", line: 3, column: 1, message: "Unknown key 'lisen'" };
  const refused = (problems: (typeof problem)[]) => ({ ...WELL, config: { ...WELL.config, refused: { at: "", problems, text: "" } } });
  const { status, problems } = buildReadiness(refused([problem, problem, problem]));
  assert.equal(status, "degraded");
  assert.deepEqual(problems, [
    {
      what: "config",
      name: "/etc/sidegate/sidegate.yaml",
      reason: "refused, the last good one serves: line 3, column 1: Unknown key 'lisen' (and 2 more problems)",
    },
  ]);
});

test("a gateway that stops and a listener that is down are unready, and the worst comes first", () => {
  const status = {
    ...WELL,
    stopping: true,
    listeners: [{ ...WELL.listeners[0], name: "web", protocol: "http", address: "x", tls: "disabled", connections: 0, down: "address already in use" }],
    config: { ...WELL.config, refused: { at: "", problems: [], text: "" } },
  } as const;
  assert.deepEqual(
    buildReadiness(status).problems.map(({ what }) => what),
    ["gateway", "listener", "config"],
  );
  assert.equal(buildReadiness(status).status, "unready");
});

test("a target that failed before its first verdict, and a certificate that has expired, make it degraded by name", () => {
  const upstreams = [{ name: "bus", targets: [target("unknown", "connection refused")] }];
  assert.deepEqual(buildReadiness({ ...WELL, upstreams }), { status: "degraded", problems: [{ what: "upstream", name: "bus", reason: "connection refused" }] });
  const certificates = [{ listener: "web", names: ["mcp.example.com"], source: "file" as const, file: "/tls.crt", expires_at: "2026-11-20T00:00:00.000Z" }];
  const reason = "expired at 2026-11-20T00:00:00.000Z";
  const problems = [{ what: "certificate", name: "mcp.example.com", reason }];
  assert.deepEqual(buildReadiness({ ...WELL, certificates }, new Date("2026-11-21")), { status: "degraded", problems });
  assert.equal(buildReadiness({ ...WELL, certificates }, new Date("2026-11-19")).status, "ready");
});
