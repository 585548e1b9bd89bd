import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { authenticate as authenticateMaybe, type Authentication, buildTokenIndex, type TokenIndex } from "./authenticate.ts";
import { authorize } from "./authorize.ts";
import { isValidAt, type ClientCertificate } from "./client-certificate.ts";

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();
const tokens = buildTokenIndex(
  [
    { name: "ci", sha256: sha256("good-token"), scopes: ["mcp", "read"] },
    { name: "weak", sha256: sha256("weak-token"), scopes: [] },
  ],
  new Map(),
);
const authenticate = (authorization: string | null, index: TokenIndex): Authentication => {
  const found = authenticateMaybe(authorization, index);
  assert.ok(!(found instanceof Promise), "static tokens are known at once");
  return found;
};
const way = (names: string[] | null, scopes: string[] = []) => ({ kind: "token" as const, names: names === null ? null : new Set(names), scopes });

test("a token is known by its hash, in the Bearer scheme alone", () => {
  const ci = authenticate("Bearer good-token", tokens);
  assert.deepEqual(ci.kind === "identity" && [ci.by, ci.identity], ["token", { source: "token", name: "ci", scopes: ["mcp", "read"] }]);
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
    `Bearer ${"a".repeat(20_000)}`,
  ]) {
    assert.equal(authenticate(wrong, tokens).kind, "invalid", wrong);
  }
  assert.equal(authenticate("Bearer good-token", buildTokenIndex([], new Map())).kind, "invalid");
});

test("any way in admits, and scopes count together", () => {
  const ci = authenticate("Bearer good-token", tokens);
  const weak = authenticate("Bearer weak-token", tokens);
  assert.ok(!("denied" in authorize([way(null)], weak)));
  assert.ok(!("denied" in authorize([way(["x"]), way(["ci"], ["mcp", "read"])], ci)));
  assert.deepEqual(authorize([way(null, ["mcp"])], weak), { denied: "insufficient_scope", scopes: ["mcp"] });
  assert.deepEqual(authorize([way(null, ["mcp", "write"])], ci), { denied: "insufficient_scope", scopes: ["mcp", "read", "write"] });
  assert.deepEqual(authorize([way(["x"])], ci), { denied: "invalid_credentials", reason: null });
  assert.deepEqual(authorize([], ci), { denied: "invalid_credentials", reason: null });
  assert.deepEqual(authorize([way(null)], { kind: "none" }), { denied: "no_credentials" });
  assert.deepEqual(authorize([way(null)], { kind: "invalid" }), { denied: "invalid_credentials", reason: null });
});

test("auth: none admits everybody, without a name", () => {
  const permit = authorize(null, { kind: "invalid" });
  assert.ok(!("denied" in permit) && permit.identity === null);
});

const certificate: ClientCertificate = {
  subject: "CN=M\\C3\\BCller,O=Acme",
  commonName: { text: "Müller", escaped: "M\\C3\\BCller" },
  sans: ["bot.example.com", "spiffe://example.com/bot"],
  notBeforeMs: 1_000,
  notAfterMs: 2_000,
  identity: { source: "client_certificate", name: "M\\C3\\BCller", scopes: [] },
};
const certificateWay = (subjects: string[] | null, sans: string[] | null = null) => ({
  kind: "client_certificate" as const,
  subjects: subjects === null ? null : new Set(subjects),
  sans: sans === null ? null : new Set(sans),
});
const NONE = { kind: "none" } as const;

test("a certificate admits by what a way names, and is called by what matched", () => {
  const nameBy = (...args: Parameters<typeof certificateWay>): string | undefined => {
    const permit = authorize([certificateWay(...args)], NONE, certificate);
    return "denied" in permit ? permit.denied : `${permit.identity?.source}:${permit.identity?.name}`;
  };
  assert.equal(nameBy(null), "client_certificate:M\\C3\\BCller");
  assert.equal(nameBy(["x", "Müller"]), "client_certificate:M\\C3\\BCller");
  assert.equal(nameBy(["CN=M\\C3\\BCller,O=Acme"]), "client_certificate:CN=M\\C3\\BCller,O=Acme");
  assert.equal(nameBy(["x"], ["y", "spiffe://example.com/bot"]), "client_certificate:spiffe://example.com/bot");
  for (const [subjects, sans] of [
    [["müller"]],
    [["M\\C3\\BCller"]],
    [["O=Acme"]],
    [["bot.example.com"]],
    [null, ["Müller"]],
    [["x"], ["y"]],
    [[]],
    [null, []],
  ] as const) {
    assert.equal(nameBy(subjects === null ? null : [...subjects], sans === undefined ? null : [...sans]), "certificate_not_admitted", String([subjects, sans]));
  }
});

test("any way in admits, by token or by certificate, and neither stands for the other", () => {
  const ci = authenticate("Bearer good-token", tokens);
  const wrong = authenticate("Bearer wrong", tokens);
  const admitted = (...args: Parameters<typeof authorize>): unknown => {
    const permit = authorize(...args);
    return "denied" in permit ? permit.denied : permit.identity?.source;
  };
  const both = [way(["ci"], ["mcp"]), certificateWay(["Müller"])];
  assert.equal(admitted(both, wrong, certificate), "client_certificate");
  assert.equal(admitted(both, NONE, certificate), "client_certificate");
  assert.equal(admitted(both, ci, certificate), "token");
  assert.equal(admitted(both, ci, null), "token");
  assert.equal(admitted([way(null, ["write"]), certificateWay(null)], ci, certificate), "client_certificate");
  assert.equal(admitted(both, NONE, null), "no_credentials");
  assert.equal(admitted(both, wrong, null), "invalid_credentials");
  assert.equal(admitted([way(null)], NONE, certificate), "no_credentials");
  assert.equal(admitted([certificateWay(null)], ci, null), "no_certificate");
  assert.equal(admitted([certificateWay(["ci"])], ci, certificate), "certificate_not_admitted");
  assert.equal(admitted([], NONE, certificate), "no_credentials");
});

test("a certificate counts from its first to its last moment", () => {
  assert.deepEqual(
    [999, 1_000, 2_000, 2_001].map((ms) => isValidAt(certificate, ms)),
    [false, true, true, false],
  );
});
