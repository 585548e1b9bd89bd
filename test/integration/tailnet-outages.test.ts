// What happens to a node that served: the control server goes away, tailscaled is killed or hangs, under load; the other listeners go on.
import assert from "node:assert/strict";
import { connect, type Socket } from "node:net";
import { after, before, describe, test, type TestContext } from "node:test";
import { startTcpEcho, type Running } from "../components/echo.ts";
import { freePort } from "../components/free-port.ts";
import { skipWithout } from "../components/require.ts";
import { switchableProxy } from "../components/switchable-proxy.ts";
import { readiness, told } from "../components/tailnet-faults.ts";
import { startTailnetGateway, type TailnetGateway } from "../components/tailnet-gateway.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const PATIENCE = { timeoutMs: 60_000 };
const SESSIONS = 32;
const missing = missingTailnet();

let tailnet: TestTailnet;
let laptop: TailnetNode;
let echo: Running;

before(async () => {
  if (missing !== null) return;
  [tailnet, echo] = await Promise.all([startTailnet(), startTcpEcho()]);
  laptop = await tailnet.node("laptop");
});
after(async () => {
  if (missing === null) await Promise.all([tailnet?.[Symbol.asyncDispose](), echo?.[Symbol.asyncDispose]()]);
});

type Setting = AsyncDisposable & { readonly gateway: TailnetGateway; readonly pid: () => number; readonly dial: () => Promise<Socket> };

/** A gateway with an echo on the tailnet, and beside it on 127.0.0.1. */
async function setUp(hostname: string, controlUrl = tailnet.controlUrl): Promise<Setting> {
  const port = await freePort();
  const gateway = await startTailnetGateway(tailnet, {
    yaml: `tailscale: { hostname: ${hostname}, control_url: "${controlUrl}" }
listeners:
  node: { protocol: tcp, listen: "tailnet:${port}", upstream: "127.0.0.1:${echo.port}" }
  local: { protocol: tcp, listen: "127.0.0.1:0", upstream: "127.0.0.1:${echo.port}" }
`,
  });
  return {
    gateway,
    pid: () => Number(gateway.log.findLast(({ event }) => event === "tailscaled_started")?.["pid"]),
    dial: async () => (await laptop.dial(hostname, port)).on("error", () => {}),
    [Symbol.asyncDispose]: () => gateway[Symbol.asyncDispose](),
  };
}

/** Sends a text and waits until it came back. @throws when the connection ends before */
async function say(socket: Socket, text: string): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  let heard = "";
  const onData = (chunk: Buffer): void => {
    heard += chunk.toString("latin1");
    if (heard.length >= text.length) resolve();
  };
  const onClose = (): void => reject(new Error("The connection ended"));
  socket.on("data", onData).on("close", onClose).resume();
  if (socket.closed) onClose();
  socket.write(text);
  try {
    await promise;
    assert.equal(heard, text);
  } finally {
    socket.off("data", onData).off("close", onClose);
  }
}

/** Whether a new connection is served. */
async function isServed(dial: () => Promise<Socket>): Promise<boolean> {
  const socket = await dial().catch(() => null);
  if (socket === null) return false;
  socket.setTimeout(2_000, () => socket.destroy());
  const isAnswered = await say(socket, "hello").then(
    () => true,
    () => false,
  );
  socket.destroy();
  return isAnswered;
}

/** A connection to the listener that is not on the tailnet, which talks until it is asked how often it did. */
async function talkLocally(t: TestContext, gateway: TailnetGateway): Promise<() => Promise<number>> {
  const socket = connect(gateway.port("local"), "127.0.0.1");
  t.after(() => socket.destroy());
  let isDone = false;
  let count = 0;
  const talking = (async (): Promise<void> => {
    while (!isDone) {
      await say(socket, `still here ${count}`);
      count += 1;
    }
  })();
  // Whoever asks is told; until then another failure is the one to report.
  talking.catch(() => {});
  return async () => {
    isDone = true;
    await talking;
    return count;
  };
}

// They mostly wait.
describe("a gateway on the tailnet", { concurrency: 3, timeout: 85_000 }, () => {
  test("without its control server keeps open sessions and serves new ones, and says what is the matter when it comes up", async (t) => {
    if (skipWithout(t, missing)) return;
    await using control = await switchableProxy(Number(new URL(tailnet.controlUrl).port));
    await control.on();
    await using setting = await setUp("alone", `http://127.0.0.1:${control.port}`);
    const { gateway, dial } = setting;
    const session = await dial();
    t.after(() => session.destroy());
    await say(session, "before");
    control.off();
    await say(session, "during");
    for (let i = 0; i < 5; i += 1) assert.ok(await isServed(dial));
    assert.equal((await readiness(gateway)).problems.filter(({ what }) => what !== "tailnet").length, 0);
    assert.equal((await gateway.status()).tailnet.serving, true);
    await control.on();
    await say(session, "after");
    assert.ok(await isServed(dial));
  });

  test("whose tailscaled is killed under load serves again, and its other listener drops nothing", async (t) => {
    if (skipWithout(t, missing)) return;
    await using setting = await setUp("killed");
    const { gateway, dial, pid } = setting;
    const local = await talkLocally(t, gateway);
    const sessions = await Promise.all(Array.from({ length: SESSIONS }, dial));
    for (const session of sessions) t.after(() => session.destroy());
    let rounds = 0;
    const talking = sessions.map(async (session) => {
      for (;;) {
        await say(session, "x".repeat(10_000));
        rounds += 1;
      }
    });
    for (const talk of talking) talk.catch(() => {});
    await waitFor(() => rounds > SESSIONS * 2, PATIENCE);
    await waitFor(async () => (await gateway.status()).tailnet.clients[0]?.connections === SESSIONS, PATIENCE);
    process.kill(pid(), "SIGKILL");
    await told(gateway, /tailscaled was killed \(SIGKILL\) by something other than the gateway, for want of memory perhaps/);
    await gateway.serving();
    await waitFor(() => isServed(dial), PATIENCE);
    // A client learns of it when it sends next; the gateway, and with it the upstream, at once.
    const ended = gateway.accessLog.filter(({ listener, node, bytes_in }) => listener === "node" && node === "laptop" && Number(bytes_in) >= 10_000);
    assert.equal(ended.length, SESSIONS, JSON.stringify(gateway.accessLog[0]));
    assert.ok((await local()) > 0);
    assert.equal(gateway.accessLog.filter(({ listener }) => listener === "local").length, 0);
    assert.equal((await gateway.status()).tailnet.restarts, 1);
    await waitFor(async () => (await readiness(gateway)).status === "ready");
    assert.match((await gateway.admin("/metrics")).body, /^sidegate_tailscaled_restarts_total 1$/m);
  });

  test("whose tailscaled hangs refuses connections, says so, starts it again and serves", async (t) => {
    if (skipWithout(t, missing)) return;
    await using setting = await setUp("hung");
    const { gateway, dial, pid } = setting;
    const local = await talkLocally(t, gateway);
    assert.ok(await isServed(dial));
    const first = pid();
    process.kill(first, "SIGSTOP");
    await told(gateway, /tailscaled does not answer, and connections are refused until it does/);
    assert.equal(await isServed(dial), false);
    await gateway.serving();
    await waitFor(() => isServed(dial), PATIENCE);
    assert.notEqual(pid(), first);
    assert.ok((await local()) > 0);
    assert.equal((await gateway.status()).tailnet.restarts, 1);
    assert.equal((await readiness(gateway)).status, "ready");
  });
});
