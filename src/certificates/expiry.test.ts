import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test, type TestContext } from "node:test";
import { openLog } from "../telemetry/log.ts";
import type { CertificateEvent } from "./events.ts";
import { createExpiryWatch, describeNames } from "./expiry.ts";
import { openInternalCa, type InternalCa } from "./internal-ca.ts";
import type { CertificateInfo } from "./source.ts";

const DAY = 86_400_000;
const END = Date.parse("2027-06-01T00:00:00.000Z");

function info(lifetimeDays: number, more: Partial<CertificateInfo> = {}): CertificateInfo {
  return {
    source: "file",
    names: ["a.example"],
    file: "/certs/a.crt",
    issuer: "CN=CA",
    notBefore: new Date(END - lifetimeDays * DAY),
    notAfter: new Date(END),
    renewAt: null,
    error: "",
    ...more,
  };
}

function setUp(t: TestContext, first: CertificateInfo[], internalCa: InternalCa | null = null) {
  t.mock.timers.enable({ apis: ["setInterval"] });
  const state = { certificates: first, leftDays: 0, now: END };
  const lines: Record<string, unknown>[] = [];
  const events: CertificateEvent[] = [];
  const log = openLog(
    { level: "info", format: "json" },
    { isTty: false, colors: false, write: (text) => void lines.push(JSON.parse(text) as Record<string, unknown>) },
  );
  const watch = createExpiryWatch({
    certificates: () => state.certificates,
    internalCa: () => internalCa,
    log,
    onEvent: (event) => void events.push(event),
    now: () => state.now,
  });
  t.after(() => watch.close());
  /** Levels of the lines and kinds of the events that come of a look so many days before the end. */
  const at = (leftDays: number): string[] => {
    state.now = END - leftDays * DAY;
    watch.look();
    return [...lines.splice(0).map((line) => String(line["level"])), ...events.splice(0).map(({ kind }) => kind)];
  };
  return { state, lines, events, watch, at };
}

test("a certificate of a year is told once for each step, more loudly each time, and people hear of it in the last week", (t) => {
  const { at } = setUp(t, [info(365)]);
  assert.deepEqual(at(31), []);
  assert.deepEqual(at(30), ["info"]);
  assert.deepEqual(at(29), []);
  assert.deepEqual(at(14), ["warn"]);
  assert.deepEqual(at(7.01), []);
  assert.deepEqual(at(7), ["warn", "expiring"]);
  assert.deepEqual(at(6), []);
  assert.deepEqual(at(0.5), ["error", "expiring"]);
  assert.deepEqual(at(0), ["error", "expired"]);
  assert.deepEqual(at(-20), []);
});

test("at first sight only the most urgent step is told", (t) => {
  assert.deepEqual(setUp(t, [info(365)]).at(5), ["warn", "expiring"]);
  t.mock.timers.reset();
  assert.deepEqual(setUp(t, [info(365)]).at(-3), ["error", "expired"]);
});

test("a step counts only below a third of the whole lifetime", (t) => {
  const quarter = setUp(t, [info(90)]);
  assert.deepEqual(quarter.at(29), []);
  assert.deepEqual(quarter.at(13), ["warn"]);
  t.mock.timers.reset();
  const week = setUp(t, [info(6)]);
  assert.deepEqual(week.at(5), []);
  assert.deepEqual(week.at(1), ["error", "expiring"]);
  t.mock.timers.reset();
  const hours = setUp(t, [info(0.25)]);
  assert.deepEqual(hours.at(0.01), []);
  assert.deepEqual(hours.at(-0.01), ["error", "expired"]);
});

test("another end makes it another certificate, and the same one on several listeners is one", (t) => {
  const { at, state } = setUp(t, [info(365), info(365)]);
  assert.deepEqual(at(5), ["warn", "expiring"]);
  state.certificates = [info(365, { notAfter: new Date(END + DAY) }), info(365, { notAfter: null })];
  assert.deepEqual(at(5), ["warn", "expiring"]);
  assert.deepEqual(at(5), []);
});

