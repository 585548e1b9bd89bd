// Orders at a real CA: Pebble, with its refused nonces and its own mind about what is proven already.
import assert from "node:assert/strict";
import { X509Certificate, createPrivateKey } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { AcmeChallenges } from "../../src/certificates/acme-challenges.ts";
import { AcmeError, type AcmeIssuer, type IssuedCertificate, type OrderRequest } from "../../src/certificates/acme-issuer.ts";
import { acmeAccountDir } from "../../src/certificates/acme-account.ts";
import { openAcmeIssuer } from "../../src/certificates/acme-open-issuer.ts";
import type { SetDnsRecord } from "../../src/certificates/acme-proof.ts";
import { certificateNames, splitCertificates } from "../../src/lib/pem.ts";
import type { AcmeAccountPlan } from "../../src/plan/model.ts";
import { openLog } from "../../src/telemetry/log.ts";
import { startAcmeAnswers } from "../components/acme-answers.ts";
import { missingPebble, startPebble, type Pebble, type PebbleOptions } from "../components/pebble.ts";
import { skipWithout } from "../components/require.ts";
import { waitFor } from "../components/wait.ts";

const DNS = { provider: "exec", command: ["unused"], timeoutMs: 1000, resolvers: null, propagationTimeoutMs: 1000 } as const;
const EAB_KEY = "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W";

type Scene = {
  readonly pebble: Pebble;
  readonly challenges: AcmeChallenges;
  readonly stateDir: string;
  readonly account: AcmeAccountPlan;
  readonly logged: string[];
  readonly asked: readonly string[];
  issuer: AcmeIssuer;
  /** Another one on the same state, as after a start of the gateway. */
  reopen(setDnsRecord?: SetDnsRecord): AcmeIssuer;
  order(names: string[], more?: Partial<OrderRequest>): Promise<IssuedCertificate>;
  /** What account.json holds. */
  kept(): { url: string; key: string; email: string | null };
};

/** A CA, something that answers its challenges, and an issuer with its own state. Null when the test is skipped. */
async function setUp(t: TestContext, options: PebbleOptions & { stateDir?: string; setDnsRecord?: SetDnsRecord } = {}): Promise<Scene | null> {
  if (skipWithout(t, missingPebble())) return null;
  const started = new AsyncDisposableStack();
  t.after(() => started.disposeAsync());
  const dir = mkdtempSync(join(tmpdir(), "sidegate-acme-"));
  started.defer(() => rmSync(dir, { recursive: true }));
  const challenges = new AcmeChallenges();
  const answers = started.use(await startAcmeAnswers(challenges));
  const { httpPort, tlsPort } = answers;
  const pebble = started.use(await startPebble({ ...options, httpPort, tlsPort }));
  const stateDir = options.stateDir ?? join(dir, "state");
  const logged: string[] = [];
  const log = openLog({ level: "info", format: "json" }, { isTty: false, colors: false, write: (line) => void logged.push(line) });
  const account = { key: "k1", directoryUrl: pebble.directoryUrl, email: "me@example.com", ca: pebble.ca, eab: null };
  const open = (setDnsRecord = options.setDnsRecord): AcmeIssuer =>
    openAcmeIssuer({ stateDir, challenges, log, ...(setDnsRecord === undefined ? {} : { setDnsRecord }) });
  const scene: Scene = {
    pebble,
    challenges,
    stateDir,
    account,
    logged,
    asked: answers.asked,
    issuer: open(),
    reopen: (setDnsRecord) => (scene.issuer = open(setDnsRecord)),
    order: (names, more = {}) =>
      scene.issuer.order({ account, names, challenge: "http-01", dns: null, replaces: null, signal: AbortSignal.timeout(20_000), ...more }),
    kept: () => JSON.parse(readFileSync(join(acmeAccountDir(stateDir, account), "account.json"), "utf8")) as ReturnType<Scene["kept"]>,
  };
  return scene;
}

