// The IB Gateway stand-in as a child process on ports of the system's choice.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { fileURLToPath } from "node:url";

const STAND_IN = fileURLToPath(new URL("../../examples/ib-gateway/stand-in.ts", import.meta.url));
const START_TIMEOUT_MS = 10_000;

export type IbMode = "normal" | "hang" | "silent" | "lost" | "close" | "refuse" | "other";

type VenueStatus = { readonly port: number; readonly clients: number[] };

export type IbGatewayStatus = {
  readonly mode: IbMode;
  readonly live: VenueStatus;
  readonly paper: VenueStatus;
  /** Connections open now, those that ever came, and the bytes that they brought. */
  readonly open: number;
  readonly connections: number;
  readonly bytes: number;
};

export type IbGateway = {
  readonly livePort: number;
  readonly paperPort: number;
  readonly pid: number;
  /** Makes it ill, or well again. */
  mode(mode: IbMode): Promise<void>;
  /** Cuts all connections. */
  drop(): Promise<void>;
  status(): Promise<IbGatewayStatus>;
  close(): Promise<void>;
};

export async function startIbGateway(env: Record<string, string> = {}): Promise<IbGateway> {
  const child = spawn(process.execPath, [STAND_IN], {
    env: { ...process.env, IB_LIVE_PORT: "0", IB_PAPER_PORT: "0", CONTROL_PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let output = "";
  const ports = await new Promise<RegExpExecArray>((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error(`The IB stand-in did not start: ${output}`)), START_TIMEOUT_MS);
    child.on("exit", () => reject(new Error(`The IB stand-in ended: ${output}`)));
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk: Buffer) => {
        output += chunk.toString();
        const match = /live \S+:(\d+), paper \S+:(\d+), control \S+:(\d+)/.exec(output);
        if (match === null) return;
        clearTimeout(timer);
        resolve(match);
      });
  });
  const [livePort = 0, paperPort = 0, controlPort = 0] = ports.slice(1).map(Number);
  async function control(method: "GET" | "POST", word: string): Promise<IbGatewayStatus> {
    const response = await fetch(`http://127.0.0.1:${controlPort}/${word}`, { method, headers: { connection: "close" } });
    assert.equal(response.status, 200);
    return (await response.json()) as IbGatewayStatus;
  }
  return {
    livePort,
    paperPort,
    pid: child.pid ?? 0,
    mode: async (mode) => {
      await control("POST", mode);
    },
    drop: async () => {
      await control("POST", "drop");
    },
    status: () => control("GET", ""),
    close: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const exited = once(child, "exit");
      child.kill("SIGKILL");
      await exited;
    },
  };
}
