import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { authenticate, buildTokenIndex } from "./authenticate.ts";
import { authorize } from "./authorize.ts";

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();
const tokens = buildTokenIndex([
  { name: "ci", sha256: sha256("good-token"), scopes: ["mcp", "read"] },
  { name: "weak", sha256: sha256("weak-token"), scopes: [] },
]);
const way = (names: string[] | null, scopes: string[] = []) => ({ kind: "token" as const, names: names === null ? null : new Set(names), scopes });

test("a token is known by its hash, in the Bearer scheme alone", () => {
  assert.deepEqual(authenticate("Bearer good-token", tokens), { kind: "identity", identity: { source: "token", name: "ci", scopes: ["mcp", "read"] } });
  assert.equal(authenticate("bearer   good-token", tokens).kind, "identity");
  assert.equal(authenticate(null, tokens).kind, "none");
  for (const wrong of [
    "",
    "Bearer",
    "Bearer ",
    "Bearer good-token x",
    "Bearer good-toke",
    "Bearergood-token",
    "Basic good-token",
    "good-token",
    "Bearer good-token,",
    "Bearer\tgood-token",
    `Bearer ${"a".repeat(5_000)}`,
  ]) {
    assert.equal(authenticate(wrong, tokens).kind, "invalid", wrong);
  }
  assert.equal(authenticate("Bearer good-token", buildTokenIndex([])).kind, "invalid");
});

test("any way in admits, and scopes count together", () => {
  const ci = authenticate("Bearer good-token", tokens);
  const weak = authenticate("Bearer weak-token", tokens);
  assert.ok(!("denied" in authorize([way(null)], weak)));
  assert.ok(!("denied" in authorize([way(["x"]), way(["ci"], ["mcp", "read"])], ci)));
  assert.deepEqual(authorize([way(null, ["mcp"])], weak), { denied: "insufficient_scope", scopes: ["mcp"] });
  assert.deepEqual(authorize([way(null, ["mcp", "write"])], ci), { denied: "insufficient_scope", scopes: ["mcp", "write"] });
  assert.deepEqual(authorize([way(["x"])], ci), { denied: "invalid_credentials" });
  assert.deepEqual(authorize([], ci), { denied: "invalid_credentials" });
  assert.deepEqual(authorize([way(null)], { kind: "none" }), { denied: "no_credentials" });
  assert.deepEqual(authorize([way(null)], { kind: "invalid" }), { denied: "invalid_credentials" });
});

test("auth: none admits everybody, without a name", () => {
  const permit = authorize(null, { kind: "invalid" });
  assert.ok(!("denied" in permit) && permit.identity === null);
});
