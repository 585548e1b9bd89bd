// The Interactive Brokers API on a TCP listener: refuses whoever does not speak it, and reads the client id along the way.
import { checkHandshake, startApiClientId } from "../upstreams/ib-frames.ts";
import { timerMs } from "../lib/duration.ts";
import type { TcpConnection } from "./connection.ts";

/** Waits for the client's handshake and gives all bytes that were read to `onHandshake`; a client that sends anything else, or nothing in time, is refused. */
export function expectIbApi(connection: TcpConnection, onHandshake: (bytes: Buffer) => void): void {
  const { socket } = connection;
  let held: Buffer = Buffer.alloc(0);
  const timer = setTimeout(() => {
    connection.refuse("expect_timeout");
  }, timerMs(connection.state.plan.timeouts.expectMs));

  function onData(chunk: Buffer): void {
    held = held.length === 0 ? chunk : Buffer.concat([held, chunk]);
    const verdict = checkHandshake(held);
    if (verdict === "more") return;
    socket.pause();
    stop();
    if (verdict === "yes") onHandshake(held);
    else connection.refuse(`unexpected_protocol: ${protocolName(held)}`);
  }
  function onEnd(): void {
    connection.close("client_closed");
  }
  function stop(): void {
    clearTimeout(timer);
    socket.off("data", onData);
    socket.off("end", onEnd);
    connection.abandon = null;
  }
  connection.abandon = stop;
  socket.on("data", onData);
  socket.on("end", onEnd);
  socket.resume();
}

function protocolName(bytes: Buffer): string {
  if (bytes[0] === 0x16 && (bytes[1] ?? 0x03) === 0x03) return "TLS";
  if (/^[A-Z]{3,7} \//.test(bytes.toString("latin1", 0, 10))) return "HTTP";
  return `0x${bytes.toString("hex", 0, 8)}`;
}

// startApi is the first message after the handshake; some slack costs nothing.
const MAX_FRAMES = 8;
// The length, the message id, the version and the client id fit.
const HEAD_BYTES = 32;

/**
 * Reads the client id from startApi as the client's bytes pass by; `first` are those before the relay, the handshake included. Only looks: no byte is
 * kept back or changed, and what is not understood is let be.
 */
export function followClientId(connection: TcpConnection, first: Buffer): void {
  const head = Buffer.alloc(HEAD_BYTES);
  let frames = 0;
  let seen = 0;
  let size = 4;

  /** Whether there is more to look for. */
  function look(chunk: Buffer): boolean {
    for (let offset = 0; offset < chunk.length;) {
      // The length first, then the body that it tells of.
      const step = Math.min(chunk.length - offset, size - seen);
      if (seen < HEAD_BYTES) chunk.copy(head, seen, offset, offset + Math.min(step, HEAD_BYTES - seen));
      offset += step;
      seen += step;
      if (seen === 4 && size === 4) size += head.readUInt32BE(0);
      if (seen < size) continue;
      connection.ibClientId = startApiClientId(head.subarray(4, Math.min(size, HEAD_BYTES)));
      frames += 1;
      if (connection.ibClientId !== null || frames === MAX_FRAMES) return false;
      seen = 0;
      size = 4;
    }
    return true;
  }
  function onData(chunk: Buffer): void {
    if (!look(chunk)) connection.socket.off("data", onData);
  }
  if (look(first.subarray(8 + first.readUInt32BE(4)))) connection.socket.on("data", onData);
}
