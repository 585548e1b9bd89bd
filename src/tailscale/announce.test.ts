import assert from "node:assert/strict";
import { test } from "node:test";
import { nodePlan } from "../../test/components/fake-local-api.ts";
import { openLog } from "../telemetry/log.ts";
import { Announcer } from "./announce.ts";
import { pictureBefore } from "./picture.ts";
import type { TailnetStatus } from "./status.ts";

const RUNNING: TailnetStatus = { ...pictureBefore(nodePlan()), state: "running", reason: "", serving: true, name: "gw.tail.test" };

function kept(): { announcer: Announcer; warnings: () => string[] } {
  const lines: string[] = [];
  const log = openLog({ level: "warn", format: "json" }, { isTty: false, colors: false, write: (text) => void lines.push(text) });
  return { announcer: new Announcer(log), warnings: () => lines.map((line) => (JSON.parse(line) as { msg: string }).msg) };
}

test("what tailscaled complains of is told once, however long it has been so", () => {
  const { announcer, warnings } = kept();
  const complaint = (since: string): string => `tailscaled complains: no network map from the coordination server in ${since}`;
  for (const since of ["2m5s", "3m5.5s", "1h2m0s"]) announcer.tell({ ...RUNNING, warnings: [complaint(since)] }, false, 0);
  assert.deepEqual(warnings(), [complaint("2m5s")]);
  announcer.tell({ ...RUNNING, warnings: [complaint("25h0m0s")] }, false, 86_400_000);
  assert.equal(warnings().length, 2);
  for (const since of ["1m0s", "2m0s"]) announcer.tell({ ...RUNNING, state: "starting", reason: `tailscaled cannot reach it: silent for ${since}` }, false, 0);
  assert.equal(warnings().length, 3);
});

test("a tailscaled of somebody else that does not answer is told, which nobody else does", () => {
  const { announcer, warnings } = kept();
  const reason = "The tailscaled at '/run/theirs.sock' does not answer";
  announcer.tell({ ...RUNNING, state: "off", reason }, false, 0);
  assert.deepEqual(warnings(), []);
  announcer.tell({ ...RUNNING, mode: "external", state: "off", reason: `${reason}: no such file` }, false, 0);
  assert.deepEqual(warnings(), [`Not on the tailnet: ${reason}: no such file`]);
});
