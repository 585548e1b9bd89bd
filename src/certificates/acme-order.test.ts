import assert from "node:assert/strict";
import { generateKeyPairSync, webcrypto } from "node:crypto";
import { test } from "node:test";
import { AuthorityKeyIdentifierExtension, X509CertificateGenerator } from "@peculiar/x509";
import { withoutEnd } from "../../test/components/pki.ts";
import { checkChain } from "./acme-order.ts";
import { poll } from "./acme-proof.ts";
import { describeProblem, parseProblem } from "./acme-problem.ts";
import { renewalInfoId } from "./acme-renewal-info.ts";
import { createCertificate, encodeName } from "./x509.ts";

const NOW = Date.parse("2026-11-21T12:00:00Z");
const HOUR = 3_600_000;
const own = generateKeyPairSync("ec", { namedCurve: "P-256" });
const key = own.privateKey.export({ type: "pkcs8", format: "pem" });

function issue(from: number, to: number, keys = own, names = ["a.example.com", "*.example.com"]): string {
  const issuer = { subject: encodeName("CA"), privateKey: own.privateKey };
  return createCertificate({ subject: "x", names, publicKey: keys.publicKey, issuer, ca: false, notBefore: new Date(from), notAfter: new Date(to) });
}

void test("a chain is taken when its leaf fits the order, without what stands between the certificates", () => {
  const pem = issue(NOW - HOUR, NOW + HOUR);
  const chain = checkChain("ca", `subject=evil\n${pem}\nissuer=\u001b[31m\n${pem}garbage`, key, ["a.example.com", "*.example.com"], NOW);
  assert.equal(chain, `${pem.trim()}\n${pem.trim()}\n`);
  // Our clock may be behind by five minutes.
  checkChain("ca", issue(NOW + 299_000, NOW + HOUR), key, ["a.example.com"], NOW);
});

void test("a certificate that does not fit is refused with the reason", () => {
  const other = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const good = issue(NOW - HOUR, NOW + HOUR);
  const cases: [unknown, string[], string][] = [
    [undefined, [], "it holds no certificate"],
    ["nothing", [], "it holds no certificate"],
    ["-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----", [], "it cannot be decoded"],
    [issue(NOW - HOUR, NOW + HOUR, other), ["a.example.com"], "it has another key"],
    [good, ["a.example.com", "b.example.com", "c.example.com"], "it lacks 'b.example.com', 'c.example.com'"],
    [withoutEnd(good), ["a.example.com"], "it has no valid dates"],
    [issue(NOW - HOUR, NOW - 1000), ["a.example.com"], "it expired at 2026-11-21T11:59:59.000Z"],
    [issue(NOW + 301_000, NOW + HOUR), ["a.example.com"], "it is not valid before 2026-11-21T12:05:01.000Z; is the clock of this machine right?"],
  ];
  for (const [text, names, reason] of cases) {
    assert.throws(() => checkChain("ca", text, key, names, NOW), { message: `CA 'ca' issued a certificate that cannot be used: ${reason}` });
  }
});

void test("a problem becomes one sentence", () => {
  const type = "urn:ietf:params:acme:error:rejectedIdentifier";
  const problem = parseProblem({
    type,
    detail: "Some names\r\nare \u001b[31mforbidden\u202e.",
    subproblems: [{ type, detail: "Policy forbids it", identifier: { type: "dns", value: "a.example.com" } }, null, { detail: "More\u2028is wrong" }],
  });
  assert.ok(problem !== null);
  assert.equal(describeProblem(problem), "Some names are [31mforbidden (rejectedIdentifier); 'a.example.com': Policy forbids it; More is wrong");
  assert.equal(describeProblem({ type: "caa", detail: "", subproblems: [] }), "caa; a CAA record of the domain must allow this CA");
  for (const value of [null, "text", 1, {}, { type: 1 }, []]) assert.equal(parseProblem(value), null);
});

void test("a certificate is named by the key identifier of its CA and its serial number, as in RFC 9773", async () => {
  const keys = await webcrypto.subtle.generateKey({ name: "ECDSA", namedCurve: "P-256" }, true, ["sign", "verify"]);
  const make = async (serialNumber: string, extensions: AuthorityKeyIdentifierExtension[]): Promise<string> =>
    (await X509CertificateGenerator.createSelfSigned({ serialNumber, keys, extensions }, webcrypto)).toString("pem");
  const issuer = new AuthorityKeyIdentifierExtension("69885b6b87464041e1b37b847ba0ae2cde01c8d4");
  // The example of its section 4.1.
  assert.equal(await renewalInfoId(await make("0087654321", [issuer])), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.AIdlQyE");
  assert.equal(await renewalInfoId(await make("07654321", [issuer])), "aYhba4dGQEHhs3uEe6CuLN4ByNQ.B2VDIQ");
  assert.equal(await renewalInfoId(await make("01", [])), null);
  assert.equal(await renewalInfoId("no certificate"), null);
});

void test("a CA is asked a few times, then given up, and not at all when nobody waits", async () => {
  let asked = 0;
  const { signal } = new AbortController();
  const ask = (stop: AbortSignal, retryAfterMs: number): Promise<boolean> => {
    asked = 0;
    return poll(
      { ca: "ca", signal: stop, takeRetryAfterMs: () => retryAfterMs },
      false,
      async () => ++asked > 9,
      (done) => done,
      [1, 1, 1],
    );
  };
  await assert.rejects(ask(signal, 0), { message: "CA 'ca' takes too long: it was asked 3 times" });
  assert.equal(asked, 3);
  const started = performance.now();
  await assert.rejects(ask(signal, 40), /takes too long/);
  assert.ok(performance.now() - started > 115);
  await assert.rejects(ask(AbortSignal.timeout(20), 60_000), { name: "AbortError" });
  assert.equal(asked, 0);
});
