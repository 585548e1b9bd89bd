import assert from "node:assert/strict";
import { test } from "node:test";
import { RE2JS } from "re2js";
import { matchPath, withSlashes } from "./match-path.ts";
import { compileRoutes } from "./match.ts";
import type { PathMatch, RoutePlan } from "./model.ts";

function route(partial: Partial<RoutePlan>): RoutePlan {
  const rules = { set: [], remove: new Set<string>() };
  const base = { name: "r", index: 0, listeners: null, host: null, methods: null, headers: [], priority: 50, upstream: "u", auth: null, stripPrefix: null };
  const auth = { publicUrl: null, resource: null, origins: null, mcp: null };
  return { ...base, ...auth, path: { kind: "any" }, requestHeaders: rules, responseHeaders: rules, identityHeaders: false, cors: null, ...partial };
}

/** The meaning of a route, written down as plainly as can be. */
function naive(plan: RoutePlan, host: string, path: string, method: string, headers: ReadonlyMap<string, string>): boolean {
  if (plan.host !== null && !(plan.host.startsWith("*.") ? host.endsWith(plan.host.slice(1)) && host.length > plan.host.length - 1 : host === plan.host))
    return false;
  const { path: match } = plan;
  if (match.kind === "exact" && path !== match.path) return false;
  if (match.kind === "prefix" && !(path === match.path || path.startsWith(match.path.endsWith("/") ? match.path : `${match.path}/`))) return false;
  if (match.kind === "regex" && !RE2JS.compile(match.source).matcher(path).find()) return false;
  if (plan.methods !== null && !plan.methods.has(method)) return false;
  return plan.headers.every(([name, value]) => headers.has(name) && (value === "*" || headers.get(name) === value));
}

// A generator of its own, so that a failure can be seen again.
function random(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

test("the compiled table finds what trying one route after another finds", () => {
  const below = random(4711);
  const one = <T>(list: readonly T[]): T => list[below(list.length)] as T;
  const hosts = ["a.example", "b.a.example", "c.b.a.example", "example", "", "a.examples", "xa.example"];
  const patterns = [null, null, "a.example", "b.a.example", "*.a.example", "*.example", "*.b.a.example"];
  const paths = ["/", "/api", "/api/", "/api/v1", "/api/v1/x", "/apix", "/v2/y", "/v2", "/api/v1/x/y/z", "*"];
  const prefixes = ["/", "/api", "/api/", "/api/v1", "/v2", "/api/v1/x/"];
  const methods = ["GET", "POST", "OPTIONS"];
  let found = 0;
  for (let round = 0; round < 200; round += 1) {
    const routes = Array.from({ length: 1 + below(25) }, () => {
      const path = one<PathMatch>([
        { kind: "any" },
        { kind: "exact", path: one(paths) },
        { kind: "prefix", path: one(prefixes) },
        { kind: "prefix", path: one(prefixes) },
        { kind: "regex", source: one(["^/v[0-9]+/", "x$", "api"]) },
      ]);
      return route({
        host: one(patterns),
        path,
        methods: below(3) === 0 ? new Set([one(methods)]) : null,
        headers: below(4) === 0 ? [["x-a", one(["*", "1", "2"])]] : [],
      });
    });
    const table = compileRoutes(routes.map((plan, index) => ({ route: plan, value: index })));
    for (let i = 0; i < 60; i += 1) {
      const [host, path, method] = [one(hosts), one(paths), one(methods)];
      const headers = new Map(below(2) === 0 ? [["x-a", one(["1", "2", "3"])]] : []);
      const expected = routes.findIndex((plan) => naive(plan, host, path, method, headers));
      const source = { header: (name: string) => headers.get(name) ?? null };
      assert.equal(table.find(host, path, method, source) ?? -1, expected, JSON.stringify({ round, host, path, method, routes }));
      if (expected !== -1) found += 1;
      else {
        const allowed = methods.filter((other) => routes.some((plan) => naive(plan, host, path, other, headers)));
        assert.deepEqual([...table.methodsFor(host, path, source)].toSorted(), allowed.toSorted());
      }
    }
  }
  assert.ok(found > 3_000);
});

test("the time of a look-up does not grow with the routes, nor much with the segments of a path", () => {
  const table = (count: number) =>
    compileRoutes(Array.from({ length: count }, (_, i) => ({ route: route({ host: `h${i}.example`, path: { kind: "prefix", path: `/p${i}` } }), value: i })));
  const none = { header: () => null };
  const time = (routes: ReturnType<typeof table>): number => {
    const start = performance.now();
    for (let i = 0; i < 20_000; i += 1) routes.find("h7.example", "/p7/x", "GET", none);
    return performance.now() - start;
  };
  const [small, large] = [table(10), table(5_000)];
  time(small);
  time(large);
  assert.ok(time(large) < time(small) * 20 + 50);
  const start = performance.now();
  for (let i = 0; i < 1_000; i += 1) large.find("h7.example", "/p7".padEnd(16_000, "/a"), "GET", none);
  assert.ok(performance.now() - start < 1_000);
});

test("a path has one spelling, or none", () => {
  for (const [path, normal] of [
    ["/", "/"],
    ["/a/b/", "/a/b/"],
    ["/.well-known/x", "/.well-known/x"],
    ["/%61%2D%7e", "/a-~"],
    ["/a%2fb%3a", "/a%2Fb%3A"],
    ["/a.b/..c/d...", "/a.b/..c/d..."],
    ["/a;v=1/b", "/a;v=1/b"],
    ["/(a)|{b}^[c]", "/(a)|{b}^[c]"],
  ] as const)
    assert.equal(matchPath(path), normal, path);
  for (const path of [
    "",
    "a",
    "//",
    "//a",
    "/a//b",
    "/a//",
    "/.",
    "/..",
    "/./a",
    "/a/..",
    "/a/../b",
    "/%2e",
    "/a/%2E%2e/b",
    "/a/.%2e",
    "/..;x/a",
    "/.;/a",
    "/a\\b",
    "/%5cb",
    "/%00",
    "/%0d%0a",
    "/%7f",
    "/%",
    "/%1",
    "/%zz",
    "/a b",
    "/a#b",
    "/a?b",
    "/\u00e9",
    "/\0",
  ]) {
    assert.equal(matchPath(path), null, path);
  }
  assert.equal(withSlashes("/a%2Fb"), "/a/b");
  assert.equal(withSlashes("/a%2F..%2Fb"), null);
  assert.equal(withSlashes("/a/%2Fb"), null);
});
