// The admin interface of a gateway that does not run: what it is told, and what is asked of it, is the test's.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { startAdmin, type AdminOptions } from "../../src/admin/admin.ts";
import type { AdminAuth } from "../../src/admin/auth.ts";
import type { GatewayStatus } from "../../src/admin/status.ts";
import { openLog } from "../../src/telemetry/log.ts";

/** A gateway that serves nothing, and fares well. */
export const STATUS: GatewayStatus = {
  version: "1.0.0",
  pid: 1,
  started_at: "2026-11-21T09:30:00.000Z",
  uptime_seconds: 60,
  stopping: false,
  config: { file: "/x.yaml", digest: "abc", loaded_at: "2026-11-21T09:30:00.000Z", refused: null },
  listeners: [],
  draining_listeners: 0,
  state: { dir: "/state", error: "" },
  routes: [],
  upstreams: [],
  certificates: [],
  tailnet: null,
  authorization_servers: [],
  identity_providers: [],
};

export const NO_AUTH: AdminAuth = {
  clients: () => Promise.resolve([]),
  grants: () => Promise.resolve([]),
  sessions: () => Promise.resolve([]),
  revoke: () => Promise.reject(new Error("Nobody should revoke anything")),
};

type TestAdminOptions = Partial<Pick<AdminOptions, "reload" | "renew" | "logout" | "auth">> & {
  /** What differs from `STATUS`. @param dir as in TestAdmin */
  readonly status?: (dir: string) => Partial<GatewayStatus>;
};

/** `file`: the configuration, which names the `socket` and no more; all in `dir`, which goes with the test. */
export type TestAdmin = { readonly dir: string; readonly file: string; readonly socket: string; readonly status: GatewayStatus };

/** Whatever is asked of it fails the test unless `options` say otherwise. */
export async function startTestAdmin(t: TestContext, { status: differing, ...options }: TestAdminOptions = {}): Promise<TestAdmin> {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-admin-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const [file, socket] = [join(dir, "sidegate.yaml"), join(dir, "admin.sock")];
  writeFileSync(file, `admin: { listen: "unix:${socket}" }\n`);
  const status = { ...STATUS, config: { ...STATUS.config, file }, ...differing?.(dir) };
  const admin = await startAdmin({
    address: { kind: "unix", path: socket },
    status: () => status,
    metrics: { text: () => Promise.resolve("") },
    reload: () => assert.fail("asked"),
    renew: () => assert.fail("asked"),
    logout: () => assert.fail("asked"),
    auth: NO_AUTH,
    log: openLog({ level: "error", format: "json" }, { isTty: false, colors: false, write: () => {} }),
    ...options,
  });
  t.after(() => admin.close());
  return { dir, file, socket, status };
}
