import assert from "node:assert/strict";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import type { AcmeChallengeType, AcmePlan } from "../plan/model.ts";
import { openLog } from "../telemetry/log.ts";
import { AcmeCertificates, type AcmeTimes, type PreparedAcme } from "./acme.ts";
import { AcmeError, type IssuedCertificate, type OrderRequest, type RenewalWindow } from "./acme-issuer.ts";
import type { CertificateEvent } from "./events.ts";
import { openInternalCa } from "./internal-ca.ts";
import type { CertificateSource, ServerCertificate } from "./source.ts";
import { writeCertificate, acmeFiles } from "./store.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const root = mkdtempSync(join(tmpdir(), "sidegate-acme-"));
after(() => rmSync(root, { recursive: true, force: true }));
const ca = await openInternalCa(join(root, "ca"));
const account = { key: "account-key1", directoryUrl: "https://acme.example/dir", email: null, ca: null, eab: null };
let states = 0;

function newState(): string {
  states += 1;
  return join(root, `state-${states}`);
}

function planOf(certificates: readonly (readonly string[])[], more: Partial<AcmePlan> = {}): AcmePlan {
  return { account, challenges: ["http-01"], dns: null, certificates, ...more };
}

const A = planOf([["a.example.com"]]);

/** A gateway's certificates with a CA that does as told, a clock that can be moved, and all that came of it. */
function open(stateDir: string, options: { times?: AcmeTimes; offset?: { ms: number } } = {}) {
  const offset = options.offset ?? { ms: 0 };
  const now = (): number => Date.now() + offset.ms;
  const issue = (names: readonly string[]): IssuedCertificate => ca.issue(names, now());
  const cas = {
    orders: [] as OrderRequest[],
    underWay: 0,
    most: 0,
    questions: 0,
    answer: (request: OrderRequest): IssuedCertificate | Promise<IssuedCertificate> => issue(request.names),
    window: (): RenewalWindow | null => null,
  };
  const lines: Record<string, unknown>[] = [];
  const events: CertificateEvent[] = [];
  const opened: string[] = [];
  const log = openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(JSON.parse(text)) });
  const certificates = new AcmeCertificates({
    log,
    pid: 7,
    now,
    random: () => 0.5,
    onEvent: (event) => void events.push(event),
    openIssuer: (directory) => {
      opened.push(directory);
      return {
        order: async (request) => {
          cas.orders.push(request);
          cas.underWay += 1;
          cas.most = Math.max(cas.most, cas.underWay);
          try {
            return await cas.answer(request);
          } finally {
            cas.underWay -= 1;
          }
        },
        renewalWindow: () => {
          cas.questions += 1;
          return Promise.resolve().then(() => cas.window());
        },
      };
    },
    times: { lookMs: 5, refreshMs: 50, lockedLookMs: 20, touchMs: 20, staleMs: 200, ...options.times },
  });
  const use = async (...plans: AcmePlan[]): Promise<PreparedAcme> => {
    const prepared = await certificates.prepare(plans, stateDir);
    prepared.commit();
    return prepared;
  };
  const close = (): Promise<void> => certificates.close();
  const said = (event: string): Record<string, unknown>[] => lines.filter((line) => line["event"] === event);
  return { certificates, cas, lines, events, opened, offset, now, issue, use, said, close, [Symbol.asyncDispose]: close };
}

/** Long enough for several looks of a test's loop. */
async function looks(gateway: { now: () => number }): Promise<void> {
  const until = performance.now() + 60;
  await waitFor(() => performance.now() > until && gateway.now() > 0);
}

function refuse(message: string, retryAfterMs: number | null = null): () => never {
  return () => {
    throw new AcmeError(message, { retryAfterMs });
  };
}

/** What the source has for a.example.com, when that is another certificate. */
function otherThan(old: ServerCertificate, source: CertificateSource): ServerCertificate | null {
  const found = source.get("a.example.com");
  return found?.cert === old.cert ? null : found;
}

function filesOf(stateDir: string, names: readonly string[] = ["a.example.com"]) {
  return acmeFiles(stateDir, account, names);
}

