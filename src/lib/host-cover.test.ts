import assert from "node:assert/strict";
import { test } from "node:test";
import { isCovered, orderRules, whyNotOrdered } from "./host-cover.ts";

test("a name covers itself, a wildcard one label more, an address itself in any form", () => {
  const names = new Set(["a.example.com", "*.example.net", "127.0.0.1", "0:0:0:0:0:0:0:1"]);
  for (const host of ["a.example.com", "b.example.net", "*.example.net", "127.0.0.1", "[::1]", "[0::1]"]) assert.ok(isCovered(host, names), host);
  for (const host of ["b.example.com", "*.example.com", "example.net", "b.a.example.net", "*.a.example.net", "127.0.0.2", "[::2]", "1.127.0.0.1", "com", ""])
    assert.ok(!isCovered(host, names), host);
});

test("a public CA is asked for public names alone, and for wildcards by dns-01", () => {
  const publicCa = orderRules({ directory: "letsencrypt" });
  for (const host of ["example.com", "a.b.example.com", "local.example.com", "latest.de"]) assert.equal(whyNotOrdered(host, publicCa), null, host);
  const refused = ["localhost", "host", "a.local", "a.internal", "a.lan", "a.home.arpa", "a.test", "a.example", "a.invalid", "a.localhost", "a.onion"];
  for (const host of [...refused, "10.0.0.1", "[::1]", "*.example.com", "a_b.example.com"])
    assert.match(whyNotOrdered(host, publicCa) ?? "(it is asked)", /^(?:is|has|ends)/, host);
  const withDns = orderRules({ directory: "letsencrypt_staging", dns: {} });
  assert.equal(whyNotOrdered("*.example.com", withDns), null);
  assert.match(whyNotOrdered("*.com", withDns) ?? "", /^has one label/);
  assert.match(whyNotOrdered("*.a.lan", withDns) ?? "", /^ends with '\.lan'/);
});

test("another CA may issue for private names, yet not for addresses, and wildcards need dns-01 there too", () => {
  const own = orderRules({ directory: "https://ca.internal/dir", challenge: "http-01", dns: {} });
  for (const host of ["localhost", "a.local", "a_b.lan"]) assert.equal(whyNotOrdered(host, own), null, host);
  assert.match(whyNotOrdered("10.0.0.1", own) ?? "", /IP address/);
  assert.match(whyNotOrdered("*.a.lan", own) ?? "", /dns-01/);
  assert.equal(whyNotOrdered("*.a.lan", orderRules({ directory: "https://ca.internal/dir", challenge: "dns-01" })), null);
  assert.ok(orderRules({ directory: "https://acme-v02.api.letsencrypt.org/directory" }).isPublic);
});