/** The chain leads to the root of the CA, and the key is the leaf's. */
async function assertIssued({ cert, key }: IssuedCertificate, pebble: Pebble, names: string[]): Promise<void> {
  const [leaf, intermediate, ...rest] = splitCertificates(cert).map((pem) => new X509Certificate(pem));
  const root = new X509Certificate(await pebble.root());
  assert.ok(leaf !== undefined && intermediate !== undefined);
  assert.deepEqual(rest, []);
  assert.deepEqual(certificateNames(leaf).toSorted(), names.toSorted());
  assert.ok(leaf.verify(intermediate.publicKey) && intermediate.verify(root.publicKey));
  assert.ok(leaf.checkPrivateKey(createPrivateKey(key)));
  assert.deepEqual(leaf.publicKey.asymmetricKeyDetails, { namedCurve: "prime256v1" });
}

const accountsAt = ({ pebble }: Scene): number => Math.max(0, ...pebble.log().map((line) => Number(/There are now (\d+) accounts/.exec(line)?.[1] ?? 0)));

test("two gateways that begin on one state at once have one account, so that no binding is used twice", async (t) => {
  const scene = await setUp(t, { eab: { "kid-1": EAB_KEY } });
  if (scene === null) return;
  const account = { ...scene.account, eab: { kid: "kid-1", hmacKey: EAB_KEY } };
  const one = scene.issuer;
  const two = scene.reopen();
  const request = { account, challenge: "http-01", dns: null, replaces: null, signal: AbortSignal.timeout(20_000) } as const;
  await Promise.all([one.order({ ...request, names: ["a.example.com"] }), two.order({ ...request, names: ["b.example.com"] })]);
  assert.equal(accountsAt(scene), 1);
  assert.deepEqual(readdirSync(acmeAccountDir(scene.stateDir, account)), ["account.json"]);
  scene.reopen();
  await scene.order(["c.example.com"], { account });
  assert.equal(accountsAt(scene), 1);
});

function rejectsWith(promise: Promise<unknown>, message: RegExp, more: Partial<AcmeError> = {}): Promise<void> {
  return assert.rejects(promise, (error) => {
    assert.ok(error instanceof AcmeError, String(error));
    assert.match(error.message, message);
    for (const [name, value] of Object.entries(more)) assert.equal(error[name as keyof AcmeError], value);
    return true;
  });
}

void test("http-01 brings a certificate for several names, and the account is kept where only its owner can read", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  const names = ["a.example.com", "b.example.com"];
  await assertIssued(await scene.order(names), scene.pebble, names);
  for (const token of scene.asked) assert.equal(scene.challenges.http(token), null);
  assert.equal(new Set(scene.asked).size, 2);
  const file = join(acmeAccountDir(scene.stateDir, scene.account), "account.json");
  assert.equal(statSync(file).mode & 0o777, 0o600);
  for (const dir of [join(file, ".."), join(scene.stateDir, "acme")]) assert.equal(statSync(dir).mode & 0o777, 0o700);
  assert.match(file, /\/acme\/127\.0\.0\.1_\d+-k1\/account\.json$/);
  const printed = scene.logged.join("");
  assert.match(printed, /"ACME account is open"/);
  assert.doesNotMatch(printed, /PRIVATE/);
});

void test("tls-alpn-01 brings a certificate for several names", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  const names = ["a.example.com", "b.example.com"];
  await assertIssued(await scene.order(names, { challenge: "tls-alpn-01" }), scene.pebble, names);
  assert.deepEqual([...new Set(scene.asked)].toSorted(), names);
  assert.equal(scene.challenges.awaitsTlsAlpn, false);
});

void test("dns-01 brings a wildcard with its base name by two values of one record", async (t) => {
  const set: string[] = [];
  const seen: string[][] = [];
  const scene = await setUp(t, {
    env: { PEBBLE_AUTHZREUSE: "0" },
    setDnsRecord: async (plan, recordName, value, signal) => {
      assert.equal(plan, DNS);
      assert.equal(signal.aborted, false);
      set.push(recordName);
      await scene?.pebble.setTxt(recordName, value);
      return async () => {
        seen.push((await scene?.pebble.txt(recordName)) ?? []);
        await scene?.pebble.clearTxt(recordName);
      };
    },
  });
  if (scene === null) return;
  const names = ["*.example.com", "example.com", "x.example.org"];
  await assertIssued(await scene.order(names, { challenge: "dns-01", dns: DNS }), scene.pebble, names);
  assert.deepEqual(set.toSorted(), ["_acme-challenge.example.com", "_acme-challenge.example.com", "_acme-challenge.x.example.org"]);
  assert.ok(seen.some((values) => values.length === 2));
  assert.deepEqual(await scene.pebble.txt("_acme-challenge.example.com"), []);
});

