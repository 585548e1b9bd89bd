// A command of the gateway run in this process, with what it writes kept.
import { Readable } from "node:stream";
import { runCommand } from "../../src/cli/commands.ts";
import type { Io } from "../../src/cli/io.ts";

export type CommandRun = { readonly code: number; readonly stdout: string; readonly stderr: string };

/** Runs `sidegate ...args` in `cwd`, without a terminal and never interrupted unless `io` says otherwise. */
export async function runInProcess(args: readonly string[], cwd: string, io: Partial<Io> = {}): Promise<CommandRun> {
  let stdout = "";
  let stderr = "";
  const code = await runCommand(args, {
    env: {},
    cwd,
    pid: 1,
    stdin: () => Readable.from([]),
    stdout: (text) => void (stdout += text),
    stderr: (text) => void (stderr += text),
    isTty: false,
    stopped: new AbortController().signal,
    onHangup: () => {},
    ...io,
  });
  return { code, stdout, stderr };
}
