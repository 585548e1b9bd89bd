import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { takeSealOut } from "./daemon-unseal.ts";
import { sealedConfig } from "./serve-config.ts";

const encode = (value: unknown): string => Buffer.from(JSON.stringify(value)).toString("base64");

test("our seal goes out of the state, and nothing else does", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-unseal-"));
  t.after(() => rmSync(dir, { recursive: true }));
  const file = join(dir, "tailscaled.state");
  const theirs = { TCP: { "443": { HTTPS: true } }, Web: { "a:443": {} } };
  const { config } = sealedConfig(theirs, new Set([4003]), null);
  const others = { _machinekey: encode("key"), "profile-1": encode({ Hostname: "a" }), "_serve/2": encode(theirs), "_serve/3": "not base64 of anything" };
  await takeSealOut(dir);
  writeFileSync(file, JSON.stringify({ ...others, "_serve/3": encode({}), "_serve/1": encode(config) }), { mode: 0o600 });
  await takeSealOut(dir);
  assert.deepEqual(JSON.parse(readFileSync(file, "utf8")), { ...others, "_serve/3": encode({}), "_serve/1": encode(theirs) });
  assert.equal(statSync(file).mode & 0o777, 0o600);
  for (const text of ["", "[]", "{", JSON.stringify({ ...others, "_serve/1": encode(config) })]) {
    writeFileSync(file, text);
    await takeSealOut(dir);
    assert.equal(readFileSync(file, "utf8"), text);
  }
});