void test("a record that cannot be removed is told and does not cost the certificate; one that cannot be set does", async (t) => {
  let removed = 0;
  const scene = await setUp(t, {
    setDnsRecord: async (_, recordName, value) => {
      if (recordName.includes("bad")) throw new AcmeError("Cannot set TXT record: no such zone");
      await scene?.pebble.setTxt(recordName, value);
      return async () => {
        removed += 1;
        throw new AcmeError("the zone is locked");
      };
    },
  });
  if (scene === null) return;
  await scene.order(["a.example.com"], { challenge: "dns-01", dns: DNS });
  assert.match(scene.logged.join(""), /"reason":"the zone is locked","msg":"An ACME challenge was left behind"/);
  assert.equal(removed, 1);
  await rejectsWith(scene.order(["ok.example.com", "bad.example.com"], { challenge: "dns-01", dns: DNS }), /^Cannot set TXT record: no such zone$/);
  assert.equal(removed, 2);
});

void test("a wildcard is refused where its challenge cannot prove it", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  await rejectsWith(
    scene.order(["*.example.com"]),
    /^CA '127\.0\.0\.1:\d+' does not offer 'http-01' for '\*\.example\.com', only '.*dns-01.*'; wildcards need 'dns-01'$/,
  );
});

void test("external account binding opens a CA that wants it, and a wrong key does not", async (t) => {
  const scene = await setUp(t, { eab: { "kid-1": EAB_KEY } });
  if (scene === null) return;
  const eab = (kid: string, hmacKey: string, key: string): Partial<OrderRequest> => ({ account: { ...scene.account, key, eab: { kid, hmacKey } } });
  await rejectsWith(scene.order(["a.example.com"]), /refused the request: .* \(externalAccountRequired\); set 'eab' to what the CA gave you$/);
  const wrong = Buffer.alloc(32, 7).toString("base64url");
  await assert.rejects(scene.order(["a.example.com"], eab("kid-1", wrong, "k2")), (error) => {
    assert.ok(error instanceof AcmeError);
    assert.match(error.message, /refused the request: .*external account/i);
    assert.ok(!JSON.stringify([error, error.message, String(error.stack)]).includes(wrong));
    return true;
  });
  await assertIssued(await scene.order(["a.example.com"], eab("kid-1", EAB_KEY, "k3")), scene.pebble, ["a.example.com"]);
  assert.ok(!scene.logged.join("").includes(EAB_KEY));
});

void test("one account serves orders at the same time, the next start, and another address", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  await Promise.all([scene.order(["a.example.com"]), scene.order(["b.example.com"]), scene.order(["c.example.com"])]);
  const { url, key } = scene.kept();
  scene.reopen();
  await scene.order(["a.example.com"]);
  assert.deepEqual(scene.kept(), { url, key, email: "me@example.com" });
  assert.ok(!scene.pebble.requests().some((line) => line.startsWith("POST /my-account/")));
  await scene.order(["a.example.com"], { account: { ...scene.account, email: "you@example.com" } });
  assert.deepEqual(scene.kept(), { url, key, email: "you@example.com" });
  assert.ok(scene.pebble.requests().some((line) => line.startsWith("POST /my-account/")));
  assert.equal(accountsAt(scene), 1);
});

void test("an order that is aborted does not cost another one the account that both wait for", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  const stop = new AbortController();
  const first = scene.order(["a.example.com"], { signal: stop.signal });
  const second = scene.order(["b.example.com"]);
  stop.abort();
  await rejectsWith(first, /not waited for any more/);
  await assertIssued(await second, scene.pebble, ["b.example.com"]);
  assert.equal(accountsAt(scene), 1);
});

