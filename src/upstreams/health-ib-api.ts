// Health checks that speak the Interactive Brokers API: the handshake alone, or a session of its own.
import type { Socket } from "node:net";
import { formatAddress } from "../lib/address.ts";
import { formatDuration, timerMs } from "../lib/duration.ts";
import type { DialAddress, HealthPlan } from "../plan/model.ts";
import { DialError } from "./dial.ts";
import { FrameReader, decodeFields, encodeFrame, encodeHandshake } from "./ib-frames.ts";
import { ProbeError, connectTarget } from "./health-tcp.ts";

// Above 178 newer servers turn to protobuf messages.
const [MIN_VERSION, MAX_VERSION] = [157, 178];
const MAX_FRAME_BYTES = 1024 * 1024;
const CLOSE_MS = 1_000;

const [START_API, NOTICE, NEXT_VALID_ID, MANAGED_ACCOUNTS] = ["71", "4", "9", "15"];
const [CLIENT_ID_IN_USE, CONNECTION_LOST] = ["326", "1100"];
const CONNECTION_RESTORED = new Set(["1101", "1102"]);

type IbHealthPlan = Exclude<HealthPlan, { kind: "http" }>;

/**
 * `ib_api`: the handshake must be answered; takes no client id. `ib_session`: the API must get ready for the client id too.
 * @throws {ProbeError} whose message says what the failure means
 */
export async function probeIb(address: DialAddress, health: IbHealthPlan, signal: AbortSignal): Promise<void> {
  const deadline = performance.now() + health.timeoutMs;
  const socket = await connectTarget(address, health.timeoutMs, signal).catch((error: unknown) => {
    throw error instanceof DialError ? new ProbeError(`${error.reason}: ${dialMeaning(error)}`) : error;
  });
  try {
    await converse(socket, address, health, deadline - performance.now(), signal);
    if (health.kind === "ib_session") await endSession(socket, signal);
  } finally {
    socket.destroy();
  }
}

function dialMeaning(error: DialError): string {
  if (error.reason.startsWith("connection refused")) return "IB Gateway is not started, or listens on another port";
  if (error.reason.startsWith("timed out")) return "IB Gateway hangs, its queue of connections is full";
  return "IB Gateway cannot be reached";
}

function converse(socket: Socket, address: DialAddress, health: IbHealthPlan, timeoutMs: number, signal: AbortSignal): Promise<void> {
  const { promise, resolve, reject } = Promise.withResolvers<void>();
  const at = formatAddress(address);
  const frames = new FrameReader(MAX_FRAME_BYTES);
  let shaken = false;
  let hasId = false;
  let hasAccounts = false;
  let lost = false;
  let notice = "";

  function onData(chunk: Buffer): void {
    const bodies = frames.push(chunk);
    if (bodies === null) {
      fail(`what answers at ${at} does not speak the IB API: another product is behind the port`);
      return;
    }
    for (const body of bodies) onMessage(decodeFields(body));
  }
  function onMessage(fields: string[]): void {
    if (!shaken) {
      // Exactly the server's version and its time; other messages may come before.
      if (fields.length !== 2 || !/^\d+$/.test(fields[0] ?? "")) return;
      shaken = true;
      if (health.kind === "ib_api") resolve();
      else socket.write(encodeFrame(START_API, 2, health.clientId, ""));
      return;
    }
    if (fields[0] === NOTICE) onNotice(fields[3] ?? "", fields[4] ?? "");
    if (fields[0] === NEXT_VALID_ID) hasId = true;
    if (fields[0] === MANAGED_ACCOUNTS) hasAccounts = true;
    if (!hasId || !hasAccounts) return;
    if (lost) fail(`IB Gateway at ${at} has lost its connection to Interactive Brokers${notice}`);
    else resolve();
  }
  function onNotice(code: string, text: string): void {
    notice = ` (${code}: ${text.replace(/[^ -~]/g, "").slice(0, 160)})`;
    if (code === CLIENT_ID_IN_USE) fail(`client id ${health.clientId} is in use at ${at}: give the health check one that nobody else takes`);
    if (code === CONNECTION_LOST) lost = true;
    if (CONNECTION_RESTORED.has(code)) lost = false;
  }
  function onClose(): void {
    if (!shaken) fail(`IB Gateway at ${at} closed the connection at once: it is shutting down, or does not trust the address that the gateway connects from`);
    else fail(`IB Gateway at ${at} closed the session before it was ready${notice}`);
  }
  function onTimeout(): void {
    const within = `within ${formatDuration(health.timeoutMs)}`;
    if (!shaken)
      fail(`connected to ${at}, but the handshake was not answered ${within}: a dialog is open in IB Gateway, or another product is behind the port`);
    else fail(`IB Gateway at ${at} answered the handshake, but its API was not ready ${within}${notice}: it is not logged in, or a dialog is open`);
  }
  function fail(message: string): void {
    reject(new ProbeError(message));
  }
  function onAbort(): void {
    fail("given up");
  }

  const timer = setTimeout(onTimeout, timerMs(Math.max(1, timeoutMs)));
  socket.on("data", onData);
  socket.on("end", onClose);
  socket.on("close", onClose);
  signal.addEventListener("abort", onAbort);
  socket.write(encodeHandshake(MIN_VERSION, MAX_VERSION));
  return promise.finally(() => {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", onClose);
    socket.off("close", onClose);
    signal.removeEventListener("abort", onAbort);
  });
}

/** Says goodbye and waits until IB Gateway did so too, for the client id to be free at the next check. */
function endSession(socket: Socket, signal: AbortSignal): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, CLOSE_MS);
  socket.once("close", () => resolve());
  signal.addEventListener("abort", () => resolve(), { once: true });
  socket.end();
  socket.resume();
  return promise.finally(() => clearTimeout(timer));
}
