// The framing of the Interactive Brokers API, as far as the relay and the health probe speak it.

/** What a client sends first: `API\0`, then one frame with the versions it speaks. */
const API_SIGN = Buffer.from("API\0", "latin1");

/** Longest version text that is believed: "v157..178" and, of old clients, an option such as " +PACEAPI". */
const MAX_VERSION_BYTES = 64;
const VERSION_TEXT = /^v\d{2,5}(?:\.\.\d{2,5})?(?: [ -~]*)?$/;

/** A message: its uint32BE length, then each field ended by a NUL. */
export function encodeFrame(...fields: readonly (string | number)[]): Buffer {
  return withLength(Buffer.from(fields.map((field) => `${field}\0`).join(""), "utf8"));
}

/** What a client that speaks the versions `min` to `max` sends first. */
export function encodeHandshake(min: number, max: number): Buffer {
  return Buffer.concat([API_SIGN, withLength(Buffer.from(`v${min}..${max}`, "latin1"))]);
}

function withLength(body: Buffer): Buffer {
  const frame = Buffer.allocUnsafe(4 + body.length);
  frame.writeUInt32BE(body.length);
  body.copy(frame, 4);
  return frame;
}

/** The fields of a message without its length. */
export function decodeFields(body: Buffer): string[] {
  const fields = body.toString("utf8").split("\0");
  // What follows the last NUL is no field.
  fields.pop();
  return fields;
}

/** Whether bytes begin as a client of the API does: "more" while they do and the handshake is not complete. */
export function checkHandshake(bytes: Buffer): "yes" | "no" | "more" {
  const length = Math.min(bytes.length, API_SIGN.length);
  if (bytes.compare(API_SIGN, 0, length, 0, length) !== 0) return "no";
  if (bytes.length < 8) return "more";
  const versionBytes = bytes.readUInt32BE(4);
  if (versionBytes > MAX_VERSION_BYTES) return "no";
  if (bytes.length < 8 + versionBytes) return "more";
  return VERSION_TEXT.test(bytes.toString("latin1", 8, 8 + versionBytes)) ? "yes" : "no";
}

/** Cuts a stream into messages. A length beyond `maxBytes` means that the peer speaks something else. */
export class FrameReader {
  readonly #maxBytes: number;
  #held: Buffer = Buffer.alloc(0);

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes;
  }

  /** The messages that are complete with these bytes, without their lengths; null when the bytes are no frames. */
  push(chunk: Buffer): Buffer[] | null {
    this.#held = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk]);
    const frames: Buffer[] = [];
    for (;;) {
      if (this.#held.length < 4) return frames;
      const length = this.#held.readUInt32BE(0);
      if (length > this.#maxBytes) return null;
      if (this.#held.length < 4 + length) return frames;
      frames.push(this.#held.subarray(4, 4 + length));
      this.#held = this.#held.subarray(4 + length);
    }
  }
}

const START_API = 71;
/** Above 200 a binary message id announces a protobuf body (server versions from 201 on). */
const PROTOBUF_OFFSET = 200;

/**
 * The client id in the beginning of a startApi message (its body, without the length); null when it is another message or the id cannot be had.
 * Three forms: text fields "71", "2", id; a binary int32BE 71, then the fields "2", id; a binary 271, then protobuf with the id as field 1.
 */
export function startApiClientId(body: Buffer): number | null {
  if (body.length >= 4 && body.readInt32BE(0) === PROTOBUF_OFFSET + START_API) return protobufClientId(body.subarray(4));
  const binary = body.length >= 4 && body.readInt32BE(0) === START_API;
  const match = (binary ? /^\d{1,3}\0(\d{1,10})\0/ : /^71\0\d{1,3}\0(\d{1,10})\0/).exec(body.toString("latin1", binary ? 4 : 0));
  if (match === null) return null;
  const id = Number(match[1]);
  return id <= 0x7fff_ffff ? id : null;
}

function protobufClientId(body: Buffer): number | null {
  // Field 1 as a varint has the tag 0x08. It is the first field, so it stands first in every known encoder.
  if (body[0] !== 0x08) return null;
  let id = 0;
  for (let i = 0; i < 5; i += 1) {
    const byte = body[1 + i];
    if (byte === undefined) return null;
    id += (byte & 0x7f) * 2 ** (7 * i);
    if (byte < 0x80) return id <= 0x7fff_ffff ? id : null;
  }
  return null;
}
