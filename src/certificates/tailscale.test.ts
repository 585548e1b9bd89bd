import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test, type TestContext } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { openLog } from "../telemetry/log.ts";
import type { CertificateEvent } from "./events.ts";
import { openInternalCa } from "./internal-ca.ts";
import { TailscaleCertificates, type TailscaleTimes } from "./tailscale.ts";

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const NODE = "ib-gateway.tail1234.ts.net";
const root = mkdtempSync(join(tmpdir(), "sidegate-tailscale-"));
after(() => rmSync(root, { recursive: true, force: true }));
const ca = await openInternalCa(root);

type Pair = { readonly cert: string; readonly key: string };

class Refusal extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

/** The certificates of a gateway with a tailscaled that keeps what it got and orders where that is valid for too short a time, and a clock that is set. */
function open(t: TestContext, times: TailscaleTimes = {}) {
  const state = {
    ms: Date.now(),
    runs: true,
    domains: [NODE] as readonly string[],
    asked: [] as { domain: string; minValidityMs: number }[],
    orders: 0,
    kept: new Map<string, Pair & { readonly endMs: number }>(),
    /** What becomes of an order. */
    order: (domain: string): Pair | Promise<Pair> => ca.issue([domain], state.ms),
  };
  const lines: Record<string, unknown>[] = [];
  const events: CertificateEvent[] = [];
  const certificates = new TailscaleCertificates({
    tailnet: {
      runs: () => state.runs,
      domains: () => state.domains,
      certificate: async (domain, minValidityMs) => {
        state.asked.push({ domain, minValidityMs });
        const kept = state.kept.get(domain);
        if (kept !== undefined && kept.endMs > state.ms && kept.endMs - state.ms >= minValidityMs) return kept;
        state.orders += 1;
        const { cert, key } = await state.order(domain);
        const got = { cert, key, endMs: state.ms + 90 * DAY };
        state.kept.set(domain, got);
        return got;
      },
    },
    log: openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(JSON.parse(text)) }),
    onEvent: (event) => void events.push(event),
    now: () => state.ms,
    random: () => 0.5,
    // The tests look themselves.
    times: { lookMs: HOUR, ...times },
  });
  t.after(() => certificates.close());
  const { source } = certificates;
  const settled = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  /** Time goes on by so much, the gateway looks, and what it asked for is answered. */
  const pass = async (ms: number): Promise<void> => {
    state.ms += ms;
    certificates.look();
    await settled();
  };
  const serial = (): string | undefined => source.fallback()?.cert;
  const told = (event: string): Record<string, unknown>[] => lines.filter((line) => line["event"] === event);
  return { state, certificates, source, events, lines, told, pass, settled, serial };
}

test("nothing is asked before a listener wants it and the node has a name; then one certificate serves every name that no source knows", async (t) => {
  const { state, certificates, source, events, pass, settled } = open(t);
  state.domains = [];
  state.runs = false;
  await pass(0);
  certificates.want(true);
  await settled();
  assert.equal(source.fallback(), null);
  assert.deepEqual(source.list()[0]?.error, "the node is not on the tailnet");
  state.runs = true;
  await pass(0);
  assert.deepEqual(state.asked, []);
  assert.deepEqual(source.list(), [{ source: "tailscale", names: [], file: null, issuer: "", notBefore: null, notAfter: null, renewAt: null, error: "" }]);
  state.domains = [`${NODE.toUpperCase()}.`];
  await pass(0);
  // With 0 tailscaled answers with what it keeps.
  assert.deepEqual(state.asked, [{ domain: NODE, minValidityMs: 0 }]);
  const served = source.get(NODE);
  assert.ok(served !== null);
  assert.equal(source.fallback(), served);
  assert.equal(source.get("ib-gateway"), null);
  const [info] = source.list();
  assert.deepEqual([info?.source, info?.names, info?.file, info?.error], ["tailscale", [NODE], null, ""]);
  const { notBefore, notAfter, renewAt } = info ?? {};
  assert.ok(notBefore && notAfter && renewAt);
  // A third of its life before its end, or up to 5 percent earlier.
  const left = (notAfter.getTime() - renewAt.getTime()) / (notAfter.getTime() - notBefore.getTime());
  assert.ok(left >= 0.333 && left <= 0.384, String(left));
  assert.deepEqual(
    events.map(({ kind, source: from, names }) => [kind, from, names]),
    [["renewed", "tailscale", [NODE]]],
  );
  // A reload changes nothing.
  certificates.want(true);
  await pass(HOUR);
  assert.equal(state.asked.length, 1);
  assert.equal(source.fallback(), served);
});

