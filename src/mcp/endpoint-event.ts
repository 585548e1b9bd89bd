// The first event of the older HTTP+SSE transport (2024-11-05): where its client sends messages to. Found in the stream, and led back behind a prefix.

const NOTHING = Buffer.alloc(0);
// The endpoint must be the first event; some servers say a word before it.
const MAX_EVENTS = 4;
const MAX_HELD_BYTES = 8_192;
const CR = 0x0d;
const LF = 0x0a;

/**
 * Passes a stream on. Held back are only the lines of an event that may be the endpoint, until its end, before which no client acts on it; once the
 * endpoint was seen, or cannot come any more, everything passes.
 */
export class EndpointWatch {
  readonly #onEndpoint: (uri: string) => string;
  #done = false;
  #events = 0;
  /** Bytes since the beginning of the event that is held, in pieces. */
  #held: Buffer[] = [];
  #heldBytes = 0;
  /** The line under way, as far as it has come, with its line's end; latin1, so that a character is a byte. */
  #line = "";
  /** What the line under way says is of no matter: its rest is not remembered, however long it is. */
  #skipsLine = false;
  #endsInCr = false;
  #isFirstLine = true;
  #name = "";
  /** Lines of the event whose field is `data`: where in `#held` and the value. */
  #data: { readonly index: number; readonly before: string; readonly value: string; readonly end: string }[] = [];

  /** @param onEndpoint is told what the event says; gives what it shall say */
  constructor(onEndpoint: (uri: string) => string) {
    this.#onEndpoint = onEndpoint;
  }