test("nothing is ordered before commit; then it is at once, serves, is told and kept", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir);
  const prepared = await gateway.certificates.prepare([A], stateDir);
  const source = prepared.source(A);
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 0);
  assert.equal(existsSync(stateDir), false);
  const [before] = source.list();
  assert.deepEqual([before?.source, before?.names, before?.issuer, before?.notAfter, before?.error], ["acme", ["a.example.com"], "", null, ""]);
  assert.ok(before?.renewAt !== null);
  assert.equal(source.get("a.example.com"), null);

  prepared.commit();
  const served = await waitFor(() => source.get("a.example.com"));
  assert.equal(source.get("b.example.com"), null);
  assert.equal(source.fallback(), null);
  const [request] = gateway.cas.orders;
  assert.deepEqual([request?.names, request?.challenge, request?.replaces, request?.account], [["a.example.com"], "http-01", null, account]);
  await waitFor(() => gateway.events.length > 0);
  const { notAfter } = served.info;
  assert.deepEqual(gateway.events, [{ kind: "renewed", source: "acme", names: ["a.example.com"], notAfter, reason: "" }]);
  const [info] = source.list();
  assert.deepEqual([info?.notAfter, info?.issuer, info?.file, info?.error], [notAfter, served.info.issuer, null, ""]);
  const leftMs = (info?.notAfter?.getTime() ?? 0) - (info?.renewAt?.getTime() ?? 0);
  assert.ok(leftMs >= 30 * DAY && leftMs <= 34.6 * DAY, String(leftMs / DAY));
  assert.equal(gateway.said("certificate_ordering").length, 1);
  assert.equal(gateway.said("certificate_renewed")[0]?.["not_after"], notAfter?.toISOString());
  assert.equal(statSync(filesOf(stateDir).certificate).mode & 0o777, 0o600);
  assert.doesNotMatch(JSON.stringify(gateway.lines), /PRIVATE KEY/);
});

test("without plans nothing is opened", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir);
  await gateway.use();
  await gateway.use(planOf([]));
  assert.deepEqual(gateway.opened, []);
  assert.equal(existsSync(stateDir), false);
});

test("names are served exact before wildcard, and what there is before what is to be had", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir);
  gateway.cas.answer = ({ names }) => (names[0] === "late.example.com" ? new Promise(() => {}) : gateway.issue(names));
  const plan = planOf([["*.example.com", "example.com"], ["late.example.com", "a.example.com"], ["a.example.com"], ["late.example.com"]]);
  const source = (await gateway.use(plan)).source(plan);
  await waitFor(() => gateway.events.length === 2);
  assert.deepEqual(source.get("a.example.com")?.info.names, ["a.example.com"]);
  for (const name of ["b.example.com", "example.com", "late.example.com"]) assert.deepEqual(source.get(name)?.info.names, ["*.example.com", "example.com"]);
  assert.equal(source.get("c.b.example.com"), null);
  assert.equal(source.list().length, 4);
  assert.deepEqual((await gateway.certificates.prepare([], stateDir)).source(plan).list(), []);
});

test("at most four orders go on at a time, in the order of the plan", async () => {
  await using gateway = open(newState());
  const waiting: (() => void)[] = [];
  gateway.cas.answer = async ({ names }) => {
    await new Promise<void>((resolve) => waiting.push(resolve));
    return gateway.issue(names);
  };
  const names = Array.from({ length: 9 }, (_, i) => `n${i}.example.com`);
  await gateway.use(planOf(names.map((name) => [name])));
  await waitFor(() => waiting.length === 4);
  await looks(gateway);
  assert.deepEqual(new Set(gateway.cas.orders.map((order) => order.names[0])), new Set(names.slice(0, 4)));
  await waitFor(() => {
    for (const go of waiting.splice(0)) go();
    return gateway.events.length === 9;
  });
  assert.equal(gateway.cas.most, 4);
  assert.equal(gateway.cas.orders.length, 9);
});

test("a restart serves what the state holds at once, and orders nothing until a third of the life is left", async () => {
  const stateDir = newState();
  const first = open(stateDir);
  await first.use(A);
  await waitFor(() => first.events.length === 1);
  await first.close();
  await using gateway = open(stateDir);
  const prepared = await gateway.certificates.prepare([A], stateDir);
  const source = prepared.source(A);
  const old = source.get("a.example.com");
  assert.ok(old !== null);
  assert.deepEqual(gateway.said("certificate_taken"), []);
  prepared.commit();
  const renewAt = source.list()[0]?.renewAt?.getTime() ?? 0;
  gateway.offset.ms = renewAt - Date.now() - 5_000;
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 0);
  gateway.offset.ms += 5_001;
  const next = await waitFor(() => otherThan(old, source));
  assert.equal(gateway.cas.orders.length, 1);
  assert.equal(gateway.cas.orders[0]?.replaces, old.cert);
  assert.ok((next.info.notAfter?.getTime() ?? 0) - (old.info.notAfter?.getTime() ?? 0) > 50 * DAY);
});

