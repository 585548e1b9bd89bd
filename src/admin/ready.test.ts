import assert from "node:assert/strict";
import { test } from "node:test";
import { STATUS } from "../../test/components/admin.ts";
import { TAILNET } from "../../test/components/tailnet-status.ts";
import type { TailnetStatus } from "../tailscale/status.ts";
import { buildReadiness } from "./ready.ts";
import type { CertificateStatus, GatewayStatus, TargetStatus } from "./status.ts";

const WELL: GatewayStatus = {
  ...STATUS,
  listeners: [{ name: "web", protocol: "http", address: "127.0.0.1:8080", tls: "disabled", connections: 0, down: "" }],
};

function target(health: TargetStatus["health"], reason = "", url = "http://127.0.0.1:1"): TargetStatus {
  return { url, health, reason, active: 0, ejected: false };
}

test("a gateway without troubles is ready, one whose targets are not checked yet too", () => {
  assert.deepEqual(buildReadiness(WELL), { status: "ready", problems: [] });
  assert.equal(buildReadiness({ ...WELL, upstreams: [{ name: "bus", verified: true, targets: [target("unknown"), target("healthy")] }] }).status, "ready");
});

test("an upstream with no target left is unready, and says why", () => {
  const upstreams = [{ name: "bus", verified: true, targets: [target("unhealthy", "connection refused")] }];
  assert.deepEqual(buildReadiness({ ...WELL, upstreams }), { status: "unready", problems: [{ what: "upstream", name: "bus", reason: "connection refused" }] });
});

test("an upstream that lost one of its targets, or is in its maintenance window, is degraded", () => {
  const one = [{ name: "bus", verified: true, targets: [target("unhealthy", "timed out", "http://a"), target("healthy")] }];
  assert.deepEqual(buildReadiness({ ...WELL, upstreams: one }), {
    status: "degraded",
    problems: [{ what: "upstream", name: "bus", reason: "http://a: timed out" }],
  });
  assert.equal(
    buildReadiness({ ...WELL, upstreams: [{ name: "live", verified: true, targets: [target("degraded", "in its maintenance window")] }] }).status,
    "degraded",
  );
});

