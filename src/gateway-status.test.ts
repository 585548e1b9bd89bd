import assert from "node:assert/strict";
import { test } from "node:test";
import type { CertificateInfo } from "./certificates/source.ts";
import { buildStatus } from "./gateway-status.ts";

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
    version: "1.0.0",
    pid: 1,
    file: "/x.yaml",
    startedAt: new Date(),
    loadedAt: new Date(),
    refusal: null,
    stopping: false,
    stateError: "",
    plan: null,
    digest: "",
    listeners: { all: [], draining: 0 },
    upstreams: [],
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
