// What the tailnet must not reach: services that speak to whoever connects, and a node that tries their ports.
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { Running } from "./echo.ts";
import type { TailnetNode } from "./tailnet.ts";

/**
 * A service of 127.0.0.1 that speaks first.
 * @param port 0: any
 * @throws when the port is taken, or is not for this user
 */
export async function startSpeaker(text: string, port = 0): Promise<Running> {
  const server = createServer((socket) => {
    socket.on("error", () => {});
    socket.resume();
    socket.end(text);
  });
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  return {
    port: (server.address() as AddressInfo).port,
    [Symbol.asyncDispose]: async () => void server.close(),
  };
}

export type Decoys = AsyncDisposable & { readonly ports: readonly number[] };

/**
 * Speakers that say "decoy" on so many ports.
 * @param wanted ports that are among them when they are free
 */
export async function startDecoys(count: number, wanted: readonly number[] = []): Promise<Decoys> {
  const running: Running[] = [];
  for (const port of wanted) {
    const decoy = await startSpeaker("decoy", port).catch(() => null);
    if (decoy !== null) running.push(decoy);
  }
  while (running.length < count) running.push(await startSpeaker("decoy"));
  return {
    ports: running.map(({ port }) => port),
    [Symbol.asyncDispose]: async () => void (await Promise.all(running.map((decoy) => decoy[Symbol.asyncDispose]()))),
  };
}

/** What came of a connection: the text that was heard; or it was closed without a byte, as sealed ports do; stayed open; or there was none. */
export type Knock = { readonly heard: string; readonly end: "answered" | "closed" | "open" | "unreachable" };

const SILENCE_MS = 5_000;
const TRIES = 3;
const AT_ONCE = 100;

/** Connects from a node, and waits for the first bytes or the end. What is silent is tried anew: the end of a connection may be lost, an open port stays open. */
export async function knock(node: TailnetNode, host: string, port: number): Promise<Knock> {
  let found = await knockOnce(node, host, port);
  for (let tries = 1; found.end === "open" && tries < TRIES; tries += 1) found = await knockOnce(node, host, port);
  return found;
}

async function knockOnce(node: TailnetNode, host: string, port: number): Promise<Knock> {
  let socket;
  try {
    socket = await node.dial(host, port);
  } catch {
    return { heard: "", end: "unreachable" };
  }
  const { promise, resolve } = Promise.withResolvers<Knock>();
  socket.on("error", () => {});
  socket.on("data", (chunk: Buffer) => resolve({ heard: chunk.toString("latin1"), end: "answered" }));
  socket.on("close", () => resolve({ heard: "", end: "closed" }));
  socket.setTimeout(SILENCE_MS, () => resolve({ heard: "", end: "open" }));
  socket.resume();
  const found = await promise;
  socket.destroy();
  return found;
}

export type Round = {
  /** Where there was an answer, or a connection stayed open, by port. */
  readonly answers: ReadonlyMap<number, Knock>;
  /** How many connections ended without a byte. */
  readonly closed: number;
  readonly tried: number;
};

/** Knocks at each of the ports, many at a time, in this order, or until the signal. */
export async function knockAtAll(node: TailnetNode, host: string, ports: Iterable<number>, signal?: AbortSignal): Promise<Round> {
  const answers = new Map<number, Knock>();
  let [closed, tried] = [0, 0];
  const left = ports[Symbol.iterator]();
  const { promise: late, resolve } = Promise.withResolvers<null>();
  signal?.addEventListener("abort", () => resolve(null), { once: true });
  const work = async (): Promise<void> => {
    while (signal?.aborted !== true) {
      const { done, value: port } = left.next();
      if (done === true) return;
      const result = await Promise.race([knock(node, host, port), late]);
      if (result === null) return;
      tried += 1;
      if (result.end === "closed") closed += 1;
      else if (result.end !== "unreachable") answers.set(port, result);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, work));
  return { answers: new Map([...answers].toSorted(([a], [b]) => a - b)), closed, tried };
}

export type Knocking = {
  /** Each `PORT: TEXT` that was heard. */
  readonly answers: ReadonlySet<string>;
  /** How many connections there were that ended without a byte: the node was there, and sealed. */
  readonly closed: number;
  stop(): void;
};

const WAIT_MS = 2_000;
const PAUSE_MS = 5;

/** Knocks at these ports of these hosts without end, in turn; what is still under way when the next one comes counts, too. */
export function keepKnocking(node: TailnetNode, hosts: readonly string[], ports: readonly number[], atOnce = 8): Knocking {
  const answers = new Set<string>();
  let closed = 0;
  let isDone = false;
  let turn = 0;
  const work = async (): Promise<void> => {
    while (!isDone) {
      const [host = "", port = 0] = [hosts[turn % hosts.length], ports[Math.floor(turn / hosts.length) % ports.length]];
      turn += 1;
      const tried = knock(node, host, port).then(({ heard, end }) => {
        if (end === "answered") answers.add(`${port}: ${heard}`);
        if (end === "open") answers.add(`${port}: (open)`);
        if (end === "closed") closed += 1;
      });
      await Promise.race([tried, delay(WAIT_MS)]);
      await delay(PAUSE_MS);
    }
  };
  for (let i = 0; i < atOnce; i += 1) void work();
  return {
    answers,
    get closed() {
      return closed;
    },
    stop: () => void (isDone = true),
  };
}