test("the CA's renewal window decides, is remembered over a restart, and means now when it is past", async () => {
  const stateDir = newState();
  const nowMs = Date.now();
  const window = { start: new Date(nowMs + 10 * DAY), end: new Date(nowMs + 12 * DAY), retryAfterMs: 6 * HOUR };
  const first = open(stateDir);
  first.cas.window = () => window;
  const source = (await first.use(A)).source(A);
  await waitFor(() => source.list()[0]?.renewAt?.getTime() === window.start.getTime() + DAY);
  await looks(first);
  assert.equal(first.cas.questions, 1);
  await first.close();

  await using gateway = open(stateDir);
  const again = (await gateway.use(A)).source(A);
  assert.equal(again.list()[0]?.renewAt?.getTime(), window.start.getTime() + DAY);
  await looks(gateway);
  assert.equal(gateway.cas.questions, 0);
  gateway.cas.window = () => ({ start: new Date(0), end: new Date(1), retryAfterMs: 6 * HOUR });
  gateway.offset.ms = 6 * HOUR + MINUTE;
  await waitFor(() => gateway.events.length === 1);
  assert.deepEqual([gateway.cas.questions > 0, gateway.cas.orders.length], [true, 1]);
  // A CA whose windows are always past is believed once, then less and less.
  await waitFor(() => gateway.cas.questions >= 2);
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 1);
  gateway.offset.ms += MINUTE + 1_000;
  await waitFor(() => gateway.events.length === 2);
  gateway.offset.ms += MINUTE + 1_000;
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 2);
});

test("without an answer about the window a third of the life decides", async () => {
  await using gateway = open(newState());
  gateway.cas.window = refuse("Busy", 1e15);
  const source = (await gateway.use(A)).source(A);
  await waitFor(() => gateway.said("renewal_window_unknown").length > 0);
  await looks(gateway);
  assert.equal(gateway.cas.questions, 1);
  assert.equal(source.list()[0]?.error, "");
  assert.ok((source.list()[0]?.renewAt?.getTime() ?? 0) > Date.now() + 50 * DAY);
  assert.deepEqual(
    gateway.events.map(({ kind }) => kind),
    ["renewed"],
  );
});

test("failures wait longer and longer, over restarts too, and take the next challenge", async () => {
  const stateDir = newState();
  const plan = planOf([["a.example.com"]], { challenges: ["tls-alpn-01", "http-01"] });
  const first = open(stateDir);
  first.cas.answer = refuse("The CA cannot reach port 80");
  const source = (await first.use(plan)).source(plan);
  await waitFor(() => first.events.length === 1);
  await looks(first);
  assert.equal(first.cas.orders.length, 1);
  assert.match(
    first.events[0]?.reason ?? "",
    /^Cannot get the certificate for 'a\.example\.com': The CA cannot reach port 80; tried again in (1m|59\.\ds|60s)$/,
  );
  assert.deepEqual([first.events[0]?.kind, first.events[0]?.notAfter], ["renewal_failed", null]);
  assert.equal(first.said("certificate_renewal_failed")[0]?.["level"], "warn");
  assert.equal(source.list()[0]?.error, "The CA cannot reach port 80");
  first.offset.ms = MINUTE + 1_000;
  await waitFor(() => first.events.length === 2);
  await first.close();

  await using gateway = open(stateDir, { offset: first.offset });
  gateway.cas.answer = refuse("The CA cannot reach port 80");
  const again = (await gateway.use(plan)).source(plan);
  assert.equal(again.list()[0]?.error, "The CA cannot reach port 80");
  const waitMs = (again.list()[0]?.renewAt?.getTime() ?? 0) - gateway.now();
  assert.ok(waitMs > 1.5 * MINUTE && waitMs <= 2 * MINUTE, String(waitMs));
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 0);
  gateway.offset.ms += 2 * MINUTE;
  await waitFor(() => gateway.events.length === 1);
  const challenges: AcmeChallengeType[] = [...first.cas.orders, ...gateway.cas.orders].map(({ challenge }) => challenge);
  assert.deepEqual(challenges, ["tls-alpn-01", "http-01", "tls-alpn-01"]);
  gateway.cas.answer = ({ names }) => gateway.issue(names);
  gateway.offset.ms += 4 * MINUTE + 1_000;
  await waitFor(() => gateway.events.some(({ kind }) => kind === "renewed"));
  assert.equal(again.list()[0]?.error, "");
  // The next renewal begins with what worked.
  gateway.offset.ms += 70 * DAY;
  await waitFor(() => gateway.cas.orders.length === 3);
  assert.deepEqual(
    gateway.cas.orders.slice(1).map(({ challenge }) => challenge),
    ["http-01", "http-01"],
  );
});