void test("an account whose making was cut short is found by its key", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  await scene.order(["a.example.com"]);
  const { url, key, email } = scene.kept();
  writeFileSync(join(acmeAccountDir(scene.stateDir, scene.account), "account.json"), JSON.stringify({ url: null, key, email: null }));
  scene.reopen();
  await scene.order(["a.example.com"]);
  assert.deepEqual(scene.kept(), { url, key, email });
  assert.equal(accountsAt(scene), 1);
});

void test("a CA that forgot everything gets the account again", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  const { cert } = await scene.order(["a.example.com"]);
  const { url, key } = scene.kept();
  await scene.pebble.stop();
  await rejectsWith(scene.order(["a.example.com"]), /^Cannot reach CA '127\.0\.0\.1:\d+': connection refused$/, { problem: null });
  await scene.pebble.start();
  // Nor does it know the certificate that is replaced.
  const orders = [scene.order(["a.example.com"], { replaces: cert }), scene.order(["b.example.com"])];
  await assertIssued((await Promise.all(orders))[0] ?? { cert: "", key: "" }, scene.pebble, ["a.example.com"]);
  assert.notEqual(scene.kept().url, url);
  assert.equal(scene.kept().key, key);
  assert.equal(accountsAt(scene), 1);
});

void test("a challenge that fails is told in the words of the CA, and is not shown any more", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  const { challenges } = scene;
  challenges.http = () => "something else";
  const failed = scene.order(["a.example.com"]);
  await rejectsWith(
    failed,
    /^CA '127\.0\.0\.1:\d+' could not verify 'a\.example\.com': .*something else.* \(unauthorized\); port 80 of the name must lead to this gateway$/,
    { problem: "unauthorized" },
  );
  Reflect.deleteProperty(challenges, "http");
  assert.equal(challenges.http(scene.asked[0] ?? ""), null);
});

void test("a name that the CA refuses is named", async (t) => {
  const scene = await setUp(t, { blocked: ["blocked.example"] });
  if (scene === null) return;
  await rejectsWith(scene.order(["a.example.com", "www.blocked.example"]), /refused the request: .*www\.blocked\.example.* \(rejectedIdentifier\)/, {
    problem: "rejectedIdentifier",
  });
});

void test("the CA says when it wants a certificate renewed", async (t) => {
  const scene = await setUp(t, { validitySeconds: 6 * 86_400 });
  if (scene === null) return;
  const { cert } = await scene.order(["a.example.com"]);
  const leaf = new X509Certificate(cert);
  const ask = () => scene.issuer.renewalWindow(scene.account, cert, AbortSignal.timeout(10_000));
  const window = await ask();
  assert.equal(leaf.validToDate.getTime() - leaf.validFromDate.getTime(), 6 * 86_400_000 - 1000);
  assert.ok(window !== null && window.start > leaf.validFromDate && window.end < leaf.validToDate);
  assert.equal(window.retryAfterMs, 6 * 3_600_000);
  await scene.pebble.setRenewalInfo(cert, JSON.stringify({ suggestedWindow: { start: "2026-01-02T03:04:05Z", end: "2026-01-03T00:00:00Z" } }));
  const wished = await ask();
  assert.equal(wished?.start.toISOString(), "2026-01-02T03:04:05.000Z");
  for (const answer of [JSON.stringify({ suggestedWindow: { start: "2026-01-02T00:00:00Z", end: "2026-01-01T00:00:00Z" } }), "{", "{}"]) {
    await scene.pebble.setRenewalInfo(cert, answer);
    await rejectsWith(ask(), /^CA '127\.0\.0\.1:\d+' gave .* that cannot be used/);
  }
});

void test("a renewal names what it replaces, and goes on where the CA does not take that", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  const { cert } = await scene.order(["a.example.com"]);
  await scene.order(["a.example.com"], { replaces: cert });
  await waitFor(() => scene.pebble.log().some((line) => line.includes("is a replacement of")));
  assert.doesNotMatch(scene.logged.join(""), /does not take the order for a renewal/);
  await assertIssued(await scene.order(["a.example.com"], { replaces: cert }), scene.pebble, ["a.example.com"]);
  assert.match(scene.logged.join(""), /alreadyReplaced.*does not take the order for a renewal/);
});

