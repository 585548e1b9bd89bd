// The gateway as its users run it: a child process with a configuration directory of its own.
import { spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { waitFor } from "./wait.ts";

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;
const START_TIMEOUT_MS = 45_000;
const STOP_TIMEOUT_MS = 15_000;

export type LogLine = { level: string; msg: string; time: string; [key: string]: unknown };

export type Gateway = AsyncDisposable & {
  readonly child: ChildProcess;
  readonly dir: string;
  readonly file: string;
  /** Every line of the gateway's log so far. */
  readonly log: readonly LogLine[];
  /** Access-log lines on standard output so far. */
  readonly accessLog: readonly Record<string, unknown>[];
  /** Port that the system gave to a listener. */
  port(listener: string): number;
  /** GET or POST on the admin interface. */
  admin(path: string, method?: string): Promise<{ status: number; body: string }>;
  status(): Promise<any>; // eslint-disable-line typescript/no-explicit-any
  /** PEM of the internal CA. */
  ca(): Promise<string>;
  /** Saves the configuration as an editor does (write beside, rename) and waits until it serves. */
  edit(yaml: string): Promise<void>;
  /** Saves without waiting. */
  save(yaml: string): Promise<void>;
  stop(signal?: NodeJS.Signals): Promise<number | null>;
};

/**
 * Starts a gateway and waits until it is ready to serve. `yaml` needs neither version, state nor admin: they are added, the admin
 * as a unix socket in its directory. Use port 0 and `port(name)`.
 * @param args.files further files in the configuration's directory, by name
 * @param args.wrapper a command that runs the rest of its arguments
 * @param args.expectErrors by default disposing asserts that no line of level error was logged
 */
export async function startGateway(args: {
  yaml: string;
  env?: Record<string, string>;
  files?: Record<string, string>;
  expectErrors?: boolean;
  nodeArgs?: string[];
  wrapper?: string[];
}): Promise<Gateway> {
  const dir = await mkdtemp(join(tmpdir(), "sidegate-test-"));
  const configDir = join(dir, "config");
  await mkdir(configDir);
  for (const [name, text] of Object.entries(args.files ?? {})) await writeFile(join(configDir, name), text);
  const file = join(configDir, "sidegate.yaml");
  const head = (yaml: string): string =>
    `${/^version:/m.test(yaml) ? "" : "version: 1\n"}${/^state:/m.test(yaml) ? "" : `state: { dir: ${dir}/state }\n`}${/^admin:/m.test(yaml) ? "" : `admin: { listen: "unix:${dir}/admin.sock" }\n`}${yaml}`;
  await writeFile(file, head(args.yaml));

  const [program, ...programArgs] = [...(args.wrapper ?? []), process.execPath, ...(args.nodeArgs ?? []), MAIN, "run", file];
  const child = spawn(program, programArgs, {
    env: { PATH: process.env["PATH"], SIDEGATE_LOG_LEVEL: "debug", ...args.env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log: LogLine[] = [];
  const raw: string[] = [];
  const accessLog: Record<string, unknown>[] = [];
  eachLine(child.stderr, (line) => {
    raw.push(line);
    if (line.startsWith("{")) log.push(JSON.parse(line) as LogLine);
  });
  eachLine(child.stdout, (line) => accessLog.push(JSON.parse(line) as Record<string, unknown>));
  const exited = once(child, "exit");

  const admin = (path: string, method = "GET"): Promise<{ status: number; body: string }> => adminRequest(join(dir, "admin.sock"), path, method);
  // eslint-disable-next-line typescript/no-explicit-any
  const status = async (): Promise<any> => JSON.parse((await admin("/status")).body);
  let ports = new Map<string, number>();
  const lookAtPorts = async (): Promise<void> => {
    const { listeners } = (await status()) as { listeners: { name: string; address: string }[] };
    ports = new Map(listeners.map(({ name, address }) => [name, Number(address.slice(address.lastIndexOf(":") + 1))]));
  };
  const stop = async (signal: NodeJS.Signals = "SIGTERM"): Promise<number | null> => {
    if (child.exitCode === null && child.signalCode === null) {
      child.kill(signal);
      const timer = setTimeout(() => child.kill("SIGKILL"), STOP_TIMEOUT_MS);
      await exited;
      clearTimeout(timer);
    }
    return child.exitCode;
  };
  const save = async (yaml: string): Promise<void> => {
    await writeFile(`${file}.new`, head(yaml));
    await rename(`${file}.new`, file);
  };

  try {
    await waitFor(
      async () => {
        if (child.exitCode !== null) throw new Error(`The gateway exited with ${child.exitCode}:\n${raw.join("\n")}`);
        return log.some((line) => line["event"] === "started");
      },
      { timeoutMs: START_TIMEOUT_MS, what: () => `the gateway to start:\n${raw.join("\n")}`, abortOnError: true },
    );
    await lookAtPorts();
  } catch (error) {
    await stop("SIGKILL");
    await rm(dir, { recursive: true, force: true });
    throw error;
  }

  return {
    child,
    dir,
    file,
    log,
    accessLog,
    admin,
    status,
    stop,
    save,
    ca: () => readFile(join(dir, "state", "internal-ca", "ca.crt"), "utf8"),
    port: (listener) => {
      const port = ports.get(listener);
      if (port === undefined) throw new Error(`No listener '${listener}'`);
      return port;
    },
    edit: async (yaml) => {
      const reloads = log.filter((line) => line["event"] === "reloaded").length;
      await save(yaml);
      await waitFor(() => log.filter((line) => line["event"] === "reloaded").length > reloads, {
        what: () => `the edit to be applied:\n${raw.slice(-20).join("\n")}`,
      });
      await lookAtPorts();
    },
    [Symbol.asyncDispose]: async () => {
      await stop();
      await rm(dir, { recursive: true, force: true });
      const errors = log.filter((line) => line.level === "error" || line.level === "fatal");
      if (args.expectErrors !== true && errors.length > 0) throw new Error(`Unexpected errors in the log: ${JSON.stringify(errors)}`);
      if (child.exitCode !== 0 && child.signalCode === null && args.expectErrors !== true)
        throw new Error(`The gateway exited with ${child.exitCode}:\n${raw.slice(-20).join("\n")}`);
    },
  };
}

function eachLine(stream: NodeJS.ReadableStream, onLine: (line: string) => void): void {
  let rest = "";
  stream.setEncoding("utf8");
  stream.on("data", (chunk: string) => {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) if (line !== "") onLine(line);
  });
}

function adminRequest(socketPath: string, path: string, method: string): Promise<{ status: number; body: string }> {
  const { promise, resolve, reject } = Promise.withResolvers<{ status: number; body: string }>();
  request({ socketPath, path, method, agent: false }, (response) => {
    let body = "";
    response.setEncoding("utf8");
    response.on("data", (chunk: string) => (body += chunk));
    response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
    response.on("error", reject);
  })
    .on("error", reject)
    .end();
  return promise;
}
