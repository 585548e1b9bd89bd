import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { certificateNames } from "./pem.ts";
import { commonName, distinguishedName, parseAltName, parseAltNames } from "./subject-names.ts";

const dir = mkdtempSync(join(tmpdir(), "sidegate-names-"));
after(() => rmSync(dir, { recursive: true }));

/** A certificate that openssl makes, and its subject as openssl prints it. `subject` as for `openssl req -subj`. */
function issue(subject: string, extension = "basicConstraints=CA:FALSE"): { certificate: X509Certificate; rfc2253: string } {
  const config = join(dir, "c.cnf");
  writeFileSync(
    config,
    `oid_section=o\n[o]\nunknown=1.3.6.1.4.1.99999.1\n[req]\nutf8=yes\nstring_mask=utf8only\ndistinguished_name=d\nx509_extensions=e\n[d]\n[e]\n${extension}\n`,
  );
  const [key, cert] = [join(dir, "k"), join(dir, "c")];
  const args = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2", "-config", config, "-utf8", "-subj", subject];
  execFileSync("openssl", [...args, "-keyout", key, "-out", cert], { stdio: "ignore" });
  const printed = execFileSync("openssl", ["x509", "-in", cert, "-noout", "-subject", "-nameopt", "RFC2253"], { encoding: "utf8" });
  return { certificate: new X509Certificate(readFileSync(cert)), rfc2253: printed.replace(/^subject=|\n$/g, "") };
}

for (const [what, subject] of [
  ["plain", "/O=Acme/CN=trader"],
  ["commas and quotes", '/O=Acme, Inc/OU=a "b"/CN=x'],
  ["spaces at the ends, and a hash", "/OU= x /OU=#hash/CN=x"],
  ["plus signs, also between spaces", "/O=a \\+ CN\\=evil/CN=x"],
  ["several OUs and DCs", "/DC=com/DC=example/OU=a/OU=b/CN=x"],
  ["several attributes in one RDN", "/O=Acme/CN=trader +OU=multi+UID=u"],
  ["UTF-8 of two to four bytes", "/O=Grüße/CN=Müller Ċ 😀"],
  ["characters that end lines", "/O=a\nCN=evil/CN=x\ty\u2028\u0085\u007f"],
  ["backslashes before a separator", "/O=a\\\\+CN=x\\\\"],
  ["equals, angles and semicolons", "/O=<a>;\\=b/CN=x"],
] as const) {
  test(`a subject reads as openssl prints it: ${what}`, () => {
    const { certificate, rfc2253 } = issue(subject);
    assert.equal(distinguishedName(certificate.subject), rfc2253);
    assert.match(rfc2253, /^[ -~]+$/);
  });
}

test("an attribute that OpenSSL does not know stands as text", () => {
  assert.equal(distinguishedName(issue("/unknown=abc/CN=x").certificate.subject), "CN=x,1.3.6.1.4.1.99999.1=abc");
});

test("the common name is unescaped, whole and the only one", () => {
  const of = (subject: string) => commonName(issue(subject).certificate.subject);
  assert.deepEqual(of("/O=Acme/CN=trader"), { text: "trader", escaped: "trader" });
  assert.deepEqual(of('/CN=Müller, "Ċ"\n'), { text: 'Müller, "Ċ"\n', escaped: 'M\\C3\\BCller\\, \\"\\C4\\8A\\"\\0A' });
  assert.deepEqual(of("/O=Acme/UID=u+CN=trader"), { text: "trader", escaped: "trader" });
  assert.equal(of("/CN=trader/CN=admin"), null);
  assert.equal(of("/O=x\nCN=admin"), null);
  assert.equal(of("/O=x \\+ CN=admin"), null);
  assert.equal(commonName(""), null);
});

test("alternative names are read by kind, and nothing inside one is taken for another", () => {
  const section = `subjectAltName=@s
[s]
DNS.1=A.example
DNS.2=it,DNS:quoted.example
IP.1=10.0.0.1
IP.2=2001:db8::1
email=x@y, DNS:evil.example
URI.1="urn:a, DNS:evil.example"
URI.2=urn:DNS:evil.example
URI.3=http://a b, DNS:evil.example
RID=1.2.3
dirName=d
otherName=1.2.3.4;UTF8:DNS:evil.example
[d]
CN=a, DNS:evil.example`;
  const { certificate } = issue("/CN=x", section);
  const text = certificate.subjectAltName ?? "";
  assert.match(text, /DNS:evil/, "the trap is set");
  const names = parseAltNames(text);
  const of = (wanted: string) => names.filter(({ kind }) => kind === wanted).map(({ value }) => value);
  assert.deepEqual(of("dns"), ["A.example", "it,DNS:quoted.example"]);
  assert.deepEqual(of("ip"), ["10.0.0.1", "2001:DB8:0:0:0:0:0:1"]);
  assert.deepEqual(of("email"), ["x@y, DNS:evil.example"]);
  assert.deepEqual(of("uri"), ["urn:a, DNS:evil.example", "urn:DNS:evil.example", "http://a b, DNS:evil.example"]);
  assert.deepEqual(certificateNames(certificate), ["a.example", "it,dns:quoted.example", "10.0.0.1", "2001:db8:0:0:0:0:0:1"]);
});

test("a text of alternative names that is not wholly understood has none", () => {
  assert.deepEqual(parseAltNames(""), []);
  assert.deepEqual(parseAltNames("DNS:a"), [{ kind: "dns", value: "a" }]);
  for (const text of ['DNS:a, URI:"x', 'DNS:a, URI:"\\x00"', "DNS:a, b", 'DNS:a"b"', "DNS:a,DNS:b", 'DNS:a, URI:"x"y, DNS:b'])
    assert.deepEqual(parseAltNames(text), [], text);
});

test("what is compared of an alternative name", () => {
  const value = (text: string) => parseAltName(text)?.value;
  assert.equal(value("Bot.Example.COM"), "bot.example.com");
  assert.equal(value("Me.You@Example.COM"), "Me.You@example.com");
  assert.equal(value("spiffe://Example.com/Bot"), "spiffe://Example.com/Bot");
  assert.equal(value("2001:DB8:0:0:0:0:0:1"), "2001:db8::1");
  assert.equal(value("10.0.0.1"), "10.0.0.1");
  for (const wrong of ["", "a b", "a\n", "ü.example", "a,b", "@x", "x@", "a@b@c", "fe80::1%eth0", "a\0"]) assert.equal(value(wrong), undefined, wrong);
});