test("the CA's Retry-After is waited out, and 'renew' does not wait", async () => {
  await using gateway = open(newState());
  gateway.cas.answer = refuse("Too many certificates", 5 * HOUR);
  const source = (await gateway.use(A)).source(A);
  await waitFor(() => gateway.events.length === 1);
  const waitMs = (source.list()[0]?.renewAt?.getTime() ?? 0) - Date.now();
  assert.ok(waitMs > 4.9 * HOUR && waitMs <= 5 * HOUR);
  gateway.offset.ms = 4 * HOUR;
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 1);
  const refused = await gateway.certificates.renew("a.example.com");
  assert.equal(refused.ok, false);
  assert.match(refused.message, /Too many certificates; tried again in 5h$|4h 59m$/);
  gateway.cas.answer = ({ names }) => gateway.issue(names);
  const renewed = await gateway.certificates.renew("A.example.com");
  assert.equal(renewed.ok, true, renewed.message);
  assert.match(renewed.message, /^Got a certificate for 'a\.example\.com' that is valid until 20/);
});

test("'renew' orders whatever the age, by name or wildcard, joins what is under way, and knows no other names", async () => {
  await using gateway = open(newState());
  const plan = planOf([["*.example.com"]]);
  const source = (await gateway.use(plan)).source(plan);
  await waitFor(() => gateway.events.length === 1);
  // Its lock may not be released yet: whoever has seen how it ended asks for another one all the same.
  const old = source.get("a.example.com");
  const all = await Promise.all(["a.example.com", "b.example.com", "*.example.com"].map((name) => gateway.certificates.renew(name)));
  assert.deepEqual(
    all.map(({ ok }) => ok),
    [true, true, true],
  );
  assert.equal(gateway.cas.orders.length, 2);
  assert.notEqual(source.get("a.example.com"), old);
  const unknown = await gateway.certificates.renew("example.org");
  assert.equal(unknown.ok, false);
  assert.match(unknown.message, /^No certificate of an ACME CA covers 'example\.org'/);
});

test("an account that is refused three times in a row holds back its other orders, and one tries for all", async () => {
  await using gateway = open(newState());
  gateway.cas.answer = refuse("Too many orders", 7 * DAY);
  const names = Array.from({ length: 12 }, (_, i) => [`n${i}.example.com`]);
  const own = planOf([["own.example.org"]], { account: { ...account, key: "account-key2" } });
  await gateway.use(planOf(names), own);
  const ordered = (): number => gateway.cas.orders.filter((order) => order.account.key === account.key).length;
  // Each refusal from the third on is said when its order is over.
  const areOver = (): boolean => ordered() >= 3 && gateway.said("acme_account_held").length === ordered() - 2;
  await waitFor(areOver);
  await waitFor(() => gateway.cas.orders.length > ordered());
  await looks(gateway);
  await waitFor(areOver);
  const held = ordered();
  assert.ok(held <= 6, String(held));
  gateway.offset.ms = HOUR + 1_000;
  await waitFor(() => ordered() > held && areOver());
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, held + 2);
  gateway.cas.answer = (request) => gateway.issue(request.names);
  gateway.offset.ms += HOUR + 1_000;
  await waitFor(() => gateway.events.filter(({ kind }) => kind === "renewed").length === 12 - held - 1);
});

