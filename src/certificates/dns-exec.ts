// TXT records that a program of the operator sets and removes.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { stripVTControlCharacters } from "node:util";
import { formatDuration, timerMs } from "../lib/duration.ts";
import { describeSystemError } from "../lib/errors.ts";
import { printable } from "../lib/printable.ts";
import { within } from "../lib/within.ts";
import type { DnsPlan } from "../plan/model.ts";
import { AcmeError } from "./acme-issuer.ts";

type ExecDnsPlan = Extract<DnsPlan, { provider: "exec" }>;

const MAX_STDERR_CHARS = 4_096;
const MAX_LINE_CHARS = 300;
/** What the program wrote before its end arrives within this time, even when a child of it holds the pipe open for ever. */
const REST_OF_STDERR_MS = 200;

/**
 * Runs the command with `present` or `cleanup`, the record's name and its value added; never through a shell. It has no input, its output is
 * thrown away, and it is killed after `plan.timeoutMs`.
 *
 * It inherits the gateway's environment: its credentials are commonly handed on there, and holding the rest back would protect nothing from a
 * program that runs as the same user and can read it in /proc.
 * @throws {AcmeError} with the first line of what it wrote to standard error
 * @throws the signal's reason
 */
export async function runDnsCommand(plan: ExecDnsPlan, action: "present" | "cleanup", recordName: string, value: string, signal: AbortSignal): Promise<void> {
  const [program = "", ...args] = plan.command;
  const failed = `Cannot ${action === "present" ? "set" : "remove"} TXT record '${recordName}': '${program} ${action}'`;
  const timeout = AbortSignal.timeout(timerMs(plan.timeoutMs));
  let stderr = "";
  try {
    const child = spawn(program, [...args, action, recordName, value], {
      stdio: ["ignore", "ignore", "pipe"],
      signal: AbortSignal.any([signal, timeout]),
      killSignal: "SIGKILL",
    });
    // Without a listener, an error that comes after the first one would end the gateway.
    child.on("error", () => undefined);
    child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr = (stderr + text).slice(0, MAX_STDERR_CHARS)));
    const closed = once(child, "close").catch(() => null);
    try {
      const [code, killedBy] = (await once(child, "exit")) as [number | null, NodeJS.Signals | null];
      if (code === 0) return;
      await within(closed, REST_OF_STDERR_MS, { ref: false });
      const line = tellingLine(stderr);
      throw new AcmeError(`${failed} ended with ${code === null ? `signal ${killedBy}` : `exit code ${code}`}${line === "" ? "" : `: ${line}`}`);
    } finally {
      child.stderr.destroy();
    }
  } catch (error) {
    if (error instanceof AcmeError) throw error;
    signal.throwIfAborted();
    if (timeout.aborted) throw new AcmeError(`${failed} did not end within ${formatDuration(plan.timeoutMs)} and was killed; see 'timeout'`);
    throw new AcmeError(`${failed} did not start: ${describeSystemError(error)}; see 'command'`);
  }
}

/** Of a stack trace the line that names the error, which need not be the first. */
function tellingLine(text: string): string {
  const lines = text.split(/[\r\n]/);
  const named = lines.findIndex((line) => /^\s*[\w.]*(?:error|exception)\b[^:]*:/i.test(line));
  for (const line of named === -1 ? lines : lines.slice(named)) {
    // Escape sequences whole: what is printable of them says nothing.
    const clean = printable(stripVTControlCharacters(line).replaceAll(/\p{Cc}/gu, ""), MAX_LINE_CHARS);
    if (clean !== "") return clean;
  }
  return "";
}
