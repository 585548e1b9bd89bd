// A proxy of somebody else as a child process: started with its file, and gone with its directory.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { rm } from "node:fs/promises";
import { connect } from "node:net";
import { findProgram } from "./require.ts";
import { waitFor } from "./wait.ts";

/** Resolves when it listens on all the ports. Disposing stops it and deletes the directory. */
export async function startProxyProcess(
  kind: "nginx" | "haproxy" | "caddy",
  { dir, file, ports }: { readonly dir: string; readonly file: string; readonly ports: readonly number[] },
): Promise<AsyncDisposable> {
  const args = { nginx: ["-c", file, "-g", "daemon off;"], haproxy: ["-db", "-f", file], caddy: ["run", "--adapter", "caddyfile", "--config", file] }[kind];
  const child = spawn(findProgram(kind) ?? kind, args, { env: { PATH: process.env["PATH"], HOME: dir }, stdio: ["ignore", "pipe", "pipe"] });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) stream.on("data", (chunk) => (output += String(chunk)));
  const exited = once(child, "exit");
  const stop = async (): Promise<void> => {
    child.kill("SIGTERM");
    const timer = setTimeout(() => child.kill("SIGKILL"), 5_000);
    await exited;
    clearTimeout(timer);
    await rm(dir, { recursive: true, force: true });
  };
  try {
    for (const port of ports) {
      await waitFor(
        () => {
          if (child.exitCode !== null) throw new Error(`${kind} exited: ${output}`);
          return connects(port);
        },
        { what: () => `${kind} to listen: ${output}`, abortOnError: true },
      );
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { [Symbol.asyncDispose]: stop };
}

async function connects(port: number): Promise<boolean> {
  const socket = connect(port, "127.0.0.1");
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
