// IB Gateway on the tailnet: ib_async by host name, live and paper; who is admitted and who is not; what edits do to open sessions.
import assert from "node:assert/strict";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { after, before, test } from "node:test";
import { runSidegate } from "../components/command.ts";
import { freePort } from "../components/free-port.ts";
import { ibClientMissing, startIbClient, type IbClient } from "../components/ib-client.ts";
import { startIbGateway, type IbGateway } from "../components/ib-gateway.ts";
import { skipWithout } from "../components/require.ts";
import { startTailnetGateway, type TailnetGateway } from "../components/tailnet-gateway.ts";
import { missingTailnet, startTailnet, type TailnetNode, type TestTailnet } from "../components/tailnet.ts";
import { waitFor } from "../components/wait.ts";

const missing = missingTailnet() ?? ibClientMissing();
const CUT_TIMEOUT_MS = 30_000;

let tailnet: TestTailnet;
let ib: IbGateway;
let gateway: TailnetGateway;
let [laptop, bot, stranger]: TailnetNode[] = [];
let ports: { live: number; paper: number };

/** @param users who reach the live account besides tag:bots */
function yaml(users: readonly string[], more = ""): string {
  return `listeners:
  live:
    protocol: tcp
    listen: tailnet:${ports.live}
    upstream: 127.0.0.1:${ib.livePort}
    health: ib_api
    expect: ib_api
    allow: { tailnet: { users: ${JSON.stringify(users)}, tags: [tag:bots] } }
  paper:
    protocol: tcp
    listen: tailnet:${ports.paper}
    upstream: 127.0.0.1:${ib.paperPort}
    health: ib_api
    expect: ib_api
    max_connections: 8
${more}`;
}

before(async () => {
  if (missing !== null) return;
  ports = { live: await freePort(), paper: await freePort() };
  [tailnet, ib] = await Promise.all([startTailnet(), startIbGateway()]);
  [laptop, bot, stranger] = await Promise.all([tailnet.node("laptop"), tailnet.node("bot", { tags: ["tag:bots"] }), tailnet.node("stranger")]);
  gateway = await startTailnetGateway(tailnet, { hostname: "ib-gateway", yaml: yaml([laptop.loginName]) });
});
after(async () => {
  if (missing !== null) return;
  await gateway?.[Symbol.asyncDispose]();
  await Promise.all([ib?.close(), tailnet?.[Symbol.asyncDispose]()]);
});

/** Connects as ib_async on that node does, by the gateway's name in the tailnet. */
async function clientOn(node: TailnetNode | undefined, port: number, clientId: number, timeoutSeconds?: number): Promise<IbClient & AsyncDisposable> {
  assert.ok(node !== undefined);
  const forward = await node.forward("ib-gateway", port);
  const client = await startIbClient("127.0.0.1", forward.port, clientId, timeoutSeconds);
  return {
    ...client,
    [Symbol.asyncDispose]: async () => {
      await client.close();
      await forward[Symbol.asyncDispose]();
    },
  };
}

/** The line of the access log about the connection that ended as described. */
function line(wanted: Record<string, unknown>): Promise<Record<string, unknown>> {
  return waitFor(() => gateway.accessLog.find((entry) => Object.entries(wanted).every(([key, value]) => entry[key] === value)), {
    what: () => `${JSON.stringify(wanted)} in the access log, which is ${JSON.stringify(gateway.accessLog)}`,
  });
}

/** What comes on the socket until it ends. */
async function readAll(socket: Socket): Promise<string> {
  let text = "";
  socket.setEncoding("latin1").on("data", (chunk: string) => (text += chunk));
  // A refusal may come as a reset.
  socket.on("error", () => {});
  if (!socket.closed) await new Promise((resolve) => socket.once("close", resolve));
  return text;
}

