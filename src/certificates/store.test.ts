import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { withoutEnd } from "../../test/components/pki.ts";
import { openInternalCa } from "./internal-ca.ts";
import { createSchedule } from "./renew.ts";
import { acmeFiles, keepFromOthers, lookAt, readCertificate, readSchedule, StoredCertificateError, writeCertificate, writeSchedule } from "./store.ts";

const root = mkdtempSync(join(tmpdir(), "sidegate-store-"));
after(() => rmSync(root, { recursive: true, force: true }));
const ca = await openInternalCa(join(root, "ca"));
const [other] = [await openInternalCa(join(root, "other"))];
const account = { key: "abcdefABCD_-", directoryUrl: "https://acme.example:14000/dir", email: null, ca: null, eab: null };
const NAMES = ["a.example.com", "*.example.com"];

test("files are named after CA, account and names, and fit into file systems", () => {
  const files = acmeFiles("/state", account, ["*.example.com", "a.example.com"]);
  assert.match(files.certificate, /^\/state\/acme\/acme\.example_14000-abcdefABCD_-\/_\.example\.com-[0-9a-f]{12}\.json$/);
  assert.equal(dirname(files.lock), join(files.directory, "locks"));
  const hash = (names: string[]): string => /-(\w+)\.json$/.exec(acmeFiles("/state", account, names).certificate)?.[1] ?? "";
  assert.equal(hash(["*.example.com", "a.example.com"]), hash(["a.example.com", "*.example.com"]));
  assert.notEqual(hash(["a.example.com"]), hash(["a.example.com", "*.example.com"]));
  const long = acmeFiles("/state", { ...account, directoryUrl: "https://[::1]/dir" }, [`${"a".repeat(60)}.`.repeat(4)]);
  assert.ok(Math.max(...long.schedule.split("/").map((part) => part.length)) < 200);
  assert.match(long.directory, /\/___1_-abc/);
});

test("a certificate comes back as it was written, for its owner alone, and nothing else is left", async () => {
  const { certificate, schedule, directory } = acmeFiles(join(root, "state"), account, NAMES);
  assert.equal(await readCertificate(certificate, NAMES), null);
  assert.equal(await lookAt(certificate), null);
  const issued = ca.issue(NAMES, Date.now());
  await writeCertificate(certificate, issued);
  const first = await lookAt(certificate);
  assert.equal(first?.isOpen, false);
  const read = await readCertificate(certificate, NAMES);
  assert.deepEqual([read?.certificate.cert, read?.certificate.key, read?.certificate.info.source], [issued.cert, issued.key, "acme"]);
  const memory = { ...createSchedule("plan", "leaf", 5), failures: 3, error: "No", window: { startMs: 1, endMs: 3, atMs: 2 } };
  await writeSchedule(schedule, memory);
  assert.deepEqual(await readSchedule(schedule), memory);
  for (const file of [certificate, schedule]) assert.equal(statSync(file).mode & 0o777, 0o600);
  for (const path of [directory, dirname(directory)]) assert.equal(statSync(path).mode & 0o777, 0o700);
  await writeCertificate(certificate, ca.issue(NAMES, Date.now()));
  assert.notEqual((await lookAt(certificate))?.stamp, first.stamp);
  assert.equal(readdirSync(directory).length, 2);
});

test("what cannot be written leaves the old one and no draft", async () => {
  const { certificate, directory } = acmeFiles(join(root, "kept"), account, NAMES);
  mkdirSync(join(certificate, "in the way"), { recursive: true });
  await assert.rejects(writeCertificate(certificate, ca.issue(NAMES, Date.now())), { syscall: "rename" });
  assert.equal(readdirSync(directory).length, 1);
  assert.ok(existsSync(join(certificate, "in the way")));
});

test("a damaged, foreign or unfitting certificate is told by its fault, without the key", async () => {
  const file = join(root, "bad.json");
  const issued = ca.issue(NAMES, Date.now());
  const faults: [string, RegExp][] = [
    ["", /^is not JSON, or only half of it$/],
    [JSON.stringify({ cert: issued.cert, key: issued.key }).slice(0, -30), /^is not JSON/],
    ["null", /^is not JSON/],
    ["[]", /^is no certificate of this gateway/],
    [JSON.stringify({ cert: issued.cert }), /^is no certificate of this gateway/],
    [JSON.stringify({ cert: "x", key: issued.key }), /^holds a certificate or key that cannot be decoded/],
    [JSON.stringify({ cert: issued.cert, key: issued.key.replace("MIG", "XXX") }), /^holds a certificate or key that cannot be decoded/],
    [JSON.stringify({ cert: issued.cert, key: other.issue(NAMES, 0).key }), /^holds a key that is not the key of its certificate$/],
    [JSON.stringify(ca.issue(["a.example.com"], Date.now())), /^holds a certificate that is not for '\*\.example\.com'$/],
    [JSON.stringify({ cert: withoutEnd(issued.cert), key: issued.key }), /^holds a certificate without valid dates$/],
  ];
  for (const [text, message] of faults) {
    writeFileSync(file, text);
    const error: unknown = await readCertificate(file, NAMES).catch((reason: unknown) => reason);
    assert.ok(error instanceof StoredCertificateError, text);
    assert.match(error.message, message);
    assert.doesNotMatch(`${error.stack} ${String(error.cause)}`, /PRIVATE|MIGH/);
  }
});

test("an unusable memory is none", async () => {
  const file = join(root, "memory.json");
  for (const change of [{ failures: -1 }, { failures: 1.5 }, { retryAtMs: null }, { retryAtMs: 1e300 }, { leaf: 5 }, { error: undefined }]) {
    writeFileSync(file, JSON.stringify({ ...createSchedule("plan", "leaf", 5), ...change }));
    assert.equal(await readSchedule(file), null);
  }
  writeFileSync(file, JSON.stringify({ ...createSchedule("plan", "leaf", 5), window: { startMs: "x" } }));
  assert.deepEqual(await readSchedule(file), createSchedule("plan", "leaf", 5));
  writeFileSync(file, "{");
  assert.equal(await readSchedule(file), null);
});

test("rights of others on a key are taken away", async () => {
  const file = join(root, "open.json");
  writeFileSync(file, "");
  chmodSync(file, 0o640);
  assert.equal((await lookAt(file))?.isOpen, true);
  await keepFromOthers(file);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal((await lookAt(file))?.isOpen, false);
  await keepFromOthers(join(root, "missing"));
});
