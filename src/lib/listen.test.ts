import assert from "node:assert/strict";
import fs, { existsSync, mkdtempSync, rmSync, statSync } from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { listen } from "./listen.ts";

const dir = mkdtempSync(join(tmpdir(), "sidegate-listen-"));
after(() => rmSync(dir, { recursive: true, force: true }));

test("the file of a unix socket has its mode", async () => {
  const path = join(dir, "a.sock");
  const server = createServer();
  await listen(server, { kind: "unix", path }, 0o660);
  assert.equal(statSync(path).mode & 0o777, 0o660);
  server.close();
});

test("a file system that knows no modes for sockets is an error of the caller, and nothing listens", async (t) => {
  const path = join(dir, "b.sock");
  const server = createServer();
  t.mock.method(fs, "chmodSync", () => {
    throw Object.assign(new Error("EINVAL: invalid argument, chmod"), { code: "EINVAL" });
  });
  syncBuiltinESMExports();
  t.after(() => {
    t.mock.reset();
    syncBuiltinESMExports();
  });
  await assert.rejects(listen(server, { kind: "unix", path }, 0o660), /EINVAL/);
  assert.equal(server.listening, false);
  assert.equal(existsSync(path), false);
});
