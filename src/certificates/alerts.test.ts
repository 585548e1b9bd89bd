import assert from "node:assert/strict";
import { test } from "node:test";
import { createCertificateAlerts } from "./alerts.ts";
import type { CertificateEvent } from "./events.ts";

const HOUR = 3_600_000;
const END = new Date("2027-06-01T00:00:00.000Z");

function setUp() {
  const sent: { type: string; text: string; data: Readonly<Record<string, unknown>> }[] = [];
  const state = { now: Date.parse("2027-05-25T00:00:00.000Z") };
  const alerts = createCertificateAlerts({ send: (type, text, data) => void sent.push({ type, text, data }), now: () => state.now, host: "box" });
  /** Types of what is sent for an event that comes so many hours after the last one. */
  const tell = (hours: number, kind: CertificateEvent["kind"], more: Partial<CertificateEvent> = {}): string[] => {
    state.now += hours * HOUR;
    alerts.tell({ kind, source: "acme", names: ["a.example"], notAfter: END, reason: kind === "renewal_failed" ? "The CA says no" : "", ...more });
    return sent.splice(0).map(({ type }) => type);
  };
  return { tell, sent, alerts, state };
}

test("a renewal that fails is told at once, then daily while it goes on, and once when it succeeds", () => {
  const { tell } = setUp();
  assert.deepEqual(tell(0, "renewal_failed"), ["certificate.renewal_failed"]);
  assert.deepEqual(tell(1, "renewal_failed"), []);
  assert.deepEqual(tell(22, "renewal_failed", { reason: "Another reason" }), []);
  assert.deepEqual(tell(1, "renewal_failed"), ["certificate.renewal_failed"]);
  assert.deepEqual(tell(1, "renewal_failed", { names: ["b.example"] }), ["certificate.renewal_failed"]);
  assert.deepEqual(tell(1, "renewed"), ["certificate.renewed"]);
  assert.deepEqual(tell(0, "renewed"), []);
  // Trouble after a success is new trouble.
  assert.deepEqual(tell(0, "renewal_failed"), ["certificate.renewal_failed"]);
});

test("renewals without trouble are not told", () => {
  const { tell } = setUp();
  assert.deepEqual(tell(0, "renewed"), []);
  assert.deepEqual(tell(0, "renewal_failed", { names: ["b.example"] }), ["certificate.renewal_failed"]);
  assert.deepEqual(tell(0, "renewed"), []);
});

test("the end of a certificate is told once a day for each kind, and for each certificate", () => {
  const { tell } = setUp();
  assert.deepEqual(tell(0, "expiring"), ["certificate.expiring"]);
  assert.deepEqual(tell(1, "expiring"), []);
  assert.deepEqual(tell(0, "expired"), ["certificate.expired"]);
  assert.deepEqual(tell(0, "expired", { source: "file" }), ["certificate.expired"]);
  assert.deepEqual(tell(0, "expired", { notAfter: new Date(END.getTime() + 1) }), ["certificate.expired"]);
  assert.deepEqual(tell(23, "expiring"), ["certificate.expiring"]);
});

test("a clock that is set back silences nothing for longer than a day", () => {
  const { tell } = setUp();
  tell(0, "renewal_failed");
  assert.deepEqual(tell(-23, "renewal_failed"), []);
  assert.deepEqual(tell(-10_000, "renewal_failed"), ["certificate.renewal_failed"]);
});

test("what was told long ago is forgotten", () => {
  const { tell } = setUp();
  tell(0, "renewal_failed");
  assert.deepEqual(tell(31 * 24, "renewed"), []);
});

test("the text says what happened, where, and what to do", () => {
  const { sent, alerts } = setUp();
  const text = (event: Partial<CertificateEvent>): string | undefined => {
    alerts.tell({ kind: "expiring", source: "file", names: ["a.example", "b.example"], notAfter: END, reason: "", ...event });
    return sent.at(-1)?.text;
  };
  assert.equal(text({}), "Sidegate on 'box': The certificate for 'a.example' and 'b.example' expires in 7d (2027-06-01): replace its file");
  assert.equal(
    text({ kind: "expired", source: "acme", names: ["a.example"], notAfter: new Date("2027-05-24") }),
    "Sidegate on 'box': The certificate for 'a.example' expired 1d ago (2027-05-24): 'sidegate certs' shows why it was not renewed",
  );
  assert.equal(text({ source: "internal" }), "Sidegate on 'box': The internal CA expires in 7d (2027-06-01): 'sidegate certs trust' shows where it is");
  const failed = { kind: "renewal_failed", source: "acme", reason: "The CA cannot reach port 80, tried again in 1h" } as const;
  assert.equal(
    text({ ...failed, names: ["c"] }),
    "Sidegate on 'box': The certificate for 'c' could not be renewed (the present one lasts until 2027-06-01): The CA cannot reach port 80, tried again in 1h",
  );
  assert.match(text({ ...failed, names: ["d"], notAfter: new Date("2027-05-01") }) ?? "", /\(the present one expired on 2027-05-01\)/);
  assert.equal(
    text({ ...failed, names: ["e"], notAfter: null }),
    "Sidegate on 'box': There is no certificate for 'e' yet: The CA cannot reach port 80, tried again in 1h",
  );
  assert.deepEqual(sent.at(-1)?.data, { host: "box", source: "acme", names: ["e"], expires_at: null, reason: failed.reason });
  assert.equal(
    text({ kind: "renewed", source: "acme", names: ["c"] }),
    "Sidegate on 'box': The certificate for 'c' is renewed at last, it lasts until 2027-06-01",
  );
});

test("one of tailscaled is told of as one of a CA is", () => {
  const { tell, sent, alerts, state } = setUp();
  assert.deepEqual(tell(0, "renewal_failed", { source: "tailscale" }), ["certificate.renewal_failed"]);
  assert.deepEqual(tell(1, "renewed", { source: "tailscale" }), ["certificate.renewed"]);
  state.now = END.getTime() - HOUR;
  alerts.tell({ kind: "expiring", source: "tailscale", names: ["ib.tail1234.ts.net"], notAfter: END, reason: "" });
  assert.equal(
    sent[0]?.text,
    "Sidegate on 'box': The certificate for 'ib.tail1234.ts.net' expires in 1h (2027-06-01): 'sidegate certs' shows why it was not renewed",
  );
  assert.equal(sent[0]?.data["source"], "tailscale");
});