test("a refused configuration degrades only, with its first problem", () => {
  const problem = { file: "/x.yaml", line: 3, column: 1, message: "Unknown key 'lisen'" };
  const refused = (problems: (typeof problem)[]) => ({ ...WELL, config: { ...WELL.config, refused: { at: "", problems, text: "" } } });
  const { status, problems } = buildReadiness(refused([problem, problem, problem]));
  assert.equal(status, "degraded");
  assert.deepEqual(problems, [
    {
      what: "config",
      name: "/x.yaml",
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

test("a target that failed before its first verdict makes it degraded by name", () => {
  const upstreams = [{ name: "bus", verified: true, targets: [target("unknown", "connection refused")] }];
  assert.deepEqual(buildReadiness({ ...WELL, upstreams }), { status: "degraded", problems: [{ what: "upstream", name: "bus", reason: "connection refused" }] });
});

const MONTH: CertificateStatus = {
  listeners: ["web"],
  names: ["a.example", "b.example"],
  source: "acme",
  file: null,
  issuer: "CN=CA",
  valid_from: "2026-11-01T00:00:00.000Z",
  expires_at: "2026-12-01T00:00:00.000Z",
  renews_at: null,
  error: "",
};

function problemAt(now: string, certificate: Partial<CertificateStatus> = {}): string | null {
  const { status, problems } = buildReadiness({ ...WELL, certificates: [{ ...MONTH, ...certificate }] }, new Date(now));
  if (problems.length === 0) assert.equal(status, "ready");
  else assert.deepEqual([status, problems.length, problems[0]?.what, problems[0]?.name], ["degraded", 1, "certificate", "a.example b.example"]);
  return problems[0]?.reason ?? null;
}

test("a certificate near its end, and one past it, make it degraded with the reason", () => {
  assert.equal(problemAt("2026-11-24T00:00:00Z"), null);
  assert.equal(problemAt("2026-11-24T12:00:00Z"), "expires in 6d 12h, at 2026-12-01T00:00:00.000Z");
  assert.equal(problemAt("2026-11-24T12:00:00Z", { error: "The CA says no" }), "expires in 6d 12h, at 2026-12-01T00:00:00.000Z: The CA says no");
  assert.equal(problemAt("2026-12-01T00:00:00Z", { error: "" }), "expired 0ms ago, at 2026-12-01T00:00:00.000Z");
  assert.equal(problemAt("2026-12-03T00:00:00Z", { error: "The CA says no" }), "expired 2d ago, at 2026-12-01T00:00:00.000Z: The CA says no");
});

test("a certificate of six days is near its end in its last quarter", () => {
  const week = { valid_from: "2026-11-25T00:00:00.000Z" };
  assert.equal(problemAt("2026-11-29T06:00:00Z", week), null);
  assert.equal(problemAt("2026-11-29T18:00:00Z", week), "expires in 1d 6h, at 2026-12-01T00:00:00.000Z");
});

test("a certificate that was never issued makes it degraded, with the error of the order or that it is under way", () => {
  const none = { valid_from: null, expires_at: null, issuer: "" };
  assert.equal(problemAt("2026-11-24T00:00:00Z", none), "no certificate yet: being ordered");
  assert.equal(problemAt("2026-11-24T00:00:00Z", { ...none, error: "The CA cannot reach port 80" }), "no certificate yet: The CA cannot reach port 80");
});

test("a state directory that cannot be used makes it degraded: a restart would lose what is in memory alone", () => {
  const { status, problems } = buildReadiness({ ...WELL, state: { dir: "/state", error: "cannot use '/state/acme': read-only file system" } });
  assert.deepEqual([status, problems], ["degraded", [{ what: "state", name: "/state", reason: "cannot use '/state/acme': read-only file system" }]]);
});

function tailnetProblems(change: Partial<TailnetStatus>): [status: string, ...reasons: string[]] {
  const { status, problems } = buildReadiness({ ...WELL, tailnet: { ...TAILNET, ...change, clients: [] } });
  for (const { what, name } of problems) assert.deepEqual([what, name], ["tailnet", change.name === "" ? "ib-gateway" : "ib-gateway.tail1234.ts.net"]);
  return [status, ...problems.map(({ reason }) => reason)];
}

test("a tailnet that serves is ready, with its warnings degraded", () => {
  assert.deepEqual(tailnetProblems({}), ["ready"]);
  assert.deepEqual(tailnetProblems({ warnings: ["The name 'ib-gateway' is taken", "The key expires in 3d"] }), [
    "degraded",
    "The name 'ib-gateway' is taken",
    "The key expires in 3d",
  ]);
  assert.deepEqual(tailnetProblems({ reason: "tailscaled does not answer" }), ["degraded", "tailscaled does not answer"]);
});

test("a tailnet that does not serve is unready, also while it is being joined, and says where to log in", () => {
  const down = { serving: false, name: "" };
  assert.deepEqual(tailnetProblems({ ...down, state: "off" }), ["unready", "tailscaled is being started"]);
  assert.deepEqual(tailnetProblems({ ...down, state: "starting" }), ["unready", "joining the tailnet"]);
  const url = "https://login.example/a/1";
  assert.deepEqual(tailnetProblems({ ...down, state: "needs_login", login_url: url }), ["unready", `somebody must log in: ${url}`]);
  assert.deepEqual(tailnetProblems({ ...down, state: "needs_login", login_url: url, reason: "The auth key is used up" }), [
    "unready",
    `The auth key is used up: ${url}`,
  ]);
  assert.deepEqual(tailnetProblems({ ...down, state: "needs_login", login_url: url, reason: `Open ${url}` }), ["unready", `Open ${url}`]);
  assert.deepEqual(tailnetProblems({ serving: false, seal: { ...TAILNET.seal, active: false, error: "Port 443 is served by another program" } }), [
    "unready",
    "Port 443 is served by another program",
  ]);
});

test("a tailnet that does not serve comes before what is only degraded", () => {
  const { problems } = buildReadiness({
    ...WELL,
    state: { dir: "/state", error: "full" },
    tailnet: { ...TAILNET, serving: false, warnings: ["w"], clients: [] },
  });
  assert.deepEqual(
    problems.map(({ what }) => what),
    ["tailnet", "tailnet", "state"],
  );
});

test("an identity provider that fails degrades only, by its name, with its beginning and why; one that is well changes nothing", () => {
  const well = { kind: "issuer", name: "corp", url: "https://login.example.com", error: "", since: null } as const;
  assert.deepEqual(buildReadiness({ ...WELL, identity_providers: [well] }), { status: "ready", problems: [] });
  const github = { kind: "login", name: "github", url: "https://github.com", error: "connection refused", since: "2026-11-21T09:30:00.000Z" } as const;
  assert.deepEqual(buildReadiness({ ...WELL, identity_providers: [well, github] }), {
    status: "degraded",
    problems: [{ what: "login", name: "github", reason: "fails since 2026-11-21T09:30:00.000Z: connection refused" }],
  });
  const issuer = (error: string): string | undefined =>
    buildReadiness({ ...WELL, identity_providers: [{ ...well, error, since: "2026-11-21T09:30:00.000Z" }] }).problems[0]?.reason;
  // The name stands before the reason, as 'issuer 'corp': ...'.
  assert.equal(issuer("Issuer 'corp' cannot be asked at 'https://x'"), "fails since 2026-11-21T09:30:00.000Z: cannot be asked at 'https://x'");
  assert.equal(issuer("The metadata of issuer 'corp' has no 'jwks_uri'"), "fails since 2026-11-21T09:30:00.000Z: The metadata has no 'jwks_uri'");
});