test("ib_async trades by the name of the node, live and paper, and the access log names the person and the device", async (t) => {
  if (skipWithout(t, missing)) return;
  await using live = await clientOn(laptop, ports.live, 11);
  await using paper = await clientOn(bot, ports.paper, 12);
  assert.deepEqual(live.greeting, { connected: true, accounts: ["U1234567"], server: 178 });
  assert.deepEqual(paper.greeting, { connected: true, accounts: ["DU1234567"], server: 178 });
  assert.deepEqual((await live.ask("positions")).answer, [
    ["AAPL", 100],
    ["SPY", 10],
  ]);
  const { clients } = (await gateway.status()).tailnet;
  assert.deepEqual(
    clients.toSorted((a: { listener: string }, b: { listener: string }) => (a.listener < b.listener ? -1 : 1)),
    [
      { listener: "live", address: laptop?.address, node: "laptop", user: laptop?.loginName, tags: [], connections: 1 },
      { listener: "paper", address: bot?.address, node: "bot", user: null, tags: ["tag:bots"], connections: 1 },
    ],
  );
  const shown = await runSidegate(["tailnet", "status", gateway.file]);
  assert.equal(shown.code, 0, shown.stderr);
  for (const part of [
    "ib-gateway.tail.test",
    "running",
    "65533 ports refused",
    `open: ${[ports.live, ports.paper].toSorted((a, b) => a - b).join(" ")}`,
    "laptop",
    "tag:bots",
  ])
    assert.ok(shown.stdout.includes(part), `${part} in ${shown.stdout}`);
  await live.ask("disconnect");
  await paper.ask("disconnect");
  const ofLaptop = await line({ listener: "live", client_id: 11 });
  assert.deepEqual(
    [ofLaptop["client"], ofLaptop["identity"], ofLaptop["node"], ofLaptop["reason"]],
    [laptop?.address, `tailnet:${laptop?.loginName}`, "laptop", "client_closed"],
  );
  const ofBot = await line({ listener: "paper", client_id: 12 });
  assert.deepEqual([ofBot["client"], ofBot["identity"], ofBot["node"]], [bot?.address, "tailnet:tag:bots", "bot"]);
});

test("whoever is not admitted gets no byte and reaches nothing: another user of the tailnet, a process of this machine", async (t) => {
  if (skipWithout(t, missing)) return;
  await using admitted = await clientOn(bot, ports.live, 21);
  assert.deepEqual(admitted.greeting.accounts, ["U1234567"]);
  const { connections } = await ib.status();
  assert.ok(stranger !== undefined);
  const socket = await stranger.dial("ib-gateway", ports.live);
  socket.write("API\0\0\0\0\tv100..178");
  assert.equal(await readAll(socket), "");
  const refused = await line({ listener: "live", reason: "denied" });
  assert.deepEqual([refused["client"], refused["identity"], refused["node"]], [stranger.address, `tailnet:${stranger.loginName}`, "stranger"]);
  for (const port of [ports.live, ports.paper]) {
    const local = connect(port, "127.0.0.1");
    local.write("API\0\0\0\0\tv100..178");
    assert.equal(await readAll(local), "");
  }
  const process = await line({ listener: "paper", reason: "not_on_tailnet" });
  assert.deepEqual([process["client"], process["identity"]], ["127.0.0.1", null]);
  // The account's own port, which listens on localhost, is sealed.
  const bypass = await stranger.dial("ib-gateway", ib.livePort);
  bypass.write("API\0\0\0\0\tv100..178");
  assert.equal(await readAll(bypass), "");
  assert.equal((await ib.status()).connections, connections);
});

test("a session lives through edits that do not concern it, and ends when its user is taken away", async (t) => {
  if (skipWithout(t, missing)) return;
  assert.ok(laptop !== undefined && stranger !== undefined);
  await gateway.edit(yaml([laptop.loginName, stranger.loginName]));
  await using staying = await clientOn(laptop, ports.live, 31);
  await using leaving = await clientOn(stranger, ports.live, 32);
  assert.deepEqual([staying.greeting.accounts, leaving.greeting.accounts], [["U1234567"], ["U1234567"]]);
  const extra = await freePort();
  await gateway.edit(
    yaml([laptop.loginName, stranger.loginName], `  more: { protocol: tcp, listen: "tailnet:${extra}", upstream: "127.0.0.1:${ib.paperPort}" }\n`),
  );
  await gateway.serving([ports.live, ports.paper, extra]);
  await using more = await clientOn(stranger, extra, 33);
  assert.deepEqual(more.greeting.accounts, ["DU1234567"]);
  assert.match(String((await leaving.ask("time")).answer), /^20\d\d-/);

  await gateway.edit(yaml([laptop.loginName]));
  assert.deepEqual(await leaving.next(), { error: "disconnected" });
  assert.match(String((await staying.ask("time")).answer), /^20\d\d-/);
  await gateway.serving([ports.live, ports.paper]);
  await staying.ask("disconnect");
});

test("a bot that loses its tag is cut, and its next connection is refused", { timeout: 90_000 }, async (t) => {
  if (skipWithout(t, missing)) return;
  await using session = await clientOn(bot, ports.live, 41);
  assert.deepEqual(session.greeting.accounts, ["U1234567"]);
  await tailnet.setTags("bot", []);
  const cut = await Promise.race([session.next(), once(AbortSignal.timeout(60_000), "abort").then(() => "still open after a minute")]);
  assert.deepEqual(cut, { error: "disconnected" });
  assert.ok(bot !== undefined);
  const socket = await bot.dial("ib-gateway", ports.live);
  assert.equal(await readAll(socket), "");
  await tailnet.setTags("bot", ["tag:bots"]);
  await waitFor(
    async () => {
      await using again = await clientOn(bot, ports.live, 42, 2);
      return again.greeting.connected === true;
    },
    { timeoutMs: CUT_TIMEOUT_MS },
  );
});
