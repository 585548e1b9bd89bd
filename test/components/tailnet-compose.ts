// compose/ib-gateway-tailscale in a tailnet of its own, and a laptop that uses it.
import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { networkInterfaces } from "node:os";
import { join } from "node:path";
import { healthOf, missingDocker, startCompose, type ComposeProject } from "./docker.ts";
import { ibClientMissing, startIbClient, type IbClient } from "./ib-client.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "./tailnet.ts";
import { waitFor } from "./wait.ts";

const TIMEOUT_MS = 60_000;
/** How the API begins. */
const HELLO = Buffer.from("API\0\0\0\0\tv100..178", "latin1");
export const AUTH_KEY = "tskey-auth-secret";

export type TailnetCompose = AsyncDisposable & {
  readonly tailnet: TestTailnet;
  readonly laptop: TailnetNode;
  readonly project: ComposeProject;
  /** ib_async on the laptop, which knows the gateway by its name in the tailnet. */
  readonly trade: (port: number, clientId: number) => Promise<IbClient & AsyncDisposable>;
  /** Asserts that the account trades there. */
  readonly assertTrades: (port: number, account: string) => Promise<void>;
  /** What comes of saying hello to IB Gateway there, over the tailnet; see `sayHello`. `name` defaults to the gateway's as shipped. */
  readonly hail: (port: number, name?: string) => Promise<string>;
  /** From inside the network that the containers share: `closed` on a line of its own, after `answered` if there was an answer. */
  readonly hailInside: (host: string, port: number) => Promise<string>;
  /** Takes the containers down (`flags` for that: `--volumes`) and starts them with these settings of Sidegate's; does not wait. */
  readonly restartWith: (settings: Readonly<Record<string, unknown>>, ...flags: string[]) => Promise<void>;
  /** What of the tailnet is the gateway's: id, name and tags. */
  readonly gatewayNodes: () => Promise<string[]>;
  /** Waits until the newest check of HEALTHCHECK says this, and gives it. */
  readonly waitForHealth: (pattern: RegExp) => Promise<string>;
};

/** Why these stories cannot run here, for `skipWithout`. */
export async function missingTailnetCompose(): Promise<string | null> {
  return (await missingDocker()) ?? missingTailnet() ?? ibClientMissing();
}

/** Starts them as they are shipped, with a key, and waits until they are healthy. */
export async function startTailnetCompose(): Promise<TailnetCompose> {
  // Containers reach each of them, whatever network they are in.
  const addresses = Object.values(networkInterfaces()).flatMap((all) => all ?? []);
  const host = addresses.find(({ family, internal }) => family === "IPv4" && !internal)?.address;
  assert.ok(host, "the host has no address but loopback");
  await using stack = new AsyncDisposableStack();
  const tailnet = stack.use(await startTailnet({ host, tagOwners: "tag:trading=" }));
  const laptop = await tailnet.node("laptop");
  const env = { TS_AUTHKEY: AUTH_KEY, TS_EXTRA_ARGS: `--login-server=${tailnet.controlUrl}`, IB_USER: laptop.loginName };
  const project = stack.use(await startCompose("ib-gateway-tailscale", { env, environment: tailnet.env }));

  const trade = async (port: number, clientId: number): Promise<IbClient & AsyncDisposable> => {
    const forward = await laptop.forward("ib-gateway", port);
    // WireGuard may need 15 s to notice that the other side was started anew.
    const client = await startIbClient("127.0.0.1", forward.port, clientId, 25);
    const close = async (): Promise<void> => {
      await client.close();
      await forward[Symbol.asyncDispose]();
    };
    return { ...client, [Symbol.asyncDispose]: close };
  };
  const all = stack.move();
  return {
    tailnet,
    laptop,
    project,
    trade,
    assertTrades: async (port, account) => {
      await using client = await trade(port, port);
      assert.deepEqual(client.greeting, { connected: true, accounts: [account], server: 178 });
      await assertPositions(client);
    },
    hail: async (port, name = "ib-gateway") => sayHello(await laptop.dial(name, port)),
    hailInside: (address, port) => {
      const script = `const socket = require("net").connect(${port}, "${address}", () => socket.write(${JSON.stringify(HELLO.toString("latin1"))}));
        socket.on("data", () => { console.log("answered"); socket.destroy() }).on("error", () => {}).on("close", () => console.log("closed"))`;
      return project.compose("exec", "-T", "sidegate", "node", "--eval", script);
    },
    restartWith: async (settings, ...flags) => {
      // Of the volumes, "down" leaves also those that have no name.
      await project.compose("rm", "--stop", "--force", "--volumes");
      await project.compose("down", "--timeout", "10", ...flags);
      const services = { sidegate: { environment: tailnet.env, healthcheck: { interval: "1s", start_period: "1s" }, ...settings } };
      await writeFile(join(project.dir, "compose.override.yaml"), JSON.stringify({ services }));
      await project.compose("up", "--detach", "--no-build");
    },
    gatewayNodes: async () => (await tailnet.nodes()).filter(({ ID }) => ID !== laptop.id).map(({ ID, Name, Tags }) => `${ID} ${Name} ${Tags.join()}`),
    waitForHealth: async (pattern) => {
      let last = "";
      await waitFor(
        async () => {
          last = (await healthOf(await project.id("sidegate"))).Log.at(-1)?.Output ?? "";
          return pattern.test(last);
        },
        { timeoutMs: TIMEOUT_MS, what: () => `HEALTHCHECK to say ${pattern}; it says '${last}'` },
      );
      return last;
    },
    [Symbol.asyncDispose]: () => all.disposeAsync(),
  };
}

export async function assertPositions(client: IbClient): Promise<void> {
  assert.deepEqual((await client.ask("positions")).answer, [
    ["AAPL", 100],
    ["SPY", 10],
  ]);
}

/** What comes of connecting to `host:port` and saying hello to IB Gateway; see `sayHello`. */
export function hailDirectly(host: string, port: number): Promise<string> {
  return sayHello(connect(port, host));
}

/** The first bytes of an answer, `closed` without any, or `ECONNREFUSED`. */
async function sayHello(socket: Socket): Promise<string> {
  const { promise, resolve, reject } = Promise.withResolvers<string>();
  socket
    .setTimeout(TIMEOUT_MS, () => reject(new Error("Neither an answer nor an end")))
    .on("data", (chunk: Buffer) => resolve(chunk.toString("latin1")))
    .on("error", (error: NodeJS.ErrnoException) => resolve(error.code === "ECONNRESET" ? "closed" : String(error.code)))
    .on("close", () => resolve("closed"))
    .write(HELLO);
  socket.resume();
  return promise.finally(() => socket.destroy());
}
