import assert from "node:assert/strict";
import { test } from "node:test";
import type { CertificateInfo } from "./certificates/source.ts";
import { TAILNET } from "../test/components/tailnet-status.ts";
import { buildStatus, type StatusParts } from "./gateway-status.ts";
import type { ListenAddress, Plan, RoutePlan } from "./plan/model.ts";

const PARTS: StatusParts = {
  version: "1.0.0",
  pid: 1,
  file: "/x.yaml",
  startedAt: new Date(),
  loadedAt: new Date(),
  refusal: null,
  stopping: false,
  stateError: "",
  identityProviders: [],
  plan: null,
  digest: "",
  listeners: { all: [], draining: 0 },
  upstreams: [],
  tls: new Map(),
  tailnet: null,
  tailnetClients: [],
};

test("a certificate that several listeners serve is listed once, with all of them", () => {
  const acme: CertificateInfo = {
    source: "acme",
    names: ["a.example", "b.example"],
    file: null,
    issuer: "C=US, CN=R11",
    notBefore: new Date("2026-11-01T00:00:00Z"),
    notAfter: new Date("2027-01-30T00:00:00Z"),
    renewAt: new Date("2026-12-31T00:00:00Z"),
    error: "The CA says no",
  };
  const file: CertificateInfo = { ...acme, source: "file", file: "/a.crt", renewAt: null, error: "" };
  const waiting: CertificateInfo = { ...acme, names: ["c.example"], issuer: "", notBefore: null, notAfter: null };
  const { certificates } = buildStatus({
    ...PARTS,
    tls: new Map([
      ["web", { list: () => [file, { ...acme }] }],
      ["live", { list: () => [{ ...acme }, waiting] }],
      ["paper", { list: () => [{ ...file, file: "/b.crt" }, { ...acme }, { ...acme }] }],
    ]),
  });
  const told = {
    names: ["a.example", "b.example"],
    issuer: "C=US, CN=R11",
    valid_from: "2026-11-01T00:00:00.000Z",
    expires_at: "2027-01-30T00:00:00.000Z",
    renews_at: null,
    error: "",
  };
  assert.deepEqual(certificates, [
    { ...told, listeners: ["web"], source: "file", file: "/a.crt" },
    { ...told, listeners: ["web", "live", "paper"], source: "acme", file: null, renews_at: "2026-12-31T00:00:00.000Z", error: "The CA says no" },
    {
      ...told,
      listeners: ["live"],
      names: ["c.example"],
      source: "acme",
      file: null,
      issuer: "",
      valid_from: null,
      expires_at: null,
      renews_at: "2026-12-31T00:00:00.000Z",
      error: "The CA says no",
    },
    { ...told, listeners: ["paper"], source: "file", file: "/b.crt" },
  ]);
});

test("a tailnet is shown with who is connected, and none is null", () => {
  const client = { listener: "live", address: "100.64.0.2", node: "laptop.tail1234.ts.net", user: "alice@example.com", tags: [], connections: 2 };
  assert.equal(buildStatus({ ...PARTS, tailnetClients: [client] }).tailnet, null);
  assert.deepEqual(buildStatus({ ...PARTS, tailnet: TAILNET, tailnetClients: [client] }).tailnet, { ...TAILNET, clients: [client] });
});

test("a listener on the tailnet shows its port there, and not the socket behind it", () => {
  const shown = (listen: ListenAddress): string | undefined => {
    const plan = { name: "live", protocol: "tcp", listen, tls: { mode: "disabled" } };
    // Only what is looked at.
    const all = [{ listener: { plan, active: 1 }, address: "127.0.0.1:4003", down: "" }] as unknown as StatusParts["listeners"]["all"];
    return buildStatus({ ...PARTS, listeners: { all, draining: 0 } }).listeners[0]?.address;
  };
  assert.equal(shown({ kind: "tailnet", port: 4003 }), "tailnet:4003");
  assert.equal(shown({ kind: "tcp", host: "127.0.0.1", port: 0 }), "127.0.0.1:4003");
});

test("an authorization server is shown with what its tokens and its browser sessions are for", () => {
  const login = { github: null, oidc: null, password: null, tailnet: true };
  const server = { issuer: "https://a.example", login, resources: [{ url: "https://a.example/mcp" }], sessionOrigins: new Set(["https://b.example"]) };
  const plan = { stateDir: "/state", routes: [], authorizationServers: [server] } as unknown as Plan;
  assert.deepEqual(buildStatus({ ...PARTS, plan }).authorization_servers, [
    { issuer: "https://a.example", login: ["tailnet"], resources: ["https://a.example/mcp"], session_origins: ["https://b.example"] },
  ]);
});

test("a way in by the tailnet names whom it admits", () => {
  const ways = (match: { users?: string[]; tags?: string[]; nodes?: string[] }): readonly string[] | undefined => {
    const set = (names: string[] | undefined): Set<string> | null => (names === undefined ? null : new Set(names));
    const auth: RoutePlan["auth"] = [{ kind: "tailnet", match: { users: set(match.users), tags: set(match.tags), nodes: set(match.nodes) } }];
    const route = { name: "mcp", listeners: null, host: null, path: { kind: "any" }, methods: null, upstream: "bus", auth };
    return buildStatus({ ...PARTS, plan: { stateDir: "/state", routes: [route] } as unknown as Plan }).routes[0]?.auth;
  };
  assert.deepEqual(ways({}), ["tailnet any"]);
  assert.deepEqual(ways({ users: ["alice@example.com"], tags: ["tag:bots"], nodes: ["laptop"] }), ["tailnet alice@example.com tag:bots laptop"]);
  assert.deepEqual(ways({ tags: ["tag:bots"] }), ["tailnet tag:bots"]);
});

test("an identity provider is shown with its error and since when, or with neither", () => {
  const who = { kind: "login", name: "github", url: "https://github.com" } as const;
  const outage = { error: "connection refused", sinceMs: Date.parse("2026-11-21T09:30:00.000Z") };
  const shown = (parts: Partial<StatusParts>): unknown => buildStatus({ ...PARTS, ...parts }).identity_providers;
  assert.deepEqual(shown({ identityProviders: [{ ...who, outage: null }] }), [{ ...who, error: "", since: null }]);
  assert.deepEqual(shown({ identityProviders: [{ ...who, outage }] }), [{ ...who, error: "connection refused", since: "2026-11-21T09:30:00.000Z" }]);
});
