import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { TAILNET } from "../../test/components/tailnet-status.ts";
import { startTestAdmin } from "../../test/components/admin.ts";
import { runInProcess } from "../../test/components/run-command.ts";
import type { GatewayStatus } from "../admin/status.ts";
import { formatStatus } from "./status.ts";
import { formatTable } from "./table.ts";

const NOW = new Date("2026-11-21T10:00:00.000Z");
const STATUS: GatewayStatus = {
  tailnet: null,
  authorization_servers: [
    { issuer: "https://mcp.example.com", login: ["github", "password"], resources: ["https://mcp.example.com/mcp"], session_origins: [] },
    { issuer: "https://a.example", login: ["github"], resources: ["https://a.example/mcp"], session_origins: ["https://a.example", "https://b.example"] },
    { issuer: "https://machines.example", login: [], resources: ["https://machines.example/mcp"], session_origins: [] },
  ],
  identity_providers: [{ kind: "login", name: "github", url: "https://github.com", error: "", since: null }],
  version: "1.0.0",
  pid: 7,
  started_at: "2026-11-21T09:00:00.000Z",
  uptime_seconds: 3_600,
  stopping: false,
  config: { file: "/etc/sidegate/sidegate.yaml", digest: "0123456789ab", loaded_at: "2026-11-21T09:59:30.000Z", refused: null },
  listeners: [
    { name: "https", protocol: "http", address: "*:8443", tls: "application", connections: 12, down: "" },
    { name: "live", protocol: "tcp", address: "127.0.0.1:4003", tls: "disabled", connections: 0, down: "" },
  ],
  draining_listeners: 1,
  state: { dir: "/state", error: "" },
  routes: [{ name: "mcp", listeners: null, host: null, path: "/mcp", methods: ["GET", "POST"], upstream: "bus", auth: ["token ci"] }],
  upstreams: [
    {
      name: "bus",
      verified: true,
      targets: [
        { url: "http://127.0.0.1:1", health: "healthy", reason: "", active: 3, ejected: false },
        { url: "http://127.0.0.1:2", health: "unhealthy", reason: "connection refused\u001b[2J", active: 0, ejected: true },
      ],
    },
  ],
  certificates: [
    {
      listeners: ["https", "live"],
      names: ["a.example", "b.example", "c.example", "d.example"],
      source: "file",
      file: "/etc/letsencrypt/live/a.example/fullchain.pem",
      issuer: "CN=CA",
      valid_from: "2025-12-24T10:00:00.000Z",
      expires_at: "2026-12-24T10:00:00.000Z",
      renews_at: null,
      error: "",
    },
    {
      listeners: ["https"],
      names: ["mcp.example"],
      source: "acme",
      file: null,
      issuer: "CN=R11",
      valid_from: "2026-09-21T10:00:00.000Z",
      expires_at: "2026-11-25T10:00:00.000Z",
      renews_at: "2026-11-21T10:30:00.000Z",
      error: "The CA cannot reach\u001b[2J port 80",
    },
    {
      listeners: ["https"],
      names: ["new.example"],
      source: "acme",
      file: null,
      issuer: "",
      valid_from: null,
      expires_at: null,
      renews_at: "2026-11-21T09:00:00.000Z",
      error: "",
    },
    {
      listeners: ["https"],
      names: ["localhost"],
      source: "internal",
      file: "/state/internal-ca/ca.crt",
      issuer: "CN=Sidegate",
      valid_from: "2026-08-20T10:00:00.000Z",
      expires_at: "2026-11-20T10:00:00.000Z",
      renews_at: null,
      error: "",
    },
  ],
};

test("the status reads as aligned tables without a single control character", () => {
  assert.equal(
    formatStatus(STATUS, NOW, false),
    `Sidegate 1.0.0, degraded, up 1h, process 7
/etc/sidegate/sidegate.yaml, taken 30s ago, digest 0123456789ab
upstream 'bus': http://127.0.0.1:2: connection refused
certificate 'mcp.example': expires in 4d, at 2026-11-25T10:00:00.000Z: The CA cannot reach port 80
certificate 'new.example': no certificate yet: being ordered
certificate 'localhost': expired 1d ago, at 2026-11-20T10:00:00.000Z

LISTENER  PROTOCOL  ADDRESS         TLS          CONNECTIONS
https     http      *:8443          application  12
live      tcp       127.0.0.1:4003  disabled     0
and 1 removed, whose connections still end

ROUTE  HOST  PATH  METHODS   LISTENERS  UPSTREAM  AUTH
mcp    *     /mcp  GET POST  *          bus       token ci

UPSTREAM  TARGET              HEALTH     ACTIVE  REASON
bus       http://127.0.0.1:1  healthy    3
          http://127.0.0.1:2  unhealthy  0       connection refused

CERTIFICATE             LISTENERS   SOURCE                                EXPIRES         RENEWS         ERROR
a.example b.example +2  https live  …ncrypt/live/a.example/fullchain.pem  in 33d          with its file
mcp.example             https       ACME                                  in 4d           in 30m         The CA cannot reach port 80
new.example             https       ACME                                  not issued yet  due
localhost               https       internal CA                           expired 1d ago  by itself

AUTHORIZATION SERVER      LOGIN             FOR
https://mcp.example.com   github, password  https://mcp.example.com/mcp
https://a.example         github            https://a.example/mcp, sessions of https://a.example, sessions of https://b.example
https://machines.example  none              https://machines.example/mcp
`,
  );
});

