import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { waitFor } from "../../test/components/wait.ts";
import { AcmeError } from "./acme-issuer.ts";
import { runDnsCommand } from "./dns-exec.ts";

const NAME = "_acme-challenge.example.com";
const VALUE = "-a_value-of-43-characters; touch $(pwned) `x`";
const never = new AbortController().signal;
const dir = mkdtempSync(join(tmpdir(), "sidegate-dns-exec-"));
after(() => rmSync(dir, { recursive: true, force: true }));
const out = join(dir, "out.json");
const pipes = (): number => process.getActiveResourcesInfo().filter((kind) => kind === "PipeWrap").length;
const pipesAtStart = pipes();

/** A real program: the test's own Node.js with a script. */
function script(text: string, ...args: string[]): readonly string[] {
  const file = join(mkdtempSync(join(dir, "script-")), "dns.mjs");
  writeFileSync(file, `import { spawn } from "node:child_process"; import { writeFileSync } from "node:fs"; const out = ${JSON.stringify(out)};\n${text}`);
  return [process.execPath, file, ...args];
}

function run(command: readonly string[], options: { timeoutMs?: number; signal?: AbortSignal; action?: "present" | "cleanup" } = {}): Promise<void> {
  const { timeoutMs = 20_000, signal = never, action = "present" } = options;
  return runDnsCommand({ provider: "exec", command, timeoutMs, resolvers: null, propagationTimeoutMs: 1_000 }, action, NAME, VALUE, signal);
}

async function message(running: Promise<void>): Promise<string> {
  const error: unknown = await running.catch((reason: unknown) => reason);
  assert.ok(error instanceof AcmeError, String(error));
  return error.message;
}

test("the program gets its own arguments, the action, the name and the value, as they are and through no shell", async () => {
  const command = script(
    `process.stdin.on("end", () => writeFileSync(out, JSON.stringify({ args: process.argv.slice(2), path: process.env.PATH }))).resume();`,
    "--zone",
    "a b",
  );
  for (const action of ["present", "cleanup"] as const) {
    await run(command, { action });
    assert.deepEqual(JSON.parse(readFileSync(out, "utf8")), { args: ["--zone", "a b", action, NAME, VALUE], path: process.env["PATH"] });
  }
});

test("a failure is told by the first line of standard error, harmless and short", async () => {
  const command = script(
    String.raw`process.stderr.write("\n \x1b[31mno such \u202ezone\x07\x1b[0m: " + "x".repeat(1000) + "\nTraceback\n"); process.exitCode = 3;`,
  );
  const program = process.execPath;
  assert.equal(
    await message(run(command)),
    `Cannot set TXT record '${NAME}': '${program} present' ended with exit code 3: no such zone: ${"x".repeat(286)}...`,
  );
  assert.equal(
    await message(run(script(`process.exit(1)`), { action: "cleanup" })),
    `Cannot remove TXT record '${NAME}': '${program} cleanup' ended with exit code 1`,
  );
  assert.equal(
    await message(run(script(`process.kill(process.pid, "SIGTERM")`))),
    `Cannot set TXT record '${NAME}': '${program} present' ended with signal SIGTERM`,
  );
});

test("a talkative program is not stopped by what it says", async () => {
  await run(script(`process.stdout.write("x".repeat(3_000_000)); process.stderr.write("y".repeat(3_000_000));`));
});

test("a program that is not there is named", async () => {
  assert.equal(
    await message(run([join(dir, "missing"), "x"])),
    `Cannot set TXT record '${NAME}': '${dir}/missing present' did not start: no such file or directory; see 'command'`,
  );
  assert.match(await message(run([out])), /did not start: permission denied; see 'command'$/);
});

test("a program that hangs is killed after the timeout, even one that ignores signals", async () => {
  const pidFile = join(dir, "pid");
  const command = script(`process.on("SIGTERM", () => {}); writeFileSync(${JSON.stringify(pidFile)}, String(process.pid)); setInterval(() => {}, 1000);`);
  const start = performance.now();
  assert.equal(
    await message(run(command, { timeoutMs: 1_500 })),
    `Cannot set TXT record '${NAME}': '${process.execPath} present' did not end within 1.5s and was killed; see 'timeout'`,
  );
  assert.ok(performance.now() - start < 5_000);
  assert.ok(existsSync(pidFile));
  await waitFor(() => isGone(Number(readFileSync(pidFile, "utf8"))), { what: () => "the program to be gone" });
});

test("the signal kills the program", async () => {
  const abort = new AbortController();
  const pidFile = join(dir, "pid-of-aborted");
  const running = run(script(`writeFileSync(${JSON.stringify(pidFile)}, String(process.pid)); setInterval(() => {}, 1000);`), { signal: abort.signal });
  const pid = await waitFor(() => Number(readFileSync(pidFile, "utf8")));
  abort.abort(new Error("stop"));
  await assert.rejects(running, /^Error: stop$/);
  await waitFor(() => isGone(pid), { what: () => "the program to be gone" });
  await assert.rejects(run(script(""), { signal: abort.signal }), /^Error: stop$/);
});

test("a child that holds the pipe open does not hold up the end, well or ill", async () => {
  const pidFile = join(dir, "pid-of-child");
  const text = (code: number): string => `
    const child = spawn(process.execPath, ["-e", "setTimeout(() => {}, 60000)"], { stdio: ["ignore", "inherit", "inherit"], detached: true });
    child.unref();
    writeFileSync(${JSON.stringify(pidFile)}, String(child.pid));
    process.stderr.write("forgot a child\\n", () => process.exit(${code}));`;
  for (const code of [0, 7]) {
    try {
      const start = performance.now();
      const running = run(script(text(code)));
      if (code === 0) await running;
      else assert.match(await message(running), /ended with exit code 7: forgot a child$/);
      assert.ok(performance.now() - start < 10_000);
      await waitFor(() => pipes() <= pipesAtStart, { what: () => "our end of the pipe to be closed" });
      assert.ok(!isGone(Number(readFileSync(pidFile, "utf8"))), "the child still runs");
    } finally {
      process.kill(Number(readFileSync(pidFile, "utf8")), "SIGKILL");
    }
  }
});

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch {
    return true;
  }
}
