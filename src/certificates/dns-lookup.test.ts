import assert from "node:assert/strict";
import { after, before, beforeEach, test } from "node:test";
import { startDnsServer, type DnsServer } from "../../test/components/dns-server.ts";
import { AcmeError } from "./acme-issuer.ts";
import { findNameServers, followCnames } from "./dns-lookup.ts";

const never = new AbortController().signal;
let dns: DnsServer;
before(async () => {
  dns = await startDnsServer();
});
beforeEach(() => {
  dns.records.clear();
  dns.silentFor.clear();
  dns.mode = "normal";
});
after(() => dns[Symbol.asyncDispose]());

const set = (records: Record<string, string[]>): void => Object.entries(records).forEach(([key, values]) => dns.records.set(key, values));
const end = (name: string): Promise<string> => followCnames(name, [dns.address], never);
const nameServers = async (name: string): Promise<string[]> =>
  (await findNameServers(name, [dns.address], 53, never)).map((server) => `${server.name} ${server.address}`);

test("a name without a CNAME record stands for itself, there or not", async () => {
  set({ "TXT _acme-challenge.there.example.com": ["other"] });
  assert.equal(await end("_acme-challenge.there.example.com"), "_acme-challenge.there.example.com");
  assert.equal(await end("_acme-challenge.example.com"), "_acme-challenge.example.com");
});

test("CNAME records are followed to their end", async () => {
  set({ "CNAME _acme-challenge.example.com": ["Example.Validation.test"], "CNAME example.validation.test": ["Last.Example.net"] });
  assert.equal(await end("_acme-challenge.example.com"), "last.example.net");
});

test("a wildcard CNAME delegates nothing, but one of the name itself does, beside a wildcard too", async () => {
  set({
    "CNAME *.apps.example.com": ["host.example.net"],
    "CNAME _acme-challenge.own.example.com": ["own.example.net"],
    "CNAME *.own.example.com": ["host.example.net"],
  });
  assert.equal(await end("_acme-challenge.apps.example.com"), "_acme-challenge.apps.example.com");
  assert.equal(await end("_acme-challenge.own.example.com"), "own.example.net");
});

test("CNAME records in a circle, or to what is no host name, are an error", async () => {
  set({
    "CNAME _acme-challenge.example.com": ["a.example.com"],
    "CNAME a.example.com": ["_acme-challenge.example.com"],
    "CNAME _acme-challenge.evil.test": ["-rf.evil.test"],
  });
  const before = dns.questions.length;
  await assert.rejects(
    end("_acme-challenge.example.com"),
    new AcmeError("More than 8 CNAME records follow one another at '_acme-challenge.example.com'; let the first one lead to the last name"),
  );
  assert.ok(dns.questions.length - before <= 2 * 8, "each CNAME, and a sibling of it");
  await assert.rejects(
    end("_acme-challenge.evil.test"),
    new AcmeError("The CNAME record at '_acme-challenge.evil.test' does not lead to a host name; correct it or remove it"),
  );
});

test("a DNS server that refuses the question knows of no CNAME; one that fails is named", async () => {
  dns.mode = "notimp";
  assert.equal(await end("_acme-challenge.example.com"), "_acme-challenge.example.com");
  dns.mode = "servfail";
  await assert.rejects(
    end("_acme-challenge.example.com"),
    new AcmeError(
      `Cannot look for a CNAME record at '_acme-challenge.example.com': the DNS server could not answer (SERVFAIL); DNS servers: '${dns.address}'; see 'resolvers'`,
    ),
  );
});

test("a question ends with the signal", async () => {
  dns.mode = "silent";
  const abort = new AbortController();
  const asked = followCnames("_acme-challenge.example.com", [dns.address], abort.signal);
  const start = performance.now();
  abort.abort(new Error("stop"));
  await assert.rejects(asked, /^Error: stop$/);
  assert.ok(performance.now() - start < 1_500);
});

test("the name servers are those of the nearest parent that has some, each of their addresses", async () => {
  set({
    "NS com": ["tld.test"],
    "NS example.com": ["ns1.example.net", "ns2.example.net"],
    "A a.b.example.com": ["192.0.2.9"],
    "A ns1.example.net": ["192.0.2.1", "192.0.2.2"],
    "AAAA ns1.example.net": ["2001:db8::1"],
    "AAAA ns2.example.net": ["2001:db8::2"],
  });
  assert.deepEqual(await nameServers("_acme-challenge.a.b.example.com"), [
    "ns1.example.net 192.0.2.1:53",
    "ns1.example.net 192.0.2.2:53",
    "ns1.example.net [2001:db8::1]:53",
    "ns2.example.net [2001:db8::2]:53",
  ]);
});

test("the name servers of another zone, to which a parent is an alias, are not taken", async () => {
  set({ "CNAME www.example.com": ["example.org"], "NS example.org": ["ns.example.org"], "A ns.example.org": ["192.0.2.66"] });
  set({ "NS example.com": ["ns.example.com"], "A ns.example.com": ["192.0.2.1"] });
  assert.deepEqual(await nameServers("_acme-challenge.www.example.com"), ["ns.example.com 192.0.2.1:53"]);
});

test("a private DNS may know no name servers, or not the question", async () => {
  assert.deepEqual(await nameServers("_acme-challenge.example.com"), []);
  for (const mode of ["servfail", "refused", "notimp"] as const) {
    dns.mode = mode;
    assert.deepEqual(await nameServers("_acme-challenge.example.com"), [], mode);
  }
});

test("a name server whose address cannot be had does not hide the others; without any address it is not the end", async () => {
  set({ "NS example.com": ["ns1.example.com", "ns2.example.com"], "A ns1.example.com": ["192.0.2.1"] });
  dns.silentFor.add("AAAA ns1.example.com").add("AAAA ns2.example.com");
  assert.deepEqual(await nameServers("_acme-challenge.example.com"), ["ns1.example.com 192.0.2.1:53"]);
  dns.silentFor.add("A ns1.example.com");
  await assert.rejects(nameServers("_acme-challenge.example.com"), { code: "ETIMEOUT" });
});