test("an identity provider has a line when it fails, and none when it is well", () => {
  assert.doesNotMatch(formatStatus(STATUS, NOW, false), /github\.com|'github'/);
  const failing = {
    kind: "issuer",
    name: "corp",
    url: "https://login.example.com",
    error: "No metadata\u001b[2J can be used",
    since: "2026-11-21T09:30:00.000Z",
  } as const;
  const text = formatStatus({ ...STATUS, identity_providers: [...STATUS.identity_providers, failing] }, NOW, false);
  assert.match(text, /^Sidegate 1\.0\.0, degraded,.*\n.*\n(?:.*\n)*issuer 'corp': fails since 2026-11-21T09:30:00\.000Z: No metadata can be used\n/);
});

test("a target whose first checks failed is not said to be unchecked", () => {
  const target = { url: "http://127.0.0.1:1", health: "unknown", active: 0, ejected: false } as const;
  const shown = (reason: string): string =>
    formatStatus({ ...STATUS, upstreams: [{ name: "bus", verified: true, targets: [{ ...target, reason }] }] }, NOW, false);
  assert.match(shown("connection refused"), /127\.0\.0\.1:1 +failing +0 +connection refused\n/);
  assert.match(shown(""), /127\.0\.0\.1:1 +not checked +0\n/);
});

test("targets whose certificate is not verified are marked", () => {
  const targets = STATUS.upstreams[0]?.targets ?? [];
  assert.match(formatStatus({ ...STATUS, upstreams: [{ name: "bus", verified: false, targets }] }, NOW, false), /http:\/\/127\.0\.0\.1:1 \(not verified\)/);
});

test("what is not there has no table", () => {
  const text = formatStatus({ ...STATUS, routes: [], upstreams: [], certificates: [], authorization_servers: [], draining_listeners: 0 }, NOW, false);
  assert.doesNotMatch(text, /ROUTE|UPSTREAM|CERTIFICATE|AUTHORIZATION|removed/);
});

test("the tailnet is the last section, and what is wrong with it stands at the top, too", () => {
  const text = formatStatus({ ...STATUS, tailnet: { ...TAILNET, serving: false, reason: "tailscaled hangs", clients: [] } }, NOW, false);
  assert.match(text, /^Sidegate 1\.0\.0, unready, .*\n.*\ntailnet 'ib-gateway\.tail1234\.ts\.net': tailscaled hangs\n/);
  assert.match(text, /\n\nTAILNET {2}ib-gateway\.tail1234\.ts\.net\n {2}state {6}running, not serving\n {2}reason {5}tailscaled hangs\n/);
});

test("colours change no column", () => {
  const rows = [[{ text: "red", color: "red" as const }, "x"]];
  // oxlint-disable-next-line no-control-regex -- the codes of colours
  assert.equal(formatTable(["LONG", "B"], rows, true).replaceAll(/\u001b\[\d+m/g, ""), formatTable(["LONG", "B"], rows, false));
  assert.ok(formatTable(["LONG", "B"], rows, true).includes("\u001b[31mred"));
});

test("--watch shows the status again until it is stopped", async (t) => {
  const { dir, file } = await startTestAdmin(t, { status: (own) => ({ ...STATUS, config: { ...STATUS.config, file: join(own, "sidegate.yaml") } }) });
  const controller = new AbortController();
  const shown: string[] = [];
  const stdout = (text: string): void => {
    shown.push(text);
    if (shown.length === 2) controller.abort();
  };
  const { code } = await runInProcess(["status", file, "--watch"], dir, { stdout, stderr: assert.fail, isTty: true, stopped: controller.signal });
  assert.equal(code, 0);
  assert.equal(shown.length, 2);
  for (const text of shown) assert.ok(text.startsWith("\u001b[H\u001b[2J\u001b[3JSidegate 1.0.0, \u001b[33mdegraded"), JSON.stringify(text));
});
