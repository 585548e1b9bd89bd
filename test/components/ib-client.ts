// The real client that people use: ib_async, in a virtual environment of Python.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { componentsDir } from "./require.ts";

const SCRIPT = fileURLToPath(new URL("ib-client.py", import.meta.url));
const PYTHON = join(componentsDir, "venv", "bin", "python");
const ANSWER_TIMEOUT_MS = 30_000;

/** Why ib_async is not there, for `skipWithout`; null when it is. */
export function ibClientMissing(): string | null {
  return existsSync(PYTHON) ? null : "ib_async is not installed";
}

export type IbAnswer = { connected?: true; accounts?: string[]; server?: number; answer?: unknown; error?: string; disconnected?: true };

export type IbClient = {
  /** What came of connecting. */
  readonly greeting: IbAnswer;
  ask(command: "positions" | "summary" | "time" | "disconnect"): Promise<IbAnswer>;
  /** The next answer without a question, such as the loss of the connection. */
  next(): Promise<IbAnswer>;
  close(): Promise<void>;
};

/** Connects as ib_async does by `IB().connect(host, port, clientId)`; resolves too when that fails, with `greeting.error`. */
export async function startIbClient(host: string, port: number, clientId: number, timeoutSeconds = 10): Promise<IbClient> {
  const child = spawn(PYTHON, [SCRIPT, host, String(port), String(clientId), String(timeoutSeconds)], { stdio: ["pipe", "pipe", "pipe"] });
  child.stdin.on("error", () => {});
  let errors = "";
  child.stderr.on("data", (chunk: Buffer) => (errors += chunk.toString()));
  const lines = createInterface(child.stdout)[Symbol.asyncIterator]();

  async function next(): Promise<IbAnswer> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`ib_async did not answer: ${errors}`)), ANSWER_TIMEOUT_MS);
    });
    const line = await Promise.race([lines.next(), late]).finally(() => clearTimeout(timer));
    if (line.done === true) throw new Error(`ib_async ended: ${errors}`);
    return JSON.parse(line.value) as IbAnswer;
  }

  async function close(): Promise<void> {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, "exit");
    child.kill("SIGKILL");
    await exited;
  }

  try {
    return {
      greeting: await next(),
      ask: (command) => {
        child.stdin.write(`${command}\n`);
        return next();
      },
      next,
      close,
    };
  } catch (error) {
    await close();
    throw error;
  }
}
