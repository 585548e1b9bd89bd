import assert from "node:assert/strict";
import { test } from "node:test";
import type { ScopePlan } from "../plan/auth-model.ts";
import { expandScopes } from "./scopes.ts";

const known = new Map<string, ScopePlan>(
  Object.entries({ admin: ["write", "read"], write: ["read"], read: [] }).map(([name, includes]) => [
    name,
    { name, description: null, includes: new Set(includes), allow: null },
  ]),
);

test("#17 a scope brings all that it includes, each once, behind those that were given", () => {
  assert.deepEqual(expandScopes(["admin"], known), ["admin", "write", "read"]);
  assert.deepEqual(expandScopes(["read", "admin"], known), ["read", "admin", "write"]);
  assert.deepEqual(expandScopes(["write", "admin", "read"], known), ["write", "admin", "read"]);
  assert.deepEqual(expandScopes([], known), []);
});

test("#17 nothing is included that the file does not say: not by names that look alike, nor by those of objects", () => {
  assert.deepEqual(expandScopes(["read"], known), ["read"]);
  for (const name of ["admin:read", "ADMIN", "adm", "admin ", "constructor", "__proto__"]) assert.deepEqual(expandScopes([name], known), [name]);
  assert.deepEqual(expandScopes(["admin"], new Map()), ["admin"]);
});
