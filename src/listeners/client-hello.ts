// Reads the server name and the protocols out of a ClientHello, for what must be known before OpenSSL sees it.

/** `serverName` as sent, null when there is none; `alpn` in the client's order, empty without the extension. */
export type ClientHello = { readonly serverName: string | null; readonly alpn: readonly string[] };

// The largest that browsers send is 2 KB, with hybrid key shares; a resumption with client data may double it.
const MAX_BYTES = 16_384;
const MAX_RECORDS = 8;
const RECORD_HEADER = 5;
const HANDSHAKE_HEADER = 4;
const RECORD_HANDSHAKE = 22;
const CLIENT_HELLO = 1;
const SERVER_NAME = 0;
const ALPN = 16;

class Malformed extends Error {}

/** Whether the first byte of a connection can be that of a TLS handshake. */
export function beginsTls(bytes: Buffer): boolean {
  return bytes[0] === RECORD_HANDSHAKE;
}

/**
 * Parses what a client sent so far.
 * @returns "incomplete" while more must come, never for 16 KB or more; "malformed" for what is no ClientHello, breaks RFC 8446 (4.1.2),
 * 6066 (3) or 7301 (3.1), or is larger than any client's.
 */
export function parseClientHello(bytes: Buffer): ClientHello | "incomplete" | "malformed" {
  try {
    const message = joinRecords(bytes);
    return message === null ? "incomplete" : readHello(new Reader(message));
  } catch (error) {
    if (error instanceof Malformed) return "malformed";
    throw error;
  }
}

/** The body of the first handshake message, which may be spread over records; null while it is not whole. */
function joinRecords(bytes: Buffer): Buffer | null {
  const fragments: Buffer[] = [];
  let have = 0;
  let need: number | null = null;
  for (let at = 0; fragments.length < MAX_RECORDS;) {
    // What is there of a header must be right, so that nothing else is waited for.
    if ((at < bytes.length && bytes[at] !== RECORD_HANDSHAKE) || (at + 1 < bytes.length && bytes[at + 1] !== 3)) throw new Malformed();
    const length = at + RECORD_HEADER > bytes.length ? 1 : bytes.readUInt16BE(at + 3);
    const start = at + RECORD_HEADER;
    if (length === 0 || start + length > MAX_BYTES) throw new Malformed();
    if (start + length > bytes.length) return null;
    fragments.push(bytes.subarray(start, start + length));
    have += length;
    at = start + length;
    if (need === null && have >= HANDSHAKE_HEADER) {
      const header = Buffer.concat(fragments);
      if (header[0] !== CLIENT_HELLO) throw new Malformed();
      need = HANDSHAKE_HEADER + header.readUIntBE(1, 3);
    }
    // Nothing may follow a ClientHello in its record: what comes next is encrypted or waits for our answer.
    if (need !== null && have > need) throw new Malformed();
    if (have === need) return Buffer.concat(fragments).subarray(HANDSHAKE_HEADER);
  }
  throw new Malformed();
}

function readHello(hello: Reader): ClientHello {
  hello.take(2 + 32);
  hello.vector(1);
  hello.vector(2);
  hello.vector(1);
  let serverName: string | null = null;
  let alpn: readonly string[] = [];
  if (hello.done) return { serverName, alpn };
  const extensions = hello.vector(2);
  hello.end();
  const seen = new Set<number>();
  while (!extensions.done) {
    const type = extensions.number(2);
    const data = extensions.vector(2);
    if (seen.has(type)) throw new Malformed();
    seen.add(type);
    if (type === SERVER_NAME) serverName = readServerName(data);
    else if (type === ALPN) alpn = readAlpn(data);
  }
  return { serverName, alpn };
}

function readServerName(data: Reader): string {
  const list = data.vector(2);
  data.end();
  // One name of one type is all that was ever defined (RFC 8446, 4.2.11 and RFC 6066, 3).
  if (list.number(1) !== 0) throw new Malformed();
  const name = list.vector(2).rest().toString("latin1");
  list.end();
  if (!/^[\x21-\x7e]{1,255}$/.test(name)) throw new Malformed();
  return name;
}

function readAlpn(data: Reader): string[] {
  const list = data.vector(2);
  data.end();
  const protocols: string[] = [];
  while (!list.done) {
    const protocol = list.vector(1).rest().toString("latin1");
    if (protocol === "") throw new Malformed();
    protocols.push(protocol);
  }
  if (protocols.length === 0) throw new Malformed();
  return protocols;
}

/** Takes numbers and vectors off bytes from the front, and refuses to go past their end. */
class Reader {
  readonly #bytes: Buffer;
  #at = 0;

  constructor(bytes: Buffer) {
    this.#bytes = bytes;
  }

  get done(): boolean {
    return this.#at === this.#bytes.length;
  }

  take(length: number): Buffer {
    const end = this.#at + length;
    if (end > this.#bytes.length) throw new Malformed();
    const taken = this.#bytes.subarray(this.#at, end);
    this.#at = end;
    return taken;
  }

  number(size: number): number {
    return this.take(size).readUIntBE(0, size);
  }

  /** What stands behind a length of `size` bytes. */
  vector(size: number): Reader {
    return new Reader(this.take(this.number(size)));
  }

  rest(): Buffer {
    return this.take(this.#bytes.length - this.#at);
  }

  end(): void {
    if (!this.done) throw new Malformed();
  }
}
