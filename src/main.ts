// The edge of the process: arguments, environment, signals and exit codes. The only file that touches `process`.
import { enableCompileCache } from "node:module";
import { isAbsolute, join } from "node:path";
import { isatty } from "node:tty";

// What Node.js made of the sources is kept for the next start, which it halves. Not in the shared /tmp, Node's default: whoever can
// write there could plant code. The image brings its own, in NODE_COMPILE_CACHE.
const cacheHome = process.env["XDG_CACHE_HOME"] || (process.env["HOME"] ? join(process.env["HOME"], ".cache") : "");
if (!process.env["NODE_COMPILE_CACHE"] && isAbsolute(cacheHome)) enableCompileCache(join(cacheHome, "sidegate", "compiled"));
const { runCommand } = await import("./cli/commands.ts");

const stop = new AbortController();
let reload: (() => void) | null = null;

function onStop(): void {
  // A second signal does not wait for the drain.
  if (stop.signal.aborted) process.exit(1);
  stop.abort();
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
  stdin: () => process.stdin,
  stdout: (text) => void process.stdout.write(text),
  stderr: (text) => void process.stderr.write(text),
  isTty: isatty(1),
  stopped: stop.signal,
  onHangup: (handler) => {
    reload = handler;
  },
});
