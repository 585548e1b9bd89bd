import assert from "node:assert/strict";
import { test } from "node:test";
import { formatLogLine } from "./log-format.ts";
import { changeLog, openLog, type LogOutput } from "./log.ts";

function collect(isTty: boolean): { lines: string[]; output: LogOutput } {
  const lines: string[] = [];
  return { lines, output: { isTty, colors: false, write: (text) => void lines.push(text) } };
}

test("a line is JSON with an ISO time, the level as a word and the message", () => {
  const { lines, output } = collect(false);
  openLog({ level: "info", format: "auto" }, output).info({ listener: "web" }, "Serving");
  const { time, ...rest } = JSON.parse(lines[0] ?? "") as Record<string, unknown>;
  assert.deepEqual(rest, { level: "info", listener: "web", msg: "Serving" });
  assert.equal(new Date(String(time)).toISOString(), time);
});

test("fields that look like secrets are redacted at any depth, numbers of things are not", () => {
  const { lines, output } = collect(false);
  const log = openLog({ level: "info", format: "json" }, output);
  log.info(
    { headers: { Authorization: "Bearer abc", "X-Api-Key": "abc", "set-cookie": ["abc"] }, list: [{ deep: { client_secret: "abc" } }], key: "abc", tokens: 3 },
    "Hello",
  );
  assert.doesNotMatch(lines[0] ?? "", /abc/);
  assert.match(lines[0] ?? "", /"tokens":3/);
});

test("an error keeps its stack", () => {
  const { lines, output } = collect(false);
  openLog({ level: "info", format: "json" }, output).error({ err: new Error("Broken") }, "Failed");
  const { err } = JSON.parse(lines[0] ?? "") as { err: { message: string; stack: string } };
  assert.equal(err.message, "Broken");
  assert.match(err.stack, /log\.test\.ts/);
});

test("level and format change while the log is open", () => {
  const { lines, output } = collect(false);
  const log = openLog({ level: "warn", format: "json" }, output);
  log.info("not written");
  changeLog(log, { level: "info", format: "pretty" });
  log.info({ a: "b" }, "written");
  assert.equal(lines.length, 1);
  assert.match(lines[0] ?? "", /^\d\d:\d\d:\d\d\.\d{3} INFO {2}written a=b\n$/);
});

test("'auto' is pretty on a terminal", () => {
  const { lines, output } = collect(true);
  openLog({ level: "info", format: "auto" }, output).info("Hello");
  assert.match(lines[0] ?? "", /INFO {2}Hello\n$/);
});

test("the readable form shows control characters escaped, so that no text steers the terminal", () => {
  const line = formatLogLine(`${JSON.stringify({ level: "warn", msg: "a\u001b[2Jb", path: "/x\u001b]0;t\u0007", c1: "\u009b31m" })}\n`, false);
  // oxlint-disable-next-line no-control-regex -- this is what is looked for
  assert.ok(!/[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/.test(line), JSON.stringify(line));
});

test("the readable form colours only when it is told to, and puts a stack on its own lines", () => {
  const line = JSON.stringify({ level: "error", time: "2026-11-21T09:30:00.000Z", msg: "Failed", err: { stack: "Error: x\n    at y" } });
  assert.ok(!formatLogLine(line, false).includes("\u001b"));
  assert.ok(formatLogLine(line, true).includes("\u001b[31mERROR\u001b[0m"));
  assert.match(formatLogLine(line, false), /Failed\nError: x\n {4}at y\n$/);
  assert.equal(formatLogLine("no json\n", false), "no json\n");
  assert.match(formatLogLine(line.replace('"error"', '"warn"'), false), /Failed err=""\n$/);
  assert.match(
    formatLogLine(JSON.stringify({ level: "warn", msg: "Failed", err: { message: "Not there", stack: "at y" } }), false),
    /Failed err="Not there"\n$/,
  );
});

test("the readable form shows a text of several lines below the line, instead of the problems that it tells", () => {
  const fields = { level: "error", msg: "Refused", event: "reload_refused", problems: [{ line: 1 }] };
  const text = "a.yaml:1:2: Bad\n  1 | \tx\u001b[2J\n    | \t^\n\na.yaml: Worse\n";
  const shown = formatLogLine(JSON.stringify({ ...fields, text }), false);
  const block = "  a.yaml:1:2: Bad\n    1 |     x\\x1b[2J\n      |     ^\n\n  a.yaml: Worse\n";
  assert.equal(shown.slice(shown.indexOf("\n") + 1), block);
  assert.match(shown, /Refused event=reload_refused\n/);
  assert.match(formatLogLine(JSON.stringify({ ...fields, text: "one line" }), false), /problems=.* text="one line"\n$/);
});