test("a failing renewal leaves the present certificate serving, to its end and after it, and says so", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir);
  const source = (await gateway.use(A)).source(A);
  await waitFor(() => gateway.events.length === 1);
  const old = source.get("a.example.com");
  gateway.cas.answer = refuse("No");
  gateway.offset.ms = 70 * DAY;
  await waitFor(() => gateway.events.length === 2);
  assert.match(gateway.events[1]?.reason ?? "", /; the present one serves and is valid until 20/);
  assert.deepEqual(gateway.events[1]?.notAfter, old?.info.notAfter);
  gateway.offset.ms = 100 * DAY;
  await waitFor(() => gateway.events.length === 3);
  assert.match(gateway.events[2]?.reason ?? "", /; the present one goes on serving, but expired on 20/);
  assert.equal(source.get("a.example.com"), old);
  await gateway.close();
  await using restarted = open(stateDir, { offset: gateway.offset });
  assert.equal((await restarted.certificates.prepare([A], stateDir)).source(A).get("a.example.com")?.cert, old?.cert);
});

test("a failing certificate whose plan changed is tried at once with the new plan, also after a restart; a reload of the same plan changes nothing", async () => {
  const stateDir = newState();
  const first = open(stateDir);
  first.cas.answer = refuse("No");
  await first.use(A);
  await waitFor(() => first.events.length === 1);
  await first.use(planOf([["a.example.com"]]));
  await looks(first);
  assert.equal(first.cas.orders.length, 1);
  const mended = planOf([["a.example.com"]], { challenges: ["tls-alpn-01"] });
  const prepared = await first.certificates.prepare([mended], stateDir);
  await looks(first);
  assert.equal(first.cas.orders.length, 1);
  prepared.commit();
  await waitFor(() => first.events.length === 2);
  assert.equal(first.cas.orders[1]?.challenge, "tls-alpn-01");
  await first.close();
  await using gateway = open(stateDir);
  const restarted = await gateway.use(planOf([["a.example.com"]], { account: { ...account, email: "me@example.com" } }));
  await waitFor(() => gateway.events.length === 1);
  assert.equal(gateway.events[0]?.kind, "renewed");
  assert.deepEqual(restarted.source(A).list(), []);
});

test("a plan that changes during an order is tried at once when that one fails", async () => {
  await using gateway = open(newState());
  const gate = Promise.withResolvers<IssuedCertificate>();
  gateway.cas.answer = ({ challenge, names }) => (challenge === "http-01" ? gate.promise : gateway.issue(names));
  await gateway.use(A);
  await waitFor(() => gateway.cas.orders.length === 1);
  await gateway.use(planOf([["a.example.com"]], { challenges: ["tls-alpn-01"] }));
  gate.reject(new AcmeError("No"));
  await waitFor(() => gateway.events.length === 2);
  assert.match(gateway.events[0]?.reason ?? "", /: No; tried again at once$/);
  assert.equal(gateway.events[1]?.kind, "renewed");
});

test("over a reload a certificate is kept as it is, and one that is no longer wanted is neither ordered nor removed", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir);
  gateway.cas.answer = ({ names }) => (names[0] === "slow.example.com" ? new Promise(() => {}) : gateway.issue(names));
  const both = planOf([["a.example.com", "b.example.com"], ["gone.example.com"], ["slow.example.com"]]);
  const old = (await gateway.use(both)).source(both);
  await waitFor(() => gateway.events.length === 2 && gateway.cas.orders.length === 3);
  // The same set of names in another order.
  const next = planOf([["b.example.com", "a.example.com"]]);
  const source = (await gateway.use(next)).source(next);
  assert.equal(source.get("a.example.com"), old.get("a.example.com"));
  assert.equal(gateway.cas.orders.find(({ names }) => names[0] === "slow.example.com")?.signal.aborted, true);
  gateway.offset.ms = 70 * DAY;
  await waitFor(() => gateway.events.length === 3);
  await looks(gateway);
  assert.deepEqual(gateway.cas.orders.map(({ names }) => names[0]).slice(3), ["a.example.com"]);
  assert.ok(existsSync(filesOf(stateDir, ["gone.example.com"]).certificate));
  // Whoever still has the old source goes on to be served.
  assert.ok(old.get("gone.example.com") !== null);
  assert.deepEqual(gateway.opened, [stateDir]);
});