void test("an abort ends an order at once, and its challenges with it", async (t) => {
  const scene = await setUp(t, { sleepSeconds: 3600 });
  if (scene === null) return;
  const shown: string[] = [];
  const { challenges } = scene;
  const showHttp = challenges.showHttp.bind(challenges);
  challenges.showHttp = (token, answer) => {
    shown.push(token);
    return showHttp(token, answer);
  };
  const stop = new AbortController();
  const ended = rejectsWith(scene.order(["a.example.com"], { signal: stop.signal }), /^What was asked of CA '127\.0\.0\.1:\d+' was stopped$/);
  // The CA was told to look, and is asked what it saw.
  await waitFor(() => scene.pebble.requests().some((line) => line.startsWith("POST /chalZ/")));
  const started = performance.now();
  stop.abort();
  await ended;
  assert.ok(performance.now() - started < 500);
  assert.equal(shown.length, 1);
  for (const token of shown) assert.equal(challenges.http(token), null);
  const before = scene.pebble.requests().length;
  scene.reopen();
  await rejectsWith(scene.order(["a.example.com"], { signal: AbortSignal.abort() }), /not waited for any more/);
  assert.equal(scene.pebble.requests().length, before);
});

void test("CAs with different roots of their own are asked at the same time, and neither trusts the other's", async (t) => {
  const [one, two] = [await setUp(t), await setUp(t)];
  if (one === null || two === null) return;
  const other = { ...two.account, key: "k2" };
  two.account satisfies AcmeAccountPlan;
  const [first, second] = await Promise.all([one.order(["a.example.com"]), two.order(["b.example.com"])]);
  await assertIssued(first, one.pebble, ["a.example.com"]);
  await assertIssued(second, two.pebble, ["b.example.com"]);
  await rejectsWith(
    one.order(["b.example.com"], { account: { ...other, ca: one.pebble.ca } }),
    /^Cannot reach CA '127\.0\.0\.1:\d+': its certificate is signed by an unknown CA: name it in 'ca_file'$/,
  );
});

void test("without a place to keep it, the account lives in memory, which is told once", async (t) => {
  const scene = await setUp(t, { stateDir: "/dev/null/state" });
  if (scene === null) return;
  await scene.order(["a.example.com"]);
  await scene.order(["b.example.com"]);
  assert.equal(accountsAt(scene), 1);
  assert.equal(scene.logged.filter((line) => line.includes('"level":"warn"')).length, 1);
  assert.match(scene.logged.join(""), /"file":"\/dev\/null\/state\/.*"reason":"a part of the path is not a directory","msg":"The ACME account cannot be kept/);
});

void test("an account that the state did not take is kept as soon as it does", async (t) => {
  const stateDir = mkdtempSync(join(tmpdir(), "sidegate-acme-"));
  t.after(() => rmSync(stateDir, { recursive: true }));
  const scene = await setUp(t, { stateDir });
  if (scene === null) return;
  const inTheWay = join(stateDir, "acme");
  writeFileSync(inTheWay, "");
  await scene.order(["a.example.com"]);
  rmSync(inTheWay);
  await scene.order(["b.example.com"]);
  scene.reopen();
  await scene.order(["c.example.com"]);
  assert.equal(accountsAt(scene), 1);
});

void test("a damaged account is replaced", async (t) => {
  const scene = await setUp(t);
  if (scene === null) return;
  await scene.order(["a.example.com"]);
  for (const text of ["{", "null", JSON.stringify({ ...scene.kept(), key: "damaged" })]) {
    writeFileSync(join(acmeAccountDir(scene.stateDir, scene.account), "account.json"), text);
    scene.reopen();
    await scene.order(["a.example.com"]);
    assert.match(scene.kept().key, /BEGIN PRIVATE KEY/);
  }
  assert.equal(accountsAt(scene), 4);
});