test("a clock that was wrong for a while takes no word away", (t) => {
  const { at } = setUp(t, [info(365)]);
  assert.deepEqual(at(-1_000), ["error", "expired"]);
  assert.deepEqual(at(200), []);
  assert.deepEqual(at(6), ["warn", "expiring"]);
});

test("it looks every hour by itself, until it is closed", (t) => {
  const { state, events, watch } = setUp(t, [info(365)]);
  state.now = END;
  t.mock.timers.tick(3_599_000);
  assert.equal(events.length, 0);
  t.mock.timers.tick(1_000);
  assert.equal(events.length, 1);
  watch.close();
  state.certificates = [info(365, { names: ["b.example"] })];
  t.mock.timers.tick(7_200_000);
  assert.equal(events.length, 1);
});

test("the sentence names the certificate and says what to do", (t) => {
  const { state, lines, events, watch } = setUp(t, []);
  const sentence = (certificate: CertificateInfo): unknown => {
    state.certificates = [certificate];
    watch.look();
    return lines.splice(0)[0]?.["msg"];
  };
  state.now = END - 6.5 * DAY;
  assert.equal(
    sentence(info(365, { names: ["a.example", "b.example"] })),
    "The certificate for 'a.example' and 'b.example' expires in 6d 12h (2027-06-01): replace '/certs/a.crt' and its key, the gateway then takes them by itself",
  );
  const acme = { source: "acme", file: null } as const;
  assert.equal(
    sentence(info(90, { ...acme, error: "The CA cannot reach port 80" })),
    "The certificate for 'a.example' expires in 6d 12h (2027-06-01) and could not be renewed: The CA cannot reach port 80",
  );
  assert.equal(
    sentence(info(90, { ...acme, source: "tailscale", error: "tailscaled did not answer" })),
    "The certificate for 'a.example' expires in 6d 12h (2027-06-01) and could not be renewed: tailscaled did not answer",
  );
  assert.match(String(sentence(info(90, { ...acme, names: ["c"], renewAt: new Date(END) }))), /: it is to be renewed at 2027-06-01T00:00:00\.000Z$/);
  state.now = END + 2 * DAY;
  state.certificates = [info(365)];
  events.length = 0;
  watch.look();
  assert.deepEqual(lines[0], {
    ...lines[0],
    level: "error",
    event: "certificate_expired",
    source: "file",
    names: ["a.example"],
    file: "/certs/a.crt",
    expires_at: "2027-06-01T00:00:00.000Z",
    msg: "The certificate for 'a.example' expired 2d ago (2027-06-01): replace '/certs/a.crt' and its key, the gateway then takes them by itself",
  });
  assert.deepEqual(events, [{ kind: "expired", source: "file", names: ["a.example"], notAfter: new Date(END), reason: "" }]);
});

test("leaves of the internal CA are left out, the CA itself is not", async (t) => {
  const dir = mkdtempSync(join(tmpdir(), "sidegate-expiry-"));
  t.after(() => rmSync(dir, { recursive: true, force: true }));
  const ca = await openInternalCa(dir);
  const { state, lines, watch } = setUp(t, [info(90, { source: "internal" })], ca);
  state.now = ca.notAfter.getTime() - 31 * DAY;
  watch.look();
  assert.deepEqual(lines, []);
  state.now = ca.notAfter.getTime() - 29 * DAY;
  watch.look();
  assert.equal(lines.length, 1);
  assert.ok(String(lines[0]?.["msg"]).startsWith("The internal CA expires in 29d ("), String(lines[0]?.["msg"]));
  assert.ok(String(lines[0]?.["msg"]).includes(`'${dir}/internal-ca/ca.crt'`));
});

test("many names are not all said", () => {
  assert.equal(describeNames([]), "no names");
  assert.equal(describeNames(["a"]), "'a'");
  assert.equal(describeNames(["a", "b", "c", "d"]), "'a', 'b', 'c' and 'd'");
  assert.equal(describeNames(["a", "b", "c", "d", "e"]), "'a', 'b', 'c' and 2 more");
});