test("a state that cannot be used is told once; the certificate serves from memory and is written when that is possible again", async () => {
  const stateDir = newState();
  writeFileSync(stateDir, "in the way");
  await using gateway = open(stateDir);
  const plan = planOf([["a.example.com"], ["b.example.com"]]);
  const source = (await gateway.use(plan)).source(plan);
  await waitFor(() => gateway.events.length === 2);
  assert.ok(source.get("a.example.com") !== null && source.get("b.example.com") !== null);
  const refreshed = performance.now() + 200;
  await waitFor(() => performance.now() > refreshed);
  const [error] = gateway.said("certificate_state_failed");
  assert.equal(gateway.said("certificate_state_failed").length, 1);
  assert.match(String(error?.["msg"]), /^Cannot use '.*': a part of the path is not a directory; certificates serve from memory/);
  assert.equal(error?.["level"], "error");
  assert.equal(gateway.cas.orders.length, 2);
  assert.match(gateway.certificates.stateError, /^cannot use '.*': a part of the path is not a directory/);
  rmSync(stateDir);
  await waitFor(() => ["a.example.com", "b.example.com"].every((name) => existsSync(filesOf(stateDir, [name]).schedule)));
  assert.equal(JSON.parse(readFileSync(filesOf(stateDir).certificate, "utf8")).cert, source.get("a.example.com")?.cert);
  await waitFor(() => gateway.certificates.stateError === "");
  assert.equal(gateway.cas.orders.length, 2);
});