  /** @returns what may go on now. The chunk may be overwritten afterwards. */
  push(chunk: Buffer): Buffer {
    if (this.#done) return chunk;
    const out: Buffer[] = [];
    let from = 0;
    for (let i = 0; i < chunk.length && !this.#done; i += 1) {
      const byte = chunk[i];
      // CR, LF and CRLF end lines; a line ends at its CR, and an LF behind it says nothing new.
      if (this.#endsInCr && byte === LF) {
        this.#endsInCr = false;
        this.#take(chunk.subarray(from, i + 1), "", out, true);
        from = i + 1;
        continue;
      }
      this.#endsInCr = byte === CR;
      if (byte !== CR && byte !== LF) continue;
      this.#take(chunk.subarray(from, i + 1), String.fromCharCode(byte), out, false);
      from = i + 1;
    }
    if (from < chunk.length) {
      const rest = chunk.subarray(from);
      if (this.#done) out.push(Buffer.from(rest));
      else this.#takePart(rest, out);
    }
    return out.length === 0 ? NOTHING : Buffer.concat(out);
  }

  /** What is held when the stream ends. */
  end(): Buffer {
    const out: Buffer[] = [];
    this.#release(out);
    this.#done = true;
    return Buffer.concat(out);
  }

  /** The end of a line. `end` is its line's end; empty for the LF of a CRLF. */
  #take(bytes: Buffer, end: string, out: Buffer[], isSecondHalf: boolean): void {
    this.#keep(bytes, out);
    if (this.#done) return;
    if (isSecondHalf) {
      if (this.#name !== "endpoint" && (this.#name !== "" || this.#data.length === 0)) this.#release(out);
      return;
    }
    let line = this.#skipsLine ? ":" : this.#line + bytes.toString("latin1", 0, bytes.length - end.length);
    this.#line = "";
    this.#skipsLine = false;
    if (this.#isFirstLine && line.startsWith("\xef\xbb\xbf")) line = line.slice(3);
    this.#isFirstLine = false;
    if (line === "") return this.#endEvent(out);
    // Of an event that is another, only the end is looked for.
    if (this.#name !== "" && this.#name !== "endpoint") return this.#release(out);
    const [, field = "", value = ""] = /^([^:]*)(?:: ?(.*))?$/s.exec(line) ?? [];
    if (field === "event") this.#name = value;
    else if (field === "data") {
      // The whole line becomes one piece, so that its value can be replaced.
      const whole = Buffer.concat(this.#held).toString("latin1");
      const start = whole.length - end.length - value.length;
      this.#held = [Buffer.from(whole, "latin1")];
      this.#data.push({ index: start, before: whole.slice(0, start), value, end });
    }
    // Neither an event that is no endpoint nor a comment waits for anything.
    if (this.#name !== "endpoint" && (this.#name !== "" || this.#data.length === 0)) this.#release(out);
  }

  /** A piece of a line that goes on in the next chunk. */
  #takePart(bytes: Buffer, out: Buffer[]): void {
    this.#keep(bytes, out);
    if (this.#done) return;
    const isOther = this.#name !== "" && this.#name !== "endpoint";
    if (!this.#skipsLine) {
      this.#line += bytes.toString("latin1");
      const line = this.#isFirstLine ? this.#line.replace(/^\xef\xbb\xbf/, "") : this.#line;
      if (!isOther && ["event", "data", "\xef\xbb\xbf"].some((name) => name.startsWith(line.slice(0, name.length)))) return;
      this.#skipsLine = true;
      this.#line = "";
    }
    if (isOther || (this.#name === "" && this.#data.length === 0)) this.#release(out);
  }

  #keep(bytes: Buffer, out: Buffer[]): void {
    this.#held.push(Buffer.from(bytes));
    this.#heldBytes += bytes.length;
    if (this.#heldBytes <= MAX_HELD_BYTES) return;
    this.#done = true;
    this.#release(out);
  }

  #endEvent(out: Buffer[]): void {
    const [data, ...more] = this.#data;
    if (this.#name === "endpoint" && data !== undefined && more.length === 0) {
      const uri = Buffer.from(data.value, "latin1").toString("utf8");
      const told = this.#onEndpoint(uri);
      if (told !== uri) {
        const whole = Buffer.concat(this.#held).toString("latin1");
        const behind = whole.slice(data.index + data.value.length);
        this.#held = [Buffer.from(data.before + Buffer.from(told, "utf8").toString("latin1") + behind, "latin1")];
      }
      this.#done = true;
    } else if (this.#data.length > 0 || this.#name !== "") {
      this.#events += 1;
      this.#done = this.#events >= MAX_EVENTS;
    }
    this.#name = "";
    this.#data = [];
    this.#release(out);
  }

  #release(out: Buffer[]): void {
    out.push(...this.#held);
    this.#held = [];
    this.#heldBytes = 0;
  }
}

/**
 * What a client shall be told so that its messages come back through the gateway.
 * @param place.base the stripped prefix without a slash at its end; empty for none
 * @param place.path path and query as the upstream saw them; `target` as the client asked for them
 * @param place.origins of the upstream as it may know itself: `http://host:port`, lower case
 * @returns `uri` itself when it leads there, or somewhere that is not the upstream
 */
export function clientEndpoint(
  uri: string,
  place: { readonly base: string; readonly path: string; readonly target: string; readonly origins: readonly string[] },
): string {
  const here = "http://upstream.invalid";
  const inside = URL.parse(uri, here + place.path);
  if (inside === null) return uri;
  if (inside.origin !== here && !place.origins.includes(inside.origin)) return uri;
  const told = place.base + inside.pathname + inside.search;
  const seen = URL.parse(uri, here + place.target);
  return seen?.origin === here && seen.pathname + seen.search === told ? uri : told;
}

/** The ids of a session in the query of an address, by the names that servers give them. */
export function sessionIdsOf(uri: string): string[] {
  const query = uri.indexOf("?");
  if (query === -1) return [];
  return [...new URLSearchParams(uri.slice(query + 1).replace(/#.*$/s, ""))]
    .filter(([name, value]) => /^(?:session(?:[-_]?id)?|sid)$/i.test(name) && value !== "")
    .map(([, value]) => value);
}