test("it is renewed at a third of its life by asking for one that is valid for longer than it is, once", async (t) => {
  const { state, certificates, source, events, pass, serial } = open(t);
  certificates.want(true);
  await pass(0);
  const first = serial();
  const renewMs = source.list()[0]?.renewAt?.getTime() ?? 0;
  for (let day = 0; state.ms + DAY < renewMs; day += 1) await pass(DAY);
  assert.equal(state.orders, 1);
  assert.equal(serial(), first);
  // Dates have no fractions of a millisecond.
  await pass(renewMs - state.ms + 1);
  assert.equal(state.orders, 2);
  const leftMs = state.asked.at(-1)?.minValidityMs ?? 0;
  assert.ok(leftMs > 30 * DAY && leftMs < 36 * DAY, String(leftMs / DAY));
  assert.notEqual(serial(), first);
  assert.deepEqual(
    events.map(({ kind }) => kind),
    ["renewed", "renewed"],
  );
  await pass(0);
  assert.equal(state.orders, 2);
});

test("what tailscaled kept over a restart serves at once, and is renewed where it is old", async (t) => {
  const { state, certificates, pass, serial } = open(t);
  const old = ca.issue([NODE], state.ms - 80 * DAY);
  state.kept.set(NODE, { ...old, endMs: state.ms + 10 * DAY });
  const { promise, resolve } = Promise.withResolvers<Pair>();
  state.order = () => promise;
  certificates.want(true);
  await pass(0);
  assert.equal(serial(), old.cert);
  await pass(0);
  assert.equal(state.orders, 1);
  assert.equal(serial(), old.cert);
  const next = ca.issue([NODE], state.ms);
  resolve(next);
  await pass(0);
  assert.equal(serial(), next.cert);
});

test("once a day it takes what tailscaled renewed by itself, and a look that fails does no harm", async (t) => {
  const { state, certificates, source, events, told, pass, serial } = open(t);
  certificates.want(true);
  await pass(0);
  const next = ca.issue([NODE], state.ms);
  state.kept.set(NODE, { ...next, endMs: state.ms + 90 * DAY });
  await pass(2 * HOUR);
  assert.notEqual(serial(), next.cert);
  await pass(DAY);
  assert.equal(serial(), next.cert);
  await pass(2 * DAY);
  await pass(1_000);
  assert.equal(state.asked.length, 3);
  state.kept.clear();
  state.order = () => Promise.reject(new Refusal(500, "invalid domain"));
  await pass(2 * DAY);
  assert.equal(told("certificate_not_renewed").length, 1);
  assert.equal(source.list()[0]?.error, "");
  assert.equal(serial(), next.cert);
  assert.ok(events.every(({ kind }) => kind === "renewed"));
  assert.deepEqual(
    state.asked.map(({ minValidityMs }) => minValidityMs),
    [0, 0, 0, 0],
  );
});