test("a file that cannot be read is told, and its certificate is ordered", async () => {
  const stateDir = newState();
  mkdirSync(join(filesOf(stateDir).certificate, "in the way"), { recursive: true, mode: 0o700 });
  await using gateway = open(stateDir);
  const source = (await gateway.certificates.prepare([A], stateDir)).source(A);
  assert.match(String(gateway.said("certificate_state_failed")[0]?.["msg"]), /a\.example\.com-\w+\.json': .*directory/i);
  assert.deepEqual(gateway.said("certificate_file_ignored"), []);
  assert.deepEqual([source.get("a.example.com"), source.list()[0]?.error], [null, ""]);
  await gateway.use(A);
  await waitFor(() => gateway.events.length === 1);
});

test("drafts that a crash left long ago are removed, of files and of locks", async () => {
  const stateDir = newState();
  const { directory, certificate, lock } = filesOf(stateDir);
  const drafts = [`${certificate}.0123456789ab`, `${lock}.0123456789ab`];
  for (const draft of drafts) {
    mkdirSync(dirname(draft), { recursive: true });
    writeFileSync(draft, "half of a key");
    utimesSync(draft, new Date(0), new Date(0));
  }
  await using gateway = open(stateDir);
  await gateway.use(A);
  await waitFor(() => !drafts.some((draft) => existsSync(draft)));
  await waitFor(() => readdirSync(directory).length === 3);
});

test("until what is wanted now has come, earlier certificates serve its names: after an edit of names or CA, and after a restart", async () => {
  const stateDir = newState();
  const two = planOf([["a.example.com", "b.example.com"]]);
  const three = planOf([["a.example.com", "b.example.com", "c.example.com"]]);
  const elsewhere = planOf([["a.example.com"]], { account: { ...account, key: "other", directoryUrl: "https://other.example/dir" } });
  await using first = open(stateDir);
  const old = (await first.use(two)).source(two);
  const served = await waitFor(() => old.get("a.example.com"));
  await waitFor(() => first.events.length > 0);

  first.cas.answer = refuse("The CA is away");
  const source = (await first.use(three)).source(three);
  await waitFor(() => first.events.some(({ kind }) => kind === "renewal_failed"));
  assert.equal(source.get("a.example.com"), served);
  assert.equal(source.get("b.example.com"), served);
  assert.equal(source.get("c.example.com"), null);
  assert.equal(source.list()[0]?.notAfter, null, "what is wanted is not there");
  const moved = (await first.use(elsewhere)).source(elsewhere);
  assert.equal(moved.get("a.example.com"), served);
  assert.equal(moved.get("b.example.com"), null, "nobody wants that name any more");
  await first.close();

  await using second = open(stateDir);
  second.cas.answer = refuse("The CA is away");
  const again = (await second.use(three)).source(three);
  assert.equal(again.get("b.example.com")?.cert, served.cert);
  second.cas.answer = ({ names }) => second.issue(names);
  assert.equal((await second.certificates.renew("c.example.com")).ok, true);
  assert.notEqual(again.get("b.example.com")?.cert, served.cert);
  assert.equal(again.get("b.example.com"), again.get("c.example.com"));
});

test("an earlier wildcard serves a name that gets its own, and one that has ended serves nobody", async () => {
  const stateDir = newState();
  const wildcard = planOf([["*.example.com"]]);
  await using gateway = open(stateDir);
  const served = await waitFor(
    (
      (source) => () =>
        source.get("x.example.com")
    )((await gateway.use(wildcard)).source(wildcard)),
  );
  gateway.cas.answer = refuse("The CA is away");
  const later = (await gateway.use(A)).source(A);
  assert.equal(later.get("a.example.com"), served);
  assert.equal(later.get("x.example.com"), null);
  gateway.offset.ms = 91 * DAY;
  assert.equal(later.get("a.example.com"), null, "without a reload, too");
  assert.equal((await gateway.use(A)).source(A).get("a.example.com"), null);
});

test("a damaged file and one for other names are ignored with a warning, an open one is closed", async () => {
  const stateDir = newState();
  const { certificate, schedule, directory } = filesOf(stateDir);
  mkdirSync(directory, { recursive: true });
  writeFileSync(certificate, '{"cert": "-----BEGIN', { mode: 0o600 });
  writeFileSync(schedule, "{");
  await writeCertificate(filesOf(stateDir, ["b.example.com"]).certificate, ca.issue(["c.example.com"], Date.now()));
  const open3 = filesOf(stateDir, ["open.example.com"]).certificate;
  await writeCertificate(open3, ca.issue(["open.example.com"], Date.now()));
  chmodSync(open3, 0o644);
  await using gateway = open(stateDir);
  const plan = planOf([["a.example.com"], ["b.example.com"], ["open.example.com"]]);
  const source = (await gateway.use(plan)).source(plan);
  const ignored = gateway.said("certificate_file_ignored").map(({ msg }) => String(msg));
  assert.equal(ignored.length, 2);
  assert.match(ignored.join("\n"), /is not JSON, or only half of it: it is not used/);
  assert.match(ignored.join("\n"), /holds a certificate that is not for 'b\.example\.com': it is not used/);
  assert.equal(gateway.said("certificate_file_open").length, 1);
  assert.equal(statSync(open3).mode & 0o777, 0o600);
  assert.ok(source.get("open.example.com") !== null);
  await waitFor(() => gateway.events.length === 2);
  assert.equal(JSON.parse(readFileSync(certificate, "utf8")).cert, source.get("a.example.com")?.cert);
});

test("what the CA sends is not taken when it is for other names", async () => {
  await using gateway = open(newState());
  gateway.cas.answer = () => gateway.issue(["other.example.com"]);
  const source = (await gateway.use(A)).source(A);
  await waitFor(() => gateway.events.length === 1);
  assert.match(gateway.events[0]?.reason ?? "", /: What the CA sent holds a certificate that is not for 'a\.example\.com'; tried again/);
  assert.equal(source.get("a.example.com"), null);
});

test("two gateways on one state order once, and both serve it; a renewal of one is noticed by the other", async () => {
  const stateDir = newState();
  await using first = open(stateDir);
  await using second = open(stateDir);
  const gate = Promise.withResolvers<void>();
  for (const { cas, issue } of [first, second]) {
    cas.answer = async ({ names }) => {
      await gate.promise;
      return issue(names);
    };
  }
  const [one, two] = [(await first.use(A)).source(A), (await second.use(A)).source(A)];
  await waitFor(() => first.cas.orders.length + second.cas.orders.length === 1);
  await looks(first);
  const idle = first.cas.orders.length === 0 ? first : second;
  const told = await idle.certificates.renew("a.example.com");
  assert.deepEqual([told.ok, /^Another gateway is ordering the certificate for 'a\.example\.com' now/.test(told.message)], [false, true]);
  gate.resolve();
  const served = await waitFor(() => (two.get("a.example.com") === null ? null : one.get("a.example.com")));
  assert.equal(two.get("a.example.com")?.cert, served.cert);
  assert.equal(first.cas.orders.length + second.cas.orders.length, 1);
  assert.equal(idle.said("certificate_taken").length, 1);

  first.offset.ms = 70 * DAY;
  const renewed = await waitFor(() => otherThan(served, one));
  await waitFor(() => two.get("a.example.com")?.cert === renewed.cert);
  second.offset.ms = 70 * DAY;
  await looks(second);
  assert.equal(first.cas.orders.length + second.cas.orders.length, 2);
  await waitFor(() => readdirSync(join(filesOf(stateDir).directory, "locks")).length === 0);
});

test("the failure of one gateway holds back the other", async () => {
  const stateDir = newState();
  await using first = open(stateDir);
  await using second = open(stateDir);
  for (const { cas } of [first, second]) cas.answer = refuse("No");
  await first.use(A);
  await second.use(A);
  await waitFor(() => first.events.length + second.events.length === 1);
  await looks(first);
  await looks(second);
  assert.equal(first.cas.orders.length + second.cas.orders.length, 1);
});

test("gateways with different plans do not make each other forget their failures", async () => {
  const stateDir = newState();
  await using first = open(stateDir);
  await using second = open(stateDir);
  for (const { cas } of [first, second]) cas.answer = refuse("No");
  const source = (await first.use(A)).source(A);
  await waitFor(() => first.events.length === 1);
  await second.use(planOf([["a.example.com"]], { challenges: ["tls-alpn-01"] }));
  await waitFor(() => second.events.length === 1);
  first.offset.ms = MINUTE + 1_000;
  await waitFor(() => first.events.length === 2);
  assert.ok((source.list()[0]?.renewAt?.getTime() ?? 0) - first.now() > 1.5 * MINUTE);
});

test("an older certificate in the state does not take the place of the one that serves", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir);
  const source = (await gateway.use(A)).source(A);
  await waitFor(() => gateway.events.length === 1);
  const present = source.get("a.example.com");
  await writeCertificate(filesOf(stateDir).certificate, ca.issue(["a.example.com"], Date.now() - 10 * DAY));
  const looked = performance.now() + 250;
  await waitFor(() => performance.now() > looked);
  assert.equal(source.get("a.example.com"), present);
  await writeCertificate(filesOf(stateDir).certificate, ca.issue(["a.example.com"], Date.now() + DAY));
  await waitFor(() => source.get("a.example.com") !== present);
});

