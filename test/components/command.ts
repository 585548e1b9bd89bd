// A command of Sidegate as its users run it: a child process that ends.
import { spawn } from "node:child_process";

const LAUNCHER = new URL("../../src/sidegate.js", import.meta.url).pathname;
const TIMEOUT_MS = 30_000;

export type CommandResult = { code: number | null; stdout: string; stderr: string };

/** Runs `sidegate ...args` to its end. @param options.launcher default: the checkout's own */
export function runSidegate(args: string[], options: { cwd?: string; env?: Record<string, string>; launcher?: string } = {}): Promise<CommandResult> {
  const { promise, resolve, reject } = Promise.withResolvers<CommandResult>();
  const child = spawn(process.execPath, [options.launcher ?? LAUNCHER, ...args], {
    cwd: options.cwd,
    env: { PATH: process.env["PATH"], ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: TIMEOUT_MS,
    killSignal: "SIGKILL",
  });
  const result: CommandResult = { code: null, stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => (result.stdout += text));
  child.stderr.setEncoding("utf8").on("data", (text: string) => (result.stderr += text));
  child.on("error", reject);
  child.on("close", (code) => resolve({ ...result, code }));
  return promise;
}
