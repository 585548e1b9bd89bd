import assert from "node:assert/strict";
import { test } from "node:test";
import { routePlan } from "../../test/components/http-gateway.ts";
import type { AuthWayPlan, PeopleMatch } from "../plan/auth-model.ts";
import type { RoutePlan } from "../plan/model.ts";
import { compileExternalServers } from "./compile-external-servers.ts";

const corp = { metadata: async () => "corp" };
const other = { metadata: async () => "other" };
const issuers = new Map([
  ["corp", corp],
  ["other", other],
]);

function route(host: string | null, url: string, servers: string[], ...kinds: ("oauth" | "corp" | "other" | "session")[]): RoutePlan {
  const allow = null as unknown as PeopleMatch;
  const auth = kinds.map((kind): AuthWayPlan => {
    if (kind === "oauth") return { kind, resource: url, scopes: [], allow, identityAssertions: new Set() };
    return kind === "session" ? { kind, allow } : { kind: "issuer", issuer: kind, scopes: [], allow: null };
  });
  return routePlan({ host, publicUrl: url, auth, resource: { url, authorizationServers: servers, scopes: [], baseScopes: [] } });
}

test("a host tells of an issuer only where its routes leave no doubt which server is meant", () => {
  const one = "https://one.example.com";
  const two = "https://two.example.com";
  const compile = (...routes: RoutePlan[]): unknown => {
    const found = compileExternalServers(routes, issuers);
    return found === null ? null : [...found.byHost].map(([host, issuer]) => [host, issuer === corp ? "corp" : issuer === other ? "other" : null]);
  };
  assert.deepEqual(compile(route("one.example.com", `${one}/a`, ["https://c"], "corp"), route("one.example.com", `${one}/b`, ["https://c"], "corp")), [
    ["one.example.com", "corp"],
  ]);
  assert.deepEqual(compile(route("one.example.com", `${one}/a`, ["https://c"], "corp"), route("two.example.com", two, ["https://o"], "other")), [
    ["one.example.com", "corp"],
    ["two.example.com", "other"],
  ]);
  assert.equal(compile(route("one.example.com", `${one}/a`, ["https://c"], "corp"), route("one.example.com", `${one}/b`, ["https://o"], "other")), null);
  assert.equal(compile(route("one.example.com", `${one}/a`, [one, "https://c"], "oauth", "corp")), null);
  assert.equal(compile(route("one.example.com", `${one}/a`, ["https://c"], "corp"), route("one.example.com", `${one}/b`, [one], "oauth")), null);
  assert.equal(compile(routePlan({ host: "one.example.com", auth: [] })), null);
  assert.equal(compile(), null);
});

test("a host in doubt does not get what is told on hosts that no route names", () => {
  const found = compileExternalServers(
    [
      route(null, "https://any.example.com/a", ["https://c"], "corp"),
      route("one.example.com", "https://one.example.com/a", ["https://c"], "corp"),
      route("one.example.com", "https://one.example.com/b", ["https://o"], "other"),
    ],
    issuers,
  );
  assert.equal(found?.anyHost, corp);
  assert.deepEqual([...(found?.byHost ?? [])], [["one.example.com", null]]);
});