test("a lock that a dead gateway left holds an order back only until it is stale", async () => {
  const stateDir = newState();
  const { lock } = filesOf(stateDir);
  mkdirSync(lock, { recursive: true });
  writeFileSync(join(lock, "elsewhere-1-0123456789abcdef"), "");
  await using gateway = open(stateDir);
  const startedAt = performance.now();
  await gateway.use(A);
  await waitFor(() => gateway.events.length === 1);
  assert.ok(performance.now() - startedAt >= 190);
});

test("close during an order ends soon, leaves no lock, counts no failure and tells nothing", async () => {
  const stateDir = newState();
  const gateway = open(stateDir);
  // An issuer that does not heed the signal.
  gateway.cas.answer = () => new Promise(() => {});
  await gateway.use(A);
  await waitFor(() => gateway.cas.orders.length === 1);
  const startedAt = performance.now();
  const asked = gateway.certificates.renew("a.example.com");
  await gateway.close();
  assert.ok(performance.now() - startedAt < 1_000);
  assert.equal(gateway.cas.orders[0]?.signal.aborted, true);
  assert.deepEqual(await asked, { ok: false, message: "The order of the certificate for 'a.example.com' was stopped" });
  assert.deepEqual(readdirSync(join(filesOf(stateDir).directory, "locks")), []);
  assert.equal(existsSync(filesOf(stateDir).schedule), false);
  assert.deepEqual(gateway.events, []);
  assert.deepEqual(await gateway.certificates.renew("a.example.com"), { ok: false, message: "The gateway is stopping" });
  await gateway.use(A);
  await looks(gateway);
  assert.equal(gateway.cas.orders.length, 1);
});

test("10,000 certificates are looked at without noticeable cost", async () => {
  const stateDir = newState();
  await using gateway = open(stateDir, { times: { lookMs: 1_000_000 } });
  // All are due and wait for their account, so that a look goes through them all.
  gateway.cas.answer = () => {
    throw new AcmeError("Too many orders", { problem: "rateLimited" });
  };
  const plan = planOf(Array.from({ length: 10_000 }, (_, i) => [`n${i}.example.com`]));
  const prepared = await gateway.use(plan);
  await waitFor(() => gateway.said("acme_account_held").length > 0 && gateway.cas.underWay === 0);
  const startedAt = process.cpuUsage();
  for (let i = 0; i < 10; i += 1) prepared.commit();
  const { user, system } = process.cpuUsage(startedAt);
  // It takes 3 ms, with what a reload does besides.
  assert.ok(user + system < 300_000, `${(user + system) / 10_000} ms each`);
  assert.ok(gateway.cas.orders.length <= 6);
});