test("one that cannot be renewed serves on, also after its end; attempts grow rarer, people are told, and a success ends it", async (t) => {
  const { state, certificates, source, events, told, pass, serial } = open(t);
  certificates.want(true);
  await pass(0);
  const first = serial();
  events.length = 0;
  state.order = () => Promise.reject(new Refusal(500, 'SetDNS "_acme-challenge" => "x": control said\u001b[2J no.'));
  await pass(62 * DAY);
  assert.equal(state.orders, 2);
  assert.match(source.list()[0]?.error ?? "", /^SetDNS .*: control said \[2J no$/);
  const [event] = events;
  assert.deepEqual([event?.kind, event?.source, event?.names], ["renewal_failed", "tailscale", [NODE]]);
  assert.match(
    event?.reason ?? "",
    /^Cannot get the certificate for 'ib-gateway\.tail1234\.ts\.net' from tailscaled: SetDNS .*; tried again in 1m; the present one serves and is valid until /,
  );
  await pass(50_000);
  assert.equal(state.orders, 2);
  await pass(20_000);
  assert.equal(state.orders, 3);
  await pass(70_000);
  assert.equal(state.orders, 3);
  for (let hours = 0; hours < 30 * 24; hours += 1) await pass(HOUR);
  // Every 12 hours in the end.
  assert.ok(state.orders > 60 && state.orders < 75, String(state.orders));
  assert.equal(serial(), first);
  assert.equal(source.get(NODE)?.cert, first);
  assert.match(String(told("certificate_renewal_failed").at(-1)?.["msg"]), /; tried again in 12h; the present one goes on serving, but expired on /);
  state.order = (domain) => ca.issue([domain], state.ms);
  await pass(13 * HOUR);
  assert.notEqual(serial(), first);
  assert.equal(source.list()[0]?.error, "");
  assert.equal(events.at(-1)?.kind, "renewed");
});

test("what does not fit, is for others, or has ended is not served", async (t) => {
  const { state, certificates, source, pass, serial } = open(t);
  const other = ca.issue(["other.ts.net"], state.ms);
  const own = ca.issue([NODE], state.ms);
  const cases: readonly (readonly [Pair, string])[] = [
    [other, `what tailscaled sent holds a certificate that is not for '${NODE}'`],
    [
      { cert: own.cert, key: "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n" },
      "what tailscaled sent holds a certificate or key that cannot be decoded",
    ],
    [{ cert: "", key: own.key }, "what tailscaled sent holds a certificate or key that cannot be decoded"],
    [ca.issue([NODE], state.ms - 200 * DAY), "what tailscaled sent is a certificate that expired on"],
  ];
  for (const [pair, reason] of cases) {
    state.kept.clear();
    state.order = () => pair;
    certificates.want(true);
    await pass(DAY);
    assert.equal(serial(), undefined);
    const { error = "" } = source.list()[0] ?? {};
    assert.ok(error.startsWith(reason), error);
  }
});

test("one that is given again and again does not make it ask without end", async (t) => {
  const { state, certificates, source, pass } = open(t);
  const same = ca.issue([NODE], state.ms);
  state.order = () => same;
  certificates.want(true);
  await pass(0);
  for (let i = 0; i < 20; i += 1) await pass(i === 0 ? 62 * DAY : 1_000);
  assert.equal(state.orders, 2);
  assert.equal(source.list()[0]?.error, "tailscaled gave the one that it had given before");
});

test("a failure is told with what to do", async (t) => {
  const { state, certificates, source, pass } = open(t);
  const known: readonly (readonly [Error, RegExp])[] = [
    [new Refusal(500, "your Tailscale account does not support getting TLS certs"), /switch on MagicDNS and then HTTPS Certificates at https:\/\/login/],
    [new Refusal(500, `invalid domain "x"; must be one of ["y"]`), /not, or no longer, the node's name/],
    [new Refusal(403, "cert access denied"), /TS_PERMIT_CERT_UID/],
    [new Refusal(500, "acme: context deadline exceeded"), /Let's Encrypt/],
    [new Refusal(0, "tailscaled does not answer on '/run/s.sock'"), /^tailscaled does not answer on '\/run\/s\.sock'$/],
  ];
  for (const [error, expected] of known) {
    state.order = () => Promise.reject(error);
    certificates.want(true);
    await pass(DAY);
    assert.match(source.list()[0]?.error ?? "", expected);
  }
});

test("a CA that limits orders is left in peace for as long as it says", async (t) => {
  const { state, certificates, source, pass } = open(t);
  state.order = () => Promise.reject(Object.assign(new Refusal(429, "too many certificates"), { retryAfterMs: 20 * HOUR }));
  certificates.want(true);
  await pass(0);
  assert.equal(source.list()[0]?.error, "Let's Encrypt limits how many certificates are issued: too many certificates");
  await pass(19 * HOUR);
  assert.equal(state.orders, 1);
  state.order = () => Promise.reject(new Refusal(429, "too many certificates"));
  await pass(2 * HOUR);
  // That tailscaled was away meanwhile changes nothing of that.
  state.runs = false;
  await pass(25 * MINUTE);
  state.runs = true;
  await pass(25 * MINUTE);
  assert.equal(state.orders, 2);
  await pass(11 * MINUTE);
  assert.equal(state.orders, 3);
});

test("a tailscaled that never answers is given up, and one that is back is asked at once", async (t) => {
  const { state, certificates, source, pass, serial } = open(t, { timeoutMs: 30 });
  state.order = () => new Promise(() => {});
  certificates.want(true);
  await waitFor(() => source.list()[0]?.error === "tailscaled did not answer in 30ms");
  state.order = () => Promise.reject(new Refusal(0, "connection refused"));
  await pass(DAY);
  assert.equal(source.list()[0]?.error, "connection refused");
  state.order = (domain) => ca.issue([domain], state.ms);
  await pass(1_000);
  assert.equal(serial(), undefined);
  state.runs = false;
  state.domains = [];
  await pass(1_000);
  assert.equal(state.orders, 2);
  state.runs = true;
  state.domains = [NODE];
  await pass(1_000);
  assert.ok(serial() !== undefined);
});

test("while the node is not on the tailnet nothing is asked, what is there serves, and what waits is told", async (t) => {
  const { state, certificates, source, told, pass, serial } = open(t);
  certificates.want(true);
  await pass(0);
  const first = serial();
  state.runs = false;
  state.domains = [];
  await pass(62 * DAY);
  assert.equal(state.asked.length, 1);
  assert.equal(serial(), first);
  assert.equal(source.list()[0]?.error, "the node is not on the tailnet");
  assert.deepEqual(told("certificate_renewal_failed"), []);
  assert.match((await certificates.renew(NODE)).message, /the node is not on the tailnet now$/);
});

test("another name of the node gets a certificate of its own, and until it comes the old one serves", async (t) => {
  const { state, certificates, source, pass, serial } = open(t);
  certificates.want(true);
  await pass(0);
  const first = serial();
  const { promise, resolve } = Promise.withResolvers<Pair>();
  state.order = () => promise;
  state.domains = ["ib.tail1234.ts.net"];
  await pass(0);
  assert.deepEqual(
    source.list().map(({ names, notAfter }) => [names, notAfter]),
    [[["ib.tail1234.ts.net"], null]],
  );
  assert.equal(source.get("ib.tail1234.ts.net"), null);
  assert.equal(serial(), first);
  resolve(ca.issue(state.domains, state.ms));
  await pass(0);
  assert.ok(source.get("ib.tail1234.ts.net") !== null);
  assert.equal(source.get(NODE), null);
  assert.equal(source.fallback(), source.get("ib.tail1234.ts.net"));
  certificates.want(false);
  assert.equal(source.fallback(), null);
});

test("of several names each has its own, and those that stay keep theirs", async (t) => {
  const { state, certificates, source, events, pass } = open(t);
  certificates.want(true);
  await pass(0);
  const first = source.get(NODE);
  const { promise, resolve } = Promise.withResolvers<Pair>();
  state.order = () => promise;
  state.domains = [NODE, "gone.tail1234.ts.net"];
  await pass(0);
  state.domains = [NODE, "svc.tail1234.ts.net"];
  state.order = (domain) => ca.issue([domain], state.ms);
  await pass(0);
  resolve(ca.issue(["gone.tail1234.ts.net"], state.ms));
  await pass(0);
  assert.equal(source.get(NODE), first);
  assert.equal(source.fallback(), first);
  assert.ok(source.get("svc.tail1234.ts.net") !== null);
  assert.equal(source.get("gone.tail1234.ts.net"), null);
  assert.equal(state.orders, 3);
  assert.deepEqual(
    events.map(({ names }) => names[0]),
    [NODE, "svc.tail1234.ts.net"],
  );
});

test("a tailnet that gives no certificates is told once, after a moment, with what to do", async (t) => {
  const { state, certificates, source, told, pass } = open(t);
  state.domains = [];
  certificates.want(true);
  await pass(5_000);
  assert.deepEqual(told("certificate_not_offered"), []);
  await pass(6_000);
  await pass(HOUR);
  assert.equal(told("certificate_not_offered").length, 1);
  assert.match(source.list()[0]?.error ?? "", /^the tailnet gives no HTTPS certificates: switch on MagicDNS/);
  state.domains = [NODE];
  await pass(0);
  assert.equal(source.list()[0]?.error, "");
  state.domains = [];
  await pass(0);
  await pass(1_000);
  assert.equal(told("certificate_not_offered").length, 1);
  assert.ok(source.fallback() !== null);
});

test("asked for by a person, a new one comes whatever the age of the present one, and a failure changes no plans", async (t) => {
  const { state, certificates, source, events, pass, serial } = open(t);
  certificates.want(true);
  await pass(0);
  const first = serial();
  const renewal = await certificates.renew(NODE.toUpperCase());
  assert.ok(renewal.ok, renewal.message);
  assert.match(renewal.message, /^Got a certificate for 'ib-gateway\.tail1234\.ts\.net' that is valid until 20/);
  assert.equal(state.orders, 2);
  assert.notEqual(serial(), first);
  state.order = () => Promise.reject(new Refusal(429, "too many certificates"));
  const failed = await certificates.renew(NODE);
  assert.ok(!failed.ok);
  assert.match(failed.message, /Let's Encrypt limits .*; the present one serves and is valid until /);
  assert.equal(source.list()[0]?.error, "");
  assert.equal(events.length, 2);
  await pass(HOUR);
  assert.equal(state.orders, 3);
  assert.ok(!(await certificates.renew("other.ts.net")).ok);
});

test("when no listener wants it any more it is let go of, and what is under way leaves no trace", async (t) => {
  const { state, certificates, source, events, told, pass, settled } = open(t);
  const { promise, resolve } = Promise.withResolvers<Pair>();
  state.order = () => promise;
  certificates.want(true);
  await settled();
  certificates.want(false);
  resolve(ca.issue([NODE], state.ms));
  await pass(HOUR);
  assert.equal(source.fallback(), null);
  assert.deepEqual([events.length, told("certificate_renewal_failed").length, state.orders], [0, 0, 1]);
  certificates.want(true);
  await settled();
  assert.ok(source.get(NODE) !== null);
});

test("it looks by itself", async (t) => {
  const { state, certificates, source } = open(t, { lookMs: 5 });
  state.domains = [];
  certificates.want(true);
  state.domains = [NODE];
  await waitFor(() => source.get(NODE));
});
