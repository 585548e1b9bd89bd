import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { tmpdir } from "node:os";
import { after, test } from "node:test";
import { openLog, type Log } from "../telemetry/log.ts";
import { openTicketKeys, ticketKeysFile } from "./ticket-keys.ts";

const HOUR_MS = 3_600_000;
const root = mkdtempSync(join(tmpdir(), "sidegate-tickets-"));
after(() => rmSync(root, { recursive: true, force: true }));

let made = 0;
const newState = (): string => join(root, String((made += 1)));

function collect(): { log: Log; lines: string[] } {
  const lines: string[] = [];
  return { lines, log: openLog({ level: "debug", format: "json" }, { isTty: false, colors: false, write: (line) => void lines.push(line) }) };
}

test("keys are kept for the next start and for a second gateway, readable by their owner alone", async () => {
  const { log, lines } = collect();
  const state = newState();
  const first = await openTicketKeys(state, log);
  assert.equal(first.current.length, 48);
  await first.settled();
  const file = ticketKeysFile(state);
  assert.equal(statSync(file).mode & 0o777, 0o600);
  assert.equal(statSync(dirname(file)).mode & 0o777, 0o700);
  assert.deepEqual(readdirSync(dirname(file)), ["ticket-keys.json"]);
  assert.deepEqual((await openTicketKeys(state, log)).current, first.current);
  assert.deepEqual(lines, []);
});

test("keys are replaced after a day, by one gateway for all", async () => {
  const { log } = collect();
  const state = newState();
  let now = Date.now();
  const [one, two] = [await openTicketKeys(state, log, () => now), await openTicketKeys(state, log, () => now)];
  await Promise.all([one.settled(), two.settled()]);
  // Both made keys, because there were none: one was overwritten and finds out.
  now += 11_000;
  for (const keys of [one, two]) {
    void keys.current;
    await keys.settled();
  }
  const before = one.current;
  assert.deepEqual(two.current, before);
  now += 23 * HOUR_MS;
  assert.equal(one.current, before);
  await one.settled();
  assert.equal(one.current, before);
  now += HOUR_MS;
  void one.current;
  await one.settled();
  assert.notDeepEqual(one.current, before);
  void two.current;
  await two.settled();
  assert.deepEqual(two.current, one.current);
});

test("keys that are damaged, old or from the future are replaced", async () => {
  const { log } = collect();
  const day = (days: number): string => new Date(Date.now() + days * 24 * HOUR_MS).toISOString();
  const bytes = Buffer.alloc(48, 7);
  const keys = bytes.toString("base64");
  for (const text of [
    "",
    "{",
    "null",
    JSON.stringify({ created: day(0), keys: keys.slice(4) }),
    JSON.stringify({ created: "?", keys }),
    JSON.stringify({ created: day(-2), keys }),
    JSON.stringify({ created: day(2), keys }),
  ]) {
    const state = newState();
    mkdirSync(join(state, "tls"), { recursive: true });
    writeFileSync(ticketKeysFile(state), text);
    const opened = await openTicketKeys(state, log);
    assert.notDeepEqual(opened.current, bytes, text);
    assert.equal(opened.current.length, 48);
    await opened.settled();
    assert.deepEqual((await openTicketKeys(state, log)).current, opened.current, text);
    assert.ok(readFileSync(ticketKeysFile(state), "utf8").includes(opened.current.toString("base64")));
  }
});

test("keys that cannot be kept live in memory, are replaced after a day all the same, and that is said once, without them", async () => {
  const { log, lines } = collect();
  const state = newState();
  // A file where the directory should be: not even root can write below it.
  writeFileSync(state, "");
  let now = Date.now();
  const keys = await openTicketKeys(state, log, () => now);
  await keys.settled();
  const before = keys.current;
  for (let hours = 0; hours < 26; hours += 2) {
    now += 2 * HOUR_MS;
    void keys.current;
    await keys.settled();
  }
  assert.notDeepEqual(keys.current, before);
  assert.equal(lines.length, 1);
  assert.match(
    lines[0] ?? "",
    /Cannot keep the keys of TLS sessions in '.*ticket-keys\.json', clients begin new sessions after a restart: a part of the path is not a directory/,
  );
  assert.ok(!lines.join("").includes(before.toString("base64")));
});
