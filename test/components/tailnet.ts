// A real tailnet on loopback: Tailscale's own test control server with a DERP relay, and nodes that are real tailscaled.
import { execFile, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm } from "node:fs/promises";
import { connect, createServer, type AddressInfo, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { freePort } from "./free-port.ts";
import { findProgram } from "./require.ts";
import { waitFor } from "./wait.ts";

const run = promisify(execFile);
const PROGRAMS = ["tailnet-control", "tailscaled", "tailscale"];
const JOIN_TIMEOUT_MS = 30_000;

/** Why there is no tailnet, for `skipWithout`; null when there is. */
export function missingTailnet(): string | null {
  const missing = PROGRAMS.filter((name) => findProgram(name) === null);
  return missing.length === 0 ? null : `${missing.join(", ")}: not built`;
}

/** As the control server knows it. Names are whole, addresses IPv4 first. */
export type ControlNode = {
  readonly ID: string;
  readonly Name: string;
  readonly LoginName: string;
  readonly Addresses: readonly string[];
  readonly Tags: readonly string[];
  readonly Approved: boolean;
  readonly KeyExpiry: string;
};

export type TailnetNode = AsyncDisposable & {
  readonly name: string;
  readonly address: string;
  readonly loginName: string;
  readonly id: string;
  readonly socket: string;
  readonly child: ChildProcess;
  /** A connection through its SOCKS5 proxy to a name or address of the tailnet. @throws {RefusedError} when nobody answers there */
  dial(host: string, port: number): Promise<Socket>;
  /** A port of 127.0.0.1 each of whose connections goes to `host:port` through the tailnet, for clients that know no SOCKS. */
  forward(host: string, port: number): Promise<AsyncDisposable & { readonly port: number }>;
};

export type TestTailnet = AsyncDisposable & {
  readonly controlUrl: string;
  /** What a tailscaled of this tailnet needs in its environment. */
  readonly env: Readonly<Record<string, string>>;
  readonly domain: string;
  nodes(): Promise<ControlNode[]>;
  /** The node of that name, when it has joined. */
  find(name: string): Promise<ControlNode | undefined>;
  /** Starts a node and waits until it runs. */
  node(name: string, options?: { tags?: readonly string[]; authKey?: string }): Promise<TailnetNode>;
  setTags(node: string, tags: readonly string[]): Promise<void>;
  rename(node: string, name: string): Promise<void>;
  remove(node: string): Promise<void>;
  /** `in` as Go writes durations: `72h`, `-1m`; null: its key never expires. */
  expire(node: string, inDuration: string | null): Promise<void>;
  expireAll(on: boolean): Promise<void>;
  /** Finishes the login of a URL. */
  approve(url: string): Promise<void>;
  approveDevice(node: string): Promise<void>;
  require(what: { auth?: boolean; approval?: boolean; key?: string }): Promise<void>;
};

/** The other side said no: code 2 not allowed, 4 unreachable, 5 refused (RFC 1928, 6), and tailscaled's 1 for everything. */
export class RefusedError extends Error {
  readonly code: number;

  constructor(code: number) {
    super(`SOCKS5 reply ${code}`);
    this.code = code;
  }
}

/**
 * @param options.host address that control and relay listen on, for containers; default loopback
 * @param options.authKey the only key that is accepted, also when a known node comes back; default: any
 * @param options.tagOwners as main.go takes it; default: nodes get the tags that `node` or `setTags` give them
 */
export async function startTailnet(
  options: { host?: string; authKey?: string; requireAuth?: boolean; requireApproval?: boolean; tagOwners?: string } = {},
): Promise<TestTailnet> {
  const { host = "127.0.0.1", authKey = "", requireAuth = false, requireApproval = false, tagOwners = "" } = options;
  const flags = [
    `--host=${host}`,
    `--auth-key=${authKey}`,
    `--require-auth=${requireAuth}`,
    `--require-approval=${requireApproval}`,
    `--tag-owners=${tagOwners}`,
  ];
  // It ends with our end of the pipe.
  const control = spawn(programPath("tailnet-control"), flags, { stdio: ["pipe", "pipe", "inherit"] });
  const [line] = (await once(createInterface(control.stdout), "line")) as [string];
  const addresses = JSON.parse(line) as { control: string; admin: string };
  const env = {
    TS_NO_LOGS_NO_SUPPORT: "true",
    TS_PANIC_IF_HIT_MAIN_CONTROL: "1",
    TS_DISABLE_PORTMAPPER: "1",
    TS_ASSUME_NETWORK_UP_FOR_TEST: "1",
    TS_NETCHECK_GENERATE_204_URL: `${addresses.control}/generate_204`,
  };
  const running: TailnetNode[] = [];

  const nodes = async (): Promise<ControlNode[]> => (await (await fetch(`${addresses.admin}/nodes`)).json()) as ControlNode[];
  const find = async (name: string): Promise<ControlNode | undefined> => (await nodes()).find(({ Name }) => Name === name || Name.startsWith(`${name}.`));
  const call = async (path: string, form: readonly (readonly [string, string])[]): Promise<void> => {
    const response = await fetch(`${addresses.admin}${path}?${new URLSearchParams(form.map(([key, value]) => [key, value])).toString()}`, { method: "POST" });
    if (!response.ok) throw new Error(`${path}: ${response.status} ${await response.text()}`);
  };

  const startNode = async (name: string, node: { tags?: readonly string[]; authKey?: string } = {}): Promise<TailnetNode> => {
    const { tags = [], authKey: key = authKey === "" ? "any-key" : authKey } = node;
    const dir = await mkdtemp(join(tmpdir(), "sidegate-node-"));
    const socket = join(dir, "s.sock");
    const socksPort = await freePort();
    const child = guarded(
      [
        programPath("tailscaled"),
        "--tun=userspace-networking",
        `--statedir=${dir}`,
        `--socket=${socket}`,
        "--port=0",
        `--socks5-server=127.0.0.1:${socksPort}`,
      ],
      env,
    );
    const close = async (): Promise<void> => {
      if (child.exitCode === null && child.signalCode === null) {
        const exited = once(child, "exit");
        child.stdin?.end();
        await exited;
      }
      await rm(dir, { recursive: true, force: true });
    };
    try {
      await waitFor(() => run(programPath("tailscale"), [`--socket=${socket}`, "status", "--json", "--peers=false"]), { timeoutMs: JOIN_TIMEOUT_MS });
      const up = ["up", `--login-server=${addresses.control}`, `--auth-key=${key}`, `--hostname=${name}`, "--timeout=30s"];
      await run(programPath("tailscale"), [`--socket=${socket}`, ...up]);
      const known = await waitFor(() => find(name));
      if (tags.length > 0) await call("/tags", [["node", name], ...tags.map((tag) => ["tag", tag] as const)]);
      const dial = (to: string, port: number): Promise<Socket> => dialSocks(socksPort, to, port);
      const found: TailnetNode = {
        name,
        address: known.Addresses[0] ?? "",
        loginName: known.LoginName,
        id: known.ID,
        socket,
        child,
        dial,
        forward: (to, port) => startForward(() => dial(to, port)),
        [Symbol.asyncDispose]: close,
      };
      running.push(found);
      return found;
    } catch (error) {
      await close();
      throw error;
    }
  };

  return {
    controlUrl: addresses.control,
    env,
    domain: "tail.test",
    nodes,
    find,
    node: startNode,
    setTags: (node, tags) => call("/tags", [["node", node], ...tags.map((tag) => ["tag", tag] as const)]),
    rename: (node, name) =>
      call("/rename", [
        ["node", node],
        ["name", name],
      ]),
    remove: (node) => call("/remove", [["node", node]]),
    expire: (node, inDuration) => call("/expire", [["node", node], ...(inDuration === null ? [] : [["in", inDuration] as const])]),
    expireAll: (on) => call("/expire", [["on", String(on)]]),
    approve: (url) => call("/approve", [["path", new URL(url).pathname]]),
    approveDevice: (node) => call("/approve-device", [["node", node]]),
    require: (what) =>
      call(
        "/require",
        Object.entries(what).map(([key, value]) => [key, String(value)]),
      ),
    [Symbol.asyncDispose]: async () => {
      await Promise.all(running.map((node) => node[Symbol.asyncDispose]()));
      const exited = once(control, "exit");
      control.stdin.end();
      await exited;
    },
  };
}

/** A program that ends with us, whatever ends us: a shell waits for the end of its standard input, which we hold. */
function guarded(command: readonly string[], env: Readonly<Record<string, string>>): ChildProcess {
  const script = '"$@" </dev/null & child=$!; (cat >/dev/null; kill -9 $child) <&3 3<&- & exec 3<&-; wait $child';
  return spawn("sh", ["-c", `exec 3<&0; ${script}`, "sh", ...command], {
    env: { PATH: process.env["PATH"], HOME: tmpdir(), ...env },
    stdio: ["pipe", "ignore", "ignore"],
  });
}

function programPath(name: string): string {
  const found = findProgram(name);
  if (found === null) throw new Error(`${name} is not built`);
  return found;
}

/** Connects through a SOCKS5 proxy (RFC 1928) by name, which the proxy resolves. */
async function dialSocks(proxyPort: number, host: string, port: number): Promise<Socket> {
  const socket = connect(proxyPort, "127.0.0.1");
  const { promise, resolve, reject } = Promise.withResolvers<Socket>();
  let got = Buffer.alloc(0);
  const fail = (error: Error): void => {
    socket.destroy();
    reject(error);
  };
  const onData = (chunk: Buffer): void => {
    got = Buffer.concat([got, chunk]);
    // Two bytes answer the greeting; the reply's address has a length of its own kind.
    const length = got.length < 7 ? Infinity : 2 + 6 + (got[5] === 1 ? 4 : got[5] === 4 ? 16 : 1 + (got[6] ?? 0));
    if (got.length >= 4 && got[3] !== 0) return fail(new RefusedError(got[3] ?? 0));
    if (got.length < length) return;
    socket.off("data", onData).off("error", fail).off("close", onClose);
    socket.pause();
    if (got.length > length) socket.unshift(got.subarray(length));
    resolve(socket);
  };
  const onClose = (): void => fail(new Error("The SOCKS5 proxy closed the connection"));
  socket.on("data", onData).on("error", fail).on("close", onClose).setNoDelay(true);
  const name = Buffer.from(host);
  socket.write(Buffer.concat([Buffer.from([5, 1, 0]), Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([port >> 8, port & 255])]));
  return promise;
}

async function startForward(dial: () => Promise<Socket>): Promise<AsyncDisposable & { readonly port: number }> {
  const open = new Set<Socket>();
  const server = createServer({ noDelay: true, allowHalfOpen: true, pauseOnConnect: true }, (client) => {
    const keep = (socket: Socket): void => {
      open.add(socket);
      socket.on("close", () => open.delete(socket)).on("error", () => {});
    };
    keep(client);
    dial().then(
      (upstream) => {
        keep(upstream);
        upstream.allowHalfOpen = true;
        client.pipe(upstream).pipe(client);
        client.on("close", () => upstream.destroy());
        upstream.on("close", () => client.destroy());
      },
      () => client.destroy(),
    );
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => {
      server.close();
      for (const socket of open) socket.destroy();
    },
  };
}
