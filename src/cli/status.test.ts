import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { startAdmin } from "../admin/admin.ts";
import type { GatewayStatus } from "../admin/status.ts";
import { openLog } from "../telemetry/log.ts";
import { runCommand } from "./commands.ts";
import { formatStatus } from "./status.ts";
import { formatTable } from "./table.ts";

const NOW = new Date("2026-11-21T10:00:00.000Z");
const STATUS: GatewayStatus = {
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
  routes: [{ name: "mcp", listeners: null, host: null, path: "/mcp", methods: ["GET", "POST"], upstream: "bus", auth: ["token ci"] }],
  upstreams: [
    {
      name: "bus",
      targets: [
        { url: "http://127.0.0.1:1", health: "healthy", reason: "", active: 3, ejected: false },
        { url: "http://127.0.0.1:2", health: "unhealthy", reason: "connection refused\u001b[2J", active: 0, ejected: true },
      ],
    },
  ],
  certificates: [
    { listener: "https", names: ["a.example", "b.example"], source: "file", file: "/certs/tls.crt", expires_at: "2026-11-25T10:00:00.000Z" },
    { listener: "https", names: ["localhost"], source: "internal", file: null, expires_at: "2026-11-20T10:00:00.000Z" },
  ],
};

test("the status reads as aligned tables without a single control character", () => {
  assert.equal(
    formatStatus(STATUS, NOW, false),
    `Sidegate 1.0.0, degraded, up 1h, process 7
/etc/sidegate/sidegate.yaml, taken 30s ago, digest 0123456789ab
upstream 'bus': http://127.0.0.1:2: connection refused
certificate 'localhost': expired at 2026-11-20T10:00:00.000Z

LISTENER  PROTOCOL  ADDRESS         TLS          CONNECTIONS
https     http      *:8443          application  12
live      tcp       127.0.0.1:4003  disabled     0
and 1 removed, whose connections still end

ROUTE  HOST  PATH  METHODS   LISTENERS  UPSTREAM  AUTH
mcp    *     /mcp  GET POST  *          bus       token ci

UPSTREAM  TARGET              HEALTH     ACTIVE  REASON
bus       http://127.0.0.1:1  healthy    3
          http://127.0.0.1:2  unhealthy  0       connection refused

CERTIFICATE          LISTENER  SOURCE          EXPIRES
a.example b.example  https     /certs/tls.crt  in 4d
localhost            https     internal CA     expired 1d ago
`,
  );
});

test("a target whose first checks failed is not said to be unchecked", () => {
  const target = { url: "http://127.0.0.1:1", health: "unknown", active: 0, ejected: false } as const;
  const shown = (reason: string): string => formatStatus({ ...STATUS, upstreams: [{ name: "bus", targets: [{ ...target, reason }] }] }, NOW, false);
  assert.match(shown("connection refused"), /127\.0\.0\.1:1 +failing +0 +connection refused\n/);
  assert.match(shown(""), /127\.0\.0\.1:1 +not checked +0\n/);
});

test("what is not there has no table", () => {
  const text = formatStatus({ ...STATUS, routes: [], upstreams: [], certificates: [], draining_listeners: 0 }, NOW, false);
  assert.doesNotMatch(text, /ROUTE|UPSTREAM|CERTIFICATE|removed/);
});

test("colours change no column", () => {
  const rows = [[{ text: "red", color: "red" as const }, "x"]];
  // oxlint-disable-next-line no-control-regex -- the codes of colours
  assert.equal(formatTable(["LONG", "B"], rows, true).replaceAll(/\u001b\[\d+m/g, ""), formatTable(["LONG", "B"], rows, false));
  assert.ok(formatTable(["LONG", "B"], rows, true).includes("\u001b[31mred"));
});

test("--watch shows the status again until it is stopped", async () => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-status-"));
  const log = openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} });
  const address = { kind: "unix", path: join(dir, "admin.sock") } as const;
  const admin = await startAdmin({
    address,
    status: () => ({ ...STATUS, config: { ...STATUS.config, file: join(dir, "sidegate.yaml") } }),
    metrics: { text: () => Promise.resolve("") },
    reload: () => Promise.resolve({ outcome: "unchanged" }),
    log,
  });
  writeFileSync(join(dir, "sidegate.yaml"), `admin: { listen: "unix:${address.path}" }\n`);
  const controller = new AbortController();
  const shown: string[] = [];
  const stdout = (text: string): void => {
    shown.push(text);
    if (shown.length === 2) controller.abort();
  };
  try {
    const io = { env: {}, cwd: dir, pid: 1, stdout, stderr: assert.fail, isTty: true, stopped: controller.signal, onHangup: () => {} };
    assert.equal(await runCommand(["status", "sidegate.yaml", "--watch"], io), 0);
  } finally {
    await admin.close();
    rmSync(dir, { recursive: true, force: true });
  }
  assert.equal(shown.length, 2);
  for (const text of shown) assert.ok(text.startsWith("\u001b[H\u001b[2J\u001b[3JSidegate 1.0.0, \u001b[33mdegraded"), JSON.stringify(text));
});
