import assert from "node:assert/strict";
import { execFileSync, spawn } from "node:child_process";
import { PassThrough, Readable } from "node:stream";
import { type TestContext, test } from "node:test";
import { findProgram, skipWithout } from "../../test/components/require.ts";
import { runInProcess, type CommandRun } from "../../test/components/run-command.ts";
import { waitFor } from "../../test/components/wait.ts";
import { parsePasswordFile, verifyPassword } from "../lib/password-file.ts";
import type { Input } from "./io.ts";

// Gives the command a terminal of its own.
const SCRIPT = findProgram("script");
const MISSING = SCRIPT === null ? "'script' of util-linux is missing" : null;
const MAIN = new URL("../main.ts", import.meta.url).pathname;

function piped(...chunks: (string | Buffer)[]): Promise<CommandRun> {
  return runInProcess(["hash-password"], "/", { stdin: () => Readable.from(chunks.map((chunk) => Buffer.from(chunk))) });
}

async function assertHashes(run: CommandRun, password: string): Promise<void> {
  assert.equal(run.code, 0, run.stderr);
  assert.equal(await verifyPassword(password, run.stdout.trimEnd()), true);
  assert.deepEqual(parsePasswordFile(`alice:${run.stdout}`).problems, []);
}

test("a password from a pipe is its first line, without waiting for more, and only the hash is printed", async () => {
  await assertHashes(await piped("correct horse\n"), "correct horse");
  await assertHashes(await piped(" pass", "wörd \r", "\nsecond line\n"), " passwörd ");
  await assertHashes(await piped("no line end"), "no line end");
  const open = new PassThrough();
  open.write("correct horse\n");
  const run = await runInProcess(["hash-password"], "/", { stdin: () => open });
  assert.equal(run.stderr, "");
  await assertHashes(run, "correct horse");
  assert.notEqual((await piped("correct horse")).stdout, run.stdout);
});

test("a password that is empty, too short, too long or no text is refused, and never repeated", async () => {
  const refused: [string | Buffer, string][] = [
    ["", "The password is empty"],
    ["\nsecond line", "The password is empty"],
    ["sevench\n", "The password is shorter than 8 characters"],
    // 7 characters in 28 bytes, and 7 in 14 code points.
    ["😀".repeat(7), "The password is shorter than 8 characters"],
    ["e\u0301".repeat(7), "The password is shorter than 8 characters"],
    ["x".repeat(1_025), "The password is longer than 1024 bytes"],
    ["x".repeat(1_000_000), "The password is longer than 1024 bytes"],
    [Buffer.from([0x61, 0xff, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61, 0x61]), "The password is no text in UTF-8"],
  ];
  for (const [password, message] of refused) assert.deepEqual(await piped(password), { code: 1, stdout: "", stderr: `${message}\n` });
});

test("a password is never taken as an argument, nor shown when it was", async () => {
  for (const args of [["hunter2-hunter2"], ["--password", "hunter2-hunter2"], ["--password=hunter2-hunter2"], ["--", "hunter2-hunter2"]]) {
    const { code, stdout, stderr } = await runInProcess(["hash-password", ...args], "/", { stdin: () => assert.fail("read") });
    assert.deepEqual([code, stdout], [2, ""]);
    assert.match(stderr, /^The password is no argument, .*\nRun 'sidegate hash-password --help'\.\n$/);
    assert.doesNotMatch(stderr, /hunter2/);
  }
});

/** The command at a terminal, with what it shows there and prints to a file. */
function startAtTerminal(t: TestContext) {
  const output = `/tmp/sidegate-hash-${process.pid}-${Math.random().toString(36).slice(2)}`;
  const child = spawn(SCRIPT ?? "", ["-qefc", `${process.execPath} ${MAIN} hash-password >${output}; echo "ended $?"`, "/dev/null"], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  t.after(() => {
    child.kill("SIGKILL");
    execFileSync("rm", ["-f", output]);
  });
  let shown = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (shown += text));
  const type = async (text: string, when: RegExp): Promise<void> => {
    await waitFor(() => when.test(shown), { what: () => `${String(when)} in ${JSON.stringify(shown)}` });
    child.stdin.write(text);
  };
  const end = async (): Promise<CommandRun> => {
    const code = await waitFor(() => /ended (\d+)/.exec(shown)?.[1], { what: () => `the end of ${JSON.stringify(shown)}` });
    return { code: Number(code), stdout: execFileSync("cat", [output], { encoding: "utf8" }), stderr: shown };
  };
  return { type, end };
}

test("at a terminal it is asked for twice, can be corrected, and is not shown", async (t) => {
  if (skipWithout(t, MISSING)) return;
  const { type, end } = startAtTerminal(t);
  await type("correct hoX\u007frse\r", /Password: $/);
  await type("correct horse\r", /Again: $/);
  const run = await end();
  await assertHashes(run, "correct horse");
  assert.match(run.stderr, /^Password: \r\nAgain: \r\nended 0/);
});

test("at a terminal two that differ, a short one, Ctrl-C and Ctrl-D end without a hash", async (t) => {
  if (skipWithout(t, MISSING)) return;
  const attempts: [string, string | null, RegExp][] = [
    ["correct horse\r", "correct house\r", /The two are not the same/],
    ["short\r", null, /shorter than 8 characters/],
    ["correct\u0003", null, /Stopped, nothing was hashed/],
    ["\u0004", null, /Stopped, nothing was hashed/],
  ];
  for (const [first, second, message] of attempts) {
    const { type, end } = startAtTerminal(t);
    await type(first, /Password: $/);
    if (second !== null) await type(second, /Again: $/);
    const run = await end();
    assert.deepEqual([run.code, run.stdout], [1, ""]);
    assert.match(run.stderr, message);
    assert.doesNotMatch(run.stderr, /correct/);
  }
});

test("a terminal is left as it was, also when the command is stopped", async () => {
  const modes: boolean[] = [];
  const terminal: Input = Object.assign(new PassThrough(), { isTTY: true, setRawMode: (on: boolean) => modes.push(on) });
  const stop = new AbortController();
  const ended = runInProcess(["hash-password"], "/", { stdin: () => terminal, stopped: stop.signal });
  await waitFor(() => modes.length > 0);
  stop.abort();
  assert.equal((await ended).code, 1);
  assert.deepEqual(modes, [true, false]);
});
