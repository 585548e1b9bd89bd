// The edge of the process: arguments, environment, signals and exit codes. The only file that touches `process`.
import { isatty } from "node:tty";
import { runCommand } from "./cli/commands.ts";

const controller = new AbortController();
let reload: (() => void) | null = null;

function onStop(): void {
  // A second signal does not wait for the drain.
  if (controller.signal.aborted) process.exit(1);
  controller.abort();
}

process.on("SIGTERM", onStop);
process.on("SIGINT", onStop);
process.on("SIGHUP", () => reload?.());
// A reader that went away (sidegate status | head) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

process.exitCode = await runCommand(process.argv.slice(2), {
  env: process.env,
  cwd: process.cwd(),
  pid: process.pid,
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  isTty: isatty(1),
  stopped: controller.signal,
  onHangup: (handler) => {
    reload = handler;
  },
});
